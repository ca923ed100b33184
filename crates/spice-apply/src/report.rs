//! Transaction metadata, and the `applied` records.

use std::time::SystemTime;

use authzed::zedtoken;
use serde_json::json;
use spice_cli::{CommandError, stdio};
use spice_record::Record;
use spice_record::record::{APPLIED_KEY, Applied};
use spice_record::relationship::StructJson;

/// A server's limit for a transaction's metadata, in bytes of JSON.
const METADATA_BYTES: usize = 65_000;

/// The metadata of a call: that it was applied, from where, and the metadata of the source's writer; and
/// whether there was no room for the latter.
pub(crate) fn metadata(
    source: Option<&str>,
    revision: Option<&str>,
    own: Option<StructJson>,
) -> Option<(authzed::JsonObject, bool)> {
    let ours = json!({ APPLIED_KEY: { "source": source, "revision": revision } });
    let StructJson(ours) = serde_json::from_value(ours).ok()?;
    let Some(StructJson(own)) = own else {
        return Some((ours, false));
    };
    let mut both = ours.clone();
    for (key, value) in own.0.fields {
        both.fields.entry(key).or_insert(value);
    }
    let size = serde_json::to_vec(&StructJson(both.clone())).map_or(0, |bytes| bytes.len());
    if size > METADATA_BYTES {
        return Some((ours, true));
    }
    Some((both, false))
}

/// Prints a record.
///
/// # Errors
///
/// As [`stdio::print_line`].
pub(crate) fn print(applied: Applied) -> Result<(), CommandError> {
    stdio::print_line(&serde_json::to_string(&Record::Applied(Box::new(applied)))?)
}

/// Seconds since the commit of a revision, where it names its time.
pub(crate) fn lag(token: &str) -> Option<f64> {
    let nanos = zedtoken::decode(token).ok()?.revision.time_nanos()?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    let lag = now.as_secs_f64() - nanos as f64 / 1e9;
    Some((lag.max(0.0) * 1e3).round() / 1e3)
}
