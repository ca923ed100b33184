//! The command line.

use std::path::PathBuf;

use crate::phase::Step;
use crate::suite::{EXIT_CODES, FilterArgs, LogArgs, VERSION, parse_size, parse_timeout};
use crate::time::Span;

/// Move schema and relationships of one SpiceDB to another, which is written meanwhile.
///
/// Each step can be stopped or killed; the same command resumes it.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-migrate",
    version = VERSION,
    before_help = EXAMPLES,
    after_long_help = EXIT_CODES,
    disable_help_subcommand = true
)]
pub struct Migrate {
    /// The folder for the state of this migration.
    #[arg(long, global = true, value_name = "DIR", default_value = crate::folder::DEFAULT)]
    pub(crate) state: PathBuf,
    /// Print the commands of the step for bash, and run none of them.
    #[arg(long, global = true)]
    pub(crate) print: bool,
    /// The step.
    #[command(subcommand)]
    pub(crate) step: Steps,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  spice-migrate plan --from old --to new  # checks both ends, writes nothing
  spice-migrate copy                      # copies, compares, captures
  spice-migrate follow                    # in a terminal of its own
  spice-migrate status                    # is it safe to cut over?
  spice-migrate verify                    # compares both ends under writes
  spice-migrate cutover                   # prints when to fence, to switch
  spice-migrate reverse                   # keeps the old end up to date
  spice-migrate verify --reverse          # compares both ends, way back
  spice-migrate cutover --reverse         # and back again
  spice-migrate --print copy              # the same as commands for bash
";

#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Steps {
    /// Check both ends, write to neither, and print the steps.
    Plan(Plan),
    /// Export from one end into the other, capture changes meanwhile, and compare the copy.
    Copy(Copy),
    /// Capture and apply changes until it is stopped.
    Follow(Follow),
    /// Report how far the target is behind, and whether it is safe to cut over; exit 1 if not.
    Status(Status),
    /// Compare both ends while they are written: relationships and schemas.
    Verify(Verify),
    /// Make a target equal again that has drifted or lost its history, without emptying it.
    Resync(Resync),
    /// Wait for the fence, bring the rest over, order the switch, and compare both ends.
    Cutover(Cutover),
    /// Stop all steps; deletes nothing.
    Abort(Abort),
    /// After the switch: bring what is written to the new end back to the old one.
    Reverse(Follow),
    /// After plan --fenced: compare both ends as they are now.
    Check(Check),
}

/// `--reverse`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Reverse {
    /// On the way back, which reverse began.
    #[arg(long)]
    pub(crate) reverse: bool,
}

/// `--settle`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Settle {
    /// How long a revision of the source must have been known before it is used; plan keeps it
    /// [default: 35s on MySQL and memory, 0s elsewhere].
    #[arg(long, value_name = "DURATION")]
    pub(crate) settle: Option<Span>,
}

/// `--jobs` of what reads and loads.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Jobs {
    /// How many streams to read at the same time, and how many transactions to load at most [default: 1 stream, and
    /// that of spice-import].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) jobs: Option<u64>,
}

/// The spool of what captures.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Capture {
    /// How often to write an empty transaction to the source.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = span_not_zero)]
    pub(crate) heartbeat: Span,
    /// Size of the spool's files.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub(crate) spool_segment: String,
}

pub(crate) const MAX_LAG: &str = "10s";
pub(crate) const MAX_VERIFY_AGE: &str = "1h";

/// When it is safe to cut over.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Safety {
    /// The most that the target may be behind.
    #[arg(long, value_name = "DURATION", default_value = MAX_LAG)]
    pub(crate) max_lag: Span,
    /// How long ago verify may have found both ends equal.
    #[arg(long, value_name = "DURATION", default_value = MAX_VERIFY_AGE)]
    pub(crate) max_verify_age: Span,
    /// Do not require a verify.
    #[arg(long)]
    pub(crate) skip_verify: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// The server to leave: a table of the contexts file, as in spice-export --context. A plan that
    /// is made again keeps it.
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) from: Option<String>,
    /// The server to reach.
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) to: Option<String>,
    /// The procedure with writes stopped from copy to switch.
    #[arg(long)]
    pub(crate) fenced: bool,
    /// How long the source keeps its history (--datastore-gc-window of SpiceDB), which no API returns.
    #[arg(long, value_name = "DURATION", value_parser = span_not_zero)]
    pub(crate) gc_window: Option<Span>,
    /// About how many relationships the source holds [default: what spice-preflight counts].
    #[arg(long, value_name = "COUNT")]
    pub(crate) relationships: Option<u64>,
    /// Load into a target that holds relationships of the source, and no others; what to do where one
    /// differs there. copy takes it from here.
    #[arg(long, value_name = "POLICY")]
    pub(crate) on_conflict: Option<OnConflict>,
    /// How long the check of both ends may take [default: that of spice-preflight].
    #[arg(long, value_name = "DURATION", value_parser = span_not_zero)]
    pub(crate) timeout: Option<Span>,
    /// Plan in spite of what spice-preflight predicts of this; the steps stop where it is so. Can be
    /// given more than once.
    #[arg(long, value_name = "CHECK")]
    pub(crate) accept: Vec<Accept>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    #[command(flatten)]
    pub(crate) settle: Settle,
}

/// The checks of spice-preflight that predict what a step finds out by itself, without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Accept {
    /// The copy may outlast the source's history: then it ends with 4.
    History,
    /// A relationship may be too large for the target: then it is refused by name.
    Limits,
    /// A call was refused that changes nothing; the real one may be allowed.
    Rights,
}

