//! Kinds of datastores: how they are distinguished, and what follows from each.
//!
//! The API does not name the datastore. The form of a revision shows most kinds: a snapshot is
//! PostgreSQL's, a decimal CockroachDB's, a small integer counts MySQL's transactions. Memory and
//! Spanner both count nanoseconds since 1970; [`HeadObserver`] distinguishes these two.
//!
//! Unless another source is named, each fact about a kind was measured on SpiceDB v1.56.0, of
//! Spanner on Google's emulator.

use std::fmt;
use std::str::FromStr;

use crate::zedtoken::{self, Revision};

/// Where a SpiceDB keeps its relationships.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DatastoreKind {
    /// `memory`.
    Memory,
    /// `mysql`.
    MySql,
    /// `postgres`.
    Postgres,
    /// `cockroachdb`. Not measured.
    CockroachDb,
    /// `spanner`.
    Spanner,
    /// One of the two whose revisions have the same form. What holds for either of them is assumed.
    MemoryOrSpanner,
    /// A form of revision that this version does not know.
    Unknown,
}

/// 10^18 ns: September 2001. No MySQL has counted that many transactions.
const NANOS_IN_2001: u64 = 1_000_000_000_000_000_000;

impl DatastoreKind {
    /// The kinds that can be declared.
    pub const DECLARABLE: [Self; 5] = [
        Self::Memory,
        Self::MySql,
        Self::Postgres,
        Self::CockroachDb,
        Self::Spanner,
    ];

    /// The kind that the form of a revision shows.
    #[must_use]
    pub fn of_revision(revision: &Revision) -> Self {
        match revision {
            Revision::Postgres(_) => Self::Postgres,
            Revision::Decimal { .. } => Self::CockroachDb,
            Revision::Integer(number) if *number < NANOS_IN_2001 => Self::MySql,
            Revision::Integer(_) => Self::MemoryOrSpanner,
            Revision::Other(_) => Self::Unknown,
        }
    }

    /// The kind that the form of the revision in a zedtoken shows.
    #[must_use]
    pub fn of_token(token: &str) -> Self {
        zedtoken::decode(token).map_or(Self::Unknown, |token| Self::of_revision(&token.revision))
    }

    /// The name as it is declared, and as records have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::MySql => "mysql",
            Self::Postgres => "postgres",
            Self::CockroachDb => "cockroachdb",
            Self::Spanner => "spanner",
            Self::MemoryOrSpanner => "memory-or-spanner",
            Self::Unknown => "unknown",
        }
    }

    /// Whether a server whose revisions show this kind may have the other one.
    #[must_use]
    pub fn allows(self, other: Self) -> bool {
        match self {
            Self::Unknown => true,
            Self::MemoryOrSpanner => matches!(other, Self::Memory | Self::Spanner),
            known => known == other,
        }
    }

    /// The smallest part of an expiry that is kept, in nanoseconds; `None` where it is not known.
    #[must_use]
    pub fn expiry_resolution(self) -> Option<u32> {
        match self {
            Self::Memory | Self::Spanner | Self::MemoryOrSpanner => Some(1),
            Self::Postgres => Some(1_000),
            Self::MySql => Some(1_000_000_000),
            Self::CockroachDb | Self::Unknown => None,
        }
    }

    /// Whether a revision can still change after it has been read or delivered.
    ///
    /// Memory and MySQL number a transaction when it starts, and one that commits late appears below
    /// revisions that were delivered already. Spanner's commit timestamps follow the order of
    /// commits, and a read at a timestamp waits for what commits before it (Google's documentation
    /// of external consistency).
    #[must_use]
    pub fn needs_settling(self) -> bool {
        matches!(self, Self::Memory | Self::MySql | Self::MemoryOrSpanner)
    }

    /// Whether the order of revisions is not the order of their effects, so that the state of a
    /// relationship that changed several times has to be read. Follows from what makes them settle.
    #[must_use]
    pub fn needs_contended_reads(self) -> bool {
        self.needs_settling()
    }

    /// Whether a read at a revision that another transaction has overtaken may be incomplete.
    #[must_use]
    pub fn reads_are_doubtful(self) -> bool {
        matches!(self, Self::Memory | Self::MemoryOrSpanner)
    }

    /// Whether the server dies of a Watch that is cancelled while it reads new transactions.
    #[must_use]
    pub fn dies_of_cancelled_watch(self) -> bool {
        self == Self::MySql
    }

    /// Whether several writes at the same time are faster than one after the other.
    #[must_use]
    pub fn gains_by_concurrency(self) -> bool {
        matches!(self, Self::Postgres | Self::CockroachDb | Self::Unknown)
    }

    /// Whether writes must not overlap: a memory datastore whose transactions overlapped reads
    /// incompletely at its head now and then (1 of 20 times, SpiceDB v1.56), so that no sync point could
    /// be relied on.
    #[must_use]
    pub fn takes_calls_in_turn(self) -> bool {
        matches!(self, Self::Memory | Self::MemoryOrSpanner)
    }

    /// Whether Watch delivers every change completely; `None` where that depends on which of two kinds
    /// it is.
    ///
    /// Spanner's Watch leaves the expiry out of every event, makes no event of a change of the
    /// expiry alone, and sends no checkpoint without a change.
    #[must_use]
    pub fn can_be_followed(self) -> Option<bool> {
        match self {
            Self::Spanner => Some(false),
            Self::MemoryOrSpanner => None,
            _ => Some(true),
        }
    }
}

