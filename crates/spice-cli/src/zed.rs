//! `--zed-context`: the servers that `zed context set` has stored.
//!
//! zed keeps them in the keyring of the system where there is one, else in an encrypted file. Only the
//! file is read here. Its password comes from `ZED_KEYRING_PASSWORD`, as for zed, and is never asked for:
//! two programs of a pipe would ask on the same terminal at the same time.

mod keyring;

use std::io;
use std::path::{Path, PathBuf};

use authzed::Pem;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::SecretString;
use serde::Deserialize;

use self::keyring::Problem;
use crate::display::{few, is_hostile};
use crate::error::CommandError;
use crate::files;
use crate::settings::{self, Settings, Source};

const PASSWORD: &str = "ZED_KEYRING_PASSWORD";
/// Its folder, and the name of the only entry.
const KEYRING: &str = "keyring.jwt/zed secrets";

/// Reads one of zed's contexts.
///
/// # Errors
///
/// Exit 2 where it is missing or cannot be read.
pub(crate) fn read(name: &str) -> Result<Settings, CommandError> {
    let password = settings::variable(PASSWORD).map(SecretString::from);
    read_from(folder(settings::variable), password.as_ref(), name)
        .map_err(|failure| failure.context(Source::ZedContext(name.to_owned())))
}

/// zed's folder: in `$XDG_CONFIG_HOME` where that is absolute, else in the home folder. By the rules of XDG a
/// relative path counts as none.
fn folder(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    match absolute("XDG_CONFIG_HOME") {
        Some(config) => Some(config.join("zed")),
        None => Some(absolute("HOME")?.join(".zed")),
    }
}

fn read_from(
    folder: Option<PathBuf>,
    password: Option<&SecretString>,
    name: &str,
) -> Result<Settings, CommandError> {
    if name.chars().any(is_hostile) {
        return Err(CommandError::usage("a name has no control characters"));
    }
    let Some(folder) = folder else {
        return Err(CommandError::usage(
            "neither $HOME nor $XDG_CONFIG_HOME is an absolute path",
        ));
    };
    let path = folder.join(KEYRING);
    let shown = path.display();
    let text = files::open_private(&path).and_then(|file| settings::read_text(&file));
    let text = text.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => nowhere(&folder),
        _ => CommandError::usage(format!("cannot read {shown}: {error}")),
    })?;
    let Some(password) = password else {
        return Err(CommandError::usage(format!(
            "{shown} is encrypted, and {PASSWORD} is not set"
        ))
        .hint(enter_password()));
    };
    let item = keyring::decrypt(&text, password).map_err(|problem| match problem {
        Problem::Password => {
            CommandError::usage(format!("{PASSWORD} is not the password of {shown}"))
                .hint(enter_password())
        }
        Problem::Form(problem) => {
            CommandError::usage(format!("{shown} {problem}")).hint(WITHOUT_ZED)
        }
    })?;
    // The error of the parser is not shown: it may quote a token.
    let tokens = tokens(&item).ok_or_else(|| {
        CommandError::usage(format!("{shown} does not hold contexts as zed writes them"))
            .hint(WITHOUT_ZED)
    })?;
    if tokens.is_empty() {
        return Err(no_contexts(&path));
    }
    let names: Vec<String> = tokens
        .iter()
        .map(|token| format!("{:?}", token.name))
        .collect();
    match tokens.into_iter().find(|token| token.name == name) {
        Some(token) => token.into_settings(),
        None => {
            let current = current(&folder)
                .map_or_else(String::new, |name| format!("; its current one is {name:?}"));
            Err(CommandError::usage(format!(
                "zed has no such context in {shown} (it has: {}{current})",
                few(names.into_iter())
            )))
        }
    }
}

fn no_contexts(path: &Path) -> CommandError {
    let shown = path.display();
    CommandError::usage(format!("{shown} holds no contexts of zed"))
        .hint(format!("zed context set stores one; {WITHOUT_ZED}"))
}

/// How to set the password. It is the one that zed asks for.
fn enter_password() -> String {
    format!("give the one that zed asks for: read -rs {PASSWORD} && export {PASSWORD}")
}

const WITHOUT_ZED: &str = "--endpoint HOST:PORT with --token-file FILE needs nothing of zed";

/// Without the file, the contexts are elsewhere, or there are none.
fn nowhere(folder: &Path) -> CommandError {
    let shown = folder.display();
    match current(folder) {
        None => CommandError::usage(format!("there are no contexts of zed in {shown}"))
            .hint("zed context list shows those that zed knows"),
        Some(_) => CommandError::usage(format!(
            "zed keeps its contexts in a keyring of the system, not in {shown}, and that is not read here"
        ))
        .hint(
            "write the token that zed context list --reveal-tokens shows to a file, for --token-file; or let \
             zed context set store it in its file: it does where there is no such keyring, as with \
             DBUS_SESSION_BUS_ADDRESS=none",
        ),
    }
}

/// The name of the context that zed uses by itself.
fn current(folder: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "CurrentToken")]
        current: String,
    }
    let file = files::open_private(&folder.join("config.json")).ok()?;
    let config: Config = serde_json::from_str(&settings::read_text(&file).ok()?).ok()?;
    Some(config.current).filter(|name| !name.is_empty())
}

/// The contexts in an entry of the keyring.
fn tokens(item: &[u8]) -> Option<Vec<Token>> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "Data")]
        data: String,
    }
    #[derive(Deserialize)]
    struct Secrets {
        #[serde(rename = "Tokens")]
        tokens: Option<Vec<Token>>,
    }
    let item: Item = serde_json::from_slice(item).ok()?;
    let secrets = BASE64_STANDARD.decode(item.data).ok()?;
    let secrets: Secrets = serde_json::from_slice(&secrets).ok()?;
    Some(secrets.tokens.unwrap_or_default())
}

/// One context.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Token {
    name: String,
    endpoint: String,
    #[serde(rename = "APIToken")]
    token: SecretString,
    #[serde(default)]
    insecure: Option<bool>,
    #[serde(rename = "NoVerifyCA", default)]
    no_verify_ca: Option<bool>,
    /// PEM, as base64.
    #[serde(rename = "CACert", default)]
    ca_cert: Option<String>,
    #[serde(default)]
    hostname_override: String,
}

impl Token {
    /// The settings that zed would connect with: no TLS comes first, then no verification.
    fn into_settings(self) -> Result<Settings, CommandError> {
        let insecure = self.insecure.unwrap_or_default();
        let no_verify_ca = !insecure && self.no_verify_ca.unwrap_or_default();
        let pem = self
            .ca_cert
            .filter(|pem| !pem.is_empty() && !insecure && !no_verify_ca);
        let pem = pem.map(|pem| BASE64_STANDARD.decode(pem)).transpose();
        let pem =
            pem.map_err(|_| CommandError::usage("its certificate is not as zed writes it"))?;
        let name = Source::ZedContext(self.name).name("certificate");
        Ok(Settings {
            endpoint: Some(self.endpoint),
            token: Some(self.token),
            insecure,
            no_verify_ca,
            certificate_pem: pem.map(|text| Pem { source: name, text }),
            hostname_override: Some(self.hostname_override).filter(|name| !name.is_empty()),
            ..Settings::default()
        })
    }
}

#[cfg(test)]
mod tests;
