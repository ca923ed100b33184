//! What a server sends, examined before it is used.
//!
//! A protobuf decoder accepts more than a client of authorization data should. It drops the fields of
//! a newer API without a word, and a relationship without one of its fields may be a wider grant. It
//! turns two bytes into a structure of 200, so that a small message can take gigabytes. And it takes
//! an expiry that is no time.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Buf as _;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

use crate::error::{Cause, Fault, Kind};
use crate::generated::health::HealthCheckResponse;
use crate::json_object::MAX_DEPTH;
use crate::v1::{self, Relationship, ZedToken};
use crate::zedtoken::{self, DecodeError};

pub(crate) use self::walk::shown;

mod walk;

/// How much one answer of a call may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes on the wire.
    pub(crate) wire: usize,
    /// Bytes of memory, encoded and decoded together.
    pub(crate) memory: usize,
}

impl Limits {
    /// A call with one answer. SpiceDB takes no schema above 4 MiB, and 200 answers to questions are
    /// about 100 KiB.
    pub(crate) const UNARY: Self = Self {
        wire: 16 << 20,
        memory: 64 << 20,
    };

    /// A page of relationships. SpiceDB takes no relationship above 4 MiB, so a page that is larger
    /// can be asked for in smaller ones. An export holds up to four pages at a time.
    pub(crate) const PAGE: Self = Self {
        wire: 16 << 20,
        memory: 48 << 20,
    };

    /// A response of Watch, which cannot be asked for in parts: it is one transaction.
    pub(crate) const fn transaction(memory: usize) -> Self {
        Self {
            wire: memory,
            memory,
        }
    }
}

/// Messages up to this size are decoded without an estimate of what they take, which is at most 128
/// times as much, and only until the first element of it is found to be empty. Most pages of an export
/// are smaller: the estimate costs a third of what decoding does.
const ESTIMATED_FROM: usize = 640 << 10;

/// What is done with fields that this version does not know, and how many came.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnknownFields {
    pub(crate) ignored: bool,
    pub(crate) count: Arc<AtomicU64>,
}

/// A message that a server answers with.
pub(crate) trait Answer: Message + Default + Send + Sync + 'static {
    /// Its full name.
    const NAME: &'static str;
    /// Whether an unknown field in it would be data that is lost.
    const HOLDS_DATA: bool = false;

    /// Whether it moves a stream on: others do not extend the time in which something has to come.
    fn is_progress(&self) -> bool {
        true
    }

    /// Looks for values that no server stores.
    fn check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

macro_rules! plain_answers {
    ($($message:ty: $name:literal,)*) => {
        $(impl Answer for $message {
            const NAME: &'static str = $name;
        })*
    };
}

plain_answers! {
    v1::ReadSchemaResponse: "authzed.api.v1.ReadSchemaResponse",
    v1::WriteSchemaResponse: "authzed.api.v1.WriteSchemaResponse",
    v1::ReflectSchemaResponse: "authzed.api.v1.ReflectSchemaResponse",
    v1::DiffSchemaResponse: "authzed.api.v1.DiffSchemaResponse",
    v1::CheckBulkPermissionsResponse: "authzed.api.v1.CheckBulkPermissionsResponse",
    v1::WriteRelationshipsResponse: "authzed.api.v1.WriteRelationshipsResponse",
    v1::ImportBulkRelationshipsResponse: "authzed.api.v1.ImportBulkRelationshipsResponse",
    HealthCheckResponse: "grpc.health.v1.HealthCheckResponse",
}

impl Answer for v1::ExportBulkRelationshipsResponse {
    const NAME: &'static str = "authzed.api.v1.ExportBulkRelationshipsResponse";
    const HOLDS_DATA: bool = true;

    fn is_progress(&self) -> bool {
        !self.relationships.is_empty()
    }

    fn check(&self) -> Result<(), Fault> {
        self.relationships.iter().try_for_each(check_relationship)
    }
}

impl Answer for v1::ReadRelationshipsResponse {
    const NAME: &'static str = "authzed.api.v1.ReadRelationshipsResponse";
    const HOLDS_DATA: bool = true;

    fn is_progress(&self) -> bool {
        self.relationship.is_some()
    }

    fn check(&self) -> Result<(), Fault> {
        self.relationship.iter().try_for_each(check_relationship)
    }
}

impl Answer for v1::WatchResponse {
    const NAME: &'static str = "authzed.api.v1.WatchResponse";
    const HOLDS_DATA: bool = true;

    fn check(&self) -> Result<(), Fault> {
        if let Some(token) = &self.changes_through {
            check_token(token)?;
        }
        for update in &self.updates {
            let Some(relationship) = &update.relationship else {
                return Err(Fault::malformed("an update without a relationship"));
            };
            check_relationship(relationship)?;
        }
        Ok(())
    }
}

