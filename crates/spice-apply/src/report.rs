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

#[cfg(test)]
mod tests {
    use spice_record::relationship::StructJson;

    use super::{METADATA_BYTES, lag, metadata};

    fn own(json: &str) -> Option<StructJson> {
        Some(serde_json::from_str(json).expect("an object"))
    }

    fn text(own: Option<StructJson>) -> (String, bool) {
        let (metadata, dropped) = metadata(Some("abcd1234"), Some("R"), own).expect("metadata");
        let text = serde_json::to_string(&StructJson(metadata)).expect("JSON");
        (text, dropped)
    }

    const OURS: &str = r#""spicePipes":{"revision":"R","source":"abcd1234"}"#;

    #[test]
    fn metadata_of_the_source_is_passed_on_beside_ours() {
        assert_eq!(text(None), (format!("{{{OURS}}}"), false));
        let (both, dropped) = text(own(r#"{"by":"me"}"#));
        assert!(
            both.contains(OURS) && both.contains(r#""by":"me""#) && !dropped,
            "{both}"
        );
        // A chain of applies: ours is that of the last one.
        let (both, _) = text(own(r#"{"spicePipes":{"revision":"older"}}"#));
        assert_eq!(both, format!("{{{OURS}}}"));
    }

    #[test]
    fn metadata_that_leaves_no_room_for_ours_is_dropped() {
        let room = METADATA_BYTES - OURS.len() - r#"{,"by":""}"#.len();
        for (length, dropped) in [(room, false), (room + 1, true)] {
            let json = format!(r#"{{"by":"{}"}}"#, "x".repeat(length));
            let (text, was_dropped) = text(own(&json));
            assert_eq!(was_dropped, dropped, "{length}");
            assert!(text.contains(OURS) && text.contains("xxx") != dropped);
        }
    }

    #[test]
    fn lag_is_known_only_where_the_revision_names_its_time() {
        let nanos = jiff::Timestamp::now().as_nanosecond() - 5_000_000_000;
        let decimal = spice_client::scripted::token_of("sourcedb", &format!("{nanos}.0000000000"));
        let seconds = lag(&decimal).expect("a time");
        assert!((5.0..6.0).contains(&seconds), "{seconds}");
        // MySQL: the number of a transaction.
        assert_eq!(lag(&spice_client::scripted::token(1_000)), None);
        assert_eq!(lag("no zedtoken"), None);
    }
}
