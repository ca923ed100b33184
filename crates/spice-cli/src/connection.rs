//! `--context`, `--endpoint`, ...: the settings of one connection, checked together.

mod security;

use std::time::Duration;

use authzed::{Config, DatastoreKind, Proxy, Security, ServerAddress};

use crate::error::CommandError;
use crate::exit::Exit;
use crate::settings::{self, Settings, Source};
use crate::{VERSION, log, proxy, zed};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_RETRIES: usize = 10;

/// The forms of an endpoint.
const FORMS: &str = "host:50051, https://host (TLS, port 443), http://host (no TLS, port 80), \
                     dns:///host:50051 or unix:/path";

/// Which server, and how to reach it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection (also as SPICE_ENDPOINT, SPICE_TOKEN_FILE, ...)")]
pub struct ConnectionArgs {
    /// Take the connection from this table of the contexts file ($SPICE_CONTEXTS, else
    /// ~/.config/spice-pipes/contexts.toml).
    #[arg(long, value_name = "NAME", conflicts_with = "zed_context")]
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
    /// Whether its token leaves this machine without TLS.
    pub exposes_token: bool,
}

impl ConnectionArgs {
    /// Whether a flag, a context or the environment names a server.
    #[must_use]
    pub fn is_given(&self) -> bool {
        let set = settings::environment_in_use();
        self.context.is_some()
            || self.settings.endpoint.is_some()
            || self.settings.zed_context.is_some()
            || set.contains(&"SPICE_ENDPOINT")
            || set.contains(&"SPICE_ZED_CONTEXT")
    }

    /// Resolves flags, then the named context, else the environment. A named context replaces the environment:
    /// a token left in the environment must not be sent to the server of a context.
    ///
    /// # Errors
    ///
    /// Exit 2 where something is missing or contradicts itself.
    pub async fn resolve(&self) -> Result<Connection, CommandError> {
        self.resolve_or(Settings::default()).await
    }

    /// The same, with other defaults than those of every program.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve).
    pub async fn resolve_or(&self, defaults: Settings) -> Result<Connection, CommandError> {
        let args = self.clone();
        // Files may be pipes that nobody opens, and commands take their time.
        unblocked(move || args.resolve_blocking(defaults)).await
    }

    fn resolve_blocking(&self, defaults: Settings) -> Result<Connection, CommandError> {
        let named = match (&self.context, &self.settings.zed_context) {
            (Some(name), _) => Some(format!("--context {name}")),
            (None, Some(name)) => Some(format!("--zed-context {name}")),
            (None, None) => None,
        };
        if let Some(named) = &named {
            let ignored = settings::environment_in_use().join(", ");
            if !ignored.is_empty() {
                tracing::info!("{named} replaces the environment: ignoring {ignored}");
            }
        }
        let mut sources = vec![(Source::Flags, self.settings.clone())];
        match &self.context {
            Some(name) => sources.push((Source::Context(name.clone()), settings::read(name)?)),
            None if named.is_some() => {}
            None => sources.push((Source::Environment, settings::from_environment()?)),
        }
        let zed_context = sources.iter().find_map(|(_, set)| set.zed_context.clone());
        sources.push((Source::Flags, defaults));
        // It comes last, whichever of them names it. It has none of what has a default.
        if let Some(name) = zed_context {
            let zed = zed::read(&name)?;
            sources.push((Source::ZedContext(name), zed));
        }
        self.resolve_with(&sources)
    }

