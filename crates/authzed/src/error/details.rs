//! The machine-readable part of a server's error: `google.rpc.ErrorInfo`.

use std::collections::BTreeMap;

use prost::Message;

use crate::MAXIMUM_DEPTH_EXCEEDED;
use crate::generated::rpc;

const REASON_PREFIX: &str = "ERROR_REASON_";
pub(super) const ERROR_INFO_TYPE: &str = "google.rpc.ErrorInfo";

/// The names under which servers give a maximum, each for another limit.
const LIMIT_KEYS: [&str; 4] = [
    "maximum_limit_allowed",
    "maximum_updates_allowed",
    "max_allowed_size",
    "maximum_allowed_metadata_byte_size",
];

/// Reason and metadata from the trailer `grpc-status-details-bin`.
#[cfg(feature = "client")]
pub(super) fn error_info(details: &[u8]) -> (Option<String>, BTreeMap<String, String>) {
    rpc::Status::decode(details).map_or_else(|_| Default::default(), |status| info_of(&status))
}

fn info_of(status: &rpc::Status) -> (Option<String>, BTreeMap<String, String>) {
    let info = status
        .details
        .iter()
        .filter(|any| any.type_url.rsplit('/').next() == Some(ERROR_INFO_TYPE))
        .find_map(|any| rpc::ErrorInfo::decode(any.value.as_slice()).ok());
    let Some(info) = info else {
        return Default::default();
    };
    let reason = info
        .reason
        .strip_prefix(REASON_PREFIX)
        .unwrap_or(&info.reason);
    let reason = (!reason.is_empty() && reason != "UNSPECIFIED").then(|| reason.to_owned());
    (reason, info.metadata.into_iter().collect())
}

/// The reason of an error in place of one answer among others, without the prefix
/// `ERROR_REASON_`. A server that gives up at `--dispatch-max-depth` without a reason is known by its
/// text, which has one of these forms in SpiceDB v1.30 to v1.56; the code is RESOURCE_EXHAUSTED until
/// v1.45 and FAILED_PRECONDITION in v1.56.
#[must_use]
pub fn reason_of(status: &rpc::Status) -> Option<String> {
    let contains = |text: &str| status.message.contains(text);
    info_of(status).0.or_else(|| {
        (contains("max depth exceeded") || contains("exceeded the allowable maximum depth"))
            .then(|| MAXIMUM_DEPTH_EXCEEDED.to_owned())
    })
}

/// The maximum that a server names in the metadata or, for message sizes, as `(size vs. maximum)`.
pub(super) fn limit(message: &str, metadata: &BTreeMap<String, String>) -> Option<u64> {
    let named = LIMIT_KEYS.iter().find_map(|key| metadata.get(*key));
    if let Some(value) = named {
        return value.parse().ok();
    }
    let (_, maximum) = message
        .split_once("message larger than max")?
        .1
        .split_once(" vs. ")?;
    maximum.split_once(')')?.0.parse().ok()
}
