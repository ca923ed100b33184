//! What the probes have seen of the ends. Plain data: it is judged without a server.

use std::collections::BTreeMap;
use std::time::Duration;

use authzed::{Code, DatastoreKind, Kind};
use spice_client::schema::uses_expiration;

use crate::steps::Call;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) code: Option<Code>,
    pub(crate) message: String,
    /// What the suite proposes for such an error; may be empty.
    pub(crate) hint: String,
    /// The maximum that was exceeded, where the server names it.
    pub(crate) limit: Option<u64>,
    /// Whether the same call may succeed a moment later.
    pub(crate) passes: bool,
    /// Whether the server knows another preshared key, so that it refuses every call.
    pub(crate) is_other_key: bool,
}

/// How the server has answered a call that cannot change anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It let the call in.
    Allowed,
    /// The token may not make the call.
    Denied(String),
    /// The server does not have the call, or has it switched off.
    Missing,
    /// The server takes no writes.
    ReadOnly,
    /// Nothing that can be relied on: no answer, or an error that may pass.
    Unsure(String),
    /// Another error.
    Failed(String),
}

impl Answer {
    /// Of a call that the server refuses by what is in it, once it has let it in.
    pub(crate) fn of<T>(result: &Result<T, Failure>) -> Self {
        let Err(failure) = result else {
            return Self::Allowed;
        };
        match failure.kind {
            Kind::Denied | Kind::Unauthenticated => Self::Denied(failure.message.clone()),
            Kind::Unimplemented => Self::Missing,
            Kind::ReadOnly => Self::ReadOnly,
            // Other writers were in the way of a transaction that had begun.
            Kind::Conflict
            | Kind::Refused
            | Kind::LimitExceeded
            | Kind::AlreadyExists
            | Kind::NoSchema
            | Kind::MessageTooLarge => Self::Allowed,
            _ if failure.passes => Self::Unsure(failure.message.clone()),
            _ => Self::Failed(failure.message.clone()),
        }
    }

    /// Of a call that fails, and holds nothing that a server would refuse.
    pub(crate) fn of_failure(failure: &Failure) -> Self {
        match Self::of::<()>(&Err(failure.clone())) {
            Self::Allowed => Self::Failed(failure.message.clone()),
            answer => answer,
        }
    }
}

/// A limit of a server, as a refused call shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Limit {
    #[default]
    Unknown,
    /// The server named it.
    AtMost(u64),
    /// It took so much.
    MoreThan(u64),
}

impl Limit {
    /// Of a call that asked for so much.
    pub(crate) fn of<T>(asked: u64, result: &Result<T, Failure>) -> Self {
        match result {
            Ok(_) => Self::MoreThan(asked),
            Err(failure) => match (failure.kind, failure.limit) {
                (Kind::LimitExceeded | Kind::MessageTooLarge, Some(limit)) => Self::AtMost(limit),
                // What is refused for another reason was within the limit.
                (Kind::Refused | Kind::NoSchema, _) => Self::MoreThan(asked),
                _ => Self::Unknown,
            },
        }
    }

    /// What it is at least.
    pub(crate) fn known(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::AtMost(limit) | Self::MoreThan(limit) => Some(limit),
        }
    }
}

/// What a server takes at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Relationships of a page of an export.
    pub(crate) page: Limit,
    /// Updates of a WriteRelationships.
    pub(crate) updates: Limit,
    /// Bytes of a caveat with its context, in a WriteRelationships.
    pub(crate) context: Limit,
    /// Bytes of a request.
    pub(crate) message: Limit,
}

/// The schema of an end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SchemaText {
    #[default]
    Unknown,
    None,
    Text(String),
}

impl SchemaText {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it shows that relationships can expire.
    pub(crate) fn has_expiration(&self) -> bool {
        self.text().is_some_and(uses_expiration)
    }
}

