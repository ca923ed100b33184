use std::path::Path;

use clap::Parser as _;
use spice_cli::connection::ConnectionArgs;
use spice_cli::settings::Settings;
use spice_record::{ExpiryPrecision, Integrity, RecordReader, SnapshotReader};
use testserver::{EXPORT, READ_SCHEMA, Reply, Server, page, schema_response, token_of};

use super::*;
use crate::snapshot;

#[test]
fn checkpoints_come_after_much_or_long_and_take_a_bounded_share() {
    let millis = Duration::from_millis;
    for (cost, elapsed, written, expected) in [
        (0, 199, BYTES, false),
        (0, 200, BYTES, true),
        (0, 4_999, BYTES - 1, false),
        (0, 5_000, 0, true),
        (100, 999, BYTES, false),
        (100, 1_000, BYTES, true),
        (1_000, 9_999, 1, false),
        (1_000, 10_000, 1, true),
    ] {
        let pace = Pace {
            last: Instant::now(),
            cost: millis(cost),
        };
        let is_due = pace.is_due(millis(elapsed), written);
        assert_eq!(is_due, expected, "{cost} {elapsed} {written}");
    }
}

const SCHEMA: &str = "definition user {}";

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn args(&self, flags: &[&str]) -> Export {
        let path = self.folder.path().join("out");
        let args = [
            "spice-export",
            "--resume",
            "--output",
            path.to_str().unwrap(),
        ];
        Export::parse_from(args.iter().chain(flags))
    }

    fn open(&self) -> Result<Resumable, CommandError> {
        Resumable::open(&self.args(&[]))
    }

    fn begin(&self) -> Begin {
        let snapshot = snapshot::Snapshot {
            revision: token_of("7", "aaaaaaaa"),
            schema: SCHEMA.to_owned(),
        };
        Begin {
            header: snapshot::header(&self.args(&[]), &snapshot),
            plan: Plan::new(None, None),
            endpoint: "test.invalid:50051".to_owned(),
        }
    }

    /// Writes relationships with these ids, a checkpoint after each, and some bytes after the last one.
    fn write(&self, ids: &[&str]) {
        let mut recording = self.open().unwrap().record(Some(self.begin())).unwrap();
        for id in ids {
            let page = page(&[id], id);
            recording.stream.write(&page.relationships[0]).unwrap();
            recording.journal.shards.advance(0, (*id).to_owned());
            recording.checkpoint().unwrap();
        }
        let torn = page(&["torn"], "torn");
        recording.stream.write(&torn.relationships[0]).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn ids_of(path: &Path) -> Vec<String> {
    let (input, name) = spice_cli::stdio::open(path).unwrap();
    let records = RecordReader::new(input, name);
    let mut reader = SnapshotReader::open(records, Integrity::Verified).unwrap();
    let mut ids = Vec::new();
    while let Some(relationship) = reader.next_relationship().unwrap() {
        ids.push(relationship.resource.unwrap().object_id);
    }
    assert_eq!(reader.precision(), Some(ExpiryPrecision::Micros));
    ids
}

#[test]
fn stream_of_three_runs_is_sealed_and_complete() {
    let bench = Bench::new();
    bench.write(&["a", "b"]);
    bench.write(&["c"]);
    let resumable = bench.open().unwrap();
    let begun = resumable.begun.clone().unwrap();
    assert_eq!(begun.sum.relationships, 3);
    assert_eq!(begun.shards.cursor(0), Some("c"));
    let mut recording = resumable.record(None).unwrap();
    let last = page(&["d"], "d");
    recording.stream.write(&last.relationships[0]).unwrap();
    recording.finish().unwrap();
    assert_eq!(ids_of(&bench.path("out")), ["a", "b", "c", "d"]);
    let left = std::fs::read_dir(bench.folder.path()).unwrap().count();
    assert_eq!(left, 1);
}

#[test]
fn damaged_progress_is_refused_by_name_and_kept() {
    let bench = Bench::new();
    bench.write(&["a", "b"]);
    let partial = bench.path("out.partial");
    let intact = std::fs::read(&partial).unwrap();
    for at in [5, intact.len() / 2] {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        std::fs::write(&partial, &damaged).unwrap();
        let failure = bench.open().err().unwrap();
        assert_eq!(failure.exit, Exit::BadData);
        assert!(failure.message().contains("out.partial"), "{failure:?}");
        assert!(failure.hint_text().contains("rm "), "{failure:?}");
        assert_eq!(std::fs::read(&partial).unwrap(), damaged);
    }
    std::fs::write(&partial, &intact[..9]).unwrap();
    let failure = bench.open().err().unwrap();
    assert!(failure.message().contains("it has 9 bytes"), "{failure:?}");
    std::fs::write(&partial, &intact).unwrap();
    bench.open().unwrap();
    std::fs::write(bench.path("out.partial.journal"), "{}\n").unwrap();
    let failure = bench.open().err().unwrap();
    assert_eq!(failure.exit, Exit::BadData);
    assert!(
        failure.message().contains("out.partial.journal"),
        "{failure:?}"
    );
}

#[test]
fn partial_file_without_a_journal_and_a_journal_without_it_start_over() {
    let bench = Bench::new();
    for lost in ["out.partial", "out.partial.journal"] {
        bench.write(&["a"]);
        std::fs::remove_file(bench.path(lost)).unwrap();
        assert!(bench.open().unwrap().begun.is_none());
        let left = std::fs::read_dir(bench.folder.path()).unwrap().count();
        assert_eq!(left, 0, "without {lost}");
    }
}

#[test]
fn stdout_cannot_be_resumed() {
    let args = Export::parse_from(["spice-export", "--resume", "--output", "-"]);
    let failure = Resumable::open(&args).err().unwrap();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(Export::try_parse_from(["spice-export", "--resume"]).is_err());
}

/// Checks a journal against a server whose head has this token, at this endpoint.
async fn check(
    journal: &Journal,
    head: &str,
    endpoint: &str,
    reply: Reply,
) -> Result<(), CommandError> {
    let settings = Settings {
        endpoint: Some(endpoint.to_owned()),
        insecure: true,
        ..Settings::default()
    };
    let connection = ConnectionArgs {
        context: None,
        settings,
    };
    let connection = connection.resolve().await.unwrap();
    let server = Server::new();
    let mut schema = schema_response(SCHEMA, 0);
    schema.read_at = Some(authzed::v1::ZedToken {
        token: head.to_owned(),
    });
    server.script(READ_SCHEMA, [Reply::message(&schema)]);
    server.script(EXPORT, [reply]);
    check_source(journal, &connection, &server.client()).await
}

#[tokio::test(start_paused = true)]
async fn other_datastores_and_lost_revisions_are_refused() {
    let bench = Bench::new();
    bench.write(&["a"]);
    let journal = bench.open().unwrap().begun.clone().unwrap();
    let here = "test.invalid:50051";
    let alive = || Reply::message(&page(&["a"], "1"));
    let same = token_of("9", "aaaaaaaa");
    check(&journal, &same, here, alive()).await.unwrap();
    // Another address of the same datastore.
    check(&journal, &same, "b.invalid:1", alive())
        .await
        .unwrap();
    let other = check(&journal, &token_of("9", "bbbbbbbb"), here, alive()).await;
    let other = other.unwrap_err();
    assert_eq!(other.exit, Exit::Usage);
    assert!(other.message().contains("datastore bbbbbbbb"), "{other:?}");
    let gone = Reply::error(
        authzed::Code::OutOfRange,
        "invalid revision: revision has expired",
    );
    let gone = check(&journal, &same, here, gone).await.unwrap_err();
    assert_eq!(gone.exit, Exit::HistoryLost);
    assert!(gone.message().contains(&journal.revision), "{gone:?}");

    let unnamed = Journal {
        revision: token_of("7", ""),
        ..journal
    };
    let head = token_of("9", "");
    check(&unnamed, &head, here, alive()).await.unwrap();
    let elsewhere = check(&unnamed, &head, "b.invalid:1", alive()).await;
    let elsewhere = elsewhere.unwrap_err();
    assert_eq!(elsewhere.exit, Exit::Usage);
    assert!(elsewhere.message().contains(here), "{elsewhere:?}");
}

#[test]
fn what_was_kept_is_named_with_the_next_step() {
    let partial = Path::new("out.partial");
    let hint = |exit| kept(CommandError::new(exit, "x"), partial, 7).hint_text();
    assert_eq!(hint(Exit::Usage), "");
    assert_eq!(hint(Exit::BadData), "");
    assert!(hint(Exit::HistoryLost).contains("rm out.partial out.partial.journal"));
    for exit in [Exit::Failed, Exit::TryAgain, Exit::Denied] {
        let hint = hint(exit);
        assert!(
            hint.starts_with("7 relationships are in out.partial: the same"),
            "{hint}"
        );
    }
}
