//! Revisions: their forms, and what one of them includes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

use crate::DatastoreKind;

/// A point in a datastore's history, in the form that its kind of datastore uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revision {
    /// Memory and Spanner (nanoseconds since 1970) and MySQL (a transaction's number).
    ///
    /// On memory and MySQL the number is taken when a transaction starts, so that a lower one can
    /// become visible after a higher one: see [`DatastoreKind::needs_settling`].
    Integer(u64),
    /// CockroachDB: its hybrid logical clock.
    Decimal {
        /// Nanoseconds since 1970.
        nanos: u64,
        /// The logical clock: the ten digits after the point.
        logical: u64,
    },
    /// PostgreSQL: a snapshot of which transactions are visible.
    Postgres(PostgresRevision),
    /// A form that this version does not know, as it is written in the token.
    Other(String),
}

/// Which transactions a PostgreSQL revision includes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PostgresRevision {
    /// The oldest transaction that was still running.
    pub xmin: u64,
    /// The first transaction id that was not given out yet.
    pub xmax: u64,
    /// The transactions from `xmin` to below `xmax` that were still running, in rising order.
    pub in_progress: Vec<u64>,
    /// The transaction that made this revision. Written and watched revisions have it, the head
    /// revision that ReadSchema returns has not.
    pub txid: Option<u64>,
    /// When that transaction was committed, nanoseconds since 1970, by the database's clock; not
    /// strictly rising.
    pub timestamp_nanos: Option<u64>,
}

impl Revision {
    /// Whether the state at this revision includes the change that made `other`.
    ///
    /// - Integers and decimals: `self >= other`.
    /// - PostgreSQL: `other`'s transaction is visible in this snapshot, or is this revision's own.
    ///   Where `other` does not name its transaction: everything that it sees is visible here.
    ///   Revisions of overlapping transactions may not see each other either way.
    /// - Otherwise `Some(true)` for equal revisions and `None`, meaning unknown, for
    ///   all others: unlike forms, and forms that are not known.
    ///
    /// Only revisions of one datastore can be compared; this does not look at the datastore's id.
    #[must_use]
    pub fn sees(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Integer(this), Self::Integer(other)) => Some(this >= other),
            (
                Self::Decimal { nanos, logical },
                Self::Decimal {
                    nanos: other_nanos,
                    logical: other_logical,
                },
            ) => Some((nanos, logical) >= (other_nanos, other_logical)),
            (Self::Postgres(this), Self::Postgres(other)) => Some(this.sees(other)),
            _ => (self == other).then_some(true),
        }
    }

    /// The form's name: `integer`, `decimal`, `postgres` or `unknown`.
    #[must_use]
    pub fn form(&self) -> &'static str {
        match self {
            Self::Integer(_) => "integer",
            Self::Decimal { .. } => "decimal",
            Self::Postgres(_) => "postgres",
            Self::Other(_) => "unknown",
        }
    }

    /// When it was made, in nanoseconds since 1970, where it is in the revision: by the database's clock.
    #[must_use]
    pub fn time_nanos(&self) -> Option<u64> {
        match self {
            Self::Postgres(revision) => revision.timestamp_nanos,
            Self::Decimal { nanos, .. } => Some(*nanos),
            Self::Integer(nanos) => {
                let is_time = DatastoreKind::of_revision(self) != DatastoreKind::MySql;
                is_time.then_some(*nanos)
            }
            Self::Other(_) => None,
        }
    }

    /// Whether a stream of revisions can be waited on until one of them sees this one.
    ///
    /// False only for a PostgreSQL revision without a transaction id: no transaction ends it.
    #[must_use]
    pub fn can_be_awaited(&self) -> bool {
        match self {
            Self::Postgres(revision) => revision.txid.is_some(),
            _ => true,
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        parse_integer(text)
            .or_else(|| parse_decimal(text))
            .or_else(|| parse_postgres(text))
            .unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

/// Writes a revision as people know it: a number, or PostgreSQL's `xmin:xmax:running (txid)`.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Decimal { nanos, logical } => write!(f, "{nanos}.{logical:010}"),
            Self::Postgres(revision) => revision.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl PostgresRevision {
    /// Whether the transaction's outcome is part of this snapshot, or made it.
    fn sees_transaction(&self, txid: u64) -> bool {
        self.txid == Some(txid)
            || (txid < self.xmax && self.in_progress.binary_search(&txid).is_err())
    }

    fn sees(&self, other: &Self) -> bool {
        match other.txid {
            Some(txid) => self.sees_transaction(txid),
            None => self.covers(other),
        }
    }

    /// Whether every transaction that `other`'s snapshot sees is visible here too.
    fn covers(&self, other: &Self) -> bool {
        let running_here = self.in_progress.iter().all(|txid| {
            self.sees_transaction(*txid)
                || *txid >= other.xmax
                || other.in_progress.binary_search(txid).is_ok()
        });
        // What this snapshot has not seen started must all be running in the other one.
        let started_later = (self.xmax..other.xmax).all(|txid| {
            self.sees_transaction(txid) || other.in_progress.binary_search(&txid).is_ok()
        });
        running_here && started_later
    }

    /// As servers write it in a token, for scripted ones.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn encode(&self) -> String {
        let offset = |txid: u64| i64::try_from(txid - self.xmin).unwrap_or_default();
        let wire = Wire {
            xmin: self.xmin,
            relative_xmax: offset(self.xmax),
            relative_in_progress: self.in_progress.iter().copied().map(offset).collect(),
            txid: self.txid.unwrap_or_default(),
            timestamp_nanos: self.timestamp_nanos.unwrap_or_default(),
        };
        STANDARD.encode(wire.encode_to_vec())
    }

    /// The snapshot of the wire form, in which all but `xmin` are offsets from it.
    fn from_wire(wire: &Wire) -> Option<Self> {
        let absolute = |offset: &i64| wire.xmin.checked_add_signed(*offset);
        let mut in_progress: Vec<u64> = wire
            .relative_in_progress
            .iter()
            .map(absolute)
            .collect::<Option<_>>()?;
        in_progress.sort_unstable();
        Some(Self {
            xmin: wire.xmin,
            xmax: absolute(&wire.relative_xmax)?,
            in_progress,
            txid: (wire.txid != 0).then_some(wire.txid),
            timestamp_nanos: (wire.timestamp_nanos != 0).then_some(wire.timestamp_nanos),
        })
    }
}

impl fmt::Display for PostgresRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (index, txid) in self.in_progress.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{txid}")?;
        }
        match self.txid {
            Some(txid) => write!(f, " ({txid})"),
            None => Ok(()),
        }
    }
}

