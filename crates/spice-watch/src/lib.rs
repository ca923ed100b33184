//! `spice-watch`: every change after a revision, without a gap, or a hard stop.
//!
//! [`follow`] reads the server's Watch and guards it, [`leave`] ends one without harm, [`seen`] drops
//! what is delivered again, [`beat`] writes the heartbeat, [`emit`] is the thread that writes.

#![forbid(unsafe_code)]

mod beat;
mod emit;
mod follow;
mod leave;
mod seen;

use std::path::{Path, PathBuf};
use std::time::Duration;

use authzed::v1::Consistency;
use authzed::zedtoken::{self, Revision};
use authzed::{Client, Kind};
use spice_pipe::connection::{CommonArgs, Connection, datastore_id};
use spice_pipe::log::LogArgs;
use spice_pipe::progress::Progress;
use spice_pipe::retry::Retry;
use spice_pipe::settle::SettleArgs;
use spice_pipe::shutdown::SIGTERM;
use spice_pipe::spool::{Appender, Left, Spool};
use spice_pipe::stdio::{self, Output};
use spice_pipe::{
    Exit, Failure, Program, Shutdown, VERSION, parse_duration, parse_size, parse_zedtoken, token,
};
use spice_record::Header;
use spice_record::record::{Filter, StreamEnd, StreamKind};

use crate::beat::Heartbeat;
use crate::emit::{Emitter, Event, Sink};
use crate::follow::{Bound, Ended, Watcher};
use crate::leave::Leaving;

/// Write every change of a SpiceDB after a revision to stdout, or append it to a spool.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "spice-watch", version = spice_pipe::VERSION, before_help = EXAMPLES)]
pub struct Watch {
    /// The revision after which the changes begin: the one of a copy, for example.
    #[arg(long, value_name = "ZEDTOKEN", value_parser = parse_zedtoken)]
    since: Option<String>,
    /// Take it from a file: a stream, a spool, a summary or a position, of which this server's
    /// revision counts. Together with --since the file wins once it exists.
    #[arg(long, value_name = "FILE")]
    since_file: Option<PathBuf>,
    /// End when everything through this revision has been written. After the last write to a server,
    /// `spice-revision --mark` gives it.
    #[arg(long, value_name = "ZEDTOKEN", value_parser = parse_zedtoken, conflicts_with = "until_quiet")]
    until: Option<String>,
    /// End when nothing has changed for so long. That proves nothing: a write may come later.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    until_quiet: Option<Duration>,
    /// Only changes of resources of this type; may be given several times.
    #[arg(long = "type", value_name = "DEFINITION")]
    types: Vec<String>,
    /// Leave out what spice-apply has written, so that changes can travel both ways.
    #[arg(long)]
    skip_applied: bool,
    /// Write an empty transaction to the server this often: it keeps the start of an idle Watch inside
    /// the history window.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    heartbeat: Option<Duration>,
    /// Append to a file, durably, and go on where it ends.
    #[arg(long, value_name = "FILE")]
    spool: Option<PathBuf>,
    /// Begin another file (FILE.000001, ...) when one has reached this size.
    #[arg(long, value_name = "SIZE", requires = "spool", value_parser = parse_size)]
    spool_segment: Option<u64>,
    #[command(flatten)]
    settle: SettleArgs,
    #[command(flatten)]
    common: CommonArgs,
}

/// How long an end waits for Watches that are being left.
const LEAVING: Duration = Duration::from_millis(300);
/// How long a stop waits for the reader of stdout.
const PATIENCE: Duration = Duration::from_millis(700);

const EXAMPLES: &str = "\
Examples:
  spice-watch --context old --since \"$rev\" | spice-apply --context new
  spice-watch --context old --since \"$rev\" --spool changes.ndjson        # capture; run it again to go on
  spice-watch --context old --spool changes.ndjson --until \"$end\"        # drain, after the last write
  spice-watch --context old --since \"$rev\" | jq -c 'select(.transaction)'
