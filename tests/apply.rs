//! `spice-apply`: the changes of a stream are on the target, whatever fails, and the position is right.
//!
//! Where no source is needed, streams and spools are written by the tests themselves, with revisions
//! that no server made.

mod ambiguous_writes;
mod capture;
mod collided;
mod killed;
mod large;
mod reject;
mod schema;
mod stream;
mod sync_points;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use authzed::v1::{
    ObjectReference, Relationship, RelationshipUpdate, SubjectReference,
    relationship_update::Operation,
};
use base64::Engine as _;
use serde_json::{Value, json};
use spice_record::record::{Checkpoint, StreamKind, Transaction};
use spice_record::relationship::Update;
use spice_record::{Change, ChangeSealer, Header, Record};

use crate::support::folder;
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::running::{Finished, Running};
use crate::support::seal::lines;
use crate::support::spicedb::{Datastore, Server};
use crate::support::toxiproxy::Proxy;

/// Long enough for anything here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

const SCHEMA: &str = "definition user {}\n\ndefinition document {\n\trelation viewer: user\n}";

/// `spice-apply` to a server.
pub(crate) fn apply(target: &Server) -> Program {
    Program::on("spice-apply", target).timeout(PATIENCE)
}

fn apply_by(proxy: &Proxy, target: &Server) -> Program {
    Program::through(&proxy.endpoint(), "spice-apply", target).timeout(PATIENCE)
}

/// `spice-watch` of a PostgreSQL server.
fn watch(source: &Server) -> Program {
    Program::on("spice-watch", source).timeout(PATIENCE)
}

pub(crate) fn head(server: &Server) -> String {
    let head = Program::on("spice-revision", server).args(["--head", "--settle", "0s"]);
    head.run().expect_success().text().trim().to_owned()
}

/// An empty transaction's revision: when it is seen, so is all that was written before.
pub(crate) fn mark(server: &Server) -> String {
    let mark = Program::on("spice-revision", server).arg("--mark");
    mark.run().expect_success().text().trim().to_owned()
}

/// The zedtoken of a revision of a source that is no server. It has the form of CockroachDB's: on a source
/// that numbers transactions when they begin only a checkpoint moves a position.
pub(crate) fn token(revision: u64) -> String {
    token_of(revision, "5ou5ce00")
}

fn token_of(revision: u64, datastore: &str) -> String {
    token_text(&format!("{revision}.0000000000"), datastore)
}

/// The zedtoken of a number.
fn integer(revision: u64) -> String {
    token_text(&revision.to_string(), "5ou5ce00")
}

