//! `spice-watch`: every change after a revision, once and in order, or a hard stop.
//!
//! A stream is judged by folding it: the relationships that are left when all of its updates are
//! applied in order to those that were there at its beginning must be the source's, as the independent
//! oracle sees them.

pub(crate) mod filter;
mod flush;
pub(crate) mod history;
mod killed;
mod memory;
mod order;
mod schema;
mod stop;
mod usage;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use authzed::v1::relationship_update::Operation;
use authzed::v1::{
    ObjectReference, Relationship, RelationshipUpdate, SubjectReference, WriteRelationshipsRequest,
};
use authzed::zedtoken::{self, Revision};
use authzed::{Client, Config, RelationshipsEncoder, Security};
use serde_json::{Value, json};

use crate::apply::mark;
use crate::support::oracle::{self, Precision, Writers};
use crate::support::program::Program;
use crate::support::running::Running;
use crate::support::spicedb::{Datastore, Server};
use crate::support::wait_until;

/// Long enough for anything here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The message once the changes are asked for.
pub(crate) const WATCHING: &str = "spice-watch: watching ";

pub(crate) fn watch(server: &Server) -> Program {
    Program::on("spice-watch", server).timeout(PATIENCE)
}

/// By way of a proxy.
pub(crate) fn watch_by(endpoint: &str, server: &Server) -> Program {
    Program::through(endpoint, "spice-watch", server).timeout(PATIENCE)
}

/// A server that polls its database often, with the schema of the oracle's writers.
pub(crate) fn source(datastore: Datastore) -> Server {
    source_with(datastore, &[])
}

pub(crate) fn source_with(datastore: Datastore, flags: &[&str]) -> Server {
    let mut builder = Server::builder(datastore);
    if datastore == Datastore::Postgres {
        builder = builder.flag("--watch-api-heartbeat=100ms");
    }
    let server = flags.iter().fold(builder, |b, flag| b.flag(flag)).start();
    oracle::write_schema(&server, oracle::WRITERS_SCHEMA);
    server
}

/// Writes one relationship, `item:NAME#holder@user:u`.
pub(crate) fn write(server: &Server, operation: &str, name: &str) -> String {
    oracle::load(server, &line(operation, name))
}

fn line(operation: &str, name: &str) -> String {
    oracle::line(operation, &format!("item:{name}#holder@user:u"))
}

/// Starts the oracle's writers and waits until they write.
fn writers(server: &Server, folder: &Path, flags: &[&str]) -> Writers {
    let writers = Writers::until_stopped(server, &folder.join("journal"), flags);
    wait_until("they write", PATIENCE, || {
        std::fs::metadata(writers.journal()).is_ok_and(|journal| journal.len() > 0)
    });
    writers
}

/// A change stream, folded.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    header: Value,
    /// What every other line is, and its revision.
    pub(crate) records: Vec<(String, String)>,
    /// Of the heartbeat's markers, in seconds.
    lags: Vec<f64>,
    schemas: Vec<String>,
    pub(crate) updates: usize,
    trailer: Option<Value>,
    pub(crate) relationships: BTreeMap<String, String>,
}

impl Folded {
    /// Applies a stream to nothing.
    #[track_caller]
    pub(crate) fn of(stream: &[u8]) -> Self {
        Self::onto(&[], stream)
    }

    /// Applies a stream to relationships as the oracle has dumped them.
    #[track_caller]
    pub(crate) fn onto(there: &[String], stream: &[u8]) -> Self {
        let mut folded = Self::default();
        for text in there {
            let (key, line) = canonical(&serde_json::from_str(text).unwrap());
            folded.relationships.insert(key, line);
        }
        folded.apply(stream);
        folded
    }