";

impl Program for Watch {
    const NAME: &'static str = "spice-watch";

    fn log_args(&self) -> &LogArgs {
        &self.common.log
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, Failure> {
        let begun = tokio::select! {
            begun = self.begin() => begun?,
            // A spool is as whole as it was. A stream that has no header is not.
            number = shutdown.requested() => return Ok(match number {
                SIGTERM if self.spool.is_some() => Exit::Done,
                _ => Exit::Signal(number),
            }),
        };
        let progress = Progress::start("updates", self.common.log.quiet);
        let Start {
            client,
            max_retries,
            since,
            header,
            schema,
            appender,
            settle,
        } = begun;
        let sink = match appender {
            Some(appender) => Sink::Spool(Box::new(appender)),
            None => Sink::Stdout(Output::create(None, None)?),
        };
        let (emitter, written) = Emitter::start(sink, schema.clone(), progress.clone());
        if let Some(header) = header {
            emitter.send(Event::Header(Box::new(header)), 1).await?;
        }
        let heartbeat = self
            .heartbeat
            .map(|every| Heartbeat::start(client.clone(), every));
        let mut watcher = Watcher {
            client,
            max_retries,
            types: self.types.clone(),
            skip_applied: self.skip_applied,
            quiet: self.until_quiet,
            emitter,
            leaving: Leaving::default(),
            since,
            schema,
            heartbeat,
            progress: follow::Progress::new(),
        };
        let outcome = tokio::select! {
            biased;
            number = shutdown.requested() => Ok(Ended::Signal(number)),
            outcome = self.follow(&mut watcher, settle) => outcome,
        };
        if let Err(failure) = &outcome
            && failure.exit == Exit::HistoryLost
        {
            self.leave_word(failure);
        }
        let Watcher {
            emitter,
            since,
            leaving,
            ..
        } = watcher;
        let word = outcome.as_ref().ok().map(|ended| match ended {
            Ended::Until => StreamEnd::Until,
            Ended::Quiet => StreamEnd::Quiet,
            Ended::Signal(_) => StreamEnd::Signal,
        });
        let finish = async {
            if let Some(word) = word {
                let _ = emitter.send(Event::End(word), 1).await;
            }
            drop(emitter);
            leaving.done(LEAVING).await;
            written.await
        };
        // The reader of stdout may stand still; a stop must not wait for it.
        let patience = async {
            let number = shutdown.requested().await;
            tokio::time::sleep(PATIENCE).await;
            number
        };
        tokio::select! {
            // What ended the output explains everything that failed after it.
            written = finish => {
                written.map_err(|error| Failure::new(Exit::Failed, error.to_string()))??;
            }
            number = patience => {
                outcome?;
                tracing::warn!(
                    "stopped while nobody reads the output: it ends in the middle, without a trailer"
                );
                return Ok(Exit::Signal(number));
            }
        }
        progress.clear();
        let ended = outcome?;
        let through = match ended {
            Ended::Until => "everything through",
            Ended::Quiet => "quiet, which proves nothing, after",
            Ended::Signal(_) => "stopped after",
        };
        tracing::info!("{progress}: {through} revision {since}");
        match ended {
            Ended::Signal(number) if number != SIGTERM => Ok(Exit::Signal(number)),
            _ => Ok(Exit::Done),
        }
    }
}

/// Everything that was settled before the first change is asked for.
struct Start {
    client: Client,
    max_retries: usize,
    since: String,
    /// To be written, unless a spool goes on.
    header: Option<Header>,
    schema: Option<String>,
    appender: Option<Appender>,
    settle: Duration,
}

impl Watch {
    async fn begin(&self) -> Result<Start, Failure> {
        let connection = self.common.connection.resolve()?;
        if self.spool.is_none() && self.since.is_none() && self.since_file.is_none() {
            return Err(
                Failure::usage("no revision to begin after: --since ZEDTOKEN").hint(
                    "spice-revision prints that of a stream, or a server's newest with --head",
                ),
            );
        }
        let mut client = connection.connect().await?;
        let endpoint = connection.endpoint();
        let head = client.head().await?;
        let spool = self.spool.as_deref().map(Spool::new);
        let (appender, left) = match &spool {
            Some(spool) => {
                let (appender, left) = Appender::open(spool, self.spool_segment)?;
                (Some(appender), left)
            }
            None => (None, None),
        };
        let since = self.start(&head, endpoint, left.as_ref())?;
        self.check_types(&client, endpoint).await?;
        self.check_until(&head)?;
        if let Some(left) = &left {
            tracing::info!(
                "going on after revision {}, where the spool ends",
                left.revision
            );
        }
        let read = self.prove(&mut client, &connection, &since).await?;
        if let Some(spool) = &spool {
            spool.clear_lost();
        }
        tracing::info!("watching {endpoint} after revision {since}");
        let (header, schema) = match left {
            Some(left) => (None, left.schema),
            None => (Some(self.header(&since, read.clone())), read),
        };
        Ok(Start {
            max_retries: connection.max_retries,
            settle: self.settle.duration(&since),
            client,
            since,
            header,
            schema,
            appender,
        })
    }

