//! What is told of a call: to the target, as its metadata, and on stdout.

use std::time::SystemTime;

use authzed::zedtoken;
use serde_json::json;
use spice_cli::{CommandError, stdio};
use spice_record::Record;
use spice_record::record::{APPLIED_KEY, Applied};
use spice_record::relationship::StructJson;

/// A server's limit for a transaction's metadata, in bytes of JSON.
const METADATA_BYTES: usize = 65_000;

/// The metadata of a call: that it was applied, from where, and what the source's writer said; and
/// whether there was no room for the latter.
pub(crate) fn metadata(
    source: Option<&str>,
    revision: Option<&str>,
    own: Option<StructJson>,
) -> Option<(authzed::JsonObject, bool)> {
    let mark = json!({ APPLIED_KEY: { "source": source, "revision": revision } });
    let StructJson(mut mark) = serde_json::from_value(mark).ok()?;
    let Some(StructJson(own)) = own else {
        return Some((mark, false));
    };
    let ours = mark.clone();
    for (key, value) in own.0.fields {
        mark.fields.entry(key).or_insert(value);
    }
    let size = serde_json::to_vec(&StructJson(mark.clone())).map_or(0, |bytes| bytes.len());
    if size > METADATA_BYTES {
        return Some((ours, true));
    }
    Some((mark, false))
}

/// Prints a record.
///
/// # Errors
///
/// What stdout says.
pub(crate) fn print(applied: Applied) -> Result<(), CommandError> {
    stdio::print_line(&serde_json::to_string(&Record::Applied(Box::new(applied)))?)
}

/// Seconds since the commit of a revision, where it tells.
pub(crate) fn lag(token: &str) -> Option<f64> {
    let nanos = zedtoken::decode(token).ok()?.revision.time_nanos()?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    let lag = now.as_secs_f64() - nanos as f64 / 1e9;
    Some((lag.max(0.0) * 1e3).round() / 1e3)
}
