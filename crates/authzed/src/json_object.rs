//! JSON objects within messages: contexts of caveats and metadata of transactions.

use std::ops::{Deref, DerefMut};

use prost::bytes::{Buf, BufMut};
use prost::encoding::{
    DecodeContext, WireType, bool, check_wire_type, decode_key, decode_varint, double, int32,
    skip_field, string,
};
use prost::{DecodeError, Message};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// How many objects and lists may be nested, the outermost object included. SpiceDB takes
/// as many as Go's protobuf decodes, which is far more (10,000 messages within each other); here each
/// level takes some of the stack. A line of JSON may have 127 levels (serde_json), of which those around
/// a context take 6.
pub const MAX_DEPTH: usize = 100;

/// A `google.protobuf.Struct` that is decoded to a depth of [`MAX_DEPTH`]. prost stops at 100 messages
/// within each other, of which each object takes three: at 32 levels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonObject(pub Struct);

impl From<Struct> for JsonObject {
    fn from(object: Struct) -> Self {
        Self(object)
    }
}

impl Deref for JsonObject {
    type Target = Struct;

    fn deref(&self) -> &Struct {
        &self.0
    }
}

impl DerefMut for JsonObject {
    fn deref_mut(&mut self) -> &mut Struct {
        &mut self.0
    }
}

impl Message for JsonObject {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.0.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != 1 {
            return skip_field(wire, tag, buf, ctx);
        }
        check_wire_type(WireType::LengthDelimited, wire)?;
        let length = usize::try_from(decode_varint(buf)?).unwrap_or(usize::MAX);
        if length > buf.remaining() {
            return Err(error("an entry that ends too early"));
        }
        // The buffer is in one piece, unless it is a chain of several.
        if buf.chunk().len() >= length {
            merge_entry(&buf.chunk()[..length], 1, &mut self.0)?;
            buf.advance(length);
        } else {
            merge_entry(&buf.copy_to_bytes(length), 1, &mut self.0)?;
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

#[expect(
    deprecated,
    reason = "the only way to make one, and meant for implementations of Message"
)]
fn error(what: &'static str) -> DecodeError {
    DecodeError::new(what)
}

/// The content of a length-delimited field, and what follows it.
fn split<'a>(bytes: &mut &'a [u8], wire: WireType) -> Result<&'a [u8], DecodeError> {
    check_wire_type(WireType::LengthDelimited, wire)?;
    let length = usize::try_from(decode_varint(bytes)?).unwrap_or(usize::MAX);
    let (content, rest) = bytes
        .split_at_checked(length)
        .ok_or_else(|| error("a field that ends too early"))?;
    *bytes = rest;
    Ok(content)
}

/// Fields that are not known: groups in them count for themselves, from 100.
fn skip(bytes: &mut &[u8], wire: WireType, tag: u32) -> Result<(), DecodeError> {
    skip_field(wire, tag, bytes, DecodeContext::default())
}

/// Adds an entry to an object that is at this depth.
fn merge_entry(mut bytes: &[u8], depth: usize, object: &mut Struct) -> Result<(), DecodeError> {
    let (mut key, mut value) = (String::new(), Value::default());
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes)?;
        match tag {
            1 => string::merge(wire, &mut key, &mut bytes, DecodeContext::default())?,
            2 => merge_value(split(&mut bytes, wire)?, depth, &mut value)?,
            _ => skip(&mut bytes, wire, tag)?,
        }
    }
    object.fields.insert(key, value);
    Ok(())
}

/// Merges a value of an object or list at this depth.
fn merge_value(mut bytes: &[u8], depth: usize, value: &mut Value) -> Result<(), DecodeError> {
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes)?;
        let ctx = DecodeContext::default();
        match tag {
            1 => {
                let mut null = 0;
                int32::merge(wire, &mut null, &mut bytes, ctx)?;
                value.kind = Some(Kind::NullValue(null));
            }
            2 => {
                let mut number = 0.0;
                double::merge(wire, &mut number, &mut bytes, ctx)?;
                value.kind = Some(Kind::NumberValue(number));
            }
            3 => {
                let mut text = String::new();
                string::merge(wire, &mut text, &mut bytes, ctx)?;
                value.kind = Some(Kind::StringValue(text));
            }
            4 => {
                let mut truth = false;
                bool::merge(wire, &mut truth, &mut bytes, ctx)?;
                value.kind = Some(Kind::BoolValue(truth));
            }
            5 => merge_object(split(&mut bytes, wire)?, depth + 1, value)?,
            6 => merge_list(split(&mut bytes, wire)?, depth + 1, value)?,
            _ => skip(&mut bytes, wire, tag)?,
        }
    }
    Ok(())
}

fn check_depth(depth: usize) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(error("objects and lists nested too deep"));
    }
    Ok(())
}

/// A part of an object belongs to the part before it, if that is an object.
fn merge_object(mut bytes: &[u8], depth: usize, value: &mut Value) -> Result<(), DecodeError> {
    check_depth(depth)?;
    let mut object = match value.kind.take() {
        Some(Kind::StructValue(object)) => object,
        _ => Struct::default(),
    };
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes)?;
        match tag {
            1 => merge_entry(split(&mut bytes, wire)?, depth, &mut object)?,
            _ => skip(&mut bytes, wire, tag)?,
        }
    }
    value.kind = Some(Kind::StructValue(object));
    Ok(())
}

fn merge_list(mut bytes: &[u8], depth: usize, value: &mut Value) -> Result<(), DecodeError> {
    check_depth(depth)?;
    let mut list = match value.kind.take() {
        Some(Kind::ListValue(list)) => list,
        _ => ListValue::default(),
    };
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes)?;
        match tag {
            1 => {
                let mut element = Value::default();
                merge_value(split(&mut bytes, wire)?, depth, &mut element)?;
                list.values.push(element);
            }
            _ => skip(&mut bytes, wire, tag)?,
        }
    }
    value.kind = Some(Kind::ListValue(list));
    Ok(())
}

#[cfg(test)]
mod tests;
