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
    let hint = match failure.hint.as_str() {
        "" => "is --endpoint the server's gRPC port?",
        hint => hint,
    };
    let finding = Finding::fails(place, CHECK, message)
        .why("nothing else of this end could be checked")
        .remedy(in_context(hint, &facts.context));
    vec![match failure.passes {
        true => finding.passing(),
        false => finding,
    }]
}

/// A hint that names flags of other programs: this one takes contexts, whose keys have the same names.
fn in_context(hint: &str, context: &str) -> String {
    const KEYS: [&str; 10] = [
        "--endpoint HOST:PORT",
        "--endpoint",
        "--token-file",
        "--insecure",
        "--certificate-path",
        "--no-verify-ca",
        "--hostname-override",
        "--client-certificate-path",
        "--client-key-path",
        "--proxy",
    ];
    let named = KEYS.iter().filter(|key| hint.contains(**key));
    let assigned = hint.replace("--proxy none", "proxy = \"none\"");
    let text = named.fold(assigned, |text, key| {
        let name = key.trim_start_matches('-');
        let name = name.split(' ').next().unwrap_or(name);
        text.replace(key, name)
    });
    match text == hint {
        true => text,
        false => format!("{text} (keys of [{context}] in the contexts file)"),
    }
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

#[cfg(test)]
mod tests {
    use super::in_context;

    #[test]
    fn hint_names_keys_of_the_context_instead_of_flags() {
        let tls =
            "name its authority with --certificate-path, or trust everyone with --no-verify-ca";
        assert_eq!(
            in_context(tls, "new"),
            "name its authority with certificate-path, or trust everyone with no-verify-ca (keys of [new] in \
             the contexts file)"
        );
        let proxy = "see --proxy and HTTPS_PROXY; --proxy none connects without";
        assert_eq!(
            in_context(proxy, "new"),
            "see proxy and HTTPS_PROXY; proxy = \"none\" connects without (keys of [new] in the contexts file)"
        );
        let time = "raise --request-timeout and --timeout";
        assert_eq!(in_context(time, "new"), time);
    }
}