    /// Where to begin: where the spool ends, else at the file's revision, else at the flag's.
    fn start(&self, head: &str, endpoint: &str, left: Option<&Left>) -> Result<String, Failure> {
        let here = datastore_id(head);
        let is_here = |token: &String| datastore_id(token) == here;
        if let Some(left) = left {
            if left.header.filter != self.filter() {
                return Err(Failure::usage(
                    "the spool holds other types than these: --type must stay what it was",
                ));
            }
            if !is_here(&left.revision) {
                return Err(other_datastore("the spool", &left.revision, endpoint));
            }
            return Ok(left.revision.clone());
        }
        let file = self.since_file.as_deref();
        // Of a spool the first segment may have been pruned.
        let is_there = |file: &Path| file.exists() || Spool::new(file).newest_segment().is_some();
        let Some(file) = file.filter(|file| self.since.is_none() || is_there(file)) else {
            if self.skip_applied {
                return Err(unproven());
            }
            return self.since.clone().ok_or_else(|| {
                Failure::usage(
                    "the spool is new: --since ZEDTOKEN says after which revision it begins",
                )
            });
        };
        let found = token::find(file)?;
        // Of a summary or a position, the other end's revision may be the one that belongs here: that
        // is how changes travel back.
        if let Some(target) = found.target.filter(is_here) {
            return Ok(target);
        }
        if self.skip_applied {
            return Err(unproven());
        }
        let Some(source) = found.source else {
            let name = stdio::name(file);
            return Err(Failure::usage(format!("{name}: no revision in it")));
        };
        if !is_here(&source) {
            let name = format!("--since-file {}", file.display());
            return Err(other_datastore(&name, &source, endpoint));
        }
        Ok(source)
    }