impl Accept {
    pub(crate) const ALL: [Self; 3] = [Self::History, Self::Limits, Self::Rights];

    /// As it is given, and as a finding names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Limits => "limits",
            Self::Rights => "rights",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnConflict {
    /// Stop at the first relationship that differs.
    Fail,
    /// Leave it as it is on the target; exit 3.
    Skip,
    /// Write the source's over it.
    Touch,
}

impl OnConflict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Touch => "touch",
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Copy {
    /// Copy once more, though there is a finished copy.
    #[arg(long)]
    pub(crate) restart: bool,
    /// Load into a target that holds relationships; what to do where one differs there [default:
    /// that of plan, else refuse such a target; skip where a copy is resumed].
    #[arg(long, value_name = "POLICY")]
    pub(crate) on_conflict: Option<OnConflict>,
    /// Put relationships that the target refuses into this file, and continue.
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) jobs: Jobs,
    #[command(flatten)]
    pub(crate) settle: Settle,
    #[command(flatten)]
    pub(crate) capture: Capture,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Follow {
    /// Delete segments of the spool once they are applied.
    #[arg(long)]
    pub(crate) prune: bool,
    /// How many calls to make at the same time under backlog [default: that of spice-apply].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) jobs: Option<u64>,
    /// No more calls to the target in a second than this.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_rps: Option<u64>,
    /// Put updates that the target refuses into this file, and continue.
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,
    /// What to do when the source's schema changes: apply, check or stop, as in spice-apply [default: apply; check
    /// after a plan with --type or --resource-prefix].
    #[arg(long, value_name = "MODE")]
    pub(crate) schema: Option<OnSchema>,
    #[command(flatten)]
    pub(crate) settle: Settle,
    #[command(flatten)]
    pub(crate) capture: Capture,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnSchema {
    /// Write it to the target.
    Apply,
    /// Wait until somebody else has written it to the target.
    Check,
    /// Stop, unless the target has it already.
    Stop,
}

impl OnSchema {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::Check => "check",
            Self::Stop => "stop",
        }
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Status {
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Show it live until q is pressed; off a terminal print a line every 10 s.
    #[arg(long, conflicts_with = "json")]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) safety: Safety,
    #[command(flatten)]
    pub(crate) reverse: Reverse,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Verify {
    /// Also ask both ends who has which permission, about so many relationships.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) check_sample: u64,
    #[command(flatten)]
    pub(crate) jobs: Jobs,
    #[command(flatten)]
    pub(crate) reverse: Reverse,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Resync {
    /// No more calls to the target in a second than this.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_rps: Option<u64>,
    /// Put updates that the target refuses into this file, and continue.
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) jobs: Jobs,
    #[command(flatten)]
    pub(crate) settle: Settle,
    #[command(flatten)]
    pub(crate) capture: Capture,
    #[command(flatten)]
    pub(crate) reverse: Reverse,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Cutover {
    /// Stops writes to the source, instead of you; exit 0 means that they are stopped.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) fence_command: Option<String>,
    /// Compare both ends before the switch, while writes are stopped.
    #[arg(long)]
    pub(crate) verify_before_switch: bool,
    /// How long a PostgreSQL that takes no writes must be quiet.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = span_not_zero)]
    pub(crate) until_quiet: Span,
    /// How many calls to make at the same time; more help where the target is far away.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) jobs: u64,
    /// Put updates that the target refuses into this file, and continue [default: as follow].
    #[arg(long, value_name = "FILE")]
    pub(crate) rejects: Option<PathBuf>,
    /// What to do when the source's schema changes [default: as follow].
    #[arg(long, value_name = "MODE")]
    pub(crate) schema: Option<OnSchema>,
    /// Size of the spool's files.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    pub(crate) spool_segment: String,
    #[command(flatten)]
    pub(crate) safety: Safety,
    #[command(flatten)]
    pub(crate) reverse: Reverse,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Abort {
    #[command(flatten)]
    pub(crate) reverse: Reverse,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) settle: Settle,
}

impl Steps {
    pub(crate) fn step(&self) -> Step {
        match self {
            Self::Plan(_) => Step::Plan,
            Self::Copy(copy) => Step::Copy {
                restart: copy.restart,
            },
            Self::Follow(_) => Step::Follow,
            Self::Status(_) => Step::Status,
            Self::Verify(_) => Step::Verify,
            Self::Resync(_) => Step::Resync,
            Self::Cutover(_) => Step::Cutover,
            Self::Abort(_) => Step::Abort,
            Self::Reverse(_) => Step::Reverse,
            Self::Check(_) => Step::Check,
        }
    }

    pub(crate) fn is_on_the_way_back(&self) -> bool {
        match self {
            Self::Status(Status { reverse, .. })
            | Self::Verify(Verify { reverse, .. })
            | Self::Resync(Resync { reverse, .. })
            | Self::Cutover(Cutover { reverse, .. })
            | Self::Abort(Abort { reverse, .. }) => reverse.reverse,
            _ => false,
        }
    }

    pub(crate) fn settle(&self) -> Option<&Span> {
        match self {
            Self::Plan(Plan { settle, .. })
            | Self::Copy(Copy { settle, .. })
            | Self::Follow(Follow { settle, .. })
            | Self::Reverse(Follow { settle, .. })
            | Self::Resync(Resync { settle, .. })
            | Self::Check(Check { settle, .. }) => settle.settle.as_ref(),
            _ => None,
        }
    }
}

fn span_not_zero(text: &str) -> Result<Span, String> {
    parse_timeout(text)?;
    text.parse()
}

/// A size, as it was written.
fn size(text: &str) -> Result<String, String> {
    parse_size(text)?;
    Ok(text.to_owned())
}
