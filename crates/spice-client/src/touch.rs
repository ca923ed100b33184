//! Whether a TOUCH took effect where an expiry is in play.
//!
//! SpiceDB before v1.49.0 acknowledges some TOUCHes that change nothing but an expiry, and does not do
//! them: on MySQL those that take an expiry away (all of v1.40.0 to v1.48.0 compare what is touched with
//! what is there less its expiry; measured on v1.40.0 and v1.45.4, MariaDB), on CockroachDB also those that set
//! one where there was none. Pull request 2796 of authzed/spicedb fixed both. A relationship that has
//! expired and was not collected yet stays as invisible as it was when it is touched without an expiry. So
//! unless the server is known to be a good one, what was touched is read again.

use std::collections::HashSet;
use std::time::SystemTime;

use authzed::v1::Relationship;
use authzed::{DatastoreKind, Written};
use spice_record::relationship::DisplayRelationship;

use crate::lookup::{ByKey, key};
use spice_cli::display::few;
use spice_cli::{CommandError, Exit};

/// The first version that does every TOUCH on every datastore.
const FIXED: (u64, u64) = (1, 49);

/// The message where TOUCHes were not done, before their names.
pub const UNDONE: &str = "the target acknowledges touches that change only an expiry and does not do them \
    (SpiceDB before v1.49 on MySQL and CockroachDB does that): deleting these, and writing them again";

/// How many seconds the clocks of this machine and of the server's database may differ.
const CLOCKS_DIFFER: i64 = 60;

/// Which TOUCHes a server may acknowledge and not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skips {
    /// None.
    Nothing,
    /// Those that take an expiry away.
    Removals,
    /// Those that take an expiry away, or set one where there was none.
    Both,
}

impl Skips {
    /// Decided by what the server offers: one that keeps no expiry has none to take away. Else by the
    /// datastore behind the server that has written this (PostgreSQL, memory and Spanner did every TOUCH in
    /// every version), else by the version, where the server gives that away.
    #[must_use]
    pub fn of(keeps_expiry: bool, written: &Written) -> Self {
        if !keeps_expiry {
            return Self::Nothing;
        }
        let kind = DatastoreKind::of_token(&written.token);
        Self::of_kind(kind, written.server_version.as_deref())
    }

    fn of_kind(kind: DatastoreKind, version: Option<&str>) -> Self {
        let is_fixed = version
            .and_then(major_and_minor)
            .is_some_and(|version| version >= FIXED);
        match kind {
            DatastoreKind::Postgres
            | DatastoreKind::Memory
            | DatastoreKind::Spanner
            | DatastoreKind::MemoryOrSpanner => Self::Nothing,
            _ if is_fixed => Self::Nothing,
            DatastoreKind::MySql => Self::Removals,
            DatastoreKind::CockroachDb | DatastoreKind::Unknown => Self::Both,
        }
    }

    /// Whether the TOUCH of this may be among them, as far as what is written shows.
    #[must_use]
    pub fn may_hold(self, touched: &Relationship) -> bool {
        match self {
            Self::Nothing => false,
            Self::Removals => touched.optional_expires_at.is_none(),
            Self::Both => true,
        }
    }
}

/// Of a release, such as `v1.56.0`; `None` for anything else, a build of one's own for example.
fn major_and_minor(version: &str) -> Option<(u64, u64)> {
    let mut numbers = version.strip_prefix('v')?.split('.');
    let mut number = || numbers.next()?.parse::<u64>().ok();
    let (major, minor, _patch) = (number()?, number()?, number()?);
    numbers.next().is_none().then_some((major, minor))
}

/// Names those that were not done.
#[must_use]
pub fn named<'a>(undone: impl ExactSizeIterator<Item = &'a Relationship>) -> String {
    few(undone.map(|one| DisplayRelationship(one).to_string()))
}

/// What it means that those with these names were deleted, and could not be written again.
#[must_use]
pub fn only_deleted(failure: CommandError, named: &str) -> CommandError {
    failure.context(format!(
        "deleted, to write them with another expiry, and not written yet: {named}"
    ))
}

/// What it means that so many, with these names, were written again and are not read as they were written.
#[must_use]
pub fn still_undone(count: usize, named: &str) -> CommandError {
    CommandError::new(
        Exit::Failed,
        format!(
            "{count} relationships have another expiry on the target, though they were written again: {named}"
        ),
    )
    .hint("another program writes to the target: find it, then run the same command again")
}