/// The name as people know it.
impl fmt::Display for DatastoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::MySql => "MySQL",
            Self::Postgres => "PostgreSQL",
            Self::CockroachDb => "CockroachDB",
            Self::Spanner => "Spanner",
            Self::MemoryOrSpanner => "memory or Spanner",
            Self::Unknown => "a datastore of unknown kind",
        })
    }
}

/// Reads a declared kind.
impl FromStr for DatastoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut kinds = Self::DECLARABLE.into_iter();
        kinds.find(|kind| kind.name() == text).ok_or_else(|| {
            let names = Self::DECLARABLE.map(Self::name).join(", ");
            format!("expected one of {names}, got {text:?}")
        })
    }
}

/// Distinguishes memory from Spanner by their head revisions, read one after the other.
///
/// On Spanner the head is the current time: it moves between any two calls. In memory it is the
/// newest transaction, so two equal heads can only be memory's: 299 of 299 pairs on an idle server,
/// 31 of 299 under 1,470 writes a second. All heads of Spanner ended in 000, as its timestamps have
/// microseconds; of 1,200 heads of memory none did.
#[derive(Debug, Default)]
pub struct HeadObserver {
    last: Option<u64>,
    count: u32,
    /// Whether one of them had nanoseconds.
    has_nanos: bool,
}

impl HeadObserver {
    /// Heads that move and have microseconds after which it is taken for Spanner. A clock with
    /// microseconds under a memory datastore would need as many writes in between.
    const ENOUGH: u32 = 10;
    /// Heads after which nothing is decided: a memory datastore under thousands of writes a second,
    /// or a Spanner with nanoseconds.
    const MOST: u32 = 100;

