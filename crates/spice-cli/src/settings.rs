//! Where a connection's settings come from: flags, the contexts file, the environment.

mod source;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use authzed::{DatastoreKind, Pem};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};

pub(crate) use self::source::Source;
use crate::display::is_hostile;
use crate::error::CommandError;
use crate::files::{self, Trust};
use crate::quote::quoted;
use crate::token_command;
use crate::values::parse_timeout;

/// The settings of one connection. One definition for the flags, for the tables of the contexts file
/// (the keys are the flags' names) and for the environment (`SPICE_` and the name in capitals).
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Settings {
    /// The server: host:port, https://host (TLS, port 443), http://host (no TLS, port 80), dns:///host:port
    /// or unix:/path.
    #[arg(long, value_name = "HOST:PORT")]
    pub endpoint: Option<String>,
    /// Take endpoint, preshared key and TLS settings from a context of zed. The file of its keyring is read, with
    /// ZED_KEYRING_PASSWORD.
    #[arg(long, value_name = "NAME")]
    pub zed_context: Option<String>,
    /// Read the preshared key from a file.
    #[arg(long, value_name = "FILE", group = "token-source")]
    pub token_file: Option<PathBuf>,
    /// Run a shell command and take the preshared key from its output.
    #[arg(long, value_name = "COMMAND", group = "token-source")]
    pub token_command: Option<String>,
    /// The preshared key itself; discouraged, because everybody on the machine can see it in ps.
    #[arg(long, value_name = "KEY", group = "token-source")]
    pub token: Option<SecretString>,
    /// Connect without TLS.
    #[arg(long)]
    pub insecure: bool,
    /// PEM file with the certificate authorities to trust, instead of the system's.
    #[arg(long, value_name = "FILE")]
    pub certificate_path: Option<PathBuf>,
    /// The authorities in a context of zed, as PEM.
    #[arg(skip)]
    #[serde(skip)]
    pub certificate_pem: Option<Pem>,
    /// Do not verify the server's certificate.
    #[arg(long)]
    pub no_verify_ca: bool,
    /// The host name to expect in the server's certificate.
    #[arg(long, value_name = "HOST")]
    pub hostname_override: Option<String>,
    /// PEM file with the certificate to show to the server (mTLS).
    #[arg(long, value_name = "FILE")]
    pub client_certificate_path: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[arg(long, value_name = "FILE")]
    pub client_key_path: Option<PathBuf>,
    /// Connect through this HTTP proxy, such as proxy.example:3128, or through none. Keep its password
    /// in a context: everybody on the machine can see flags in ps [default: HTTPS_PROXY or ALL_PROXY, where
    /// NO_PROXY does not name the server].
    #[arg(long, value_name = "URL|none")]
    pub proxy: Option<SecretString>,
    /// How long one request, or the next page of an export, may take; Watch and imports are not bounded
    /// by it [default: 60s].
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, allow_hyphen_values = true)]
    #[serde(deserialize_with = "duration")]
    pub request_timeout: Option<Duration>,
    /// How often in a row a failing request is repeated [default: 10].
    #[arg(long, value_name = "COUNT")]
    pub max_retries: Option<usize>,
    /// Where the server keeps its relationships: memory, mysql, postgres, cockroachdb or spanner. The form
    /// of its revisions shows the kind, except for memory and Spanner; these are distinguished by asking
    /// for the newest revision again [default: detected].
    #[arg(long, value_name = "KIND")]
    #[serde(deserialize_with = "kind")]
    pub datastore: Option<DatastoreKind>,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_timeout(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DatastoreKind>, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

impl Settings {
    /// Whether they name a token, or where it is.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some() || self.token_file.is_some() || self.token_command.is_some()
    }

    /// These settings, and what they leave open from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        // The three sources of a token are one setting: a flag must not be mixed with a file's.
        let (token, token_file, token_command) = if self.has_token() {
            (self.token, self.token_file, self.token_command)
        } else {
            (other.token, other.token_file, other.token_command)
        };
        // So are the two sources of authorities.
        let certificate_pem = match &self.certificate_path {
            Some(_) => None,
            None => self.certificate_pem.or(other.certificate_pem),
        };
        Self {
            endpoint: self.endpoint.or(other.endpoint),
            zed_context: self.zed_context.or(other.zed_context),
            token_file,
            token_command,
            token,
            insecure: self.insecure || other.insecure,
            certificate_path: self.certificate_path.or(other.certificate_path),
            certificate_pem,
            no_verify_ca: self.no_verify_ca || other.no_verify_ca,
            hostname_override: self.hostname_override.or(other.hostname_override),
            client_certificate_path: self
                .client_certificate_path
                .or(other.client_certificate_path),
            client_key_path: self.client_key_path.or(other.client_key_path),
            proxy: self.proxy.or(other.proxy),
            request_timeout: self.request_timeout.or(other.request_timeout),
            max_retries: self.max_retries.or(other.max_retries),
            datastore: self.datastore.or(other.datastore),
        }
    }
}

