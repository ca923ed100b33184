//! Which relationships of two servers are compared, and how closely.

use authzed::v1::Relationship;
use jiff::Timestamp;
use spice_record::ExpiryPrecision;

/// `--as-of` and `--expiry-precision`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CompareArgs {
    /// Leave out what expires before this instant (RFC 3339). Expiry is silent and judged by the wall
    /// clock, so two servers are compared as of an instant after both were read.
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    pub as_of: Option<Timestamp>,
    /// How much of an expiry counts: us (PostgreSQL keeps no more) or s (MySQL keeps no more)
    /// [default: what the streams were sealed with].
    #[arg(long, value_name = "us|s")]
    pub expiry_precision: Option<ExpiryPrecision>,
}

impl CompareArgs {
    /// Whether a relationship has expired as of the instant. The instant counts as the end of its
    /// second, because MySQL keeps no more of an expiry.
    #[must_use]
    pub fn leaves_out(&self, relationship: &Relationship) -> bool {
        let (Some(as_of), Some(expiry)) = (self.as_of, &relationship.optional_expires_at) else {
            return false;
        };
        let end = as_of.as_second() + i64::from(as_of.subsec_nanosecond() > 0);
        expiry.seconds < end
    }

    /// The precision to compare at: the one asked for, else the coarsest of those given.
    #[must_use]
    pub fn precision(&self, sealed: impl IntoIterator<Item = ExpiryPrecision>) -> ExpiryPrecision {
        let coarsest = || {
            let seconds = sealed
                .into_iter()
                .any(|one| one == ExpiryPrecision::Seconds);
            if seconds {
                ExpiryPrecision::Seconds
            } else {
                ExpiryPrecision::Micros
            }
        };
        self.expiry_precision.unwrap_or_else(coarsest)
    }
}

fn parse_instant(text: &str) -> Result<Timestamp, String> {
    text.parse()
        .map_err(|_| format!("expected an instant such as 2027-01-01T00:00:00Z, got {text:?}"))
}

/// The instant, as a header has it.
#[must_use]
pub fn now() -> String {
    Timestamp::now().to_string()
}