/// Whether the source's schema can be the target's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SchemaFit {
    /// One of them could not be read, or they could not be compared. What prevents it is named among the
    /// calls.
    Unknown(String),
    /// The comparison failed. `passes`: it may succeed a moment later.
    Failed {
        message: String,
        passes: bool,
    },
    SourceHasNone,
    /// The target has none, and parses the source's. `is_tried`: whether that could be asked.
    TargetHasNone {
        is_tried: bool,
    },
    Equal,
    Differs(String),
    /// The target does not take it.
    Refused(String),
}

/// Relationships that were read for a bounded time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) relationships: u64,
    /// Whether these are all.
    pub(crate) is_complete: bool,
    pub(crate) seconds: f64,
    /// The largest caveat with its context, in bytes, as the limit of SpiceDB counts it.
    pub(crate) largest_context: u64,
    /// The largest relationship, in bytes.
    pub(crate) largest: u64,
    pub(crate) expiring: u64,
    /// Expiries with a fraction of a second.
    pub(crate) below_seconds: u64,
}

impl Sample {
    /// Relationships a second; `None` where the sample is too short to show it.
    pub(crate) fn rate(&self) -> Option<f64> {
        let count = self.relationships as f64;
        let is_long = self.seconds >= 0.05 && self.relationships >= 1_000;
        is_long.then(|| count / self.seconds)
    }
}

/// How the Watch has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    /// When its first response came; `None` where it was silent.
    pub(crate) first: Option<Duration>,
    /// For how long it was open.
    pub(crate) open: Duration,
}

/// A marker that was written, and followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) token: String,
    /// How long the Watch took to deliver it; `None` where it did not, within the time for that.
    pub(crate) delivered: Option<Duration>,
}

/// How far the clock behind a revision is ahead of this machine's, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Clock {
    pub(crate) ahead: f64,
    /// Whether the revision is as old as its reading. Of an older one only a clock that is ahead shows.
    pub(crate) is_now: bool,
}

/// How the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encryption {
    /// The certificate is verified.
    Verified,
    /// It is not.
    Unverified,
    /// No TLS. `is_exposed`: a token leaves this machine.
    Plaintext { is_exposed: bool },
}

/// What a server has of the newer API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Has {
    pub(crate) expiry: bool,
    pub(crate) checkpoints: bool,
    /// ReflectSchema and DiffSchema.
    pub(crate) schema_at_revision: bool,
}

impl Has {
    pub(crate) const ALL: Self = Self {
        expiry: true,
        checkpoints: true,
        schema_at_revision: true,
    };
}

/// What was seen of one end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    pub(crate) context: String,
    pub(crate) endpoint: String,
    pub(crate) encryption: Encryption,
    /// Whether the server can be used at all. Nothing else was looked at where it cannot.
    pub(crate) contact: Result<(), Failure>,
    pub(crate) has: Has,
    pub(crate) version: Option<String>,
    /// The newest revision.
    pub(crate) head: Option<String>,
    pub(crate) kind: Result<DatastoreKind, Failure>,
    pub(crate) schema: SchemaText,
    /// Whether its schema can only be compared with itself by its definitions, which it refused to give.
    pub(crate) lacks_definitions: bool,
    pub(crate) answers: BTreeMap<Call, Answer>,
    pub(crate) limits: Limits,
    pub(crate) sample: Option<Sample>,
    pub(crate) watched: Option<Watched>,
    pub(crate) marker: Option<Result<Marker, Failure>>,
    pub(crate) clock: Option<Clock>,
    /// Whether it takes an expiry in a write; `None` where that was not asked.
    pub(crate) takes_expiry: Option<bool>,
    /// Fields of relationships that only the server knows; `None` where it does not describe itself.
    pub(crate) unknown_fields: Option<Vec<String>>,
}

impl Facts {
    /// Of an end that nothing is known of yet.
    pub(crate) fn new(context: &str, endpoint: &str) -> Self {
        Self {
            context: context.to_owned(),
            endpoint: endpoint.to_owned(),
            encryption: Encryption::Verified,
            contact: Ok(()),
            has: Has::ALL,
            version: None,
            head: None,
            kind: Ok(DatastoreKind::Unknown),
            schema: SchemaText::Unknown,
            lacks_definitions: false,
            answers: BTreeMap::new(),
            limits: Limits::default(),
            sample: None,
            watched: None,
            marker: None,
            clock: None,
            takes_expiry: None,
            unknown_fields: None,
        }
    }

