//! What differs: as updates, or as counts.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use authzed::v1::{Relationship, RelationshipUpdate, relationship_update::Operation};
use spice_cli::display::cell;
use spice_cli::stdio::Output;
use spice_cli::{CommandError, Exit, VERSION, files};
use spice_record::digest::key_digest;
use spice_record::record::StreamKind;
use spice_record::{Header, Record, UpdateWriter};

use crate::Diff;
use crate::deferred::{self, Keys};
use crate::join::{self, Difference};
use crate::reader::Read;

/// How many differences there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) missing: u64,
    pub(crate) changed: u64,
    pub(crate) extra: u64,
    pub(crate) deferred: u64,
}

pub(crate) struct Report {
    sink: Sink,
    deletes: bool,
    relations: BTreeMap<String, Counts>,
    deferred: Option<Deferred>,
}

enum Sink {
    Updates(UpdateWriter<Output>),
    Summary(Output),
}

/// What cannot be compared yet, and the file for what differs of it: what B's revision does not see, and what a side
/// holds twice.
struct Deferred {
    unseen: Keys,
    file: std::fs::File,
    name: String,
    count: u64,
}

impl Report {
    pub(crate) fn begin(args: &Diff, read: &Read) -> Result<Self, CommandError> {
        let deferred = match (&args.spool, &args.deferred) {
            (Some(spool), Some(file)) => {
                let inputs = [&args.a, &args.b, spool].map(PathBuf::as_path);
                let inputs = inputs
                    .into_iter()
                    .chain(args.keys_from.iter().map(PathBuf::as_path));
                Some(Deferred::begin(
                    spool,
                    file,
                    &inputs.collect::<Vec<_>>(),
                    read,
                )?)
            }
            _ => None,
        };
        let output = Output::create(None, None)?;
        let sink = if args.summary {
            Sink::Summary(output)
        } else {
            let header = Header {
                filter: read.filter.clone(),
                mapping: read.mapping.clone(),
                ..Header::new(
                    StreamKind::Updates,
                    format!("spice-diff {VERSION}"),
                    spice_cli::compare::now(),
                )
            };
            Sink::Updates(UpdateWriter::create(output, header).map_err(stdout)?)
        };
        Ok(Self {
            sink,
            deletes: !args.no_deletes,
            relations: BTreeMap::new(),
            deferred,
        })
    }

    pub(crate) fn write(&mut self, difference: Difference) -> Result<(), CommandError> {
        let mut counts = Counts::default();
        let (count, operation, relationship) = match difference {
            Difference::Duplicate(side, relationship) => {
                let Some(deferred) = &mut self.deferred else {
                    return Err(join::duplicate_error(side, &relationship));
                };
                // Of the other copy nothing is known either.
                deferred.unseen.insert(key_digest(&relationship).0);
                return deferred.keep(touch(relationship));
            }
            Difference::Missing(b) => (&mut counts.missing, Operation::Touch, b),
            Difference::Changed(b) => (&mut counts.changed, Operation::Touch, b),
            Difference::Extra(a) => (&mut counts.extra, Operation::Delete, a),
        };
        *count = 1;
        let relation = relation(&relationship);
        let key = key_digest(&relationship).0;
        let update = RelationshipUpdate {
            operation: operation.into(),
            relationship: Some(relationship),
        };
        if let Some(deferred) = &mut self.deferred
            && deferred.unseen.contains(&key)
        {
            return deferred.keep(update);
        }
        if operation == Operation::Delete && !self.deletes {
            return Ok(());
        }
        self.relations.entry(relation).or_default().add(counts);
        match &mut self.sink {
            Sink::Updates(updates) => updates.write(update).map_err(stdout),
            Sink::Summary(_) => Ok(()),
        }
    }

