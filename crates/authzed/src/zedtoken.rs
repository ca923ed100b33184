//! Looks inside zedtokens.
//!
//! The API calls a zedtoken opaque, and nothing here makes one. But which datastore a token comes
//! from, and whether one revision includes another, can only be read from its content. Measured on
//! SpiceDB v1.56.0: standard base64 of a protobuf message that holds the revision as a string, the
//! first eight characters of the datastore's id and, in some tokens, a hash of the schema.
//!
//! ```
//! use authzed::zedtoken::{self, Revision};
//!
//! let token = zedtoken::decode("Gh8KEzE3OTU0MTUxMDcxNDI1MDIxMjcSCDhkYjFiNWNl")?;
//! assert_eq!(token.revision, Revision::Integer(1_795_415_107_142_502_127));
//! assert_eq!(token.datastore_id.as_deref(), Some("8db1b5ce"));
//! # Ok::<(), zedtoken::DecodeError>(())
//! ```

mod revision;

use std::hash::{Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;

pub use self::revision::{PostgresRevision, Revision};

/// The content of a zedtoken.
///
/// Two are equal when datastore and revision are: Watch may give one revision several spellings,
/// with and without the hash of the schema.
#[derive(Clone, Debug)]
pub struct DecodedToken {
    /// The first eight characters of the datastore's id. All servers on one database share it; the
    /// memory datastore has a new one after each start. `None` in tokens of old servers.
    pub datastore_id: Option<String>,
    /// The revision.
    pub revision: Revision,
    /// A hash of the schema at the revision, where the server has put it in.
    pub schema_hash: Option<Vec<u8>>,
}

impl PartialEq for DecodedToken {
    fn eq(&self, other: &Self) -> bool {
        self.datastore_id == other.datastore_id && self.revision == other.revision
    }
}

impl Eq for DecodedToken {}

impl Hash for DecodedToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.datastore_id.hash(state);
        self.revision.hash(state);
    }
}