    /// The kind of its datastore, as far as it is known.
    pub(crate) fn kind(&self) -> DatastoreKind {
        self.kind
            .as_ref()
            .copied()
            .unwrap_or(DatastoreKind::Unknown)
    }

    /// Whether its zedtokens name its datastore; `None` without a zedtoken.
    pub(crate) fn names_datastore(&self) -> Option<bool> {
        let head = self.head.as_deref()?;
        Some(spice_client::same_datastore::datastore_id(head).is_some())
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.answers
            .values()
            .any(|answer| *answer == Answer::ReadOnly)
    }

    /// Whether anything shows that relationships expire there.
    pub(crate) fn may_expire(&self) -> bool {
        self.schema.has_expiration() || self.sample.is_some_and(|sample| sample.expiring > 0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A failure of this kind.
    pub(crate) fn failure(kind: Kind, limit: Option<u64>) -> Failure {
        Failure {
            kind,
            code: None,
            message: format!("{kind:?}"),
            hint: String::new(),
            limit,
            passes: matches!(kind, Kind::Unavailable | Kind::Deadline | Kind::Unreachable),
            is_other_key: false,
        }
    }

    #[test]
    fn refusal_by_content_shows_that_the_call_is_allowed() {
        let answer = |kind| Answer::of::<()>(&Err(failure(kind, None)));
        for kind in [
            Kind::Refused,
            Kind::LimitExceeded,
            Kind::NoSchema,
            Kind::Conflict,
        ] {
            assert_eq!(answer(kind), Answer::Allowed, "{kind:?}");
        }
        assert_eq!(Answer::of(&Ok(())), Answer::Allowed);
        for kind in [Kind::Denied, Kind::Unauthenticated] {
            assert!(matches!(answer(kind), Answer::Denied(_)), "{kind:?}");
        }
        assert_eq!(answer(Kind::Unimplemented), Answer::Missing);
        assert_eq!(answer(Kind::ReadOnly), Answer::ReadOnly);
        assert!(matches!(answer(Kind::Deadline), Answer::Unsure(_)));
        assert!(matches!(answer(Kind::Malformed), Answer::Failed(_)));
        let failed = |kind| Answer::of_failure(&failure(kind, None));
        assert!(matches!(failed(Kind::Refused), Answer::Failed(_)));
        assert!(matches!(failed(Kind::Denied), Answer::Denied(_)));
    }

    #[test]
    fn limit_is_named_or_was_not_reached() {
        let of = |kind, limit| Limit::of::<()>(10, &Err(failure(kind, limit)));
        assert_eq!(of(Kind::LimitExceeded, Some(5)), Limit::AtMost(5));
        assert_eq!(of(Kind::MessageTooLarge, Some(4)), Limit::AtMost(4));
        assert_eq!(of(Kind::Refused, None), Limit::MoreThan(10));
        assert_eq!(of(Kind::LimitExceeded, None), Limit::Unknown);
        assert_eq!(of(Kind::Denied, None), Limit::Unknown);
        assert_eq!(Limit::of(10, &Ok(())), Limit::MoreThan(10));
    }

    #[test]
    fn short_sample_has_no_rate() {
        let sample = Sample {
            relationships: 20,
            seconds: 0.001,
            ..Sample::default()
        };
        assert_eq!(sample.rate(), None);
        let sample = Sample {
            relationships: 20_000,
            seconds: 2.0,
            ..Sample::default()
        };
        assert_eq!(sample.rate(), Some(10_000.0));
    }

    #[test]
    fn schema_shows_expiration_by_its_flag() {
        let schema = |text: &str| SchemaText::Text(text.to_owned());
        assert!(schema("use expiration\n\ndefinition user {}").has_expiration());
        assert!(!schema("definition user {} // use expiration later").has_expiration());
        assert!(!SchemaText::None.has_expiration());
    }
}
