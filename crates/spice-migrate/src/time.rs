//! Instants and durations, as the state keeps them and as messages say them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::suite::parse_duration;

/// An instant, kept as RFC 3339 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub Timestamp);

impl Instant {
    /// This instant, to the millisecond.
    #[must_use]
    pub fn now() -> Self {
        let now = Timestamp::now().as_millisecond();
        Self(Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// How long ago it was; zero for an instant in the future.
    #[must_use]
    pub fn elapsed(self, now: Self) -> Duration {
        let elapsed = now.0.duration_since(self.0);
        Duration::try_from(elapsed).unwrap_or(Duration::ZERO)
    }

    /// So much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Self(self.0.saturating_add(duration).unwrap_or(Timestamp::MAX))
    }

    /// In milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0.as_millisecond()
    }
}

/// To the second.
impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.strftime("%Y-%m-%dT%H:%M:%SZ").fmt(f)
    }
}

impl FromStr for Instant {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A duration as somebody wrote it: `35s`, `1m30s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    text: String,
    duration: Duration,
}

impl Span {
    /// How long it is.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self {
            text: text.to_owned(),
            duration: parse_duration(text)?,
        })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Seconds with three decimals.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_secs(), duration.subsec_millis())
}
