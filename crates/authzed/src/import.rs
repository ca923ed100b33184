//! Bulk import of relationships that are encoded already.
//!
//! An import must be able to send the same relationships again. Kept as bytes they take a tenth of
//! the memory, and sending them costs no copy.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::{Request, Status};

use crate::call::{self, Rpc, Transport};
use crate::v1::{ImportBulkRelationshipsRequest, ImportBulkRelationshipsResponse, Relationship};
use crate::wire::{AnswerDecoder, UnknownFields};

/// `ImportBulkRelationshipsRequest.relationships`.
const FIELD: u32 = 1;

/// One message of a bulk import, in the form in which it is sent. A clone shares the bytes.
#[derive(Clone, Debug, Default)]
pub struct EncodedRelationships {
    bytes: Bytes,
    relationships: usize,
}

/// Builds an [`EncodedRelationships`].
#[derive(Debug, Default)]
pub struct RelationshipsEncoder {
    bytes: BytesMut,
    relationships: usize,
}

impl RelationshipsEncoder {
    /// Appends a relationship.
    pub fn push(&mut self, relationship: &Relationship) {
        let length = relationship.encoded_len();
        self.bytes.reserve(length + 16);
        encode_key(FIELD, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(length as u64, &mut self.bytes);
        relationship.encode_raw(&mut self.bytes);
        self.relationships += 1;
    }

    /// Size of the message so far, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// How many relationships are in it so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.relationships
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.relationships == 0
    }

    /// Ends the message and leaves an empty one.
    #[must_use]
    pub fn take(&mut self) -> EncodedRelationships {
        EncodedRelationships {
            bytes: self.bytes.split().freeze(),
            relationships: std::mem::take(&mut self.relationships),
        }
    }
}

impl EncodedRelationships {
    /// Size of the message, in bytes.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// How many relationships are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.relationships
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.relationships == 0
    }

    /// The relationships again.
    ///
    /// # Errors
    ///
    /// For a caveat context that is nested more than [`MAX_DEPTH`](crate::MAX_DEPTH) levels deep: it can
    /// be encoded, but the decoder gives up on it.
    pub fn decode(&self) -> Result<Vec<Relationship>, prost::DecodeError> {
        ImportBulkRelationshipsRequest::decode(self.bytes.clone())
            .map(|request| request.relationships)
    }
}

/// Makes the call on a transport.
pub(crate) async fn call(
    transport: Transport,
    rpc: Rpc,
    requests: impl Stream<Item = EncodedRelationships> + Send + 'static,
) -> Result<ImportBulkRelationshipsResponse, Status> {
    let mut grpc = call::grpc(transport, rpc);
    call::ready(&mut grpc).await?;
    let request = Request::new(requests);
    let stream = grpc.streaming(request, rpc.path(), EncodedCodec(rpc));
    call::only(&mut stream.await?.into_inner()).await
}

/// Sends bytes as they are, and decodes the answer.
struct EncodedCodec(Rpc);

impl Codec for EncodedCodec {
    type Encode = EncodedRelationships;
    type Decode = ImportBulkRelationshipsResponse;
    type Encoder = CopyEncoder;
    type Decoder = AnswerDecoder<ImportBulkRelationshipsResponse>;

    fn encoder(&mut self) -> CopyEncoder {
        CopyEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        AnswerDecoder::new(self.0.limits.memory, UnknownFields::default())
    }
}

struct CopyEncoder;

impl Encoder for CopyEncoder {
    type Item = EncodedRelationships;
    type Error = Status;

    fn encode(
        &mut self,
        item: EncodedRelationships,
        out: &mut EncodeBuf<'_>,
    ) -> Result<(), Status> {
        out.put(item.bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::RelationshipsEncoder;
    use crate::v1::{ImportBulkRelationshipsRequest, ObjectReference, Relationship};

    #[test]
    fn bytes_are_those_of_the_message() {
        let relationship = |id: &str| Relationship {
            resource: Some(ObjectReference {
                object_type: "document".to_owned(),
                object_id: id.to_owned(),
            }),
            relation: "viewer".to_owned(),
            ..Relationship::default()
        };
        let relationships = vec![relationship("a"), relationship("b")];
        let mut encoder = RelationshipsEncoder::default();
        for relationship in &relationships {
            encoder.push(relationship);
        }
        let encoded = encoder.take();
        assert_eq!(encoder.byte_len(), 0);
        assert_eq!(encoded.len(), 2);
        assert_eq!(encoded.decode().ok(), Some(relationships.clone()));
        let message = ImportBulkRelationshipsRequest { relationships };
        assert_eq!(encoded.bytes, message.encode_to_vec());
    }
}
