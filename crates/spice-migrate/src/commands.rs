//! The command lines of the suite's programs: the only place that knows their flags.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use spice_record::record::Filter;

use crate::phase::Procedure;
use crate::time::Span;

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: &'static str,
    pub(crate) arguments: Vec<OsString>,
}

/// What every program that this one runs is called.
pub(crate) const PROGRAMS: [&str; 9] = [
    "spice-revision",
    "spice-export",
    "spice-import",
    "spice-watch",
    "spice-apply",
    "spice-digest",
    "spice-diff",
    "spice-check",
    "spice-preflight",
];

impl Command {
    fn new(program: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
        }
    }

    fn at(program: &'static str, context: &str) -> Self {
        Self::new(program).flag("--context", context)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// A flag with a value, as one word: a value may begin with a hyphen.
    pub(crate) fn flag(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        self.arguments.push(word);
        self
    }

    pub(crate) fn flag_if(self, name: &str, value: Option<impl AsRef<OsStr>>) -> Self {
        match value {
            Some(value) => self.flag(name, value),
            None => self,
        }
    }

    pub(crate) fn arg_if(self, flag: &str, is: bool) -> Self {
        match is {
            true => self.arg(flag),
            false => self,
        }
    }

    pub(crate) fn quiet(self) -> Self {
        self.arg("--quiet")
    }
}

/// What is planned, for the checks before it.
#[derive(Clone, Copy)]
pub(crate) struct Preflight<'a> {
    pub(crate) source: &'a str,
    pub(crate) target: &'a str,
    pub(crate) procedure: Procedure,
    pub(crate) policy: Option<&'a str>,
    pub(crate) gc_window: Option<&'a str>,
    pub(crate) settle: Option<&'a str>,
    pub(crate) filter: Option<&'a Filter>,
    pub(crate) relationships: Option<u64>,
    pub(crate) timeout: Option<&'a str>,
}

/// Whether a migration would succeed: a list for people. Nothing is written.
pub(crate) fn preflight(planned: &Preflight<'_>) -> Command {
    let steps = match planned.procedure {
        // What only verify --check-sample and reverse need is a warning.
        Procedure::Live => "all",
        Procedure::Fenced => "copy",
    };
    Command::new("spice-preflight")
        .flag("--from", planned.source)
        .flag("--to", planned.target)
        .flag("--for", steps)
        .flag_if("--on-conflict", planned.policy)
        .flag_if("--gc-window", planned.gc_window)
        .flag_if("--settle", planned.settle)
        .flag_if(
            "--relationships",
            planned.relationships.map(|count| count.to_string()),
        )
        .flag_if("--timeout", planned.timeout)
        .only(planned.filter)
}

/// The newest revision of a server, once it has settled.
pub(crate) fn head(context: &str, settle: Option<&str>) -> Command {
    Command::at("spice-revision", context)
        .arg("--head")
        .flag_if("--settle", settle)
}

/// The same, and what is behind that server, as one JSON object.
pub(crate) fn look(context: &str) -> Command {
    head(context, Some("0s")).arg("--json")
}

/// A marker: an empty transaction.
pub(crate) fn mark(context: &str) -> Command {
    Command::at("spice-revision", context).arg("--mark")
}

/// The revision in a file.
pub(crate) fn revision_of(file: impl AsRef<OsStr>) -> Command {
    Command::new("spice-revision").arg(file)
}

/// The target's revision in a file.
pub(crate) fn target_revision_of(file: impl AsRef<OsStr>) -> Command {
    Command::new("spice-revision").arg("--target").arg(file)
}

/// An export at a revision, or at one that has settled.
#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    Revision(&'a str),
    Settled(Option<&'a str>),
}

pub(crate) fn export(
    context: &str,
    at: At<'_>,
    precision: &str,
    jobs: Option<u64>,
    filter: Option<&Filter>,
) -> Command {
    let command = Command::at("spice-export", context).only(filter);
    let command = match at {
        At::Revision(revision) => command.flag("--at", revision),
        At::Settled(settle) => command.flag_if("--settle", settle),
    };
    command
        .flag("--expiry-precision", precision)
        .flag_if("--jobs", jobs.map(|jobs| jobs.to_string()))
}

/// An export of the relationships alone.
pub(crate) fn export_relationships(
    context: &str,
    at: At<'_>,
    precision: &str,
    jobs: Option<u64>,
    filter: Option<&Filter>,
) -> Command {
    export(context, at, precision, jobs, filter).arg("--no-schema")
}

/// What an import does.
#[derive(Clone, Copy, Default)]
pub(crate) struct Import<'a> {
    pub(crate) unnamed: bool,
    pub(crate) policy: Option<&'a str>,
    pub(crate) rejects: Option<&'a Path>,
    pub(crate) jobs: Option<u64>,
}

pub(crate) fn import(context: &str, import: &Import<'_>) -> Command {
    Command::at("spice-import", context)
        .arg_if("--same-datastore", import.unnamed)
        .flag_if("--on-conflict", import.policy)
        .flag_if("--rejects", import.rejects)
        .flag_if("--jobs", import.jobs.map(|jobs| jobs.to_string()))
}

/// Whether an import would be taken, of a header alone: nothing is written.
pub(crate) fn import_dry_run(context: &str, unnamed: bool, policy: Option<&str>) -> Command {
    let flags = Import {
        unnamed,
        policy,
        ..Import::default()
    };
    import(context, &flags)
        .arg("--dry-run")
        .arg("--no-trailer")
        .quiet()
}

