//! How much of an expiry a datastore keeps.

use authzed::zedtoken::{self, Revision};
use spice_record::ExpiryPrecision;

/// What is left of the nanoseconds that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// All: memory.
    All,
    /// PostgreSQL.
    Micros,
    /// MySQL.
    Seconds,
}

/// 10^18 ns: September 2001. No MySQL has counted that many transactions.
const NANOS_IN_2001: u64 = 1_000_000_000_000_000_000;

/// Told by the form of one of its revisions: PostgreSQL's are snapshots, MySQL's count transactions,
/// those of memory and Spanner are nanoseconds since 1970. Measured on SpiceDB v1.56.
#[must_use]
pub fn of(token: &str) -> Option<Keeps> {
    match zedtoken::decode(token).ok()?.revision {
        Revision::Postgres(_) => Some(Keeps::Micros),
        Revision::Integer(number) if number < NANOS_IN_2001 => Some(Keeps::Seconds),
        Revision::Integer(_) => Some(Keeps::All),
        _ => None,
    }
}

/// At which precision relationships of this datastore can be compared.
#[must_use]
pub fn precision(token: &str) -> ExpiryPrecision {
    match of(token) {
        Some(Keeps::Seconds) => ExpiryPrecision::Seconds,
        _ => ExpiryPrecision::Micros,
    }
}