const VARIABLES: [&str; 15] = [
    "SPICE_ENDPOINT",
    "SPICE_ZED_CONTEXT",
    "SPICE_TOKEN_FILE",
    "SPICE_TOKEN_COMMAND",
    "SPICE_TOKEN",
    "SPICE_INSECURE",
    "SPICE_CERTIFICATE_PATH",
    "SPICE_NO_VERIFY_CA",
    "SPICE_HOSTNAME_OVERRIDE",
    "SPICE_CLIENT_CERTIFICATE_PATH",
    "SPICE_CLIENT_KEY_PATH",
    "SPICE_PROXY",
    "SPICE_REQUEST_TIMEOUT",
    "SPICE_MAX_RETRIES",
    "SPICE_DATASTORE",
];

/// The value of a variable that is set and not empty.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The `SPICE_*` connection variables that are set.
#[must_use]
pub fn environment_in_use() -> Vec<&'static str> {
    VARIABLES
        .into_iter()
        .filter(|name| variable(name).is_some())
        .collect()
}

/// Reads the settings from the environment. Several token variables: the file, then the command.
///
/// # Errors
///
/// Exit 2 for a value that is not of its kind.
pub fn from_environment() -> Result<Settings, CommandError> {
    from_variables(variable)
}

fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, CommandError> {
    let path = |name| variable(name).map(PathBuf::from);
    let refuse = |name: &str, expected: &str| {
        CommandError::usage(format!("environment variable {name}: expected {expected}"))
    };
    let flag = |name| match variable(name).as_deref() {
        None | Some("0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(refuse(name, "true or false")),
    };
    let token_file = path("SPICE_TOKEN_FILE");
    let token_command = variable("SPICE_TOKEN_COMMAND").filter(|_| token_file.is_none());
    let token = variable("SPICE_TOKEN").filter(|_| token_file.is_none() && token_command.is_none());
    let timeout = variable("SPICE_REQUEST_TIMEOUT").map(|text| parse_timeout(&text));
    let retries = variable("SPICE_MAX_RETRIES").map(|text| text.parse());
    let datastore = variable("SPICE_DATASTORE").map(|text| text.parse());
    Ok(Settings {
        endpoint: variable("SPICE_ENDPOINT"),
        zed_context: variable("SPICE_ZED_CONTEXT"),
        token_file,
        token_command,
        token: token.map(SecretString::from),
        insecure: flag("SPICE_INSECURE")?,
        certificate_path: path("SPICE_CERTIFICATE_PATH"),
        certificate_pem: None,
        no_verify_ca: flag("SPICE_NO_VERIFY_CA")?,
        hostname_override: variable("SPICE_HOSTNAME_OVERRIDE"),
        client_certificate_path: path("SPICE_CLIENT_CERTIFICATE_PATH"),
        client_key_path: path("SPICE_CLIENT_KEY_PATH"),
        proxy: variable("SPICE_PROXY").map(SecretString::from),
        request_timeout: timeout
            .transpose()
            .map_err(|_| refuse("SPICE_REQUEST_TIMEOUT", "a duration such as 30s"))?,
        max_retries: retries
            .transpose()
            .map_err(|_| refuse("SPICE_MAX_RETRIES", "a number"))?,
        datastore: datastore
            .transpose()
            .map_err(|_: String| refuse("SPICE_DATASTORE", "a kind such as postgres"))?,
    })
}

/// Where the contexts file is: `$SPICE_CONTEXTS`, else in the user's config folder; `None` where no
/// variable names that folder. It is never looked for in the working directory, where a stranger may
/// have put one, with a `token-command` in it.
fn file() -> Option<PathBuf> {
    find_file(variable)
}

fn find_file(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = variable("SPICE_CONTEXTS") {
        return Some(path.into());
    }
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(config.join("spice-pipes/contexts.toml"))
}

/// Reads one table of the contexts file. Paths in it are relative to the file's folder.
///
/// # Errors
///
/// Exit 2 where the file or the table is missing or is not of the right form.
pub fn read(name: &str) -> Result<Settings, CommandError> {
    read_from(file(), name)
}

fn read_from(file: Option<PathBuf>, name: &str) -> Result<Settings, CommandError> {
    let form = format!(
        "the contexts file has a table for each server: [{name}], endpoint = \"host:50051\", \
         token-file = \"{name}.token\"; its place is $SPICE_CONTEXTS or \
         $XDG_CONFIG_HOME/spice-pipes/contexts.toml (~/.config)"
    );
    if name.chars().any(is_hostile) {
        return Err(CommandError::usage(format!(
            "--context {name:?}: a name has no control characters"
        )));
    }
    let Some(path) = file else {
        return Err(CommandError::usage(format!(
            "--context {name}: there is no contexts file: neither $HOME nor $XDG_CONFIG_HOME is an absolute path"
        ))
        .hint("say where it is with $SPICE_CONTEXTS"));
    };
    let shown = path.display();
    let file = File::open(&path).map_err(|e| {
        CommandError::usage(format!("--context {name}: cannot read {shown}: {e}")).hint(&form)
    })?;
    refuse_strangers(&file, &path)?;
    let text = read_text(&file).map_err(|e| {
        CommandError::usage(format!("--context {name}: cannot read {shown}: {e}")).hint(&form)
    })?;
    // toml shows the offending line in its error, and that line may be a token.
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let at = position(&text, error.span());
        CommandError::usage(format!("{shown}{at}: {}", error.message())).hint(&form)
    })?;
    // Only tables: anything else at the top is a mistake, and its value may be a token.
    let contexts = table.iter().filter(|(_, value)| value.is_table());
    let mut known: Vec<&str> = contexts.map(|(name, _)| name.as_str()).collect();
    known.sort_unstable();
    let Some(context) = table.get(name).filter(|value| value.is_table()) else {
        let known = known.join(", ");
        return Err(CommandError::usage(format!(
            "no context {name:?} in {shown} (it has: {known})"
        ))
        .hint(&form));
    };
    let is_secret = |key: &&str| context.get(*key).is_some_and(|value| !value.is_str());
    if let Some(key) = ["token", "proxy"].into_iter().find(is_secret) {
        // serde would quote the value.
        return Err(CommandError::usage(format!(
            "{shown}: context {name:?}: {key} must be in quotes"
        )));
    }
    let settings = Settings::deserialize(context.clone()).map_err(|error| {
        let message = error.message();
        // serde names a key that it does not know, and none whose value is wrong.
        let key = wrong_key(context).filter(|key| !message.contains(&format!("`{key}`")));
        let message = match key {
            Some(key) => format!("{key}: {message}"),
            None => message.to_owned(),
        };
        CommandError::usage(format!("{shown}: context {name:?}: {message}")).hint(&form)
    })?;
    let tokens = ["token-file", "token-command", "token"];
    let mut tokens = tokens.into_iter().filter(|key| context.get(*key).is_some());
    if let (Some(one), Some(other)) = (tokens.next(), tokens.next()) {
        return Err(CommandError::usage(format!(
            "{shown}: context {name:?} has {one} and {other}: which is meant?"
        ))
        .hint("leave one of them"));
    }
    let has_password = |url: &SecretString| url.expose_secret().contains('@');
    if settings.token.is_some() {
        files::warn_if_readable(&file, &format!("{shown} holds a token"), &path);
    } else if settings.proxy.as_ref().is_some_and(has_password) {
        files::warn_if_readable(&file, &format!("{shown} holds a password"), &path);
    }
    Ok(beside(settings, path.parent().unwrap_or(Path::new("."))))
}