    /// Resolves these settings: what the first leave open comes from those after them.
    fn resolve_with(&self, sources: &[(Source, Settings)]) -> Result<Connection, CommandError> {
        let all = sources.iter().map(|(_, settings)| settings.clone());
        let settings = all.reduce(Settings::or).unwrap_or_default();
        let source_of = |is_set: fn(&Settings) -> bool| {
            let source = sources.iter().find(|(_, settings)| is_set(settings));
            source.map_or(&Source::Flags, |(source, _)| source)
        };
        let Some(endpoint) = settings.endpoint.clone() else {
            return Err(match &self.context {
                Some(name) => CommandError::usage(format!("context {name:?} has no endpoint"))
                    .hint("add endpoint = \"HOST:PORT\" to it, or give --endpoint HOST:PORT"),
                None => CommandError::usage(
                    "no server given: --context NAME, or --endpoint HOST:PORT with --token-file FILE",
                ),
            });
        };
        if self.settings.token.is_some() {
            tracing::warn!("--token can be read by everybody on this machine: use --token-file");
        }
        let address = ServerAddress::parse(&endpoint).map_err(|problem| {
            let name = source_of(|settings| settings.endpoint.is_some()).name("endpoint");
            CommandError::usage(format!("{name}: {problem}")).hint(FORMS)
        })?;
        let security = security::decide(&settings, &address).map_err(|failure| {
            // Its messages name flags, and nothing of zed has one.
            match sources.last() {
                Some((source @ Source::ZedContext(_), _)) => failure.context(source),
                _ => failure,
            }
        })?;
        let name = source_of(|settings| settings.proxy.is_some()).name("proxy");
        let proxy = settings.proxy.as_ref();
        let proxy = proxy::choose(proxy, &name, &address.socket, settings::variable)?;
        if self.settings.proxy.is_some() && proxy.as_ref().is_some_and(Proxy::has_credentials) {
            tracing::warn!(
                "the password in --proxy can be read by everybody on this machine: use proxy in a context, or \
                 HTTPS_PROXY"
            );
        }
        let token = settings::token(&settings, source_of(Settings::has_token))?;
        // Behind a proxy, localhost is the proxy's machine.
        let is_local = address.socket.is_local() && proxy.is_none();
        let exposes_token = matches!(security, Security::Plaintext) && token.is_some() && !is_local;
        if exposes_token {
            tracing::warn!(
                "the token is sent to {endpoint} without TLS: anybody on the way can read it"
            );
        }
        Ok(Connection {
            exposes_token,
            config: Config {
                endpoint,
                token,
                security,
                proxy,
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
    /// The server, as the user named it.
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
        let connection = flags.connection;
        let own = connection.settings.clone();
        let context = Source::Context("it".to_owned());
        connection.resolve_with(&[(Source::Flags, own), (context, fallback)])
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
    fn endpoint_that_is_none_is_refused_with_the_forms() {
        for (endpoint, part) in [
            ("a", "is not host:port"),
            ("grpc://a:1", "without grpc://, as a:1"),
            ("unix:a", "absolute path"),
        ] {
            let failure = plain(&["--endpoint", endpoint]).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            let message = failure.message();
            assert!(
                message.starts_with("--endpoint: ") && message.contains(part),
                "{failure:?}"
            );
            assert!(failure.hint_text().contains("https://host"), "{failure:?}");
        }
    }

    #[test]
    fn setting_that_is_wrong_is_named_where_it_is() {
        let connection = Flags::parse_from(["test"]).connection;
        let set = |endpoint: &str, token: &str| Settings {
            endpoint: Some(endpoint.to_owned()),
            token: Some(token.into()),
            ..Settings::default()
        };
        for (source, name) in [
            (Source::Flags, "--"),
            (Source::Environment, "SPICE_"),
            (Source::Context("old".to_owned()), "--context old: "),
            (
                Source::ZedContext("prod".to_owned()),
                "--zed-context \"prod\": ",
            ),
        ] {
            let token = match source {
                Source::Environment => "TOKEN",
                _ => "token",
            };
            for (settings, key) in [
                (
                    set("", "hunter2"),
                    token
                        .replace("token", "endpoint")
                        .replace("TOKEN", "ENDPOINT"),
                ),
                (set("localhost:1", ""), token.to_owned()),
                (set("localhost:1", "hunter2\nhunter3"), token.to_owned()),
            ] {
                let empty = (Source::Flags, Settings::default());
                let sources = [empty, (source.clone(), settings)];
                let failure = connection.resolve_with(&sources).unwrap_err();
                assert_eq!(failure.exit, Exit::Usage);
                let expected = format!("{name}{key}: ");
                assert!(failure.message().starts_with(&expected), "{failure:?}");
                assert!(!format!("{failure:?}").contains("hunter"), "{failure:?}");
            }
        }
        let settings = || Settings {
            endpoint: Some("localhost:1".to_owned()),
            ..Settings::default()
        };
        let no_file = Settings {
            token_file: Some("/nosuch/token".into()),
            ..settings()
        };
        let no_token = Settings {
            token_command: Some("true".to_owned()),
            ..settings()
        };
        for (source, settings, start) in [
            (
                Source::Context("old".to_owned()),
                no_file.clone(),
                "--context old: token-file /nosuch/token: ",
            ),
            (
                Source::Environment,
                no_file,
                "SPICE_TOKEN_FILE /nosuch/token: ",
            ),
            (
                Source::Context("old".to_owned()),
                no_token,
                "--context old: token-command: empty",
            ),
        ] {
            let failure = connection.resolve_with(&[(source, settings)]).unwrap_err();
            assert!(failure.message().starts_with(start), "{failure:?}");
        }
        let proxy = Settings {
            endpoint: Some("db.example:1".to_owned()),
            proxy: Some("socks5://me:hunter2@p:1".into()),
            ..Settings::default()
        };
        let sources = [(Source::Context("old".to_owned()), proxy)];
        let failure = connection.resolve_with(&sources).unwrap_err();
        let start = "--context old: proxy: ";
        assert!(failure.message().starts_with(start), "{failure:?}");
        // What comes before it is not its fault.
        let zed = (Source::ZedContext("prod".to_owned()), set("", "a b"));
        let own = (Source::Flags, set("localhost:1", "key"));
        connection.resolve_with(&[own, zed]).unwrap();
    }

    #[test]
    fn contradiction_in_a_context_of_zed_names_it() {
        let connection = Flags::parse_from(["test"]).connection;
        let zed = Settings {
            endpoint: Some("https://db.example".to_owned()),
            insecure: true,
            ..Settings::default()
        };
        let sources = [(Source::ZedContext("prod".to_owned()), zed)];
        let failure = connection.resolve_with(&sources).unwrap_err();
        let start = "--zed-context \"prod\": --insecure means no TLS";
        assert!(failure.message().starts_with(start), "{failure:?}");
    }

    #[test]
    fn without_an_endpoint_both_ways_to_name_one_are_given() {
        let failure = plain(&[]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message().contains("--context"), "{failure:?}");
        assert!(failure.message().contains("--endpoint"), "{failure:?}");
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
    fn proxy_reaches_the_configuration_and_its_password_is_not_shown() {
        let flags = [
            "--endpoint",
            "127.0.0.1:1",
            "--proxy",
            "http://me:hunter2@p:3128",
        ];
        let found = plain(&flags).unwrap();
        let proxy = found.config().proxy.as_ref().unwrap();
        assert_eq!(proxy.to_string(), "p:3128");
        let settings = Flags::parse_from(["test"].iter().chain(&flags));
        let shown = format!("{found:?} {:?}", settings.connection);
        assert!(!shown.contains("hunter2"), "{shown}");
        let none = plain(&["--endpoint", "db.example:1", "--proxy", "none"]).unwrap();
        assert!(none.config().proxy.is_none());
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
}
