//! `spice-preflight`: one verdict on a migration before anything is written.
//!
//! | module | holds |
//! |---|---|
//! | [`steps`] | the planned steps, and the calls that each makes |
//! | [`mod@probe`] | calls that cannot change anything |
//! | [`facts`] | what they have shown, as plain data |
//! | [`mod@judge`] | facts in, findings out |
//! | [`finding`] | a finding, and the verdict of all |
//! | [`report`] | the list for people, and the records |

#![forbid(unsafe_code)]

mod facts;
mod finding;
mod judge;
mod probe;
mod report;
mod steps;

use std::time::Duration;

use spice_cli::connection::ConnectionArgs;
use spice_cli::filter::FilterArgs;
use spice_cli::log::LogArgs;
use spice_cli::settings::Settings;
use spice_cli::values::{parse_duration, parse_timeout};
use spice_cli::{CommandError, Connection, Exit, Program, Shutdown, stdio};
use tokio::time::{Instant, timeout_at};

use crate::finding::{Place, Verdict};
use crate::judge::{Ends, Plan};
use crate::probe::end::{self, Look, Seen};
use crate::report::Report;
use crate::steps::Steps;

/// Check whether a migration between two SpiceDBs would succeed: reachability, rights, versions, Watch,
/// schemas, limits, history. Writes nothing, unless --mark is given.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-preflight",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Preflight {
    /// The server to leave: a table of the contexts file, as in spice-export --context. Alone, only what
    /// a source has to be is checked.
    #[arg(long, value_name = "CONTEXT", required_unless_present = "to")]
    from: Option<String>,
    /// The server to reach. Alone, only what a target has to be is checked.
    #[arg(long, value_name = "CONTEXT")]
    to: Option<String>,
    /// Which steps are planned.
    #[arg(long = "for", value_name = "STEPS", default_value = "live")]
    steps: Steps,
    /// Accept a target that holds relationships; the policy of spice-import that is planned.
    #[arg(long, value_name = "POLICY", value_parser = ["fail", "skip", "touch"])]
    on_conflict: Option<String>,
    /// How long the source keeps its history (--datastore-gc-window of SpiceDB), which no API returns
    /// [default: 24h, SpiceDB's own].
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, allow_hyphen_values = true)]
    gc_window: Option<Duration>,
    /// About how many relationships the source holds [default: what the sample counts].
    #[arg(long, value_name = "COUNT")]
    relationships: Option<u64>,
    /// How long a revision of the source is to be known before it is used, as in spice-migrate plan
    /// [default: 35s on MySQL and memory, 0s elsewhere].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    settle: Option<Duration>,
    #[command(flatten)]
    filter: FilterArgs,
    /// For how long relationships of the source are read, for a rate and the largest of them.
    #[arg(
        long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration,
        allow_hyphen_values = true
    )]
    sample: Duration,
    /// Write one marker, an empty transaction, to the source, and measure how soon its Watch delivers it.
    #[arg(long, requires = "from")]
    mark: bool,
    /// How long one request may take [default: request-timeout of the context, else 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, allow_hyphen_values = true)]
    request_timeout: Option<Duration>,
    /// How long all of it may take; what was not asked by then is reported as that.
    #[arg(
        long, value_name = "DURATION", default_value = "2m", value_parser = parse_timeout,
        allow_hyphen_values = true
    )]
    timeout: Duration,
    /// Print a record for each finding, and one with the verdict, instead of a list.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// A probe is small, whatever the server holds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  spice-preflight --from old --to new --gc-window 24h
  spice-preflight --from old --to new --for copy  # writes are stopped
  spice-preflight --to new --json | jq -r '.finding.remedy // empty'
  spice-preflight --from old --mark               # how fast is its Watch?
";

impl Program for Preflight {
    const NAME: &'static str = "spice-preflight";

    fn log_args(&self) -> &LogArgs {
        &self.log
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        tokio::select! {
            exit = self.check() => exit,
            number = shutdown.requested() => Ok(Exit::Signal(number)),
        }
    }
}