/// Why a string is not a zedtoken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is not standard base64.
    #[error("not a zedtoken: not base64")]
    Base64(#[source] base64::DecodeError),
    /// What the base64 holds is not a protobuf message of the right shape.
    #[error("not a zedtoken: not the message a zedtoken holds")]
    Message(#[source] prost::DecodeError),
    /// The message names no revision, or does so in a version of zedtokens that is not known.
    #[error("not a zedtoken that this version can read: no revision in it")]
    NoRevision,
}

/// Decodes a zedtoken as SpiceDB's responses hold it.
///
/// A revision of unknown form is not an error but [`Revision::Other`]. So is the number in a token
/// of the deprecated version 1, which does not say what it counts.
///
/// # Errors
///
/// When the text is no zedtoken, or one of a version without a revision that can be read.
pub fn decode(token: &str) -> Result<DecodedToken, DecodeError> {
    let bytes = STANDARD.decode(token).map_err(DecodeError::Base64)?;
    let token = wire::ZedToken::decode(bytes.as_slice()).map_err(DecodeError::Message)?;
    if let Some(v1) = token.v1 {
        if v1.revision.is_empty() {
            return Err(DecodeError::NoRevision);
        }
        return Ok(DecodedToken {
            datastore_id: (!v1.datastore_id.is_empty()).then_some(v1.datastore_id),
            revision: Revision::parse(&v1.revision),
            schema_hash: (!v1.schema_hash.is_empty()).then_some(v1.schema_hash),
        });
    }
    match token.deprecated {
        Some(deprecated) => Ok(DecodedToken {
            datastore_id: None,
            revision: Revision::Other(deprecated.revision.to_string()),
            schema_hash: None,
        }),
        None => Err(DecodeError::NoRevision),
    }
}

/// The revision of a token, or [`Revision::Other`] with the text where it is none.
#[must_use]
pub fn revision_of(token: &str) -> Revision {
    decode(token).map_or_else(
        |_| Revision::Other(token.to_owned()),
        |found| found.revision,
    )
}

/// Whether the state at the revision of one token includes the change that made the other's, as
/// [`Revision::sees`] decides; `false` also where that is unknown, or one is no token.
#[must_use]
pub fn includes(token: &str, other: &str) -> bool {
    let both = decode(token).ok().zip(decode(other).ok());
    both.is_some_and(|(token, other)| token.revision.sees(&other.revision) == Some(true))
}

/// What a token is the base64 of. It is not part of the API, so it is not in `proto/`.
mod wire {
    /// A token in one of its versions.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ZedToken {
        #[prost(message, optional, tag = "2")]
        pub(super) deprecated: Option<Deprecated>,
        #[prost(message, optional, tag = "3")]
        pub(super) v1: Option<V1>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Deprecated {
        #[prost(uint64, tag = "1")]
        pub(super) revision: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct V1 {
        #[prost(string, tag = "1")]
        pub(super) revision: String,
        #[prost(string, tag = "2")]
        pub(super) datastore_id: String,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) schema_hash: Vec<u8>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token as a server would write it.
    fn token(revision: &str, datastore_id: &str, schema_hash: &[u8]) -> String {
        let v1 = wire::V1 {
            revision: revision.to_owned(),
            datastore_id: datastore_id.to_owned(),
            schema_hash: schema_hash.to_owned(),
        };
        let token = wire::ZedToken {
            deprecated: None,
            v1: Some(v1),
        };
        STANDARD.encode(token.encode_to_vec())
    }

    #[test]
    fn token_includes_itself_and_what_came_before_and_nothing_unknown() {
        let [earlier, later] = ["9", "10"].map(|revision| token(revision, "abcd1234", b""));
        assert!(includes(&later, &earlier) && includes(&later, &later));
        assert!(!includes(&earlier, &later));
        let of_unknown_form = token("x", "abcd1234", b"");
        for unknown in [of_unknown_form.as_str(), "no token", ""] {
            assert!(!includes(&later, unknown) && !includes(unknown, &later));
        }
    }

    #[test]
    fn tokens_of_the_memory_datastore_are_nanoseconds() {
        let token = decode("Gh8KEzE3OTU0ODY5MDgyMTg4MTUyMDISCDRjNGUwMzcy").unwrap();
        assert_eq!(token.datastore_id.as_deref(), Some("4c4e0372"));
        assert_eq!(token.revision, Revision::Integer(1_795_486_908_218_815_202));
        assert_eq!(token.schema_hash, None);
    }

    #[test]
    fn tokens_of_mysql_are_transaction_numbers() {
        let token = decode("Gg0KATQSCDhkMmQ1YzI3").unwrap();
        assert_eq!(token.datastore_id.as_deref(), Some("8d2d5c27"));
        assert_eq!(token.revision, Revision::Integer(4));
    }

    #[test]
    fn written_tokens_of_postgres_name_their_transaction() {
        let token = decode("GiQKGENMc0dJTG9HS05pVHU1THJ1N2IxR0E9PRIIMzY3MzRiNzE=").unwrap();
        assert_eq!(token.datastore_id.as_deref(), Some("36734b71"));
        assert_eq!(
            token.revision,
            Revision::Postgres(PostgresRevision {
                xmin: 827,
                xmax: 827,
                in_progress: Vec::new(),
                txid: Some(826),
                timestamp_nanos: Some(1_795_486_951_958_039_000),
            })
        );
    }

    #[test]
    fn head_tokens_of_postgres_are_bare_snapshots() {
        let token = decode("GhgKDENOZ0pFQVVhQWdBQhIIMzY3MzRiNzE=").unwrap();
        assert_eq!(
            token.revision,
            Revision::Postgres(PostgresRevision {
                xmin: 1240,
                xmax: 1245,
                in_progress: vec![1240, 1241],
                txid: None,
                timestamp_nanos: None,
            })
        );
    }

    #[test]
    fn equality_ignores_the_schema_hash_alone() {
        let decoded = |revision, id, hash| decode(&token(revision, id, hash)).unwrap();
        let plain = decoded("7", "aaaaaaaa", b"");
        assert_eq!(plain, decoded("7", "aaaaaaaa", b"hash"));
        assert_eq!(
            decoded("7", "aaaaaaaa", b"hash").schema_hash.as_deref(),
            Some(&b"hash"[..])
        );
        assert_ne!(plain, decoded("8", "aaaaaaaa", b""));
        assert_ne!(plain, decoded("7", "bbbbbbbb", b""));
        let set: std::collections::HashSet<_> = [plain.clone(), decoded("7", "aaaaaaaa", b"hash")]
            .into_iter()
            .collect();
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn tokens_of_old_servers_can_be_read() {
        let token = decode(&token("7", "", b"")).unwrap();
        assert_eq!(token.datastore_id, None);
        // Version 1, revision 256.
        let deprecated = decode("CAESAwiAAg==").unwrap();
        assert_eq!(deprecated.revision, Revision::Other("256".to_owned()));
    }

    #[test]
    fn revision_of_a_text_that_is_no_token_is_the_text() {
        assert_eq!(revision_of(&token("7", "", b"")), Revision::Integer(7));
        let text = "not base64!";
        assert_eq!(revision_of(text), Revision::Other(text.to_owned()));
    }

    #[test]
    fn other_text_is_no_token() {
        assert!(matches!(decode("not base64!"), Err(DecodeError::Base64(_))));
        assert!(matches!(decode("/////w=="), Err(DecodeError::Message(_))));
        assert!(matches!(decode(""), Err(DecodeError::NoRevision)));
        assert!(matches!(
            decode(&token("", "aaaaaaaa", b"")),
            Err(DecodeError::NoRevision)
        ));
    }
}
