//! Reads both streams concurrently. If one export had to wait for the other, its server would time out.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use authzed::zedtoken;
use prost::Message as _;
use spice_cli::compare::CompareArgs;
use spice_cli::{CommandError, stdio};
use spice_record::digest::key_digest;
use spice_record::record::Filter;
use spice_record::{ExpiryPrecision, Integrity, RecordReader, SnapshotReader};

use crate::deferred::Keys;
use crate::join::Table;
use crate::row::{Row, Side};

/// Rows travel in groups of about so many bytes, a few of them at a time.
const GROUP_BYTES: usize = 256 << 10;
const GROUPS: usize = 1;

/// What was read of both.
pub(crate) struct Read {
    pub(crate) relationships: [u64; 2],
    pub(crate) precisions: Vec<ExpiryPrecision>,
    pub(crate) filter: Option<Filter>,
    /// B's.
    pub(crate) mapping: Vec<String>,
    /// B's.
    pub(crate) revision: Option<String>,
}

/// What one thread hands on.
enum Step {
    Rows(Vec<Row>),
    End(Box<End>),
    Failed(CommandError),
}

struct End {
    relationships: u64,
    precision: Option<ExpiryPrecision>,
    filter: Option<Filter>,
    mapping: Vec<String>,
    revision: Option<String>,
    name: String,
}

impl End {
    /// Whether both name the same datastore.
    fn is_of_server(&self, other: &Self) -> bool {
        let datastore = |end: &Self| {
            zedtoken::decode(end.revision.as_deref()?)
                .ok()?
                .datastore_id
        };
        datastore(self).is_some() && datastore(self) == datastore(other)
    }
}

/// Reads both streams to their ends into the table.
///
/// A failure ends this at once: a thread that waits for the other stream, a pipe into which nobody
/// writes for example, is left to the end of the process.
///
/// # Errors
///
/// Exit 65 where one is not complete, names another part of a server than the other, was mapped in another
/// way, or holds a relationship twice; and the table's.
pub(crate) fn read_both(
    paths: [&Path; 2],
    compare: &CompareArgs,
    only: Option<Keys>,
    table: &mut Table,
) -> Result<Read, CommandError> {
    let only = only.map(Arc::new);
    let (sender, receiver) = sync_channel(GROUPS);
    for (side, path) in [Side::A, Side::B].into_iter().zip(paths) {
        let (sender, compare, only) = (sender.clone(), compare.clone(), only.clone());
        let path = path.to_owned();
        thread::spawn(move || {
            let last = match read(&path, &compare, only.as_deref(), side, &sender) {
                Ok(Some(end)) => Step::End(Box::new(end)),
                Ok(None) => return,
                Err(failure) => Step::Failed(failure),
            };
            let _ = sender.send((side, last));
        });
    }
    drop(sender);
    let ends = gather(receiver, table)?;
    let [Some(a), Some(b)] = ends else {
        return Err(CommandError::new(
            spice_cli::Exit::Failed,
            "a reading thread ended",
        ));
    };
    if a.filter != b.filter {
        return Err(CommandError::new(
            spice_cli::Exit::BadData,
            format!(
                "{} and {} hold different parts of a server: one of them was exported with another \
                 --type or --resource-prefix",
                a.name, b.name
            ),
        )
        .hint("export both with the same filter; what one of them leaves out would be deleted"));
    }
    if a.mapping != b.mapping && a.is_of_server(&b) {
        return Err(CommandError::new(
            spice_cli::Exit::BadData,
            format!(
                "{} and {} are of one server, and were mapped in different ways: all that spice-map has \
                 changed would count as a difference",
                a.name, b.name
            ),
        )
        .hint("put spice-map with the same flags behind both exports, or behind neither"));
    }
    Ok(Read {
        mapping: b.mapping,
        relationships: [a.relationships, b.relationships],
        precisions: a.precision.into_iter().chain(b.precision).collect(),
        filter: a.filter,
        revision: b.revision,
    })
}

/// What the threads hand on. The receiver goes with the first failure, and that ends the other one.
fn gather(
    receiver: Receiver<(Side, Step)>,
    table: &mut Table,
) -> Result<[Option<End>; 2], CommandError> {
    let mut ends = [None, None];
    for (side, step) in receiver {
        match step {
            Step::Rows(rows) => {
                for row in rows {
                    table.add(row)?;
                }
            }
            Step::End(end) => ends[side as usize] = Some(*end),
            Step::Failed(failure) => return Err(failure),
        }
    }
    Ok(ends)
}

