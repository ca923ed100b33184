//! The order-free digest of a set of relationships.
//!
//! Each relationship is written in a canonical form, hashed with XXH3 to 128 bits, and the hashes
//! are added modulo 2^128. So the digest does not depend on the order (databases sort exports by
//! their own collation), and the digests of two shards add up to the digest of both. It finds
//! accidents, not attacks: nothing here is keyed.

use std::fmt;
use std::str::FromStr;

use authzed::v1::Relationship;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::object::from_string;

/// How much of an expiry takes part in a digest.
///
/// Datastores keep different amounts: memory the nanosecond, PostgreSQL the microsecond, MySQL the
/// second (measured on SpiceDB v1.56). Digests can be compared only at the same precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpiryPrecision {
    /// Microseconds: what PostgreSQL keeps.
    #[default]
    #[serde(rename = "us")]
    Micros,
    /// Seconds: what MySQL keeps.
    #[serde(rename = "s")]
    Seconds,
}

impl ExpiryPrecision {
    /// Cuts the part of a second that this precision does not keep.
    #[must_use]
    pub fn cut(self, nanos: i32) -> i32 {
        match self {
            Self::Micros => nanos - nanos % 1_000,
            Self::Seconds => 0,
        }
    }
}

impl fmt::Display for ExpiryPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Micros => "us",
            Self::Seconds => "s",
        })
    }
}

impl FromStr for ExpiryPrecision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "us" => Ok(Self::Micros),
            "s" => Ok(Self::Seconds),
            _ => Err(format!("expected us or s, got {text:?}")),
        }
    }
}

/// A 128-bit digest, written as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Digest {
    type Err = String;

    /// Takes exactly the form that is written: a digest with a flipped case bit is a damaged one.
    fn from_str(text: &str) -> Result<Self, String> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let push = |digest: u128, digit| Some(digest << 4 | u128::from(value(digit)?));
        let digest = match text.len() {
            32 => text.bytes().try_fold(0, push),
            _ => None,
        };
        digest
            .map(Self)
            .ok_or_else(|| format!("expected 32 lower-case hex digits, got {text:?}"))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_string(deserializer)
    }
}

/// The digests of one relationship, at every precision at once: a reader learns only from the trailer
/// which one the writer chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashes {
    exact: u128,
    micros: u128,
    seconds: u128,
}

/// What a [`DigestSum`] has added up, to be stored and continued by another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSum {
    /// How many relationships were added.
    pub relationships: u64,
    /// The digest with every expiry in full.
    pub exact: Digest,
    /// The digest at microseconds.
    pub us: Digest,
    /// The digest at seconds.
    pub s: Digest,
}

impl From<StoredSum> for DigestSum {
    fn from(stored: StoredSum) -> Self {
        Self {
            relationships: stored.relationships,
            exact: stored.exact.0,
            micros: stored.us.0,
            seconds: stored.s.0,
            scratch: Vec::new(),
        }
    }
}

/// The digest of bytes that come in pieces: of a file.
#[derive(Clone, Default)]
pub struct BytesDigest(Box<Xxh3>);

impl BytesDigest {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all bytes so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(self.0.digest128())
    }
}

/// Counts relationships and adds up their digests.
#[derive(Clone, Debug, Default)]
pub struct DigestSum {
    relationships: u64,
    exact: u128,
    micros: u128,
    seconds: u128,
    scratch: Vec<u8>,
}

impl DigestSum {
    /// Adds one relationship; gives its own digests back.
    pub fn add(&mut self, relationship: &Relationship) -> Hashes {
        self.scratch.clear();
        let (seconds, nanos) = canonical_without_expiry(relationship, &mut self.scratch);
        let length = self.scratch.len();
        let mut hash_with = |nanos: i32| {
            self.scratch.truncate(length);
            self.scratch.extend_from_slice(&seconds.to_le_bytes());
            self.scratch.extend_from_slice(&nanos.to_le_bytes());
            xxh3_128(&self.scratch)
        };
        let exact = hash_with(nanos);
        let mut at = |precision: ExpiryPrecision| match precision.cut(nanos) {
            kept if kept == nanos => exact,
            kept => hash_with(kept),
        };
        let (micros, seconds) = (at(ExpiryPrecision::Micros), at(ExpiryPrecision::Seconds));
        let hashes = Hashes {
            exact,
            micros,
            seconds,
        };
        self.add_hashes(hashes);
        hashes
    }

    /// Adds one relationship of which the digests are known.
    pub fn add_hashes(&mut self, hashes: Hashes) {
        self.relationships += 1;
        self.exact = self.exact.wrapping_add(hashes.exact);
        self.micros = self.micros.wrapping_add(hashes.micros);
        self.seconds = self.seconds.wrapping_add(hashes.seconds);
    }

    /// Adds what another sum has counted: that of another shard.
    pub fn add_sum(&mut self, other: &Self) {
        self.relationships += other.relationships;
        self.exact = self.exact.wrapping_add(other.exact);
        self.micros = self.micros.wrapping_add(other.micros);
        self.seconds = self.seconds.wrapping_add(other.seconds);
    }

    /// How many relationships were added.
    #[must_use]
    pub fn relationships(&self) -> u64 {
        self.relationships
    }

    /// The digest at a precision: the one to compare with another server's.
    #[must_use]
    pub fn digest(&self, precision: ExpiryPrecision) -> Digest {
        Digest(match precision {
            ExpiryPrecision::Micros => self.micros,
            ExpiryPrecision::Seconds => self.seconds,
        })
    }

