//! Which relationships changed lately, in bounded memory.
//!
//! A key is remembered by 64 bits. Two keys may share them, and beyond [`FEW`] keys a generation is a
//! Bloom filter: so a key that did not change may pass for one that did, at worst. That costs a read.
//! One that did change is never missed.

use std::collections::HashSet;

use tokio::time::{Duration, Instant};

/// A generation of more keys than this becomes a filter.
const FEW: usize = 1 << 17;
/// The filter's size: at 6 million keys it is wrong about 1 in 100.
const WORDS: usize = 1 << 20;
const BITS: u64 = (WORDS as u64) * 64;
/// How many bits a key sets.
const PROBES: u64 = 4;

/// The keys of the last window, and of up to another one before it.
pub(crate) struct Recent {
    newer: Keys,
    older: Keys,
    /// When the newer generation began.
    began: Instant,
}

impl Recent {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            newer: Keys::default(),
            older: Keys::default(),
            began: now,
        }
    }

    /// Remembers a key; whether it was there.
    pub(crate) fn insert(&mut self, key: u128) -> bool {
        let key = (key >> 64) as u64 ^ key as u64;
        let there = self.older.contains(key);
        self.newer.insert(key) || there
    }

    /// Nothing that comes from now on can overlap what was inserted a window before `settled`.
    pub(crate) fn forget_before(&mut self, settled: Instant, window: Duration) {
        if settled.saturating_duration_since(self.began) >= window {
            self.older = std::mem::take(&mut self.newer);
            self.began = settled;
        }
    }
}

enum Keys {
    Few(HashSet<u64>),
    Many(Box<[u64]>),
}

impl Default for Keys {
    fn default() -> Self {
        Self::Few(HashSet::new())
    }
}

impl Keys {
    fn contains(&self, key: u64) -> bool {
        match self {
            Self::Few(keys) => keys.contains(&key),
            Self::Many(words) => bits(key).all(|(word, bit)| words[word] & bit != 0),
        }
    }

    /// Whether it was there already.
    fn insert(&mut self, key: u64) -> bool {
        match self {
            Self::Few(keys) => {
                let there = !keys.insert(key);
                if keys.len() > FEW {
                    let keys = std::mem::take(keys);
                    *self = Self::Many(vec![0; WORDS].into_boxed_slice());
                    for key in keys {
                        self.insert(key);
                    }
                }
                there
            }
            Self::Many(words) => {
                let mut there = true;
                for (word, bit) in bits(key) {
                    there &= words[word] & bit != 0;
                    words[word] |= bit;
                }
                there
            }
        }
    }
}

/// Where a key's bits are.
fn bits(key: u64) -> impl Iterator<Item = (usize, u64)> {
    let step = key.rotate_left(32) | 1;
    (0..PROBES).map(move |probe| {
        let bit = key.wrapping_add(probe.wrapping_mul(step)) % BITS;
        ((bit / 64) as usize, 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::{Duration, FEW, Instant, Recent};

    /// A key like a digest (SplitMix64).
    fn key(number: u64) -> u128 {
        let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(z ^ (z >> 31))
    }

    #[test]
    fn a_key_is_kept_for_a_window_and_forgotten_after_two() {
        let (began, window) = (Instant::now(), Duration::from_secs(10));
        let mut recent = Recent::new(began);
        assert!(!recent.insert(1));
        for seconds in [3, 9, 12] {
            recent.forget_before(began + Duration::from_secs(seconds), window);
            assert!(recent.insert(1), "after {seconds} s");
        }
        let mut recent = Recent::new(began);
        recent.insert(1);
        recent.forget_before(began + window, window);
        recent.forget_before(began + window * 2, window);
        assert!(!recent.insert(1));
    }

    #[test]
    fn no_key_of_many_is_missed_and_few_are_invented() {
        let many = 4 * FEW as u64;
        let mut recent = Recent::new(Instant::now());
        let invented = (0..many).filter(|number| recent.insert(key(*number)));
        let invented = invented.count();
        assert!(invented < 100, "{invented} of {many}");
        assert!((0..many).all(|number| recent.insert(key(number))));
    }
}
