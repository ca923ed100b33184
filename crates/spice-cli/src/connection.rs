//! `--context`, `--endpoint`, ...: the settings of one connection, checked together.

use std::net::IpAddr;
use std::time::Duration;

use authzed::{Config, DatastoreKind, Identity, Security, TlsConfig};

use crate::error::CommandError;
use crate::exit::Exit;
use crate::settings::{self, Settings};
use crate::{VERSION, log};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_RETRIES: usize = 10;

/// Which server, and how to reach it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection (also as SPICE_ENDPOINT, SPICE_TOKEN_FILE, ...)")]
pub struct ConnectionArgs {
    /// Take the connection from this table of the contexts file ($SPICE_CONTEXTS, else
    /// ~/.config/spice-pipes/contexts.toml).
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The flags.
    #[command(flatten)]
    pub settings: Settings,
}

/// A resolved connection: what to connect to, and how hard to try.
#[derive(Clone, Debug)]
pub struct Connection {
    config: Config,
    /// Bound of the retries in a row of one piece of work.
    pub max_retries: usize,
    /// The kind of datastore that the server is declared to have.
    pub datastore: Option<DatastoreKind>,
}

impl ConnectionArgs {
    /// Whether a flag, a context or the environment names a server.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.context.is_some()
            || self.settings.endpoint.is_some()
            || settings::environment_in_use().contains(&"SPICE_ENDPOINT")
    }

    /// Resolves flags, then the named context, else the environment. A named context replaces the environment:
    /// a token left in the environment must not be sent to the server of a context.
    ///
    /// # Errors
    ///
    /// Exit 2 where something is missing or contradicts itself.
    pub async fn resolve(&self) -> Result<Connection, CommandError> {
        let args = self.clone();
        // Files may be pipes that nobody opens, and commands take their time.
        unblocked(move || args.resolve_blocking()).await
    }

    fn resolve_blocking(&self) -> Result<Connection, CommandError> {
        let fallback = match &self.context {
            Some(name) => {
                let ignored = settings::environment_in_use().join(", ");
                if !ignored.is_empty() {
                    tracing::info!("--context {name} replaces the environment: ignoring {ignored}");
                }
                settings::read(name)?
            }
            None => settings::from_environment()?,
        };
        self.resolve_with(fallback)
    }

    /// Resolves the flags, and what they leave open from `fallback`.
    fn resolve_with(&self, fallback: Settings) -> Result<Connection, CommandError> {
        let settings = self.settings.clone().or(fallback);
        let Some(endpoint) = settings.endpoint.clone() else {
            return Err(CommandError::usage(
                "no server given: --context NAME, or --endpoint HOST:PORT with --token-file FILE",
            ));
        };
        if self.settings.token.is_some() {
            tracing::warn!("--token can be read by everybody on this machine: use --token-file");
        }
        let tls_only = [
            ("--certificate-path", settings.certificate_path.is_some()),
            ("--no-verify-ca", settings.no_verify_ca),
            (
                "--client-certificate-path",
                settings.client_certificate_path.is_some(),
            ),
            ("--client-key-path", settings.client_key_path.is_some()),
        ];
        if settings.insecure
            && let Some((flag, _)) = tls_only.into_iter().find(|(_, given)| *given)
        {
            return Err(CommandError::usage(format!(
                "--insecure means no TLS, {flag} means TLS: drop one"
            )));
        }
        if settings.no_verify_ca && settings.certificate_path.is_some() {
            return Err(CommandError::usage(
                "--no-verify-ca takes any certificate, --certificate-path only those of its authorities: \
                 drop one",
            ));
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
        let security = if settings.insecure {
            Security::Plaintext
        } else {
            Security::Tls(TlsConfig {
                ca_path: settings.certificate_path.clone(),
                verify: !settings.no_verify_ca,
                identity,
            })
        };
        let token = settings::token(&settings)?;
        if settings.insecure && token.is_some() && !is_loopback(&endpoint) {
            tracing::warn!(
                "the token is sent to {endpoint} without TLS: anybody on the way can read it"
            );
        }
        Ok(Connection {
            config: Config {
                endpoint,
                token,
                security,
                hostname_override: settings.hostname_override,
                request_timeout: settings.request_timeout.unwrap_or(REQUEST_TIMEOUT),
                user_agent: format!("spice-pipes/{VERSION}"),
            },
            max_retries: settings.max_retries.unwrap_or(MAX_RETRIES),
            datastore: settings.datastore,
        })
    }
}

impl Connection {
    /// Host and port.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.config.endpoint
    }

    /// What to connect to.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// Runs what may block on a thread of its own, so that a signal ends the program meanwhile.
///
/// # Errors
///
/// What the work returns; exit 1 where it panicked.
pub async fn unblocked<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, CommandError>
where
    T: Send + 'static,
    E: Send + 'static,
    CommandError: From<E>,
{
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| CommandError::new(Exit::Failed, error.to_string()))??)
}