    #[track_caller]
    fn apply(&mut self, stream: &[u8]) {
        assert!(
            stream.is_empty() || stream.ends_with(b"\n"),
            "complete lines"
        );
        let mut parts = 0;
        for line in stream
            .split(|byte| *byte == b'\n')
            .filter(|l| !l.is_empty())
        {
            assert!(self.trailer.is_none(), "nothing after the trailer");
            let record: Value = serde_json::from_slice(line).expect("a line is JSON");
            let (kind, value) = record.as_object().unwrap().iter().next().unwrap();
            if parts > 0 {
                assert_eq!(kind, "transaction", "no other line between two parts");
            }
            match kind.as_str() {
                "header" => {
                    self.header = value.clone();
                    continue;
                }
                "trailer" => {
                    self.trailer = Some(value.clone());
                    continue;
                }
                "transaction" => {
                    let updates = value["updates"].as_array().unwrap();
                    self.updates += updates.len();
                    for update in updates {
                        self.update(update);
                    }
                    if let Some(part) = value["part"].as_u64() {
                        parts += 1;
                        assert_eq!(part, parts, "parts are counted");
                        if value["lastPart"] != true {
                            continue;
                        }
                        parts = 0;
                    }
                }
                "schema" => self
                    .schemas
                    .push(value["text"].as_str().unwrap().to_owned()),
                other => {
                    assert_eq!(other, "checkpoint");
                    self.lags.extend(value["lag"].as_f64());
                }
            }
            let revision = value["revision"].as_str().unwrap().to_owned();
            let kind = match value["contended"] == true {
                true => "contended",
                false => kind,
            };
            self.records.push((kind.to_owned(), revision));
        }
        assert_eq!(parts, 0, "the last revision is complete");
    }

    fn update(&mut self, update: &Value) {
        let relationship = &update["relationship"];
        let (resource, subject) = (&relationship["resource"], &relationship["subject"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut as_judged = json!({
            "resource": format!("{}:{}", text(&resource["objectType"]), text(&resource["objectId"])),
            "relation": relationship["relation"],
            "subject": format!("{}:{}", text(&subject["object"]["objectType"]), text(&subject["object"]["objectId"])),
        });
        let caveat = &relationship["optionalCaveat"];
        if caveat.is_object() {
            as_judged["caveat"] = caveat["caveatName"].clone();
            as_judged["context"] = caveat["context"].clone();
        }
        as_judged["expires"] = relationship["optionalExpiresAt"].clone();
        let (key, line) = canonical(&as_judged);
        if update["operation"] == "OPERATION_DELETE" {
            self.relationships.remove(&key);
        } else {
            self.relationships.insert(key, line);
        }
    }

    fn count(&self, kind: &str) -> usize {
        self.records.iter().filter(|(name, _)| name == kind).count()
    }

    /// Fails unless every revision comes once, whatever its token is like.
    #[track_caller]
    pub(crate) fn assert_each_once(&self) {
        let mut seen = HashSet::new();
        for (kind, token) in &self.records {
            let revision = zedtoken::decode(token).unwrap().revision;
            assert!(seen.insert((kind, revision)), "{kind} {token} comes twice");
        }
    }

    /// Fails unless what is left is what the server holds.
    #[track_caller]
    pub(crate) fn assert_is(&self, server: &Server) {
        let mut there: Vec<String> = oracle::dump(server, Precision::Seconds)
            .iter()
            .map(|text| canonical(&serde_json::from_str(text).unwrap()).1)
            .collect();
        there.sort();
        let mut here: Vec<String> = self.relationships.values().cloned().collect();
        here.sort();
        oracle::assert_same_lines("the stream", &here, server.context(), &there);
    }

    /// Its last revision.
    fn last(&self) -> &str {
        &self.records.last().unwrap().1
    }
}

/// A relationship's key, and all of it with expiries in seconds and numbers as floats.
fn canonical(judged: &Value) -> (String, String) {
    fn float(value: &Value) -> Value {
        match value {
            Value::Number(number) => json!(number.as_f64()),
            Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), float(v))).collect(),
            other => other.clone(),
        }
    }
    let text = |name: &str| judged[name].as_str().unwrap_or_default();
    let key = format!(
        "{}#{}@{}",
        text("resource"),
        text("relation"),
        text("subject")
    );
    let context = match &judged["context"] {
        Value::Object(fields) if !fields.is_empty() => float(&judged["context"]),
        _ => Value::Null,
    };
    let expires = text("expires")
        .trim_end_matches('Z')
        .split('.')
        .next()
        .unwrap();
    let line = format!("{key} {} {context} {expires}", text("caveat"));
    (key, line)
}

/// All segments of a spool, one after the other, without the headers of all but the first.
pub(crate) fn spool_of(path: &Path) -> Vec<u8> {
    let mut all = std::fs::read(path).unwrap();
    for number in 1.. {
        let segment = path.with_file_name(format!(
            "{}.{number:06}",
            path.file_name().unwrap().to_str().unwrap()
        ));
        match std::fs::read(segment) {
            Ok(bytes) => all.extend(bytes),
            Err(_) => return all,
        }
    }
    unreachable!()
}

