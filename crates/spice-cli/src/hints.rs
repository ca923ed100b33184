//! The hints about flags and servers: what an operator can do about an error of the API.
//! Each follows from a typed cause, never from a server's text.

use std::borrow::Cow;

use authzed::{Cause, Error, Kind};

/// The hint for an error, where there is one.
#[must_use]
pub fn for_error(error: &Error) -> Option<Cow<'static, str>> {
    if let Some(cause) = error.cause() {
        return Some(of_cause(cause).into());
    }
    match error.kind() {
        // The token was good for the first call, so only this call is refused.
        Kind::Denied if !error.is_other_key() => Some(missing_right(error.rpc()).into()),
        kind => of_kind(kind).map(Cow::Borrowed),
    }
}

fn of_cause(cause: Cause) -> &'static str {
    match cause {
        Cause::ServerWithoutTls => "to connect without TLS: --insecure",
        Cause::ServerWithTls => "drop --insecure",
        Cause::UnknownAuthority => {
            "name its authority with --certificate-path, or trust everyone with --no-verify-ca"
        }
        Cause::OtherHostName => {
            "the certificate is for another name: give that with --hostname-override"
        }
        Cause::CertificateExpired => "the server's certificate has expired: renew it there",
        Cause::CertificateNotYetValid => {
            "the server's certificate is not valid yet: check the clocks"
        }
        Cause::AuthorityAsServer => {
            "the server shows an authority's certificate: trust that with --certificate-path"
        }
        Cause::ClientCertificateRequired => {
            "the server wants a client certificate: --client-certificate-path and --client-key-path"
        }
        Cause::RefusedByProxy => {
            "something between here and SpiceDB refuses the call, whatever the preshared key is: ask \
             whoever runs that proxy, gateway or firewall"
        }
        Cause::ProxyWithoutServer => {
            "a proxy answers in SpiceDB's place: is SpiceDB behind it running? Run the same command \
             again when it does"
        }
        Cause::NewerServer => {
            "the server is newer than this program, which would drop the fields that it does not know: \
             use a newer version, or --ignore-unknown-fields of spice-export and spice-watch to lose them"
        }
        Cause::NestedTooDeep => {
            "no stream can hold it (docs/format.md, Limits): write that relationship or transaction \
             again with less nesting, then take a new snapshot"
        }
        // Cause::NotGrpc, and those of a newer client crate.
        _ => "is this the server's gRPC port?",
    }
}

/// What a token lacks with which a server does not take one call.
fn missing_right(rpc: &str) -> String {
    let right = match rpc {
        "ReadSchema"
        | "ReflectSchema"
        | "DiffSchema"
        | "ExperimentalReflectSchema"
        | "ExperimentalDiffSchema" => "to read the schema",
        "WriteSchema" => "to write the schema",
        "ExportBulkRelationships" | "BulkExportRelationships" | "ReadRelationships" => {
            "to read relationships"
        }
        "ImportBulkRelationships" | "BulkImportRelationships" | "WriteRelationships" => {
            "to write relationships"
        }
        "Watch" => "to watch changes",
        "CheckBulkPermissions" => "to check permissions",
        _ => "to make this call",
    };
    format!(
        "the server knows this token, but does not allow it {right}: give it the right to call {rpc}, or \
         use a token that has it"
    )
}

fn of_kind(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Config => {
            "nothing was sent: see --endpoint HOST:PORT, --hostname-override HOST and the files of \
             --certificate-path and --client-certificate-path, or their keys in the context"
        }
        Kind::Unreachable => "is the server running, and is --endpoint its gRPC address?",
        Kind::Unauthenticated => "give the server's preshared key with --token-file",
        Kind::Denied => "the server knows another preshared key: check --token-file",
        Kind::ReadOnly => "the server takes no writes: it, or its database, was made read-only",
        Kind::HistoryLost => {
            "the revision has left the server's history (--datastore-gc-window), or never was in \
             it: take a new snapshot"
        }
        Kind::ForeignDatastore => {
            "this zedtoken belongs to another datastore: a revision is good only where it was made"
        }
        Kind::NoSchema => "the server has no schema, so it holds nothing",
        Kind::Unavailable | Kind::Conflict | Kind::Overloaded | Kind::TooSlow | Kind::Deadline => {
            "run the same command again when the server answers"
        }
        Kind::StreamTimeout => {
            "raise --streaming-api-response-delay-timeout on the target's SpiceDB"
        }
        Kind::ChangeBufferExceeded => {
            "raise --datastore-watch-change-buffer-maximum-size on the source's SpiceDB"
        }
        Kind::AnswerTooLarge => {
            "with spice-watch raise --max-memory; docs/design.md, Limits, has the other bounds"
        }
        Kind::MessageTooLarge => "a server takes no request above 4 MiB",
        _ => return None,
    })
}
