//! TLS or not: what the flags and the scheme of the endpoint ask for, refused where they contradict.

use authzed::{Identity, Security, ServerAddress, TlsConfig};

use crate::error::CommandError;
use crate::settings::Settings;

/// Decides by `--insecure`, the flags about certificates, and the scheme of the endpoint. TLS is the
/// default. Warns where certificates are not verified.
///
/// # Errors
///
/// Exit 2 where two of them contradict each other.
pub(super) fn decide(
    settings: &Settings,
    address: &ServerAddress,
) -> Result<Security, CommandError> {
    let plaintext = plaintext(settings, address)?;
    let tls_only = [
        ("--certificate-path", settings.certificate_path.is_some()),
        ("--no-verify-ca", settings.no_verify_ca),
        (
            "--client-certificate-path",
            settings.client_certificate_path.is_some(),
        ),
        ("--client-key-path", settings.client_key_path.is_some()),
    ];
    if let Some(reason) = plaintext {
        if settings.certificate_pem.is_some() {
            return Err(CommandError::usage(format!(
                "{reason} means no TLS, and the context of zed has a certificate authority: drop one"
            )));
        }
        return match tls_only.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(CommandError::usage(format!(
                "{reason} means no TLS, {flag} means TLS: drop one"
            ))),
            None => Ok(Security::Plaintext),
        };
    }
    if settings.no_verify_ca {
        let authorities = match (&settings.certificate_path, &settings.certificate_pem) {
            (Some(_), _) => Some("--certificate-path"),
            (None, Some(_)) => Some("the context of zed"),
            (None, None) => None,
        };
        if let Some(authorities) = authorities {
            return Err(CommandError::usage(format!(
                "--no-verify-ca takes any certificate, {authorities} only those of its authorities: drop one"
            )));
        }
    }
    if settings.no_verify_ca {
        tracing::warn!(
            "--no-verify-ca: the server's certificate is not verified, so anybody on the way can read \
             the token and change what is sent"
        );
    }
    let identity = match (&settings.client_certificate_path, &settings.client_key_path) {
        (Some(certificate), Some(key)) => Some(Identity {
            certificate_path: certificate.clone(),
            key_path: key.clone(),
        }),
        (None, None) => None,
        _ => {
            return Err(CommandError::usage(
                "--client-certificate-path and --client-key-path go together",
            ));
        }
    };
    Ok(Security::Tls(TlsConfig {
        ca_path: settings.certificate_path.clone(),
        ca_pem: settings.certificate_pem.clone(),
        verify: !settings.no_verify_ca,
        identity,
    }))
}

/// What asks for a connection without TLS.
fn plaintext(
    settings: &Settings,
    address: &ServerAddress,
) -> Result<Option<&'static str>, CommandError> {
    match (settings.insecure, address.tls) {
        (true, Some(true)) => Err(CommandError::usage(
            "--insecure means no TLS, https:// in --endpoint means TLS: drop one",
        )),
        (true, _) => Ok(Some("--insecure")),
        (false, Some(false)) if address.socket.is_unix() => Ok(Some("a Unix socket")),
        (false, Some(false)) => Ok(Some("http:// in --endpoint")),
        (false, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Exit;

    fn decided(endpoint: &str, settings: &Settings) -> Result<Security, CommandError> {
        decide(settings, &ServerAddress::parse(endpoint).unwrap())
    }

    fn insecure() -> Settings {
        Settings {
            insecure: true,
            ..Settings::default()
        }
    }

    /// The flags that mean TLS, each alone.
    fn tls_only() -> [(&'static str, Settings); 4] {
        let settings = Settings::default;
        [
            (
                "--certificate-path",
                Settings {
                    certificate_path: Some("c".into()),
                    ..settings()
                },
            ),
            (
                "--no-verify-ca",
                Settings {
                    no_verify_ca: true,
                    ..settings()
                },
            ),
            (
                "--client-certificate-path",
                Settings {
                    client_certificate_path: Some("p".into()),
                    ..settings()
                },
            ),
            (
                "--client-key-path",
                Settings {
                    client_key_path: Some("k".into()),
                    ..settings()
                },
            ),
        ]
    }

    #[track_caller]
    fn assert_refused(decided: Result<Security, CommandError>, parts: &[&str]) {
        let failure = decided.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        for part in parts {
            assert!(failure.message().contains(part), "{failure:?}");
        }
    }

    #[test]
    fn tls_is_the_default_and_a_scheme_or_flag_excludes_it() {
        for endpoint in ["a:1", "dns:///a:1", "https://a"] {
            let found = decided(endpoint, &Settings::default()).unwrap();
            assert!(
                matches!(found, Security::Tls(tls) if tls.verify),
                "{endpoint}"
            );
        }
        for endpoint in ["http://a", "unix:/a"] {
            for settings in [Settings::default(), insecure()] {
                let found = decided(endpoint, &settings).unwrap();
                assert!(matches!(found, Security::Plaintext), "{endpoint}");
            }
        }
        let found = decided("a:1", &insecure()).unwrap();
        assert!(matches!(found, Security::Plaintext));
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        assert_refused(
            decided("https://a", &insecure()),
            &["--insecure", "https://"],
        );
        for (flag, settings) in tls_only() {
            for (endpoint, reason) in [
                ("http://a", "http:// in --endpoint"),
                ("unix:/a", "a Unix socket"),
            ] {
                assert_refused(decided(endpoint, &settings), &[reason, flag]);
            }
            let both = Settings {
                insecure: true,
                ..settings
            };
            assert_refused(decided("a:1", &both), &["--insecure", flag]);
        }
        let both = Settings {
            no_verify_ca: true,
            certificate_path: Some("c".into()),
            ..Settings::default()
        };
        assert_refused(
            decided("a:1", &both),
            &["--no-verify-ca", "--certificate-path"],
        );
        for (_, settings) in tls_only().into_iter().skip(2) {
            assert_refused(decided("a:1", &settings), &["go together"]);
        }
    }
}
