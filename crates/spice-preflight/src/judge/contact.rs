//! Whether the server is there, TLS, the token.

use authzed::Kind;

use crate::facts::{Encryption, Facts};
use crate::finding::{Finding, Place};

const CHECK: &str = "contact";

pub(super) fn judge(place: Place, facts: &Facts) -> Vec<Finding> {
    let endpoint = &facts.endpoint;
    let failure = match &facts.contact {
        Ok(()) => return vec![reached(place, facts)],
        Err(failure) => failure,
    };
    let what = match failure.kind {
        Kind::Unreachable | Kind::Unavailable | Kind::Deadline => "cannot be reached",
        Kind::Tls => "and this machine do not agree about TLS",
        Kind::Unauthenticated => "wants a token",
        Kind::Denied if failure.is_other_key => "does not know the token",
        Kind::Denied => "refuses the connection",
        Kind::Config => "cannot be connected to with these settings",
        _ => "does not answer as SpiceDB does",
    };
    let message = format!("{endpoint} {what}: {}", failure.message);
    let finding = Finding::fails(place, CHECK, message)
        .why("nothing else was looked at at this end")
        .remedy(match failure.hint.as_str() {
            "" => "is --endpoint, or endpoint in the context, the server's gRPC port?",
            hint => hint,
        });
    vec![match failure.passes {
        true => finding.passing(),
        false => finding,
    }]
}

fn reached(place: Place, facts: &Facts) -> Finding {
    let endpoint = &facts.endpoint;
    match facts.encryption {
        Encryption::Verified => Finding::ok(place, CHECK, format!("{endpoint} answers, with TLS")),
        Encryption::Plaintext { is_exposed: false } => {
            Finding::ok(place, CHECK, format!("{endpoint} answers, without TLS"))
        }
        Encryption::Unverified => Finding::warns(
            place,
            CHECK,
            format!("the certificate of {endpoint} is not verified"),
        )
        .why("anybody on the way can read the token and change what is copied")
        .remedy("name its authority with certificate-path, and drop no-verify-ca"),
        Encryption::Plaintext { is_exposed: true } => Finding::warns(
            place,
            CHECK,
            format!("the token is sent to {endpoint} without TLS"),
        )
        .why("anybody on the way can read the token and change what is copied")
        .remedy("give the server a certificate (--grpc-tls-cert-path), and drop insecure"),
    }
}