/// Whether an endpoint is on this machine. A name that would have to be looked up is not known to be.
fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// What every program has: messages and one server.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// The server.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// stderr.
    #[command(flatten)]
    pub log: log::LogArgs,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        connection: ConnectionArgs,
    }

    fn resolve(flags: &[&str], fallback: Settings) -> Result<Connection, CommandError> {
        let flags = Flags::parse_from(["test"].iter().chain(flags));
        flags.connection.resolve_with(fallback)
    }

    fn plain(flags: &[&str]) -> Result<Connection, CommandError> {
        resolve(flags, Settings::default())
    }

    #[test]
    fn connection_has_defaults() {
        let found = plain(&["--endpoint", "a:1"]).unwrap();
        assert_eq!(found.endpoint(), "a:1");
        assert_eq!(found.max_retries, 10);
        assert_eq!(found.config().request_timeout, Duration::from_secs(60));
        assert!(matches!(&found.config().security, Security::Tls(tls) if tls.verify));
        assert!(found.config().token.is_none() && found.datastore.is_none());
    }

    #[test]
    fn flags_win_over_the_fallback() {
        let fallback = Settings {
            endpoint: Some("b:1".to_owned()),
            max_retries: Some(3),
            insecure: true,
            ..Settings::default()
        };
        let found = resolve(&["--endpoint", "a:1"], fallback).unwrap();
        assert_eq!((found.endpoint(), found.max_retries), ("a:1", 3));
        assert!(matches!(found.config().security, Security::Plaintext));
    }

    #[test]
    fn without_an_endpoint_both_ways_to_name_one_are_given() {
        let failure = plain(&[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message().contains("--context"), "{failure:?}");
        assert!(failure.message().contains("--endpoint"), "{failure:?}");
    }

    #[test]
    fn contradicting_flags_are_refused_by_name() {
        for (flags, part) in [
            (&["--insecure", "--no-verify-ca"][..], "--no-verify-ca"),
            (
                &["--insecure", "--certificate-path", "c"],
                "--certificate-path",
            ),
            (
                &["--insecure", "--client-key-path", "k"],
                "--client-key-path",
            ),
            (
                &["--no-verify-ca", "--certificate-path", "c"],
                "--certificate-path",
            ),
            (&["--client-key-path", "k"], "go together"),
            (&["--client-certificate-path", "c"], "go together"),
        ] {
            let flags: Vec<&str> = [&["--endpoint", "a:1"], flags].concat();
            let failure = plain(&flags).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message().contains(part), "{failure:?}");
        }
    }

    #[test]
    fn contradiction_between_flag_and_context_is_refused() {
        let fallback = Settings {
            endpoint: Some("b:1".to_owned()),
            certificate_path: Some("c".into()),
            ..Settings::default()
        };
        assert!(resolve(&["--insecure"], fallback).is_err());
    }

    #[test]
    fn tls_settings_reach_the_configuration() {
        let flags = [
            "--endpoint",
            "a:1",
            "--certificate-path",
            "c",
            "--hostname-override",
            "h",
        ];
        let identity = ["--client-certificate-path", "p", "--client-key-path", "k"];
        let found = plain(&[&flags[..], &identity].concat()).unwrap();
        let Security::Tls(tls) = &found.config().security else {
            panic!("no TLS");
        };
        assert_eq!(tls.ca_path, Some("c".into()));
        assert_eq!(tls.identity.as_ref().unwrap().key_path.to_str(), Some("k"));
        assert_eq!(found.config().hostname_override.as_deref(), Some("h"));
    }

    #[test]
    fn several_sources_of_a_token_on_the_command_line_are_refused() {
        let flags = ["test", "--token", "a", "--token-file", "b"];
        assert!(Flags::try_parse_from(flags).is_err());
    }

    #[tokio::test]
    async fn work_that_panics_is_a_failure() {
        let work = || -> Result<(), CommandError> { panic!("on purpose") };
        assert_eq!(unblocked(work).await.unwrap_err().exit, Exit::Failed);
        let work = || Err(CommandError::usage("no"));
        assert_eq!(
            unblocked::<(), _>(work).await.unwrap_err().exit,
            Exit::Usage
        );
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for endpoint in [
            "localhost:50051",
            "127.0.0.1:1",
            "127.8.9.1:1",
            "[::1]:50051",
            "LocalHost:1",
        ] {
            assert!(is_loopback(endpoint), "{endpoint}");
        }
        for endpoint in [
            "spicedb:50051",
            "10.0.0.1:1",
            "[::2]:1",
            "localhost.example.com:1",
            "128.0.0.1:1",
        ] {
            assert!(!is_loopback(endpoint), "{endpoint}");
        }
    }
}