    /// Takes note of one more head; `Some` once the kind is known, or known to be undecidable.
    pub fn observe(&mut self, head: &Revision) -> Option<DatastoreKind> {
        let kind = DatastoreKind::of_revision(head);
        let (Revision::Integer(nanos), DatastoreKind::MemoryOrSpanner) = (head, kind) else {
            return Some(kind);
        };
        if self.last.replace(*nanos) == Some(*nanos) {
            return Some(DatastoreKind::Memory);
        }
        self.count += 1;
        self.has_nanos |= nanos % 1_000 != 0;
        match self.count {
            Self::ENOUGH.. if !self.has_nanos => Some(DatastoreKind::Spanner),
            Self::MOST.. => Some(DatastoreKind::MemoryOrSpanner),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DatastoreKind, HeadObserver};
    use crate::zedtoken::Revision;

    const NOW: u64 = 1_795_655_582_306_338_000;

    fn of(text: &str) -> DatastoreKind {
        DatastoreKind::of_revision(&Revision::parse(text))
    }

    /// What is decided of these heads, and after how many.
    fn observe(heads: impl IntoIterator<Item = u64>) -> (Option<DatastoreKind>, usize) {
        let mut observer = HeadObserver::default();
        let mut count = 0;
        for head in heads {
            count += 1;
            if let Some(kind) = observer.observe(&Revision::Integer(head)) {
                return (Some(kind), count);
            }
        }
        (None, count)
    }

    #[test]
    fn revision_form_identifies_all_but_memory_and_spanner() {
        assert_eq!(of("CLgG"), DatastoreKind::Postgres);
        assert_eq!(of("4.0000000001"), DatastoreKind::CockroachDb);
        assert_eq!(of("28714"), DatastoreKind::MySql);
        assert_eq!(of("999999999999999999"), DatastoreKind::MySql);
        assert_eq!(of("1000000000000000000"), DatastoreKind::MemoryOrSpanner);
        assert_eq!(of("word"), DatastoreKind::Unknown);
        assert_eq!(
            DatastoreKind::of_token("Gh8KEzE3OTU2NTU1ODIzMDYzMzgwMDASCDM3NTRlMTQy"),
            DatastoreKind::MemoryOrSpanner
        );
        assert_eq!(DatastoreKind::of_token("%"), DatastoreKind::Unknown);
    }

    #[test]
    fn declared_kind_is_one_that_the_form_allows() {
        for form in DatastoreKind::DECLARABLE {
            for declared in DatastoreKind::DECLARABLE {
                assert_eq!(form.allows(declared), form == declared);
            }
        }
        let allowed = |form: DatastoreKind| {
            let kinds = DatastoreKind::DECLARABLE.into_iter();
            kinds
                .filter(|kind| form.allows(*kind))
                .map(DatastoreKind::name)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            allowed(DatastoreKind::MemoryOrSpanner),
            ["memory", "spanner"]
        );
        assert_eq!(allowed(DatastoreKind::Unknown).len(), 5);
    }

    #[test]
    fn names_are_read_back_and_others_are_refused() {
        for kind in DatastoreKind::DECLARABLE {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for text in ["", "Spanner", "memory-or-spanner", "unknown"] {
            let refused = text.parse::<DatastoreKind>().unwrap_err();
            assert!(refused.contains("cockroachdb, spanner"), "{refused}");
        }
    }

    #[test]
    fn an_undetermined_kind_has_the_duties_of_both() {
        let (either, kinds) = (
            DatastoreKind::MemoryOrSpanner,
            [DatastoreKind::Memory, DatastoreKind::Spanner],
        );
        for duty in [
            DatastoreKind::needs_settling,
            DatastoreKind::needs_contended_reads,
            DatastoreKind::reads_are_doubtful,
            DatastoreKind::dies_of_cancelled_watch,
        ] {
            assert_eq!(duty(either), kinds.into_iter().any(duty));
        }
        assert_eq!(either.can_be_followed(), None);
        assert!(!either.gains_by_concurrency());
        assert!(either.takes_calls_in_turn() && !DatastoreKind::MySql.takes_calls_in_turn());
    }

    #[test]
    fn spanner_cannot_be_followed_and_memory_and_mysql_settle() {
        let all = DatastoreKind::DECLARABLE;
        let with = |property: fn(DatastoreKind) -> bool| {
            let kinds = all.into_iter().filter(|kind| property(*kind));
            kinds.map(DatastoreKind::name).collect::<Vec<_>>()
        };
        assert_eq!(
            with(|kind| kind.can_be_followed() == Some(false)),
            ["spanner"]
        );
        assert_eq!(with(DatastoreKind::needs_settling), ["memory", "mysql"]);
        assert_eq!(with(DatastoreKind::reads_are_doubtful), ["memory"]);
        assert_eq!(with(DatastoreKind::dies_of_cancelled_watch), ["mysql"]);
        assert_eq!(
            all.map(DatastoreKind::expiry_resolution),
            [Some(1), Some(1_000_000_000), Some(1_000), None, Some(1)]
        );
    }

    #[test]
    fn two_equal_heads_are_those_of_memory() {
        assert_eq!(
            observe([NOW + 1, NOW + 1]),
            (Some(DatastoreKind::Memory), 2)
        );
        // Written meanwhile; and one that ends in 000 by chance.
        let heads = [NOW + 1, NOW + 2_000, NOW + 4_001, NOW + 4_001];
        assert_eq!(observe(heads), (Some(DatastoreKind::Memory), 4));
        // On a clock of microseconds.
        assert_eq!(
            observe([NOW, NOW + 2_000, NOW + 2_000]),
            (Some(DatastoreKind::Memory), 3)
        );
    }

    #[test]
    fn heads_of_microseconds_that_always_move_are_those_of_spanner() {
        let moving = (0..).map(|call| NOW + call * 25_000_000);
        assert_eq!(observe(moving), (Some(DatastoreKind::Spanner), 10));
    }

    #[test]
    fn heads_of_nanoseconds_that_always_move_are_not_guessed() {
        let moving = (0..).map(|call| NOW + 1 + call * 25_000_000);
        assert_eq!(observe(moving), (Some(DatastoreKind::MemoryOrSpanner), 100));
    }

    #[test]
    fn head_of_another_form_decides_at_once() {
        assert_eq!(observe([4]), (Some(DatastoreKind::MySql), 1));
    }
}