/// The first key that is not taken, or whose value is not.
fn wrong_key(context: &toml::Value) -> Option<&str> {
    let mut entries = context.as_table()?.iter();
    let is_wrong = |(key, value): &(&String, &toml::Value)| {
        let alone = toml::Table::from_iter([((*key).clone(), (*value).clone())]);
        Settings::deserialize(alone).is_err()
    };
    entries.find(is_wrong).map(|(key, _)| key.as_str())
}

fn position(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else {
        return String::new();
    };
    format!(":{}", before.matches('\n').count() + 1)
}

fn beside(mut settings: Settings, folder: &Path) -> Settings {
    for path in [
        &mut settings.token_file,
        &mut settings.certificate_path,
        &mut settings.client_certificate_path,
        &mut settings.client_key_path,
    ]
    .into_iter()
    .flatten()
    {
        *path = folder.join(&*path);
    }
    settings
}

/// A context names what is run (`token-command`) and where a token is sent: nobody else must write it.
fn refuse_strangers(file: &File, path: &Path) -> Result<(), CommandError> {
    let Ok(found) = file.metadata() else {
        return Ok(());
    };
    if !found.is_file() {
        return Ok(()); // A pipe, which only its maker has.
    }
    let real = fs::canonicalize(path);
    let folder = real.as_deref().unwrap_or(path).parent();
    let folder = folder.filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let own = files::own_uid();
    let mut judged = vec![(path, files::trust(found.mode(), found.uid(), own, false))];
    if let Ok(found) = fs::metadata(folder) {
        judged.push((folder, files::trust(found.mode(), found.uid(), own, true)));
    }
    for (place, trust) in judged {
        let shown = place.display();
        let repair = format!(
            "chmod go-w {}; and it has to belong to you or to root",
            quoted(place)
        );
        match trust {
            Trust::Private => {}
            Trust::Group => {
                tracing::warn!("others of its group can write {shown}, and so run commands as you");
            }
            Trust::Stranger => {
                let context = path.display();
                return Err(CommandError::usage(format!(
                    "the contexts file {context} is not used: others can write {shown}, and so run commands \
                     as you"
                ))
                .hint(repair));
            }
        }
    }
    Ok(())
}

