//! `spice-diff`: the updates that turn one snapshot into another.
//!
//! [`side`] reads one stream, [`table`] brings the two together in bounded memory, [`spill`] is what
//! does not fit.

#![forbid(unsafe_code)]

mod side;
mod spill;
mod table;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use clap::CommandFactory as _;
use spice_pipe::compare::CompareArgs;
use spice_pipe::log::LogArgs;
use spice_pipe::stdio::Output;
use spice_pipe::{Exit, Failure, Program, Shutdown, VERSION, parse_size, stdio};
use spice_record::record::StreamKind;
use spice_record::{FORMAT, Header, UpdateWriter};

use crate::spill::Folder;
use crate::table::{Difference, Table};

/// Write the updates that turn the relationships of one snapshot stream into those of another.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "spice-diff", version = spice_pipe::VERSION, before_help = EXAMPLES)]
pub struct Diff {
    /// The snapshot stream to be changed, plain or zstd: what a target holds; - is stdin.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The one to be reached: what the source holds.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Print counts by kind and relation instead of updates.
    #[arg(long)]
    summary: bool,
    /// Leave out what A holds and B does not.
    #[arg(long)]
    no_deletes: bool,
    /// End with 0 also where they differ: for pipes under pipefail.
    #[arg(long)]
    exit_zero: bool,
    /// How much memory the comparison may take; what does not fit goes to temporary files.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    memory: u64,
    /// Where these files are made. They have no names: nothing of them is left, however this ends.
    #[arg(long, value_name = "FOLDER", default_value_os_t = std::env::temp_dir())]
    temp: PathBuf,
    #[command(flatten)]
    compare: CompareArgs,
    #[command(flatten)]
    log: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  spice-diff --summary new.ndjson old.ndjson
  spice-diff <(spice-export --context new) <(spice-export --context old)
  spice-diff --exit-zero new.ndjson old.ndjson | spice-apply --context new     # repair new
";

/// A relationship is kept as the bytes of its message, and a few more for finding it.
const LEAST_MEMORY: u64 = 1 << 20;

impl Program for Diff {
    const NAME: &'static str = "spice-diff";

    fn log_args(&self) -> &LogArgs {
        &self.log
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, Failure> {
        let stdin = Path::new("-");
        if self.a == stdin && self.b == stdin {
            return Err(Failure::usage("stdin can be only one of A and B"));
        }
        if (self.a == stdin || self.b == stdin) && stdio::stdin_is_terminal() {
            let help = Self::command().render_long_help();
            return Err(Failure::usage(format!(
                "nothing to read: stdin is a terminal\n\n{help}"
            )));
        }
        let comparing = tokio::task::spawn_blocking(move || self.compare());
        tokio::select! {
            exit = comparing => exit.map_err(|e| Failure::new(Exit::Failed, e.to_string()))?,
            number = shutdown.requested() => Ok(Exit::Signal(number)),
        }
    }
}

/// How many differences there are of one relation.
#[derive(Clone, Copy, Default)]
struct Counts {
    missing: u64,
    changed: u64,
    extra: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.missing += other.missing;
        self.changed += other.changed;
        self.extra += other.extra;
    }

    fn total(self) -> u64 {
        self.missing + self.changed + self.extra
    }
}

impl Diff {
    fn compare(&self) -> Result<Exit, Failure> {
        let memory = usize::try_from(self.memory.max(LEAST_MEMORY)).unwrap_or(usize::MAX);
        let mut table = Table::new(memory, Folder::new(&self.temp));
        let read = side::read_both([&self.a, &self.b], &self.compare, &mut table)?;
        let precision = self.compare.precision(read.precisions.iter().copied());
        // Nothing is said before both streams have proved to be whole.
        let mut relations: BTreeMap<String, Counts> = BTreeMap::new();
        let failed = |error: std::io::Error| Failure::stdout(&error);
        let mut output = Output::create(None, None)?;
        let mut updates = match self.summary {
            true => None,
            false => Some(UpdateWriter::create(&mut output, self.header(&read)).map_err(failed)?),
        };
        table.finish(precision, &mut |difference| {
            let (relationship, counts) = match &difference {
                Difference::Missing(b) => (
                    b,
                    Counts {
                        missing: 1,
                        ..Counts::default()
                    },
                ),
                Difference::Changed(b) => (
                    b,
                    Counts {
                        changed: 1,
                        ..Counts::default()
                    },
                ),
                Difference::Extra(_) if self.no_deletes => return Ok(()),
                Difference::Extra(a) => (
                    a,
                    Counts {
                        extra: 1,
                        ..Counts::default()
                    },
                ),
            };
            relations
                .entry(relation(relationship))
                .or_default()
                .add(counts);
            match &mut updates {
                Some(updates) => updates.write(update(difference)).map_err(failed),
                None => Ok(()),
            }
        })?;
        if let Some(updates) = updates {
            updates.finish().map_err(failed)?;
        }
        let mut total = Counts::default();
        relations.values().for_each(|counts| total.add(*counts));
        if self.summary {
            writeln!(output, "{}", summary(&relations, total)).map_err(failed)?;
        }
        output.finish().map_err(failed)?;
        let [a, b] = read.relationships;
        let Counts {
            missing,
            changed,
            extra,
        } = total;
        if total.total() == 0 {
            tracing::info!("equal ({precision}): {a} relationships");
            return Ok(Exit::Done);
        }
        tracing::info!(
            "different ({precision}): of {a} in A and {b} in B, {missing} are missing in A, {changed} \
             differ, {extra} are only in A"
        );
        Ok(if self.exit_zero {
            Exit::Done
        } else {
            Exit::Partial
        })
    }

    fn header(&self, read: &side::Read) -> Header {
        Header {
            format: FORMAT.to_owned(),
            stream: StreamKind::Updates,
            revision: None,
            schema: None,
            filter: read.filter.clone(),
            producer: format!("spice-diff {VERSION}"),
            created_at: spice_pipe::compare::now(),
        }
    }
}

fn update(difference: Difference) -> RelationshipUpdate {
    let (operation, relationship) = match difference {
        Difference::Missing(b) | Difference::Changed(b) => (Operation::Touch, b),
        Difference::Extra(a) => (Operation::Delete, a),
    };
    RelationshipUpdate {
        operation: operation.into(),
        relationship: Some(relationship),
    }
}

fn relation(relationship: &Relationship) -> String {
    let resource = relationship.resource.as_ref();
    let definition = resource.map_or("", |resource| resource.object_type.as_str());
    format!("{definition}#{}", relationship.relation)
}

fn summary(relations: &BTreeMap<String, Counts>, total: Counts) -> String {
    let all = "total".to_owned();
    let rows = || relations.iter().chain([(&all, &total)]);
    let width = rows().map(|(name, _)| name.len()).max().unwrap_or(0).max(8);
    let mut lines = vec![format!(
        "{:width$}  {:>9}  {:>9}  {:>9}",
        "relation", "missing", "changed", "extra"
    )];
    lines.extend(rows().map(|(name, counts)| {
        let Counts {
            missing,
            changed,
            extra,
        } = counts;
        format!("{name:width$}  {missing:>9}  {changed:>9}  {extra:>9}")
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn flags_are_consistent() {
        super::Diff::command().debug_assert();
    }
}