fn read(
    path: &Path,
    compare: &CompareArgs,
    only: Option<&Keys>,
    side: Side,
    sender: &SyncSender<(Side, Step)>,
) -> Result<Option<End>, CommandError> {
    let (input, name) = stdio::open(path)?;
    let mut stream =
        SnapshotReader::open(RecordReader::new(input, name.as_str()), Integrity::Verified)?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(mut relationship) = stream.next_relationship()? {
        if compare.leaves_out(&relationship) {
            continue;
        }
        let key = key_digest(&relationship).0;
        if only.is_some_and(|only| !only.contains(&key)) {
            continue;
        }
        // SpiceDB gives a caveat without a context an empty one.
        if let Some(caveat) = &mut relationship.optional_caveat
            && caveat
                .context
                .as_ref()
                .is_some_and(|context| context.fields.is_empty())
        {
            caveat.context = None;
        }
        let row = Row {
            side,
            key,
            message: relationship.encode_to_vec().into_boxed_slice(),
        };
        bytes += row.message.len();
        rows.push(row);
        if bytes >= GROUP_BYTES {
            bytes = 0;
            if sender
                .send((side, Step::Rows(std::mem::take(&mut rows))))
                .is_err()
            {
                return Ok(None);
            }
        }
    }
    if sender.send((side, Step::Rows(rows))).is_err() {
        return Ok(None);
    }
    Ok(Some(End {
        relationships: stream.sum().relationships(),
        precision: stream.precision(),
        filter: stream.header().and_then(|header| header.filter.clone()),
        mapping: stream
            .header()
            .map_or_else(Vec::new, |header| header.mapping.clone()),
        revision: stream.header().and_then(|header| header.revision.clone()),
        name,
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use clap::Parser as _;
    use spice_cli::Exit;

    use super::*;
    use crate::spill::Folder;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        compare: CompareArgs,
    }

    /// Reads both from files.
    fn read_streams(a: &str, b: &str) -> Result<[u64; 2], CommandError> {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for (path, stream) in paths.iter().zip([a, b]) {
            let mut file = std::fs::File::create(path).unwrap();
            file.write_all(stream.as_bytes()).unwrap();
        }
        let mut table = Table::new(1 << 20, Folder::new(folder.path()));
        let compare = Flags::parse_from(["test"]).compare;
        let [a, b] = &paths;
        read_both([a, b], &compare, None, &mut table).map(|read| read.relationships)
    }

    #[test]
    fn complete_snapshots_are_read_to_their_ends() {
        let (a, b) = (testdata::snapshot(20), testdata::snapshot(30));
        assert_eq!(read_streams(&a, &b).unwrap(), [20, 30]);
    }

    #[test]
    fn trailer_that_proves_nothing_is_refused_on_either_side() {
        let sound = testdata::snapshot(20);
        for (fault, stream) in testdata::faulty_trailers(&sound) {
            for failure in [read_streams(&stream, &sound), read_streams(&sound, &stream)] {
                assert_eq!(failure.expect_err(fault).exit, Exit::BadData, "{fault}");
            }
        }
    }

    /// A stream of no relationships, mapped like this.
    fn mapped(mapping: &[&str]) -> String {
        let header = spice_record::Header {
            revision: Some("Gh8KEzE3OTU0MTUxMDcxNDI1MDIxMjcSCDhkYjFiNWNl".to_owned()),
            mapping: mapping.iter().map(|&change| change.to_owned()).collect(),
            ..spice_record::Header::new(
                spice_record::record::StreamKind::Snapshot,
                "test",
                "2026-11-27T00:00:00Z",
            )
        };
        let writer =
            spice_record::SnapshotWriter::create(Vec::new(), header, ExpiryPrecision::Micros);
        let (_, stream) = writer.unwrap().finish().unwrap();
        String::from_utf8(stream).unwrap()
    }

    #[test]
    fn snapshots_of_one_server_mapped_in_different_ways_are_refused() {
        let [plain, renamed] = [mapped(&[]), mapped(&["rename crm/=sales/"])];
        for (a, b) in [(&plain, &renamed), (&renamed, &plain)] {
            let failure = read_streams(a, b).unwrap_err();
            assert_eq!(failure.exit, Exit::BadData);
            assert!(failure.message().contains("mapped"), "{failure:?}");
        }
        assert_eq!(read_streams(&renamed, &renamed).unwrap(), [0, 0]);
        // Another server's: the target of a mapped copy is compared like this.
        assert_eq!(
            read_streams(&testdata::snapshot(20), &renamed).unwrap(),
            [20, 0]
        );
    }

    #[test]
    fn snapshots_of_different_parts_of_a_server_are_refused() {
        let sound = testdata::snapshot(20);
        let mut lines = sound.lines();
        let header = lines.next().unwrap();
        let spice_record::Record::Header(header) = serde_json::from_str(header).unwrap() else {
            panic!("no header");
        };
        let filtered = spice_record::Header {
            filter: Some(Filter {
                types: vec!["document".to_owned()],
                resource_prefix: None,
            }),
            ..*header
        };
        let writer =
            spice_record::SnapshotWriter::create(Vec::new(), filtered, ExpiryPrecision::Micros);
        let (_, part) = writer.unwrap().finish().unwrap();
        let part = String::from_utf8(part).unwrap();
        let failure = read_streams(&sound, &part).unwrap_err();
        assert!(failure.message().contains("different parts"), "{failure:?}");
    }
}
