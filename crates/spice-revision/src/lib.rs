//! `spice-revision`: the zedtoken in a stream, a spool, a summary, a position file or a backup of zed, or a
//! server's.

#![forbid(unsafe_code)]

use std::io::BufRead;
use std::path::{Path, PathBuf};

use authzed::{DatastoreKind, Kind, zedtoken};
use clap::CommandFactory as _;
use serde_json::json;
use spice_cli::connection::CommonArgs;
use spice_cli::log::LogArgs;
use spice_cli::values::looks_like_token;
use spice_cli::{CommandError, Exit, Program, Shutdown, stdio};
use spice_client::datastore::expiry_precision;
use spice_client::settle::SettleArgs;
use spice_foreign::BackupReader;
use spice_record::foreign::AVRO_MAGIC;
use spice_spool::find_revision::{self, Found};

/// Print the zedtoken of a stream, or of a server.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-revision",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Revision {
    /// A snapshot or change stream, a spool, an imported or applied summary, a position file, or a backup
    /// of zed; plain, zstd or gzip [default: stdin]. Of a snapshot only the header is read: spice-digest proves
    /// that it is complete.
    #[arg(value_name = "FILE", conflicts_with_all = ["head", "mark"])]
    file: Option<PathBuf>,
    /// Of a summary or position: the target's revision, not the source's.
    #[arg(long, conflicts_with_all = ["head", "mark"])]
    target: bool,
    /// Ask a server for its newest revision, once it has settled.
    #[arg(long, conflicts_with = "mark")]
    head: bool,
    /// Write an empty transaction to a server and print its revision: everything committed before is
    /// seen from there. With --json a server that takes no writes is a record, beside exit 77.
    #[arg(long)]
    mark: bool,
    #[command(flatten)]
    settle: SettleArgs,
    /// Print the fields of the token, as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: CommonArgs,
}

const EXAMPLES: &str = "\
Examples:
  # Where a copy, and the changes after it, begin.
  rev=$(spice-revision --context old --head)
  # The revision of a backup.
  spice-revision backup.ndjson.zst
  spice-revision old.zedbackup
  # After the last write to the old cluster.
  end=$(spice-revision --context old --mark)
";

impl Program for Revision {
    const NAME: &'static str = "spice-revision";

    fn log_args(&self) -> &LogArgs {
        &self.common.log
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        if self.head || self.mark {
            return tokio::select! {
                exit = self.of_server(&shutdown) => exit,
                number = shutdown.requested() => Ok(Exit::Signal(number)),
            };
        }
        let path = self.file.as_deref().unwrap_or(Path::new("-"));
        if path == Path::new("-") && stdio::stdin_is_terminal() {
            let help = Self::command().render_long_help();
            return Err(CommandError::terminal(help));
        }
        let reading = tokio::task::spawn_blocking({
            let (path, target) = (path.to_owned(), self.target);
            move || of_input(&path, target)
        });
        let token = tokio::select! {
            token = reading => token.map_err(|e| CommandError::new(Exit::Failed, e.to_string()))??,
            number = shutdown.requested() => return Ok(Exit::Signal(number)),
        };
        self.print(&token, DatastoreKind::of_token(&token))
    }
}

impl Revision {
    async fn of_server(&self, shutdown: &Shutdown) -> Result<Exit, CommandError> {
        let connection = self.common.connection.resolve().await?;
        let client = spice_client::connect(&connection).await?;
        if self.mark {
            let mark = match client.write_marker().await {
                Ok(mark) => mark,
                Err(error) => return Err(self.refused(error)?),
            };
            // Applications may wait for a marker, so only who wants to know makes the server be asked.
            let kind = match self.json {
                true => {
                    spice_client::datastore::kind_of_server(&connection, &client, &mark).await?
                }
                false => spice_client::datastore::kind_by_form(&connection, &mark)?,
            };
            return self.print(&mark, kind);
        }
        match self.settle.head(&connection, &client, shutdown).await? {
            Some((head, kind)) => self.print(&head, kind),
            None => Ok(Exit::Signal(shutdown.signal().unwrap_or_default())),
        }
    }

    /// A server that takes no writes is a record to whoever asks with `--json`, beside the error.
    fn refused(&self, error: authzed::Error) -> Result<CommandError, CommandError> {
        if self.json && error.kind() == Kind::ReadOnly {
            stdio::print_line(&json!({"refused": {"reason": "readOnly"}}).to_string())?;
        }
        Ok(error.into())
    }

    fn print(&self, token: &str, kind: DatastoreKind) -> Result<Exit, CommandError> {
        if !self.json {
            stdio::print_line(token)?;
            return Ok(Exit::Done);
        }
        let decoded = zedtoken::decode(token).map_err(|error| {
            CommandError::new(
                Exit::BadData,
                format!("{token:?} is not a zedtoken: {error}"),
            )
        })?;
        let line = json!({
            "revision": {
                "token": token,
                "datastoreId": decoded.datastore_id,
                "form": decoded.revision.form(),
                "value": decoded.revision.to_string(),
                "datastore": kind.name(),
                "settles": kind.needs_settling(),
                "expiryPrecision": expiry_precision(kind).to_string(),
            }
        });
        stdio::print_line(&line.to_string())?;
        Ok(Exit::Done)
    }
}

/// Finds the token in a file or on stdin.
fn of_input(path: &Path, target: bool) -> Result<String, CommandError> {
    let path = &find_revision::newest_file(path);
    let (mut input, name) = stdio::open(path)?;
    // What cannot be read fails again below, with its message.
    let is_backup = input
        .fill_buf()
        .is_ok_and(|start| start.starts_with(&AVRO_MAGIC));
    let found = match is_backup {
        true => of_backup(input, name)?,
        false => find_revision::find_in(input, name, path)?,
    };
    if target && !found.summary {
        return Err(CommandError::usage(
            "--target: only a summary or a position names the target's revision",
        ));
    }
    let token = if target { found.target } else { found.source };
    let token = token.ok_or_else(|| none(path))?;
    // It is printed as it is, to a terminal or into a command line.
    if !looks_like_token(&token) {
        let name = stdio::name(path);
        return Err(CommandError::new(
            Exit::BadData,
            format!("{name}: its revision is not a zedtoken: {token:?}"),
        ));
    }
    Ok(token)
}

/// Of a backup only the metadata and the schema are read.
fn of_backup(input: impl BufRead, name: String) -> Result<Found, CommandError> {
    let backup = BackupReader::open(input, name)?;
    Ok(Found {
        source: backup.revision().map(str::to_owned),
        ..Found::default()
    })
}

fn none(path: &Path) -> CommandError {
    let name = stdio::name(path);
    CommandError::new(Exit::BadData, format!("{name}: no revision in it"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Revision;

    #[test]
    fn flags_are_consistent() {
        Revision::command().debug_assert();
    }
}
