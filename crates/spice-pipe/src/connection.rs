//! `--context`, `--endpoint`, ... and what they mean together.

use std::time::Duration;

use authzed::{Client, Config, Identity, Security, TlsConfig};

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
    pub fn resolve(&self) -> Result<Connection, Failure> {
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
        Ok(Connection {
            config: Config {
                endpoint,
                token: contexts::token(&settings)?,
                security,
                hostname_override: settings.hostname_override,
                request_timeout: settings.request_timeout.unwrap_or(REQUEST_TIMEOUT),
                user_agent: format!("spice-pipes/{VERSION}"),
            },
            max_retries: settings.max_retries.unwrap_or(MAX_RETRIES),
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
        let client = Client::connect(&self.config).await?;
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

/// Refuses a stream that comes from the datastore that it would be written to.
///
/// # Errors
///
/// Exit 2 where both tokens carry the same datastore id.
pub fn refuse_same_datastore(source: &str, target: &str, endpoint: &str) -> Result<(), Failure> {
    match (datastore_id(source), datastore_id(target)) {
        (Some(source), Some(target)) if source == target => Err(Failure::new(
            Exit::Usage,
            format!(
                "the stream comes from the target's own datastore ({target} behind {endpoint})"
            ),
        )
        .hint("source and target are the same: check --context or --endpoint of both ends")),
        _ => Ok(()),
    }
}