fn parse_integer(text: &str) -> Option<Revision> {
    all_digits(text).then(|| text.parse().ok().map(Revision::Integer))?
}

/// `nanoseconds.logical`; the ten digits of the logical clock may have lost zeros at the end.
fn parse_decimal(text: &str) -> Option<Revision> {
    let (nanos, fraction) = text.split_once('.')?;
    if !all_digits(nanos) || !all_digits(fraction) || fraction.len() > 10 {
        return None;
    }
    Some(Revision::Decimal {
        nanos: nanos.parse().ok()?,
        logical: format!("{fraction:0<10}").parse().ok()?,
    })
}

fn parse_postgres(text: &str) -> Option<Revision> {
    let bytes = STANDARD.decode(text).ok()?;
    let wire = Wire::decode(bytes.as_slice()).ok()?;
    // A field that is not known could change the meaning: then it is another form.
    if wire.xmin == 0 || wire.encode_to_vec() != bytes {
        return None;
    }
    PostgresRevision::from_wire(&wire).map(Revision::Postgres)
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What PostgreSQL's revision string is the base64 of.
#[derive(Clone, PartialEq, prost::Message)]
struct Wire {
    #[prost(uint64, tag = "1")]
    xmin: u64,
    #[prost(int64, tag = "2")]
    relative_xmax: i64,
    #[prost(int64, repeated, tag = "3")]
    relative_in_progress: Vec<i64>,
    #[prost(uint64, tag = "4")]
    txid: u64,
    #[prost(uint64, tag = "5")]
    timestamp_nanos: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(
        xmin: u64,
        xmax: u64,
        in_progress: &[u64],
        txid: impl Into<Option<u64>>,
    ) -> Revision {
        Revision::Postgres(PostgresRevision {
            xmin,
            xmax,
            in_progress: in_progress.to_owned(),
            txid: txid.into(),
            timestamp_nanos: None,
        })
    }

    #[test]
    fn each_form_is_recognized() {
        let form = |text| Revision::parse(text).form();
        assert_eq!(form("1795486908218815202"), "integer");
        assert_eq!(form("1693540940373045727.0000000001"), "decimal");
        assert_eq!(form("CLsGILoGKNiTu5Lru7b1GA=="), "postgres");
        assert_eq!(form("CLgG"), "postgres");
        assert_eq!(form("99999999999999999999"), "unknown");
        assert_eq!(form("-1"), "unknown");
        assert_eq!(form("1.00000000001"), "unknown");
        assert_eq!(form("1."), "unknown");
        assert_eq!(form("word"), "unknown");
        // As above, with a field 6 that nobody knows yet.
        assert_eq!(form("CLsGILoGKNiTu5Lru7b1GDAB"), "unknown");
    }

    #[test]
    fn display_shows_what_was_parsed() {
        for text in ["4", "1693540940373045727.0000000001", "word"] {
            assert_eq!(Revision::parse(text).to_string(), text);
        }
        assert_eq!(
            postgres(1240, 1245, &[1240, 1241], 1244).to_string(),
            "1240:1245:1240,1241 (1244)"
        );
        assert_eq!(postgres(827, 827, &[], None).to_string(), "827:827:");
    }

    #[test]
    fn decimals_may_have_lost_zeros() {
        let revision = Revision::parse("12.01");
        assert_eq!(
            revision,
            Revision::Decimal {
                nanos: 12,
                logical: 100_000_000
            }
        );
        assert_eq!(revision.to_string(), "12.0100000000");
    }

    #[test]
    fn numbers_see_what_is_not_greater() {
        for (small, great) in [
            ("9", "10"),
            ("9.0000000002", "10.0000000001"),
            ("9.1", "9.2"),
        ] {
            let (small, great) = (Revision::parse(small), Revision::parse(great));
            assert_eq!(great.sees(&small), Some(true));
            assert_eq!(great.sees(&great), Some(true));
            assert_eq!(small.sees(&great), Some(false));
        }
    }

    #[test]
    fn postgres_sees_finished_transactions_and_its_own() {
        let early = postgres(1240, 1245, &[1240, 1241], 1244);
        let later = postgres(1240, 1249, &[1240, 1241], 1248);
        assert_eq!(later.sees(&early), Some(true));
        assert_eq!(early.sees(&later), Some(false));
        // 1240 was running all the while, and sees neither of them when it commits.
        let long = postgres(1241, 1241, &[], 1240);
        assert_eq!(early.sees(&long), Some(false));
        assert_eq!(later.sees(&long), Some(false));
        assert_eq!(long.sees(&early), Some(false));
        assert_eq!(long.sees(&long), Some(true));
        // Watch can deliver a transaction with a snapshot in which it is still running.
        assert_eq!(
            postgres(10, 12, &[10], 10).sees(&postgres(11, 11, &[], 10)),
            Some(true)
        );
    }

    #[test]
    fn postgres_without_a_transaction_is_compared_by_what_it_sees() {
        let head = postgres(1240, 1245, &[1240, 1241], None);
        assert_eq!(head.sees(&head), Some(true));
        assert_eq!(
            postgres(1240, 1249, &[1240, 1241], 1248).sees(&head),
            Some(true)
        );
        assert_eq!(postgres(1240, 1244, &[1240], 1243).sees(&head), Some(false));
        // Its own transaction fills the gap.
        assert_eq!(
            postgres(1240, 1244, &[1240, 1241], 1244).sees(&head),
            Some(true)
        );
        // 1242 is running here and finished there.
        assert_eq!(
            postgres(1240, 1249, &[1240, 1242], 1248).sees(&head),
            Some(false)
        );
        // An empty range of transactions that were all running.
        assert_eq!(
            postgres(5, 6, &[5], None).sees(&postgres(5, 8, &[5, 6, 7], None)),
            Some(true)
        );
        // However far apart, this ends at once.
        assert_eq!(
            postgres(5, 6, &[], None).sees(&postgres(9, u64::MAX, &[], None)),
            Some(false)
        );
    }

    #[test]
    fn what_cannot_be_compared_is_not_guessed() {
        let other = Revision::Other("word".to_owned());
        assert_eq!(other.sees(&other), Some(true));
        assert_eq!(other.sees(&Revision::Other("more".to_owned())), None);
        assert_eq!(
            Revision::Integer(9).sees(&Revision::Decimal {
                nanos: 1,
                logical: 0
            }),
            None
        );
        assert_eq!(Revision::Integer(9).sees(&postgres(1, 1, &[], 1)), None);
        assert_eq!(postgres(1, 1, &[], 1).sees(&other), None);
    }

    #[test]
    fn revisions_have_a_time_unless_they_count_or_are_heads() {
        let times = ["4", "1795655582306338000", "4.1", "CLgG", "word"].map(Revision::parse);
        assert_eq!(
            times.each_ref().map(Revision::time_nanos),
            [None, Some(1_795_655_582_306_338_000), Some(4), None, None]
        );
        let written = Revision::parse("CLsGILoGKNiTu5Lru7b1GA==").time_nanos();
        assert!(written.is_some_and(|nanos| nanos > 1_700_000_000_000_000_000));
    }

    #[test]
    fn only_heads_cannot_be_awaited() {
        let revisions =
            ["4", "4.1", "CLsGILoGKNiTu5Lru7b1GA==", "CLgG", "word"].map(Revision::parse);
        assert_eq!(
            revisions.each_ref().map(Revision::can_be_awaited),
            [true, true, true, false, true]
        );
    }
}
