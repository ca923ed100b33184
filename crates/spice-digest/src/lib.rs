//! `spice-digest`: counts and order-free digests of relationships, by definition and relation.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use authzed::v1::Relationship;
use clap::CommandFactory as _;
use spice_cli::compare::CompareArgs;
use spice_cli::display::cell;
use spice_cli::log::LogArgs;
use spice_cli::{CommandError, Exit, Program, Shutdown, stdio};
use spice_record::record::{Digests, RelationDigest};
use spice_record::{
    DigestSum, ExpiryPrecision, Hashes, Integrity, Record, RecordReader, SnapshotReader,
};

/// Count the relationships of snapshot streams, and print order-free digests of them.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-digest",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Digest {
    /// Snapshot streams, plain, zstd or gzip, of which the sum is printed: the shards of one export, for
    /// example.
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
    /// Print one record instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compare: CompareArgs,
    #[command(flatten)]
    log: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  spice-export --context old | spice-digest
  spice-digest --json backup.ndjson.zst | jq .digest.total
  spice-digest shard-1.ndjson shard-2.ndjson     # the sum of both shards
";

impl Program for Digest {
    const NAME: &'static str = "spice-digest";

    fn log_args(&self) -> &LogArgs {
        &self.log
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        if self.files == [Path::new("-")] && stdio::stdin_is_terminal() {
            let help = Self::command().render_long_help();
            return Err(CommandError::terminal(help));
        }
        let json = self.json;
        let reading = tokio::task::spawn_blocking(move || self.read());
        let digests = tokio::select! {
            digests = reading => digests.map_err(|e| CommandError::new(Exit::Failed, e.to_string()))??,
            number = shutdown.requested() => return Ok(Exit::Signal(number)),
        };
        if json {
            stdio::print_line(&serde_json::to_string(&Record::Digest(Box::new(digests)))?)?;
        } else {
            stdio::print_line(&table(&digests))?;
        }
        Ok(Exit::Done)
    }
}

/// What was counted of one relation.
#[derive(Default)]
struct Sum {
    caveated: u64,
    expiring: u64,
    sum: DigestSum,
}

impl Sum {
    fn add(&mut self, relationship: &Relationship, hashes: Hashes) {
        self.caveated += u64::from(relationship.optional_caveat.is_some());
        self.expiring += u64::from(relationship.optional_expires_at.is_some());
        self.sum.add_hashes(hashes);
    }

    fn counted(&self, relation: Option<String>, precision: ExpiryPrecision) -> RelationDigest {
        RelationDigest {
            relation,
            relationships: self.sum.relationships(),
            caveated: self.caveated,
            expiring: self.expiring,
            digest: self.sum.digest(precision),
        }
    }
}

/// What a relation takes in a schema beside its names, and the most that they take together.
const RELATION_BYTES: usize = 40;
const MOST_NAMES: usize = 8 << 20;
/// A longer name does not move the columns of the others.
const WIDEST: usize = 200;

/// By definition and relation.
#[derive(Default)]
struct Sums {
    places: BTreeMap<String, BTreeMap<String, usize>>,
    sums: Vec<Sum>,
    names: usize,
}

impl Sums {
    /// # Errors
    ///
    /// Exit 65 where there are more relations than a schema can have, for each is kept.
    fn of(&mut self, relationship: &Relationship) -> Result<&mut Sum, CommandError> {
        let resource = relationship.resource.as_ref();
        let definition = resource.map_or("", |resource| resource.object_type.as_str());
        let relation = relationship.relation.as_str();
        let known = self.places.get(definition);
        let place = match known.and_then(|relations| relations.get(relation)) {
            Some(place) => *place,
            None => {
                self.names += definition.len() + relation.len() + RELATION_BYTES;
                if self.names > MOST_NAMES {
                    return Err(CommandError::new(
                        Exit::BadData,
                        "more definitions and relations than a schema of 4 MiB can have",
                    ));
                }
                let place = self.sums.len();
                self.sums.push(Sum::default());
                let relations = self.places.entry(definition.to_owned()).or_default();
                relations.insert(relation.to_owned(), place);
                place
            }
        };
        Ok(&mut self.sums[place])
    }
}

impl Digest {
    fn read(&self) -> Result<Digests, CommandError> {
        let (mut sums, mut revisions, mut precisions) = (Sums::default(), Vec::new(), Vec::new());
        for file in &self.files {
            let (input, name) = stdio::open(file)?;
            let mut stream =
                SnapshotReader::open(RecordReader::new(input, name), Integrity::Verified)?;
            while let Some(relationship) = stream.next_relationship()? {
                if !self.compare.leaves_out(&relationship) {
                    sums.of(&relationship)?.add(&relationship, stream.hashes());
                }
            }
            revisions.extend(stream.header().and_then(|header| header.revision.clone()));
            precisions.extend(stream.precision());
        }
        let precision = self.compare.precision(precisions);
        let mut total = Sum::default();
        let mut relations = Vec::new();
        for (definition, places) in &sums.places {
            for (relation, place) in places {
                let sum = &sums.sums[*place];
                total.caveated += sum.caveated;
                total.expiring += sum.expiring;
                total.sum.add_sum(&sum.sum);
                let name = format!("{definition}#{relation}");
                relations.push(sum.counted(Some(name), precision));
            }
        }
        Ok(Digests {
            expiry_precision: precision,
            as_of: self.compare.as_of.map(|as_of| as_of.to_string()),
            revisions,
            total: total.counted(None, precision),
            relations,
        })
    }
}

fn table(digests: &Digests) -> String {
    let name =
        |counted: &RelationDigest| counted.relation.as_deref().map_or("total".to_owned(), cell);
    let rows = || digests.relations.iter().chain([&digests.total]);
    let width = rows().map(|row| name(row).chars().count()).max();
    let width = width.unwrap_or(0).clamp("relation".len(), WIDEST);
    let mut lines = vec![format!(
        "{:width$}  {:>13}  {:>9}  {:>9}  digest ({})",
        "relation", "relationships", "caveated", "expiring", digests.expiry_precision
    )];
    lines.extend(rows().map(|row| {
        format!(
            "{:width$}  {:>13}  {:>9}  {:>9}  {}",
            name(row),
            row.relationships,
            row.caveated,
            row.expiring,
            row.digest
        )
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Digest::command().debug_assert();
    }

    fn digest(stream: &str) -> Result<Digests, CommandError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(stream.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        Digest::parse_from(["spice-digest", path]).read()
    }

    #[test]
    fn complete_snapshot_is_summed() {
        let found = digest(&testdata::snapshot(20)).unwrap();
        assert_eq!(found.total.relationships, 20);
    }

    #[test]
    fn trailer_that_proves_nothing_is_refused() {
        for (fault, stream) in testdata::faulty_trailers(&testdata::snapshot(20)) {
            let failure = digest(&stream).expect_err(fault);
            assert_eq!(failure.exit, Exit::BadData, "{fault}");
        }
    }
}