/// The longest zedtoken that is taken, in bytes. On PostgreSQL it names the transactions in flight.
const LONGEST_TOKEN: usize = 64 << 10;

/// A zedtoken goes into files, into commands and onto terminals: it has to be printable and one word.
pub(crate) fn check_token(ZedToken { token }: &ZedToken) -> Result<(), Fault> {
    if token.is_empty() {
        return Err(Fault::malformed("an empty zedtoken"));
    }
    if token.len() > LONGEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Fault::malformed(
            "a zedtoken that is too long or not printable",
        ));
    }
    match zedtoken::decode(token) {
        // A server may be newer than this client.
        Ok(_) | Err(DecodeError::NoRevision) => Ok(()),
        Err(error) => Err(Fault::malformed(error.to_string())),
    }
}

/// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, the range of a protobuf timestamp, in seconds.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

fn check_relationship(relationship: &Relationship) -> Result<(), Fault> {
    if relationship.resource.is_none() || relationship.subject.is_none() {
        return Err(Fault::malformed(
            "a relationship without a resource or a subject",
        ));
    }
    match &relationship.optional_expires_at {
        Some(expiry)
            if !SECONDS.contains(&expiry.seconds)
                || !(0..1_000_000_000).contains(&expiry.nanos) =>
        {
            Err(Fault::malformed(format!(
                "{}: expires at {} seconds and {} nanoseconds, which is no time",
                shown(relationship),
                expiry.seconds,
                expiry.nanos
            )))
        }
        _ => Ok(()),
    }
}

/// The codec of all calls: encodes as usual, and examines what it decodes.
#[derive(Clone, Debug)]
pub(crate) struct AnswerCodec<Q, A> {
    memory: usize,
    unknown: UnknownFields,
    messages: PhantomData<(Q, A)>,
}

impl<Q, A> AnswerCodec<Q, A> {
    pub(crate) fn new(limits: Limits, unknown: UnknownFields) -> Self {
        Self {
            memory: limits.memory,
            unknown,
            messages: PhantomData,
        }
    }
}

impl<Q: Message + Send + 'static, A: Answer> Codec for AnswerCodec<Q, A> {
    type Encode = Q;
    type Decode = A;
    type Encoder = <ProstCodec<Q, A> as Codec>::Encoder;
    type Decoder = AnswerDecoder<A>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<Q, A>::default().encoder()
    }

    fn decoder(&mut self) -> AnswerDecoder<A> {
        AnswerDecoder::new(self.memory, self.unknown.clone())
    }
}

pub(crate) struct AnswerDecoder<A> {
    memory: usize,
    unknown: UnknownFields,
    message: PhantomData<A>,
}

impl<A: Answer> AnswerDecoder<A> {
    pub(crate) fn new(memory: usize, unknown: UnknownFields) -> Self {
        Self {
            memory,
            unknown,
            message: PhantomData,
        }
    }

    fn examine(&self, bytes: &[u8]) -> Result<A, Fault> {
        if bytes.len() > ESTIMATED_FROM {
            let needed = walk::memory(A::NAME, bytes, self.memory) + bytes.len();
            if needed > self.memory {
                return Err(Fault::too_large(needed, self.memory));
            }
        }
        let message = A::decode(bytes).map_err(|error| undecodable(A::NAME, bytes, &error))?;
        // A known message is never shorter on the wire than we would encode it. A longer one has
        // fields that we do not know, or is only encoded less tightly.
        if A::HOLDS_DATA
            && message.encoded_len() != bytes.len()
            && let Some(unknown) = walk::unknown(A::NAME, bytes)
        {
            if !self.unknown.ignored {
                return Err(Fault::unknown_field(unknown.to_string()));
            }
            self.unknown
                .count
                .fetch_add(unknown.count, Ordering::Relaxed);
        }
        message.check()?;
        Ok(message)
    }
}

/// Why an answer could not be decoded; where it is the depth of a context, in which relationship.
fn undecodable(name: &str, bytes: &[u8], error: &prost::DecodeError) -> Fault {
    let Some(of) = walk::too_deep(name, bytes) else {
        return Fault::malformed(format!("the answer cannot be decoded: {error}"));
    };
    Fault {
        kind: Kind::Malformed,
        message: format!("{of}: a context or metadata nested more than {MAX_DEPTH} levels deep"),
        cause: Some(Cause::NestedTooDeep),
    }
}

impl<A: Answer> Decoder for AnswerDecoder<A> {
    type Item = A;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<A>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        self.examine(&bytes).map(Some).map_err(Fault::into_status)
    }
}

#[cfg(test)]
mod tests;
