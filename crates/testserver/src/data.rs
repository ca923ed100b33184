//! Short forms of the messages that scripts consist of.

use authzed::v1::{
    Cursor, ExportBulkRelationshipsResponse, ObjectReference, ReadSchemaResponse, Relationship,
    RelationshipUpdate, SubjectReference, WatchResponse, WriteRelationshipsResponse, ZedToken,
    relationship_update::Operation,
};
use authzed::zedtoken::PostgresRevision;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;

/// The first characters of the datastore id in the tokens of [`token`].
const DATASTORE: &str = "aaaaaaaa";

#[derive(Clone, PartialEq, prost::Message)]
struct TokenContent {
    #[prost(message, optional, tag = "3")]
    v1: Option<TokenV1>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TokenV1 {
    #[prost(string, tag = "1")]
    revision: String,
    #[prost(string, tag = "2")]
    datastore_id: String,
    #[prost(bytes = "vec", tag = "3")]
    schema_hash: Vec<u8>,
}

/// The zedtoken of a revision that is a number, as on MySQL. It compares by that number.
#[must_use]
pub fn token(revision: u64) -> String {
    token_of(&revision.to_string(), DATASTORE)
}

/// A zedtoken of any datastore, with the revision as the datastore spells it.
#[must_use]
pub fn token_of(revision: &str, datastore_id: &str) -> String {
    encode(revision, datastore_id, b"")
}

/// The same revision as [`token`], in the spelling that also names the schema.
#[must_use]
pub fn token_with_schema(revision: u64) -> String {
    encode(&revision.to_string(), DATASTORE, b"hash")
}

/// The zedtoken of a PostgreSQL revision, of the same datastore as [`token`]'s.
#[must_use]
pub fn postgres_token(revision: &PostgresRevision) -> String {
    token_of(&revision.encode(), DATASTORE)
}

fn encode(revision: &str, datastore_id: &str, schema_hash: &[u8]) -> String {
    let content = TokenContent {
        v1: Some(TokenV1 {
            revision: revision.to_owned(),
            datastore_id: datastore_id.to_owned(),
            schema_hash: schema_hash.to_owned(),
        }),
    };
    STANDARD.encode(content.encode_to_vec())
}

fn zed_token(revision: u64) -> Option<ZedToken> {
    Some(ZedToken {
        token: token(revision),
    })
}

/// `document:ID#viewer@user:USER`.
#[must_use]
pub fn relationship(id: &str, user: &str) -> Relationship {
    let object = |object_type: &str, object_id: &str| ObjectReference {
        object_type: object_type.to_owned(),
        object_id: object_id.to_owned(),
    };
    Relationship {
        resource: Some(object("document", id)),
        relation: "viewer".to_owned(),
        subject: Some(SubjectReference {
            object: Some(object("user", user)),
            optional_relation: String::new(),
        }),
        optional_caveat: None,
        optional_expires_at: None,
    }
}

/// A TOUCH of `document:ID#viewer@user:anna`.
#[must_use]
pub fn touch(id: &str) -> RelationshipUpdate {
    RelationshipUpdate {
        operation: Operation::Touch.into(),
        relationship: Some(relationship(id, "anna")),
    }
}

/// A response of Watch with one TOUCH a name.
#[must_use]
pub fn transaction(revision: u64, ids: &[&str]) -> WatchResponse {
    WatchResponse {
        updates: ids.iter().copied().map(touch).collect(),
        changes_through: zed_token(revision),
        ..WatchResponse::default()
    }
}

/// A checkpoint of Watch.
#[must_use]
pub fn checkpoint(revision: u64) -> WatchResponse {
    WatchResponse {
        changes_through: zed_token(revision),
        is_checkpoint: true,
        ..WatchResponse::default()
    }
}

/// The answer to ReadSchema, which has the head revision as well.
#[must_use]
pub fn schema_response(text: &str, revision: u64) -> ReadSchemaResponse {
    ReadSchemaResponse {
        schema_text: text.to_owned(),
        read_at: zed_token(revision),
    }
}

/// A page of an export: relationships of these ids, and the cursor after them.
#[must_use]
pub fn page(ids: &[&str], cursor: &str) -> ExportBulkRelationshipsResponse {
    ExportBulkRelationshipsResponse {
        after_result_cursor: Some(Cursor {
            token: cursor.to_owned(),
        }),
        relationships: ids.iter().map(|id| relationship(id, "anna")).collect(),
    }
}

/// The answer to a write.
#[must_use]
pub fn written(revision: u64) -> WriteRelationshipsResponse {
    WriteRelationshipsResponse {
        written_at: zed_token(revision),
    }
}
