//! `--context`, `--endpoint`, ... and what they mean together.

use std::net::IpAddr;
use std::time::Duration;

use authzed::{Client, Config, DatastoreKind, Identity, Security, TlsConfig};
use tokio::runtime::Handle;

use crate::contexts::{self, Settings};
use crate::exit::{Exit, Failure};
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
    /// Whether anything at all says where to connect to.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.context.is_some()
            || self.settings.endpoint.is_some()
            || contexts::environment_in_use().contains(&"SPICE_ENDPOINT")
    }

    /// Resolves flags, then the named context, else the environment. A named context is taken whole:
    /// a token left in the environment must not be sent to the server of a context.
    ///
    /// # Errors
    ///
    /// Exit 2 where something is missing or contradicts itself.
    pub async fn resolve(&self) -> Result<Connection, Failure> {
        let args = self.clone();
        // Files may be pipes that nobody opens, and commands take their time.
        unblocked(move || args.resolve_blocking()).await
    }

    fn resolve_blocking(&self) -> Result<Connection, Failure> {
        let fallback = match &self.context {
            Some(name) => {
                let ignored = contexts::environment_in_use().join(", ");
                if !ignored.is_empty() {
                    tracing::info!("--context {name} is taken whole: ignoring {ignored}");
                }
                contexts::read(name)?
            }
            None => contexts::from_environment()?,
        };
        let settings = self.settings.clone().or(fallback);
        let Some(endpoint) = settings.endpoint.clone() else {
            return Err(Failure::usage(
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
            return Err(Failure::usage(format!(
                "--insecure means no TLS, {flag} means TLS: drop one"
            )));
        }
        if settings.no_verify_ca && settings.certificate_path.is_some() {
            return Err(Failure::usage(
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
                return Err(Failure::usage(
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
        let token = contexts::token(&settings)?;
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

    /// Connects and makes first contact: within 5 s it is known whether the server is there, speaks
    /// TLS or not, and takes the token.
    ///
    /// # Errors
    ///
    /// Exit 75 or 77, saying which of these it was.
    pub async fn connect(&self) -> Result<Client, Failure> {
        // Certificates are read from files, which may be pipes that nobody opens.
        let (config, runtime) = (self.config.clone(), Handle::current());
        let client = unblocked(move || runtime.block_on(Client::connect(&config))).await?;
        let Config {
            endpoint,
            token,
            security,
            ..
        } = &self.config;
        let tls = match security {
            Security::Plaintext => "without TLS",
            Security::Tls(tls) if tls.verify => "with TLS",
            Security::Tls(_) => "with TLS, certificate not verified",
        };
        let token = if token.is_some() { "with" } else { "without" };
        tracing::debug!("connected to {endpoint} {tls}, {token} a token");
        Ok(client)
    }
}

/// Runs what may block on a thread of its own, so that a signal ends the program meanwhile.
///
/// # Errors
///
/// What the work returns; exit 1 where it panicked.
pub async fn unblocked<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure>
where
    T: Send + 'static,
    E: Send + 'static,
    Failure: From<E>,
{
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Failure::new(Exit::Failed, error.to_string()))??)
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

/// The first characters of the datastore's id in a zedtoken, which tell datastores apart.
#[must_use]
pub fn datastore_id(token: &str) -> Option<String> {
    authzed::zedtoken::decode(token).ok()?.datastore_id
}

/// Refuses a stream that comes from the datastore that it would be written to, or of which that cannot be
/// known: servers up to SpiceDB v1.45 do not name it.
///
/// # Errors
///
/// Exit 2 where both tokens carry the same datastore id, or none and revisions of one form.
pub fn refuse_same_datastore(source: &str, target: &str, endpoint: &str) -> Result<(), Failure> {
    let same = match (datastore_id(source), datastore_id(target)) {
        (Some(source), Some(target)) if source == target => {
            format!("the stream comes from the target's own datastore ({target} behind {endpoint})")
        }
        (None, None) if form(source) == form(target) => {
            return Err(Failure::usage(format!(
                "whether the stream comes from the target's own datastore, behind {endpoint}, cannot be known: \
                 the zedtokens of neither name one (SpiceDB v1.45 and older)"
            ))
            .hint(
                "check --context or --endpoint of both ends; --same-datastore then goes on, whether they \
                 are the same or not",
            ));
        }
        (None, _) | (_, None) if form(source) == form(target) => {
            tracing::warn!(
                "whether the stream comes from the target's own datastore, behind {endpoint}, is not known: only \
                 one of their zedtokens names it (SpiceDB v1.45 and older do not)"
            );
            return Ok(());
        }
        _ => return Ok(()),
    };
    Err(Failure::usage(same).hint(
        "source and target are the same: check --context or --endpoint of both ends; to put a backup \
         back where it came from, or to load a clone of the database: --same-datastore",
    ))
}

/// `None` for a token of no known form, which says nothing.
fn form(token: &str) -> Option<&'static str> {
    Some(authzed::zedtoken::decode(token).ok()?.revision.form())
}

#[cfg(test)]
mod tests {
    use super::{is_loopback, refuse_same_datastore};
    use crate::exit::Exit;

    #[test]
    fn a_datastore_is_not_loaded_from_itself_nor_from_one_that_may_be_itself() {
        // Revision 7 and 8 of one datastore, and of one that is not named.
        let (named, other) = ("GgoKATcSBTEyMzQ1", "GgoKATgSBTk4NzY1");
        let (unnamed, later) = ("GgMKATc=", "GgMKATg=");
        let refused = |source, target| {
            let found = refuse_same_datastore(source, target, "localhost:50051");
            found.err().map(|failure| failure.exit)
        };
        assert_eq!(refused(named, named), Some(Exit::Usage));
        assert_eq!(refused(unnamed, later), Some(Exit::Usage));
        assert_eq!(refused(named, other), None);
        assert_eq!(refused(named, unnamed), None);
        // A PostgreSQL revision that is not named.
        let postgres = "GhoKGENMc0dJTG9HS05pVHU1THJ1N2IxR0E9PQ==";
        assert_eq!(refused(postgres, unnamed), None);
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
