//! One call of each kind that the planned steps make, of a form that cannot change anything.
//!
//! A server decides by the token whether it lets a call in, before it looks at what is in it. So each
//! writing call holds what SpiceDB never takes (facts of v1.30.0 to v1.57.1):
//!
//! - **WriteSchema**: a text that does not parse. It is compiled before a transaction begins.
//! - **WriteRelationships**: no update at all, and a precondition on a definition that no schema has. The
//!   transaction is rolled back; and if it were not, it would be an empty one. It begins before the
//!   precondition is read, so a server or a database that takes no writes refuses it as that.
//! - **ImportBulkRelationships**: one relationship of a definition that no schema has, with an id that is
//!   invalid. Whatever fails in an import rolls all of it back.

use std::time::Duration;

use authzed::v1::{
    Consistency, ContextualizedCaveat, ExportBulkRelationshipsRequest, ObjectReference,
    Precondition, ReadRelationshipsRequest, Relationship, RelationshipFilter, RelationshipUpdate,
    SubjectReference, WriteRelationshipsRequest, precondition, relationship_update,
};
use authzed::{Code, JsonObject, Kind, RelationshipsEncoder, check_about_nothing};
use futures::stream;
use prost_types::value::Kind::StringValue;
use prost_types::{Struct, Value};
use tokio::time::{Instant, sleep};

use super::{NOTHING, Probe};
use crate::facts::{Answer, Failure, Limit};
use crate::steps::Call;

/// No version of SpiceDB parses it, and it is not empty: an empty text is an empty schema.
const NO_SCHEMA: &str = ") spice-preflight asks whether this call is allowed: this is no schema (";

/// One update more than SpiceDB takes by default.
const UPDATES: u64 = 1_001;
/// More than SpiceDB takes of a caveat's context by default (25,000).
const CONTEXT_BYTES: usize = 1_000_000;
/// One relationship more than ten pages of the default size (10,000).
const PAGE: u64 = 100_001;
/// More than SpiceDB takes of a request (4 MiB).
const MESSAGE_BYTES: usize = (4 << 20) + (64 << 10);

/// Before a call is made once more.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

impl Probe {
    /// Whether the server lets a call in. `None` of those that have a probe of their own. An error that may
    /// pass is waited for, twice; silence is not.
    pub(crate) async fn answer(&self, call: Call) -> Option<Answer> {
        for pause in PAUSES {
            let until = self.until();
            let answer = self.ask(call).await?;
            let has_time = Instant::now() + pause < until;
            if !matches!(answer, Answer::Unsure(_)) || !has_time {
                return Some(answer);
            }
            sleep(pause).await;
        }
        self.ask(call).await
    }

    async fn ask(&self, call: Call) -> Option<Answer> {
        let client = &self.client;
        let newest = Consistency::fully_consistent;
        Some(match call {
            Call::Watch => return None,
            Call::ReadSchema => Answer::of(&self.call(client.read_schema()).await),
            Call::DiffSchema => {
                Answer::of(&self.call(client.diff_schema(newest(), NO_SCHEMA)).await)
            }
            Call::ReflectSchema => Answer::of(&self.call(client.reflect_schema(newest())).await),
            Call::WriteSchema => Answer::of(&self.call(client.write_schema(NO_SCHEMA)).await),
            Call::Export => Answer::of(&self.page(1).await),
            Call::Import => Answer::of(&self.import().await),
            Call::ReadRelationships => Answer::of(&self.read().await),
            Call::WriteRelationships => Answer::of(&self.write(Vec::new()).await),
            Call::CheckBulk => {
                Answer::of(&self.call(client.check_bulk(check_about_nothing())).await)
            }
        })
    }

    /// The first page of an export.
    async fn page(&self, limit: u32) -> Result<(), Failure> {
        let mut pages = self.client.export(ExportBulkRelationshipsRequest {
            consistency: Some(Consistency::fully_consistent()),
            optional_limit: limit,
            ..ExportBulkRelationshipsRequest::default()
        });
        self.call(pages.message()).await.map(drop)
    }

    async fn read(&self) -> Result<(), Failure> {
        let mut responses = self.client.read_relationships(ReadRelationshipsRequest {
            consistency: Some(Consistency::fully_consistent()),
            relationship_filter: Some(filter()),
            optional_limit: 1,
            optional_cursor: None,
        });
        self.call(responses.message()).await.map(drop)
    }