fn token_text(revision: &str, datastore: &str) -> String {
    let mut bytes = vec![0x1a, 0, 0x0a, u8::try_from(revision.len()).unwrap()];
    bytes.extend(revision.as_bytes());
    bytes.extend([0x12, 8]);
    bytes.extend(datastore.as_bytes());
    bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// `document:ID#viewer@user:eve`, as it is written in records.
fn relationship(id: &str) -> Value {
    json!({
        "resource": {"objectType": "document", "objectId": id},
        "relation": "viewer",
        "subject": {"object": {"objectType": "user", "objectId": "eve"}},
    })
}

pub(crate) fn touch(id: &str) -> Value {
    json!({"operation": "OPERATION_TOUCH", "relationship": relationship(id)})
}

fn delete(id: &str) -> Value {
    json!({"operation": "OPERATION_DELETE", "relationship": relationship(id)})
}

pub(crate) fn transaction(revision: u64, updates: &[Value]) -> Value {
    json!({"transaction": {"revision": token(revision), "updates": updates}})
}

pub(crate) fn checkpoint(revision: u64) -> Value {
    json!({"checkpoint": {"revision": token(revision)}})
}

fn schema(revision: u64, text: &str) -> Value {
    json!({"schema": {"revision": token(revision), "text": text}})
}

fn header_of(stream: StreamKind, revision: Option<String>, schema: Option<&str>) -> Header {
    Header {
        revision,
        schema: schema.map(str::to_owned),
        ..Header::new(stream, "a test", "2026-01-01T00:00:00Z")
    }
}

/// The header of changes after a revision of a source that is no server.
pub(crate) fn header(revision: u64) -> Value {
    let header = header_of(StreamKind::Changes, Some(token(revision)), Some(SCHEMA));
    json!({ "header": header })
}

/// The trailer of changes.
pub(crate) fn trailer(revision: u64) -> Value {
    json!({"trailer": {"revision": token(revision), "endReason": "until"}})
}

/// Changes from revision 1 to the last of the records, sealed.
fn sealed(changes: &[Value], last: u64) -> String {
    let (header, trailer) = (header(1), trailer(last));
    lines([&header].into_iter().chain(changes).chain([&trailer]))
}

/// A spool of transactions that touch new relationships, each of so many updates, and a checkpoint;
/// gives back the last revision.
fn spool_of(path: &Path, transactions: u64, updates: u64) -> u64 {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let first: Header = serde_json::from_value(header(1)["header"].clone()).unwrap();
    let (mut sealer, first) = ChangeSealer::begin(first);
    let mut write = |record: &Record| {
        serde_json::to_writer(&mut file, record).unwrap();
        file.write_all(b"\n").unwrap();
    };
    write(&Record::Header(Box::new(first)));
    for revision in 0..transactions {
        let numbers = revision * updates..(revision + 1) * updates;
        let change = Transaction {
            revision: token(revision + 2),
            updates: numbers.map(update).collect(),
            ..Transaction::default()
        };
        write(&sealer.seal(Change::Transaction(Box::new(change))));
    }
    let last = transactions + 2;
    let end = Checkpoint {
        revision: token(last),
        ..Checkpoint::default()
    };
    write(&sealer.seal(Change::Checkpoint(Box::new(end))));
    file.flush().unwrap();
    last
}

/// The touch of a relationship that no other number gives.
fn update(number: u64) -> Update {
    let object = |kind: &str, id: String| {
        Some(ObjectReference {
            object_type: kind.to_owned(),
            object_id: id,
        })
    };
    Update(RelationshipUpdate {
        operation: Operation::Touch.into(),
        relationship: Some(Relationship {
            resource: object("document", format!("d{number}")),
            relation: "viewer".to_owned(),
            subject: Some(SubjectReference {
                object: object("user", format!("u{}", number % 1000)),
                ..SubjectReference::default()
            }),
            ..Relationship::default()
        }),
    })
}

/// The ids of the resources that a server holds relationships of, as the oracle sees them.
pub(crate) fn ids(server: &Server) -> Vec<String> {
    let dump = oracle::dump(server, oracle::Precision::Microseconds);
    let id = |line: String| {
        let line: Value = serde_json::from_str(&line).unwrap();
        line["resource"]
            .as_str()
            .unwrap()
            .split_once(':')
            .unwrap()
            .1
            .to_owned()
    };
    dump.into_iter().map(id).collect()
}

/// The `applied` records that a program printed; a last one that a kill has torn is left out.
fn applied(stdout: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(stdout).into_owned();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap()["applied"].clone();
    whole.lines().map(parse).collect()
}

/// The content of a position file.
pub(crate) fn position(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["position"].clone()
}

/// A PostgreSQL source with this schema, an empty target, and a folder.
fn ends(schema: &str, target: Datastore) -> (Server, Server, tempfile::TempDir) {
    let (source, target) = (Server::start(Datastore::Postgres), Server::start(target));
    oracle::write_schema(&source, schema);
    (source, target, folder())
}

/// A capture of a PostgreSQL server into a spool, begun at its head.
struct Capture {
    spool: PathBuf,
    running: Running,
}

impl Capture {
    fn of(source: &Server, folder: &Path) -> Self {
        let (spool, since) = (folder.join("changes.ndjson"), head(source));
        let running = Self::start(source, &spool, &since);
        Self { spool, running }
    }

    fn start(source: &Server, spool: &Path, since: &str) -> Running {
        let heartbeat = ["--heartbeat", "1s"];
        let watch = watch(source)
            .arg("--spool")
            .arg(spool)
            .args(["--since", since]);
        watch.args(heartbeat).spawn()
    }
}

fn rejected_code(finished: Finished, code: i32, text: &str) {
    let finished = finished.expect_code(code);
    assert!(
        finished.stderr.contains(text),
        "{text:?}: {}",
        finished.stderr
    );
}
