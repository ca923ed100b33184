//! What is read from the pipe, and that the reader waits for another writer after anything.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use spice_client::scripted::{token_of, touch};
use spice_record::record::{Checkpoint, StreamEnd, Transaction};
use spice_record::{ChangeWriter, Header};

use super::*;

fn revision(datastore: &str, number: u64) -> String {
    token_of(datastore, &number.to_string())
}

/// Transactions of a datastore, then a checkpoint.
fn stream(datastore: &str, numbers: &[u64]) -> String {
    let header = Header {
        revision: Some(revision(datastore, 1)),
        schema: Some("definition user {}".to_owned()),
        ..Header::new(StreamKind::Changes, "test", "2026-11-26T05:00:00Z")
    };
    let mut writer = ChangeWriter::create(Vec::new(), header).unwrap();
    for number in numbers {
        let change = Transaction {
            revision: revision(datastore, *number),
            updates: vec![Update(touch(&number.to_string()))],
            ..Transaction::default()
        };
        writer.write(Change::Transaction(Box::new(change))).unwrap();
    }
    let checkpoint = Checkpoint {
        revision: revision(datastore, 99),
        ..Checkpoint::default()
    };
    writer
        .write(Change::Checkpoint(Box::new(checkpoint)))
        .unwrap();
    String::from_utf8(writer.finish(StreamEnd::Signal).unwrap()).unwrap()
}

fn pipe() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("early");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
    (folder, path)
}

fn expected() -> Expected {
    Expected {
        source: Some("sourcedb".to_owned()),
        filter: None,
        mapping: Vec::new(),
    }
}

async fn write(path: &Path, text: String) {
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let mut pipe = File::options().write(true).open(path).unwrap();
        pipe.write_all(text.as_bytes()).unwrap();
    });
    written.await.unwrap();
}

/// Writes a stream until all of it was read: two writers at the same time would be one stream. The steps.
async fn read_through(
    path: &Path,
    receiver: &mut Receiver<EarlyStep>,
    text: &str,
    last: &str,
) -> Vec<String> {
    let mut steps = Vec::new();
    for _ in 0..40 {
        write(path, text.to_owned()).await;
        let some = steps_until(receiver, last, &mut steps);
        if tokio::time::timeout(Duration::from_millis(500), some)
            .await
            .is_ok()
        {
            return steps;
        }
    }
    panic!("never read: {steps:?}");
}

/// Steps up to one of this text.
async fn steps_until(receiver: &mut Receiver<EarlyStep>, last: &str, steps: &mut Vec<String>) {
    while steps.last().is_none_or(|step| step != last) {
        let step = receiver.recv().await.expect("a step").message;
        steps.push(match step {
            EarlyStep::Schema(schema) => format!("schema {}", schema.is_some()),
            EarlyStep::Updates(token, updates) => {
                let number = (0..100).find(|number| revision("sourcedb", *number) == token);
                format!("{} of {}", updates.len(), number.unwrap())
            }
            EarlyStep::Through(_) => "through".to_owned(),
        });
    }
}

#[tokio::test]
async fn one_live_watch_after_another_is_read() {
    let (_folder, path) = pipe();
    let mut receiver = open(&path, expected()).unwrap();
    for numbers in [[2, 3], [4, 5]] {
        let [first, second] = numbers.map(|number| format!("1 of {number}"));
        let text = stream("sourcedb", &numbers);
        let steps = read_through(&path, &mut receiver, &text, &second).await;
        assert!(steps.ends_with(&["schema true".to_owned(), first, second]));
        steps_until(&mut receiver, "through", &mut Vec::new()).await;
    }
}

#[tokio::test]
async fn stream_that_is_damaged_or_another_one_is_left_and_the_next_is_read() {
    let good = stream("sourcedb", &[2, 3]);
    let lines: Vec<&str> = good.lines().collect();
    let without = [&lines[..1], &lines[2..]].concat().join("\n") + "\n";
    let torn = good[..good.len() - 5].to_owned();
    let bad = [
        (without, vec!["schema true"]),
        (torn, vec!["schema true", "1 of 2", "1 of 3", "through"]),
        (stream("otherdb", &[2]), vec![]),
        ("no stream\n".repeat(50_000), vec![]),
        (String::new(), vec![]),
        (testdata::snapshot(20), vec![]),
    ];
    for (text, before) in bad {
        let (_folder, path) = pipe();
        let mut receiver = open(&path, expected()).unwrap();
        write(&path, text).await;
        let good = stream("sourcedb", &[7]);
        let steps = read_through(&path, &mut receiver, &good, "1 of 7").await;
        let (bad, good) = steps.split_at(before.len());
        assert_eq!(bad, before);
        assert!(good.ends_with(&["schema true".to_owned(), "1 of 7".to_owned()]));
    }
}

#[tokio::test]
async fn only_a_named_pipe_is_read() {
    let (folder, path) = pipe();
    let file = folder.path().join("file");
    std::fs::write(&file, stream("sourcedb", &[2])).unwrap();
    assert_eq!(open(&file, expected()).unwrap_err().exit, Exit::Usage);
    let nothing = folder.path().join("nothing");
    assert_eq!(open(&nothing, expected()).unwrap_err().exit, Exit::Failed);
    // Another file in its place, or none, ends the thread: it does not look again and again.
    assert!(opened(&file).is_none());
    assert!(opened(&nothing).is_none());
    let there = path.clone();
    let reading = tokio::task::spawn_blocking(move || opened(&there).is_some());
    write(&path, String::new()).await;
    assert!(reading.await.unwrap());
}