    async fn import(&self) -> Result<u64, Failure> {
        let mut encoder = RelationshipsEncoder::default();
        encoder.push(&impossible("% no id %"));
        let messages = stream::iter([encoder.take()]);
        self.call(self.client.import(messages)).await
    }

    /// A write that cannot be applied, whatever is in it.
    async fn write(&self, updates: Vec<RelationshipUpdate>) -> Result<(), Failure> {
        let request = WriteRelationshipsRequest {
            updates,
            optional_preconditions: vec![Precondition {
                operation: precondition::Operation::MustMatch.into(),
                filter: Some(filter()),
            }],
            optional_transaction_metadata: None,
        };
        self.call(self.client.write(request)).await.map(drop)
    }

    /// How many relationships a page may have.
    pub(crate) async fn page_limit(&self) -> Limit {
        let asked = u32::try_from(PAGE).unwrap_or(u32::MAX);
        Limit::of(PAGE, &self.page(asked).await)
    }

    /// How many updates a write may have: SpiceDB counts them before anything else. All are of one
    /// relationship, which it does not take in one call either.
    pub(crate) async fn updates_limit(&self) -> Limit {
        let updates = (0..UPDATES).map(|_| delete(None)).collect();
        Limit::of(UPDATES, &self.write(updates).await)
    }

    /// How large a caveat with its context may be in a write: SpiceDB measures it before it begins a
    /// transaction.
    pub(crate) async fn context_limit(&self) -> Limit {
        let update = delete(Some(caveat(CONTEXT_BYTES)));
        Limit::of(CONTEXT_BYTES as u64, &self.write(vec![update]).await)
    }

    /// Whether a relationship may have an expiry: v1.40 to v1.45 refuse one with an error of its own before
    /// they begin a transaction, unless a flag is set. `None` where neither refusal came.
    pub(crate) async fn takes_expiry(&self) -> Option<bool> {
        let mut update = delete(None);
        if let Some(relationship) = &mut update.relationship {
            relationship.optional_expires_at = Some(prost_types::Timestamp {
                seconds: IN_2100,
                nanos: 0,
            });
        }
        match self.write(vec![update]).await {
            Err(failure) if failure.kind == Kind::Refused => {
                Some(failure.code != Some(Code::Unknown))
            }
            _ => None,
        }
    }

    /// How large a request may be: of a call that only reads.
    pub(crate) async fn message_limit(&self) -> Limit {
        let text = NO_SCHEMA.repeat(MESSAGE_BYTES / NO_SCHEMA.len() + 1);
        let length = text.len() as u64;
        let call = self
            .client
            .diff_schema(Consistency::fully_consistent(), text);
        Limit::of(length, &self.call(call).await)
    }
}

const IN_2100: i64 = 4_102_444_800;

/// What matches nothing.
fn filter() -> RelationshipFilter {
    RelationshipFilter {
        resource_type: NOTHING.to_owned(),
        optional_resource_id: "nothing".to_owned(),
        ..RelationshipFilter::default()
    }
}

fn nothing(id: &str) -> ObjectReference {
    ObjectReference {
        object_type: NOTHING.to_owned(),
        object_id: id.to_owned(),
    }
}

/// A relationship that no server stores: its definition is in no schema.
fn impossible(id: &str) -> Relationship {
    Relationship {
        resource: Some(nothing(id)),
        relation: "nothing".to_owned(),
        subject: Some(SubjectReference {
            object: Some(nothing("nothing")),
            optional_relation: String::new(),
        }),
        optional_caveat: None,
        optional_expires_at: None,
    }
}

/// It would delete what is not there.
fn delete(caveat: Option<ContextualizedCaveat>) -> RelationshipUpdate {
    RelationshipUpdate {
        operation: relationship_update::Operation::Delete.into(),
        relationship: Some(Relationship {
            optional_caveat: caveat,
            ..impossible("nothing")
        }),
    }
}

/// A caveat that no schema has, with a context of this size.
fn caveat(bytes: usize) -> ContextualizedCaveat {
    let value = Value {
        kind: Some(StringValue("a".repeat(bytes))),
    };
    ContextualizedCaveat {
        caveat_name: NOTHING.to_owned(),
        context: Some(JsonObject::from(Struct {
            fields: [("nothing".to_owned(), value)].into(),
        })),
    }
}
