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
        Cause::ServerWithoutTls => "to connect without TLS: --insecure, or http:// for https://",
        Cause::ServerWithTls => {
            "drop --insecure, or write https:// for http://; a Unix socket cannot be used with TLS"
        }
        Cause::NoAuthority => {
            "install ca-certificates, or mount /etc/ssl/certs into the container; $SSL_CERT_FILE and \
             --certificate-path name another file"
        }
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
        Cause::ProxyCredentials => {
            "the proxy wants a user name and password: http://USER:PASSWORD@HOST:PORT as proxy in the context, \
             or in HTTPS_PROXY; proxy = \"none\" connects without it"
        }
        Cause::NoTunnel => {
            "this takes a running HTTP proxy that allows CONNECT to the server's port: see --proxy, HTTPS_PROXY \
             and ALL_PROXY; --proxy none, or NO_PROXY with the server's name, connects without"
        }
        Cause::BehindProxy => {
            "the proxy has connected, but nothing answers behind it: is --endpoint the server's gRPC address \
             as the proxy sees it, and is the server running? --proxy none, or NO_PROXY with the server's name, \
             connects without the proxy"
        }
        Cause::SocketDenied => {
            "who runs this must be able to write the socket and to enter its folders: namei -l PATH shows their \
             modes and owners"
        }
        Cause::NotSocket => {
            "--endpoint unix:/PATH takes the socket on which SpiceDB listens (--grpc-network unix, \
             --grpc-addr /PATH)"
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
             --certificate-path and --client-certificate-path, or their keys in the context or in that of zed"
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use authzed::Code;
    use testserver::{READ_SCHEMA, Reply, Server, WRITE};

    use super::*;
    use crate::{CommandError, Exit};

    const CAUSES: [Cause; 19] = [
        Cause::ServerWithoutTls,
        Cause::ServerWithTls,
        Cause::NotGrpc,
        Cause::NoAuthority,
        Cause::UnknownAuthority,
        Cause::OtherHostName,
        Cause::CertificateExpired,
        Cause::CertificateNotYetValid,
        Cause::AuthorityAsServer,
        Cause::ClientCertificateRequired,
        Cause::RefusedByProxy,
        Cause::ProxyWithoutServer,
        Cause::ProxyCredentials,
        Cause::NoTunnel,
        Cause::BehindProxy,
        Cause::SocketDenied,
        Cause::NotSocket,
        Cause::NewerServer,
        Cause::NestedTooDeep,
    ];

    #[test]
    fn each_cause_has_a_hint_of_its_own() {
        let hints: HashSet<&str> = CAUSES.into_iter().map(of_cause).collect();
        assert_eq!(hints.len(), CAUSES.len());
    }

    #[test]
    fn only_kinds_whose_message_says_it_all_have_no_hint() {
        let without = [
            Kind::Tls,
            Kind::AlreadyExists,
            Kind::Refused,
            Kind::LimitExceeded,
            Kind::Unimplemented,
            Kind::Internal,
            Kind::Malformed,
            Kind::UnknownField,
            Kind::Other,
        ];
        assert!(without.into_iter().all(|kind| of_kind(kind).is_none()));
        for kind in [
            Kind::Config,
            Kind::Unreachable,
            Kind::Unauthenticated,
            Kind::Denied,
            Kind::ReadOnly,
            Kind::HistoryLost,
            Kind::ForeignDatastore,
            Kind::NoSchema,
            Kind::Unavailable,
            Kind::Conflict,
            Kind::Overloaded,
            Kind::TooSlow,
            Kind::Deadline,
            Kind::StreamTimeout,
            Kind::ChangeBufferExceeded,
            Kind::AnswerTooLarge,
            Kind::MessageTooLarge,
        ] {
            assert!(of_kind(kind).is_some(), "{kind:?}");
        }
    }

    /// The error of ReadSchema that a server answers with.
    async fn failure(reply: Reply) -> CommandError {
        let server = Server::new();
        server.script(READ_SCHEMA, [reply]);
        server.client().read_schema().await.unwrap_err().into()
    }

    #[tokio::test(start_paused = true)]
    async fn refused_call_names_the_missing_right() {
        let denied = failure(Reply::error(Code::PermissionDenied, "not allowed")).await;
        assert_eq!(denied.exit, Exit::Denied);
        assert!(
            denied.hint_text().contains("to read the schema"),
            "{denied:?}"
        );
        let text = "invalid preshared key: invalid token";
        let other = failure(Reply::error(Code::PermissionDenied, text)).await;
        assert!(
            other.hint_text().contains("another preshared key"),
            "{other:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn read_only_server_is_denied_though_its_code_looks_transient() {
        let server = Server::new();
        let reply = Reply::refusal(Code::Unavailable, "SERVICE_READ_ONLY", "read-only", &[]);
        server.script(WRITE, [reply]);
        let failure = CommandError::from(server.client().write_marker().await.unwrap_err());
        assert_eq!(failure.exit, Exit::Denied);
        assert!(
            failure.hint_text().contains("takes no writes"),
            "{failure:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn proxies_are_named() {
        let refused = failure(Reply::http(403)).await;
        assert_eq!(refused.hint_text(), of_cause(Cause::RefusedByProxy));
        let away = failure(Reply::http(503)).await;
        assert_eq!(away.exit, Exit::TryAgain);
        assert_eq!(away.hint_text(), of_cause(Cause::ProxyWithoutServer));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_connection_keeps_its_cause() {
        let server = Server::new();
        server.refuse_connections(true);
        let error = server.client().read_schema().await.unwrap_err();
        let failure = CommandError::from(error);
        assert_eq!(failure.exit, Exit::TryAgain);
        assert_eq!(failure.hint_text(), of_kind(Kind::Unreachable).unwrap());
        assert!(
            !format!("{failure:?}").contains("source: None"),
            "{failure:?}"
        );
    }

    #[test]
    fn each_call_has_its_right() {
        let rights: HashSet<String> = [
            "ReadSchema",
            "WriteSchema",
            "ExportBulkRelationships",
            "WriteRelationships",
            "Watch",
            "CheckBulkPermissions",
        ]
        .into_iter()
        .map(|rpc| missing_right(rpc).replace(rpc, ""))
        .collect();
        assert_eq!(rights.len(), 6);
        assert!(missing_right("Other").contains("to make this call"));
    }
}