    /// Ends the output; returns how many differences there were.
    pub(crate) fn finish(self) -> Result<Counts, CommandError> {
        let mut total = Counts {
            deferred: self.deferred.as_ref().map_or(0, |deferred| deferred.count),
            ..Counts::default()
        };
        self.relations
            .values()
            .for_each(|counts| total.add(*counts));
        if let Some(deferred) = &self.deferred {
            deferred
                .file
                .sync_all()
                .map_err(|error| deferred.failed(&error))?;
        }
        let output = match self.sink {
            Sink::Updates(updates) => updates.finish().map_err(stdout)?,
            Sink::Summary(mut output) => {
                let summary = summary(&self.relations, total);
                writeln!(output, "{summary}").map_err(stdout)?;
                output
            }
        };
        output.finish().map_err(stdout)?;
        Ok(total)
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.missing += other.missing;
        self.changed += other.changed;
        self.extra += other.extra;
    }
}

impl Deferred {
    fn begin(
        spool: &Path,
        file: &Path,
        inputs: &[&Path],
        read: &Read,
    ) -> Result<Self, CommandError> {
        let Some(revision) = &read.revision else {
            return Err(CommandError::new(
                Exit::BadData,
                "--spool: B has no revision, so what it does not see is unknown",
            ));
        };
        let name = file.display().to_string();
        let unseen = deferred::unseen(spool, revision, &read.mapping)?;
        let file = files::append("--deferred", file, inputs)?;
        Ok(Self {
            unseen,
            file,
            name,
            count: 0,
        })
    }

    fn keep(&mut self, update: RelationshipUpdate) -> Result<(), CommandError> {
        self.count += 1;
        let mut line = serde_json::to_vec(&Record::Update(Box::new(update.into())))?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> CommandError {
        CommandError::new(Exit::Failed, format!("--deferred {}: {error}", self.name))
    }
}

fn touch(relationship: Relationship) -> RelationshipUpdate {
    RelationshipUpdate {
        operation: Operation::Touch.into(),
        relationship: Some(relationship),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is used in map_err")]
fn stdout(error: io::Error) -> CommandError {
    CommandError::stdout(&error)
}

fn relation(relationship: &Relationship) -> String {
    let resource = relationship.resource.as_ref();
    let definition = resource.map_or("", |resource| resource.object_type.as_str());
    format!("{definition}#{}", relationship.relation)
}

fn summary(relations: &BTreeMap<String, Counts>, total: Counts) -> String {
    let names = relations.iter().map(|(name, counts)| (cell(name), counts));
    let names: Vec<_> = names.chain([("total".to_owned(), &total)]).collect();
    let rows = || names.iter();
    let width = rows().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0).max("relation".len());
    let mut lines = vec![format!(
        "{:width$}  {:>9}  {:>9}  {:>9}",
        "relation", "missing", "changed", "extra"
    )];
    lines.extend(rows().map(|(name, counts)| {
        let Counts {
            missing,
            changed,
            extra,
            ..
        } = counts;
        format!("{name:width$}  {missing:>9}  {changed:>9}  {extra:>9}")
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use testdata::Sample;

    use super::*;
    use crate::row::Side;

    fn report(deferred: Option<Deferred>) -> Report {
        Report {
            sink: Sink::Summary(Output::create(None, None).expect("stdout")),
            deletes: true,
            relations: BTreeMap::new(),
            deferred,
        }
    }

    #[test]
    fn what_a_side_holds_twice_is_set_aside_with_its_other_copy() {
        let sample: Vec<_> = Sample::portable(2).iter().collect();
        let [twice, once] = [0, 1].map(|place| sample[place].clone());
        let differences = |report: &mut Report| -> Result<(), CommandError> {
            report.write(Difference::Duplicate(Side::B, twice.clone()))?;
            report.write(Difference::Changed(twice.clone()))?;
            report.write(Difference::Missing(once.clone()))
        };
        let mut live = report(Some(Deferred {
            unseen: Keys::new(),
            file: tempfile::tempfile().expect("a file"),
            name: "aside".to_owned(),
            count: 0,
        }));
        differences(&mut live).expect("set aside");
        let counts = live.relations.values();
        let counts: Vec<_> = counts.map(|one| (one.missing, one.changed)).collect();
        assert_eq!(counts, [(1, 0)]);
        assert_eq!(live.deferred.map(|deferred| deferred.count), Some(2));
        let refused = differences(&mut report(None)).expect_err("no snapshot holds one twice");
        assert_eq!(refused.exit, Exit::BadData);
    }
}
