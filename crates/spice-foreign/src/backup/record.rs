//! The two records of a backup.

use authzed::v1::{ContextualizedCaveat, ObjectReference, Relationship, SubjectReference};
use authzed::{JsonObject, Timestamp};
use prost::Message as _;
use spice_record::record::MAX_SCHEMA_BYTES;
use spice_record::relationship::{ELLIPSIS, MAX_NAME_BYTES, instant};

use super::layout::{WRITTEN_RELATIONSHIP, WRITTEN_SCHEMA};
use crate::avro::{Fields, put_bytes, put_long};

/// The largest context. SpiceDB takes 25,000 bytes by default (`--max-relationship-context-size`).
const MAX_CONTEXT_BYTES: usize = 1 << 20;
/// 0001-01-01T00:00:00Z, Go's time of a field that was not set: no expiry.
const NO_EXPIRY: i64 = -62_135_596_800_000;
const MILLIS: i64 = 1_000;
const NANOS_OF_A_MILLI: i32 = 1_000_000;

pub(super) fn decode_schema(fields: &mut Fields<'_>) -> Result<String, String> {
    let text = fields.text("the schema", MAX_SCHEMA_BYTES)?;
    Ok(text.to_owned())
}

pub(super) fn decode_relationship(
    fields: &mut Fields<'_>,
    has_expiration: bool,
) -> Result<Relationship, String> {
    let mut name = |what| fields.text(what, MAX_NAME_BYTES).map(str::to_owned);
    let mut given = |what| match name(what) {
        Ok(name) if name.is_empty() => Err(format!("no {what}")),
        name => name,
    };
    let resource = ObjectReference {
        object_type: given("object_type")?,
        object_id: given("object_id")?,
    };
    let relation = given("relation")?;
    let subject = ObjectReference {
        object_type: given("subject_object_type")?,
        object_id: given("subject_object_id")?,
    };
    let mut optional_relation = name("subject_relation")?;
    if optional_relation == ELLIPSIS {
        optional_relation.clear();
    }
    let caveat_name = name("caveat_name")?;
    let context = fields.bytes("caveat_context", MAX_CONTEXT_BYTES)?;
    let optional_caveat = match (caveat_name.is_empty(), context.is_empty()) {
        (true, true) => None,
        (true, false) => return Err("a caveat_context without a caveat_name".to_owned()),
        (false, _) => {
            let context = JsonObject::decode(context)
                .map_err(|error| format!("the caveat_context is no Struct: {error}"))?;
            Some(ContextualizedCaveat {
                caveat_name,
                context: (!context.fields.is_empty()).then_some(context),
            })
        }
    };
    let optional_expires_at = match has_expiration {
        true => expiry(fields.long()?)?,
        false => None,
    };
    Ok(Relationship {
        resource: Some(resource),
        relation,
        subject: Some(SubjectReference {
            object: Some(subject),
            optional_relation,
        }),
        optional_caveat,
        optional_expires_at,
    })
}

fn expiry(millis: i64) -> Result<Option<Timestamp>, String> {
    if millis == NO_EXPIRY {
        return Ok(None);
    }
    let part = i32::try_from(millis.rem_euclid(MILLIS)).unwrap_or_default();
    let expiry = Timestamp {
        seconds: millis.div_euclid(MILLIS),
        nanos: part * NANOS_OF_A_MILLI,
    };
    match instant(&expiry) {
        Some(_) => Ok(Some(expiry)),
        None => Err(format!(
            "an expiration outside the years 1 to 9999: {millis}"
        )),
    }
}

pub(crate) fn encode_schema(text: &str, out: &mut Vec<u8>) {
    put_long(out, WRITTEN_SCHEMA);
    put_bytes(out, text.as_bytes());
}

/// The relationship as the format holds it: with milliseconds of its expiry.
///
/// # Errors
///
/// What the format cannot hold, for the message.
pub(crate) fn encode_relationship(
    relationship: &Relationship,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let (Some(resource), Some(subject)) = (&relationship.resource, &relationship.subject) else {
        return Err("no resource or no subject".to_owned());
    };
    let object = subject.object.as_ref().ok_or("no subject")?;
    let caveat = relationship.optional_caveat.as_ref();
    put_long(out, WRITTEN_RELATIONSHIP);
    for (what, name) in [
        ("resource type", &resource.object_type),
        ("resource id", &resource.object_id),
        ("relation", &relationship.relation),
        ("subject type", &object.object_type),
        ("subject id", &object.object_id),
    ] {
        if name.is_empty() {
            return Err(format!("no {what}"));
        }
        put_bytes(out, name.as_bytes());
    }
    put_bytes(out, subject.optional_relation.as_bytes());
    put_bytes(
        out,
        caveat.map_or(b"", |caveat| caveat.caveat_name.as_bytes()),
    );
    let context = caveat.and_then(|caveat| caveat.context.as_ref());
    let context = context.map(JsonObject::encode_to_vec).unwrap_or_default();
    if context.len() > MAX_CONTEXT_BYTES {
        return Err("a caveat context of more than 1 MiB".to_owned());
    }
    put_bytes(out, &context);
    let millis = match &relationship.optional_expires_at {
        None => NO_EXPIRY,
        Some(expiry) => millis(expiry)?,
    };
    put_long(out, millis);
    Ok(())
}

fn millis(expiry: &Timestamp) -> Result<i64, String> {
    if instant(expiry).is_none() {
        return Err("an expiry outside the years 1 to 9999".to_owned());
    }
    let millis = expiry.seconds * MILLIS + i64::from(expiry.nanos / NANOS_OF_A_MILLI);
    match millis == NO_EXPIRY {
        true => {
            Err("it expires at the beginning of the year 1, which zed takes for never".to_owned())
        }
        false => Ok(millis),
    }
}

/// The same with an expiry that the format holds; `None` where it holds it already.
pub(super) fn cut_expiry(relationship: &Relationship) -> Option<Relationship> {
    let expiry = relationship.optional_expires_at.as_ref()?;
    let rest = expiry.nanos % NANOS_OF_A_MILLI;
    (rest != 0).then(|| Relationship {
        optional_expires_at: Some(Timestamp {
            nanos: expiry.nanos - rest,
            ..*expiry
        }),
        ..relationship.clone()
    })
}