impl Preflight {
    async fn check(&self) -> Result<Exit, CommandError> {
        if let (Some(from), Some(to)) = (&self.from, &self.to)
            && from == to
        {
            return Err(
                CommandError::usage(format!("--from and --to are both {from}"))
                    .hint("give the contexts of two servers"),
            );
        }
        if self.mark && !self.steps.follows() {
            return Err(CommandError::usage(format!(
                "--mark measures the Watch, and --for {} follows no changes",
                self.steps.name()
            ))
            .hint("leave one of them out"));
        }
        let deadline = Instant::now() + self.timeout;
        let (source, target) = tokio::try_join!(
            self.look(Place::Source, self.from.as_deref(), deadline),
            self.look(Place::Target, self.to.as_deref(), deadline),
        )?;
        let fit = match (&source, &target) {
            (Some(source), Some(target)) => match &target.probe {
                Some(probe) => {
                    let (has, there) = (target.facts.has, &target.facts.schema);
                    let here = &source.facts.schema;
                    Some(probe.schema_fit(has, there, here).await)
                }
                None => None,
            },
            _ => None,
        };
        let ends = Ends {
            source: source.as_ref().map(|seen| &seen.facts),
            target: target.as_ref().map(|seen| &seen.facts),
            fit: fit.as_ref(),
        };
        let plan = Plan {
            steps: self.steps,
            gc_window: self.gc_window,
            settle: self.settle,
            relationships: self.relationships,
            may_be_filled: self.on_conflict.is_some(),
            filter: self.filter.filter(),
        };
        let findings = judge::judge(&ends, &plan);
        let marker = ends.source.and_then(|facts| facts.marker.as_ref());
        let report = Report {
            from: self.from.as_deref(),
            to: self.to.as_deref(),
            steps: self.steps,
            verdict: Verdict::of(&findings),
            findings: &findings,
            has_marked: marker.is_some_and(Result::is_ok),
        };
        self.print(&report)?;
        Ok(report.verdict.exit)
    }

    async fn look(
        &self,
        place: Place,
        context: Option<&str>,
        deadline: Instant,
    ) -> Result<Option<Seen>, CommandError> {
        let Some(context) = context else {
            return Ok(None);
        };
        // A token command may take its time.
        let connection = match timeout_at(deadline, self.connection(context)).await {
            Ok(connection) => connection?,
            Err(_) => return Ok(Some(end::without_settings(context))),
        };
        let filter = self.filter.filter();
        let look = Look {
            place,
            steps: self.steps,
            sample: self.sample,
            mark: self.mark,
            patience: connection.config().request_timeout,
            deadline,
            filter: filter.as_ref(),
        };
        end::look(look, context, &connection).await.map(Some)
    }

    async fn connection(&self, context: &str) -> Result<Connection, CommandError> {
        let args = ConnectionArgs {
            context: Some(context.to_owned()),
            settings: Settings {
                request_timeout: self.request_timeout,
                ..Settings::default()
            },
        };
        let defaults = Settings {
            request_timeout: Some(REQUEST_TIMEOUT),
            ..Settings::default()
        };
        let resolved = args.resolve_or(defaults).await;
        resolved.map_err(|error| error.context(format_args!("[{context}]")))
    }

    fn print(&self, report: &Report<'_>) -> Result<(), CommandError> {
        if !self.json {
            return stdio::print_line(&report.text());
        }
        for record in report.records() {
            stdio::print_line(&record.to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Preflight::command().debug_assert();
    }

    #[test]
    fn one_end_is_enough_and_none_is_not() {
        let parse = |flags: &[&str]| {
            Preflight::try_parse_from([&["spice-preflight"], flags].concat()).is_ok()
        };
        assert!(parse(&["--from", "old"]) && parse(&["--to", "new"]));
        assert!(!parse(&[]));
        assert!(
            !parse(&["--to", "new", "--mark"]),
            "a marker is the source's"
        );
        assert!(!parse(&["--from", "old", "--on-conflict", "maybe"]));
    }
}