/// Of relationships that were touched, the keys of those whose expiry was not read afterwards as it was
/// written.
#[must_use]
pub fn undone(touched: &[&Relationship], there: &ByKey<Relationship>) -> HashSet<Vec<u8>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let undone = touched.iter().filter_map(|touched| {
        let key = key(touched);
        is_undone(touched, there.get(&key), now).then_some(key)
    });
    undone.collect()
}

/// Whether what is there shows that a TOUCH was not done; `now` in seconds since 1970.
///
/// Less than a second is no difference: MySQL keeps full seconds, and may round them.
fn is_undone(touched: &Relationship, there: Option<&Relationship>, now: i64) -> bool {
    let nanos = |relationship: &Relationship| {
        let expiry = relationship.optional_expires_at.as_ref()?;
        Some(i128::from(expiry.seconds) * 1_000_000_000 + i128::from(expiry.nanos))
    };
    let Some(there) = there else {
        // One that has expired cannot be seen, and the clocks may differ.
        let expiry = touched.optional_expires_at.as_ref();
        return expiry.is_none_or(|expiry| expiry.seconds > now + CLOCKS_DIFFER);
    };
    match (nanos(touched), nanos(there)) {
        (Some(touched), Some(there)) => touched.abs_diff(there) >= 1_000_000_000,
        (touched, there) => touched != there,
    }
}

#[cfg(test)]
mod tests {
    use authzed::v1::{ObjectReference, Relationship};
    use authzed::{DatastoreKind, Timestamp};

    use super::{Skips, is_undone};

    fn relationship(expiry: Option<(i64, i32)>) -> Relationship {
        Relationship {
            resource: Some(ObjectReference {
                object_type: "tenant/doc".to_owned(),
                object_id: "one".to_owned(),
            }),
            relation: "viewer".to_owned(),
            optional_expires_at: expiry.map(|(seconds, nanos)| Timestamp { seconds, nanos }),
            ..Relationship::default()
        }
    }

    #[test]
    fn skipped_touches_depend_on_datastore_and_version() {
        use Skips::{Both, Nothing, Removals};
        let (mysql, cockroach) = (DatastoreKind::MySql, DatastoreKind::CockroachDb);
        let cases = [
            (mysql, Some("v1.49.0"), Nothing),
            (mysql, Some("v1.56.0"), Nothing),
            (mysql, Some("v2.0.1"), Nothing),
            (cockroach, Some("v1.49.2"), Nothing),
            (mysql, Some("v1.48.9"), Removals),
            (cockroach, Some("v1.45.4"), Both),
            (mysql, Some("(devel)"), Removals),
            (mysql, Some("v1.49"), Removals),
            (mysql, Some("v1.49.0-rc1"), Removals),
            (mysql, None, Removals),
            (cockroach, None, Both),
            (DatastoreKind::MemoryOrSpanner, Some("v1.45.4"), Nothing),
            (DatastoreKind::Postgres, None, Nothing),
        ];
        for (kind, version, expected) in cases {
            let skips = Skips::of_kind(kind, version);
            assert_eq!(skips, expected, "{kind:?} {version:?}");
        }
        let (lasting, expiring) = (relationship(None), relationship(Some((1, 0))));
        let may_hold = |skips: Skips| [skips.may_hold(&lasting), skips.may_hold(&expiring)];
        assert_eq!(may_hold(Nothing), [false, false]);
        assert_eq!(may_hold(Removals), [true, false]);
        assert_eq!(may_hold(Both), [true, true]);
    }

    #[test]
    fn touch_is_undone_where_another_expiry_is_read() {
        let now = 1_000;
        let (none, soon, late) = (None, Some((2_000, 0)), Some((3_000, 0)));
        let cases = [
            (none, Some(none), false),
            (none, Some(late), true),
            (late, Some(none), true),
            (late, Some(soon), true),
            (late, Some(late), false),
            (Some((3_000, 700_000_000)), Some(late), false),
            (Some((2_999, 700_000_000)), Some(late), false),
        ];
        for (touched, there, expected) in cases {
            let there = there.map(relationship);
            let is = is_undone(&relationship(touched), there.as_ref(), now);
            assert_eq!(is, expected, "{touched:?} {there:?}");
        }
    }

    #[test]
    fn what_is_not_to_be_seen_is_undone_unless_it_has_expired() {
        for (expiry, expected) in [
            (None, true),
            (Some((1_200, 0)), true),
            (Some((1_001, 0)), false),
            (Some((10, 0)), false),
        ] {
            let is = is_undone(&relationship(expiry), None, 1_000);
            assert_eq!(is, expected, "{expiry:?}");
        }
    }
}