/// The schema of a header alone: it is written, unless the target is shared with others. Theirs must be equal.
pub(crate) fn import_schema(context: &str, unnamed: bool, is_shared: bool) -> Command {
    let flags = Import {
        unnamed,
        policy: Some("skip"),
        ..Import::default()
    };
    import(context, &flags)
        .arg("--no-trailer")
        .flag("--schema", if is_shared { "check" } else { "write" })
        .quiet()
}

/// Where a capture begins.
#[derive(Clone, Copy)]
pub(crate) enum Since<'a> {
    Revision(&'a str),
    /// On the way back: at a revision in a file, without what came from there.
    Back(&'a Path, &'a Skip),
}

/// What a Watch of the way back leaves out: what this migration has applied. Without the datastore's id,
/// which old servers do not name, what anyone has applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skip(pub(crate) Option<String>);

impl Command {
    fn since(self, since: Since<'_>) -> Self {
        match since {
            Since::Revision(revision) => self.flag("--since", revision),
            Since::Back(file, skip) => self.flag("--since-file", file).skip(Some(skip)),
        }
    }

    fn skip(self, skip: Option<&Skip>) -> Self {
        match skip {
            None => self,
            Some(Skip(None)) => self.arg("--skip-applied"),
            Some(Skip(Some(source))) => self.flag("--skip-applied", source),
        }
    }
}

/// A capture into a spool.
pub(crate) struct Watch<'a> {
    pub(crate) context: &'a str,
    pub(crate) spool: &'a Path,
    pub(crate) segment: &'a str,
    pub(crate) settle: Option<&'a str>,
    pub(crate) filter: Option<&'a Filter>,
}

impl Watch<'_> {
    fn command(&self) -> Command {
        Command::at("spice-watch", self.context)
            .only(self.filter)
            .flag("--spool", self.spool)
            .flag("--spool-segment", self.segment)
            .flag_if("--settle", self.settle)
    }

    /// Until it is stopped.
    pub(crate) fn capture(&self, since: Since<'_>, heartbeat: &Span) -> Command {
        self.command()
            .since(since)
            .flag("--heartbeat", heartbeat.text())
    }

    /// Until everything through a marker is in the spool.
    pub(crate) fn until(&self, marker: &str, skip: Option<&Skip>) -> Command {
        self.command().flag("--until", marker).skip(skip)
    }

    /// Until nothing has come for so long.
    pub(crate) fn until_quiet(&self, quiet: &str, skip: Option<&Skip>) -> Command {
        self.command()
            .flag("--until-quiet", quiet)
            .skip(skip)
            .quiet()
    }
}

/// All changes after a revision as they come, to stdout, until it is stopped.
pub(crate) fn watch_live(context: &str, since: Since<'_>, filter: Option<&Filter>) -> Command {
    Command::at("spice-watch", context)
        .only(filter)
        .since(since)
        .flag("--settle", "0s")
        .quiet()
}

/// What was changed between two markers, to stdout.
pub(crate) fn watch_between(
    context: &str,
    since: &str,
    until: &str,
    filter: Option<&Filter>,
) -> Command {
    Command::at("spice-watch", context)
        .only(filter)
        .flag("--since", since)
        .flag("--until", until)
        .flag("--settle", "0s")
        .quiet()
}

/// What an apply does.
#[derive(Clone, Copy, Default)]
pub(crate) struct Apply<'a> {
    pub(crate) unnamed: bool,
    pub(crate) jobs: Option<u64>,
    pub(crate) max_rps: Option<u64>,
    pub(crate) rejects: Option<&'a Path>,
    pub(crate) schema: Option<&'a str>,
}

fn apply(context: &str, apply: &Apply<'_>) -> Command {
    Command::at("spice-apply", context)
        .arg_if("--same-datastore", apply.unnamed)
        .flag_if("--jobs", apply.jobs.map(|jobs| jobs.to_string()))
        .flag_if("--max-rps", apply.max_rps.map(|rps| rps.to_string()))
        .flag_if("--rejects", apply.rejects)
        .flag_if("--schema", apply.schema)
}

/// An apply of updates on its stdin.
pub(crate) fn apply_updates(context: &str, flags: &Apply<'_>) -> Command {
    apply(context, flags)
}

/// An apply of a spool.
pub(crate) fn apply_spool(
    context: &str,
    flags: &Apply<'_>,
    spool: &Path,
    position: &Path,
) -> Command {
    apply(context, flags)
        .flag("--spool", spool)
        .flag("--position", position)
}

/// Counts and digest of a snapshot on stdin, as one JSON object.
pub(crate) fn digest(precision: &str, as_of: Option<&str>) -> Command {
    Command::new("spice-digest")
        .arg("--json")
        .flag("--expiry-precision", precision)
        .flag_if("--as-of", as_of)
}

/// The same as a table.
pub(crate) fn digest_table(precision: &str) -> Command {
    Command::new("spice-digest").flag("--expiry-precision", precision)
}

/// The flag of a comparison for what could not be compared before.
pub(crate) const ONLY: &str = "--keys-from";

/// A comparison of two snapshots: A on stdin, B in a file.
pub(crate) fn diff(a: impl AsRef<OsStr>, b: impl AsRef<OsStr>) -> Command {
    Command::new("spice-diff").arg(a).arg(b)
}

/// The flags of a comparison while both ends are written; before the two files.
pub(crate) fn diff_live(as_of: &str, spool: &Path, deferred: &Path, only: &[PathBuf]) -> Command {
    let diff = Command::new("spice-diff")
        .flag("--as-of", as_of)
        .flag("--spool", spool)
        .flag("--deferred", deferred);
    only.iter().fold(diff, |diff, file| diff.flag(ONLY, file))
}

/// The answers of a server at a revision.
pub(crate) fn check(context: &str, at: &str) -> Command {
    Command::at("spice-check", context).flag("--at", at)
}