/// Waits until a program's stdout holds a text.
pub(crate) fn wait_for_stdout(program: &Running, text: &str) {
    wait_until(&format!("stdout holds {text}"), PATIENCE, || {
        String::from_utf8_lossy(&program.stdout_so_far()).contains(text)
    });
}

/// Waits until a checkpoint follows a text on a program's stdout: a stop finds nothing to be brought to an end.
pub(crate) fn wait_for_checkpoint_after(program: &Running, text: &str) {
    wait_until(&format!("a checkpoint after {text}"), PATIENCE, || {
        let stdout = program.stdout_so_far();
        let stdout = String::from_utf8_lossy(&stdout);
        let after = stdout.rfind(text).map(|at| &stdout[at..]);
        after.is_some_and(|after| after.contains(r#"{"checkpoint""#))
    });
}

/// A client of our own, for situations that the oracle does not make.
pub(crate) async fn client(server: &Server) -> Client {
    let config = Config {
        token: Some(server.token().trim().to_owned().into()),
        security: Security::Plaintext,
        ..Config::new(server.endpoint())
    };
    Client::connect(&config).await.unwrap()
}

fn item(name: &str) -> Relationship {
    let object = |kind: &str, id: &str| ObjectReference {
        object_type: kind.to_owned(),
        object_id: id.to_owned(),
    };
    Relationship {
        resource: Some(object("item", name)),
        relation: "holder".to_owned(),
        subject: Some(SubjectReference {
            object: Some(object("user", "u")),
            optional_relation: String::new(),
        }),
        optional_caveat: None,
        optional_expires_at: None,
    }
}

/// Imports `item:PREFIX<n>` in one transaction, which stays open after all was sent until `held` returns.
pub(crate) fn import_held(server: &Server, prefix: &str, count: usize, held: impl FnOnce()) {
    let mut messages = Vec::new();
    let mut encoder = RelationshipsEncoder::default();
    for number in 0..count {
        encoder.push(&item(&format!("{prefix}{number}")));
        if encoder.byte_len() > 1 << 20 || number + 1 == count {
            messages.push(encoder.take());
        }
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let loaded = runtime.block_on(async {
        let client = client(server).await;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let import = tokio::spawn(async move {
            let stream = futures::stream::unfold(receiver, |mut receiver| async {
                receiver.recv().await.map(|message| (message, receiver))
            });
            client.import(stream).await
        });
        for message in messages {
            sender.send(message).await.unwrap();
        }
        held();
        drop(sender);
        import.await.unwrap().unwrap()
    });
    assert_eq!(loaded, count as u64);
}

/// So many calls of 1,000 updates: relationships are created and, by the next call, deleted.
pub(crate) fn churn(server: &Server, calls: usize) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = client(server).await;
        for call in 0..calls {
            let operation = [Operation::Touch, Operation::Delete][call % 2];
            let update = |number: usize| RelationshipUpdate {
                operation: operation.into(),
                relationship: Some(item(&format!("update-{}-{number}", call / 2))),
            };
            let request = WriteRelationshipsRequest {
                updates: (0..1_000).map(update).collect(),
                ..WriteRelationshipsRequest::default()
            };
            client.write_relationships(request).await.unwrap();
        }
    });
}

/// The transaction that made a PostgreSQL revision.
fn txid(token: &str) -> Option<u64> {
    match zedtoken::decode(token).unwrap().revision {
        Revision::Postgres(revision) => revision.txid,
        _ => None,
    }
}

/// A token of the datastore that another one is of, with a revision that is far in the future.
fn future_of(token: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let decoded = zedtoken::decode(token).unwrap();
    let revision = match decoded.revision {
        Revision::Integer(number) => (number + 3_600_000_000_000).to_string(),
        Revision::Postgres(revision) => {
            // Field 1, xmin, as a varint.
            let mut bytes = vec![8];
            let mut left = revision.xmin + 1_000_000;
            while left >= 128 {
                bytes.push((left % 128) as u8 | 128);
                left /= 128;
            }
            bytes.push(left as u8);
            STANDARD.encode(bytes)
        }
        other => panic!("{other}"),
    };
    let id = decoded.datastore_id.unwrap();
    let field = |number: u8, text: &str| {
        let mut bytes = vec![number << 3 | 2, text.len() as u8];
        bytes.extend(text.as_bytes());
        bytes
    };
    let mut inner = field(1, &revision);
    inner.extend(field(2, &id));
    let mut token = vec![3 << 3 | 2, inner.len() as u8];
    token.extend(inner);
    STANDARD.encode(token)
}