    /// What was added, to be stored.
    #[must_use]
    pub fn stored(&self) -> StoredSum {
        StoredSum {
            relationships: self.relationships,
            exact: self.exact(),
            us: self.digest(ExpiryPrecision::Micros),
            s: self.digest(ExpiryPrecision::Seconds),
        }
    }

    /// The digest with every expiry in full: the one that seals a stream.
    #[must_use]
    pub fn exact(&self) -> Digest {
        Digest(self.exact)
    }
}

/// The digest of a text, to detect a change of it.
#[must_use]
pub fn digest_text(text: &str) -> Digest {
    digest_fields([Some(text)])
}

/// The digest of some fields, each with its length, absent ones marked: what seals a header.
pub(crate) fn digest_fields<'a>(fields: impl IntoIterator<Item = Option<&'a str>>) -> Digest {
    let mut bytes = Vec::new();
    for field in fields {
        match field {
            Some(text) => {
                bytes.push(1);
                put_str(&mut bytes, text);
            }
            None => bytes.push(0),
        }
    }
    Digest(xxh3_128(&bytes))
}

/// A digest of the identity of a relationship: resource, relation and subject.
#[must_use]
pub fn key_digest(relationship: &Relationship) -> Digest {
    let mut key = Vec::with_capacity(160);
    put_key(relationship, &mut key);
    Digest(xxh3_128(&key))
}

/// Appends resource, relation and subject, each with its length: equal for two relationships
/// exactly when SpiceDB holds them to be the same one (caveat and expiry do not count).
pub fn put_key(relationship: &Relationship, out: &mut Vec<u8>) {
    let resource = relationship.resource.as_ref();
    let subject = relationship.subject.as_ref();
    let object = subject.and_then(|s| s.object.as_ref());
    put_str(out, resource.map_or("", |r| &r.object_type));
    put_str(out, resource.map_or("", |r| &r.object_id));
    put_str(out, &relationship.relation);
    put_str(out, object.map_or("", |o| &o.object_type));
    put_str(out, object.map_or("", |o| &o.object_id));
    put_str(out, subject.map_or("", |s| &s.optional_relation));
}

/// Whether two relationships say the same, down to caveat, context and expiry at a precision.
#[must_use]
pub fn equal_at_precision(a: &Relationship, b: &Relationship, precision: ExpiryPrecision) -> bool {
    let canonical = |relationship| {
        let mut bytes = Vec::new();
        let (seconds, nanos) = canonical_without_expiry(relationship, &mut bytes);
        (bytes, seconds, precision.cut(nanos))
    };
    canonical(a) == canonical(b)
}

/// Appends everything but the expiry, which it returns. No expiry is `i64::MAX`: it is later than
/// any that a timestamp can say.
fn canonical_without_expiry(relationship: &Relationship, out: &mut Vec<u8>) -> (i64, i32) {
    put_key(relationship, out);
    match &relationship.optional_caveat {
        None => out.push(0),
        Some(caveat) => {
            out.push(1);
            put_str(out, &caveat.caveat_name);
            // SpiceDB returns a caveat without a context with an empty one.
            match &caveat.context {
                Some(context) => put_struct(out, context),
                None => put_len(out, 0),
            }
        }
    }
    match &relationship.optional_expires_at {
        None => (i64::MAX, 0),
        Some(expiry) => (expiry.seconds, expiry.nanos),
    }
}

/// Appends all of a relationship, its expiry in full.
pub(crate) fn put_canonical(relationship: &Relationship, out: &mut Vec<u8>) {
    let (seconds, nanos) = canonical_without_expiry(relationship, out);
    out.extend_from_slice(&seconds.to_le_bytes());
    out.extend_from_slice(&nanos.to_le_bytes());
}

/// Appends the byte 0 for what is absent, else the byte 1 and the bytes with their length.
pub(crate) fn put_optional(out: &mut Vec<u8>, bytes: Option<&impl AsRef<[u8]>>) {
    match bytes.map(AsRef::as_ref) {
        Some(bytes) => {
            out.push(1);
            put_len(out, bytes.len());
            out.extend_from_slice(bytes);
        }
        None => out.push(0),
    }
}

/// The digest of a canonical form.
pub(crate) fn digest_bytes(bytes: &[u8]) -> Digest {
    Digest(xxh3_128(bytes))
}

pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&(len as u64).to_le_bytes());
}

pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// The keys of a [`Struct`] are sorted already: it is a `BTreeMap`.
pub(crate) fn put_struct(out: &mut Vec<u8>, value: &Struct) {
    put_len(out, value.fields.len());
    for (key, value) in &value.fields {
        put_str(out, key);
        put_value(out, value);
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => out.push(b'n'),
        Some(Kind::BoolValue(b)) => out.extend_from_slice(&[b'b', u8::from(*b)]),
        Some(Kind::NumberValue(n)) => {
            out.push(b'f');
            // PostgreSQL turns -0 into 0 (measured), so they are one value here.
            let n = if *n == 0.0 { 0.0 } else { *n };
            out.extend_from_slice(&n.to_bits().to_le_bytes());
        }
        Some(Kind::StringValue(s)) => {
            out.push(b's');
            put_str(out, s);
        }
        Some(Kind::StructValue(s)) => {
            out.push(b'o');
            put_struct(out, s);
        }
        Some(Kind::ListValue(list)) => {
            out.push(b'l');
            put_len(out, list.values.len());
            for value in &list.values {
                put_value(out, value);
            }
        }
    }
}
