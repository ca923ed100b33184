//! What became of the relationships of a stream.

use std::fmt;

/// Counts of relationships by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) loaded: u64,
    pub(crate) present: u64,
    pub(crate) touched: u64,
    pub(crate) skipped: u64,
    pub(crate) rejected: u64,
    /// Sent, and never acknowledged or refused.
    pub(crate) unknown: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.loaded += other.loaded;
        self.present += other.present;
        self.touched += other.touched;
        self.skipped += other.skipped;
        self.rejected += other.rejected;
        self.unknown += other.unknown;
    }

    pub(crate) fn total(&self) -> u64 {
        self.loaded + self.present + self.touched + self.skipped + self.rejected
    }
}

/// A sentence. In its `{:#}` form it is that of an import which did not finish: there may be more of
/// the stream on the target, from before, than were looked for.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = self.loaded + self.present + self.touched;
        let known = if f.alternate() { "known to be " } else { "" };
        write!(
            f,
            "{there} relationships of this stream are {known}on the target"
        )?;
        if self.unknown > 0 {
            write!(
                f,
                ", and up to {} more whose transaction had no known end",
                self.unknown
            )?;
        }
        let list = |counts: &[(u64, &str)]| {
            let counts = counts.iter().filter(|(count, _)| *count > 0);
            let texts: Vec<String> = counts
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            texts.join(", ")
        };
        let there = list(&[
            (self.loaded, "loaded now"),
            (self.present, "there before"),
            (self.touched, "touched"),
        ]);
        let elsewhere = list(&[(self.skipped, "skipped"), (self.rejected, "refused")]);
        if !there.is_empty() {
            write!(f, " ({there})")?;
        }
        if !elsewhere.is_empty() {
            write!(f, ", {elsewhere}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Stats;

    #[test]
    fn stats_are_a_sentence_without_zeros() {
        let mut stats = Stats {
            loaded: 3,
            present: 1,
            ..Stats::default()
        };
        assert_eq!(
            stats.to_string(),
            "4 relationships of this stream are on the target (3 loaded now, 1 there before)"
        );
        stats.add(&Stats {
            touched: 2,
            skipped: 5,
            rejected: 6,
            unknown: 7,
            ..Stats::default()
        });
        assert_eq!(
            format!("{stats:#}"),
            "6 relationships of this stream are known to be on the target, and up to 7 more whose \
             transaction had no known end (3 loaded now, 1 there before, 2 touched), 5 skipped, 6 refused"
        );
        assert_eq!(stats.total(), 17, "what is unknown counts for nothing");
    }

    #[test]
    fn nothing_loaded_is_reported_without_a_list() {
        let text = Stats::default().to_string();
        assert_eq!(text, "0 relationships of this stream are on the target");
    }
}