/// More than any contexts file or token takes: a device has no end.
const MOST_BYTES: u64 = 1 << 20;

/// Reads a small text file.
pub(crate) fn read_text(file: &File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    match text.len() as u64 > MOST_BYTES {
        true => Err(io::Error::other("longer than 1 MiB")),
        false => Ok(text),
    }
}

/// Gets the token from where the settings say it is. `None` where they say nothing. Waits for a file that is
/// a pipe, and for a command. `source` is where they say it.
///
/// # Errors
///
/// Exit 2 where the file cannot be read or the command fails, or what they give is not a token.
pub(crate) fn token(
    settings: &Settings,
    source: &Source,
) -> Result<Option<SecretString>, CommandError> {
    let (text, source) = if let Some(token) = &settings.token {
        (
            token.expose_secret().as_bytes().to_vec(),
            source.name("token"),
        )
    } else if let Some(path) = &settings.token_file {
        let source = format!("{} {}", source.name("token-file"), path.display());
        let failed = |error: io::Error| CommandError::usage(format!("{source}: {error}"));
        let file = File::open(path).map_err(failed)?;
        let text = read_text(&file).map_err(failed)?;
        files::warn_if_readable(&file, &format!("{source} holds a token"), path);
        (text.into_bytes(), source)
    } else if let Some(command) = &settings.token_command {
        let source = source.name("token-command");
        let text = token_command::run(command)
            .map_err(|problem| CommandError::usage(format!("{source} {problem}")))?;
        (text, source)
    } else {
        return Ok(None);
    };
    match std::str::from_utf8(&text).map(str::trim) {
        Ok(token) if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Some(token.to_owned().into()))
        }
        Ok("") => Err(CommandError::usage(format!(
            "{source}: empty, expected the server's preshared key"
        ))),
        _ => Err(CommandError::usage(format!(
            "{source}: not a preshared key, which is one word of ASCII"
        ))),
    }
}

#[cfg(test)]
mod tests;