    /// The server itself takes an unknown type for one that nothing changes in.
    async fn check_types(&self, client: &Client, endpoint: &str) -> Result<(), Failure> {
        if self.types.is_empty() {
            return Ok(());
        }
        let schema = client
            .reflect_schema(Consistency::fully_consistent())
            .await?;
        let definitions = schema.definitions.into_iter();
        let mut known: Vec<String> = definitions.map(|found| found.name).collect();
        known.sort();
        match self.types.iter().find(|name| !known.contains(name)) {
            Some(unknown) => Err(Failure::usage(format!(
                "--type {unknown}: the schema of {endpoint} has no such definition"
            ))
            .hint(format!("it has: {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    fn check_until(&self, head: &str) -> Result<(), Failure> {
        let Some(until) = &self.until else {
            return Ok(());
        };
        if datastore_id(until) != datastore_id(head) {
            return Err(Failure::usage(
                "--until: this revision belongs to another datastore than the server's",
            ));
        }
        let decoded = zedtoken::decode(until).map(|decoded| decoded.revision);
        if decoded
            .as_ref()
            .is_ok_and(|revision| !revision.can_be_awaited())
        {
            return Err(Failure::usage(
                "--until: this revision names no transaction that could be waited for",
            )
            .hint("on PostgreSQL only a written revision does: use spice-revision --mark"));
        }
        if !matches!(decoded, Ok(ref revision) if revision.form() != "unknown") {
            tracing::warn!(
                "--until: a revision of unknown form can only be waited for by equality"
            );
        }
        Ok(())
    }

    /// The history after the start must be there, before anything is written. Gives the schema.
    async fn prove(
        &self,
        client: &mut Client,
        connection: &Connection,
        since: &str,
    ) -> Result<Option<String>, Failure> {
        let mut retry = Retry::new(connection.max_retries);
        loop {
            let read = async {
                client.probe(since).await?;
                client.read_schema().await
            };
            match read.await {
                Ok(schema) => return Ok(schema.map(|schema| schema.text)),
                Err(error) if error.kind() == Kind::HistoryLost => {
                    let failure = follow::lost(error, since);
                    self.leave_word(&failure);
                    return Err(failure);
                }
                Err(error) => retry.pause(error, "looking for the revision again").await?,
            }
            *client = client.reconnect();
        }
    }

    /// For whoever reads the spool.
    fn leave_word(&self, failure: &Failure) {
        let spool = self.spool.as_deref().map(Spool::new);
        if let Some(Err(error)) = spool.map(|spool| spool.set_lost(failure.message())) {
            tracing::warn!("cannot leave word beside the spool: {error}");
        }
    }

    fn header(&self, since: &str, schema: Option<String>) -> Header {
        Header {
            revision: Some(since.to_owned()),
            schema,
            filter: self.filter(),
            ..Header::new(
                StreamKind::Changes,
                format!("spice-watch {VERSION}"),
                jiff::Timestamp::now().to_string(),
            )
        }
    }

    fn filter(&self) -> Option<Filter> {
        (!self.types.is_empty()).then(|| Filter {
            types: self.types.clone(),
            resource_prefix: None,
        })
    }

    async fn follow(&self, watcher: &mut Watcher, settle: Duration) -> Result<Ended, Failure> {
        let Some(until) = &self.until else {
            if settle.is_zero() {
                return watcher.follow(Bound::None).await;
            }
            tracing::info!(
                "reading {} s behind the head: late transactions may still appear below it (--settle)",
                settle.as_secs_f64()
            );
            return watcher.follow_settled(settle).await;
        };
        let revision = match zedtoken::decode(until) {
            Ok(decoded) => decoded.revision,
            Err(_) => Revision::Other(until.clone()),
        };
        let stands = zedtoken::decode(&watcher.since);
        if let Ok(stands) = stands
            && stands.revision.sees(&revision) == Some(true)
        {
            // Said again for whoever waits for it: only a checkpoint says that all of it was said.
            watcher
                .checkpoint(&stands.revision, watcher.since.clone())
                .await?;
            return Ok(Ended::Until);
        }
        watcher.follow(Bound::at(&revision, until)).await
    }
}

fn unproven() -> Failure {
    Failure::usage("--skip-applied needs a start that is known to be after the load: --since-file")
        .hint(
            "give what spice-import or spice-apply printed when it wrote to this server, or its \
             position file: changes from before would bring back what was revoked since",
        )
}

fn other_datastore(what: &str, token: &str, endpoint: &str) -> Failure {
    let theirs = datastore_id(token).unwrap_or_default();
    Failure::new(
        Exit::Failed,
        format!(
            "{what} names a revision of another datastore ({theirs}) than that behind {endpoint}"
        ),
    )
    .hint("check --context or --endpoint: a revision is good only where it was made")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_consistent() {
        super::Watch::command().debug_assert();
    }
}
