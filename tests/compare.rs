//! Two servers compared: every difference found, none invented, and repaired by the same pipe.

mod malformed;
mod servers;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use authzed::v1::Relationship;
use serde_json::Value;
use spice_record::{ExpiryPrecision, SnapshotWriter};
use testdata::Sample;

use crate::copy::{export, holding, import};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, folder, repeat};

fn diff(a: &Path, b: &Path) -> Program {
    Program::new("spice-diff").arg(a).arg(b).timeout(PATIENCE)
}

fn digest(files: &[&Path]) -> Program {
    Program::new("spice-digest")
        .arg("--json")
        .args(files)
        .timeout(PATIENCE)
}

const PATIENCE: Duration = Duration::from_secs(300);

/// A sealed stream of relationships, in a file.
fn sealed<'a>(
    folder: &Path,
    name: &str,
    sample: Sample,
    relationships: impl IntoIterator<Item = &'a Relationship>,
) -> PathBuf {
    let path = folder.join(name);
    let out = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let precision = ExpiryPrecision::default();
    let mut stream = SnapshotWriter::create(out, sample.header(), precision).unwrap();
    for relationship in relationships {
        stream.write(relationship).unwrap();
    }
    stream.finish().unwrap();
    path
}

/// What was planted, as it must be found: operation, resource, relation, subject.
type Planted = BTreeSet<String>;

fn name(operation: &str, relationship: &Value) -> String {
    format!(
        "{operation} {}#{}@{}",
        relationship["resource"], relationship["relation"], relationship["subject"]
    )
}

fn name_of(operation: &str, relationship: &Relationship) -> String {
    let mut line = Vec::new();
    spice_record::snapshot::write_relationship(&mut line, relationship).unwrap();
    let record: Value = serde_json::from_slice(&line).unwrap();
    name(operation, &record["relationship"])
}

/// Changes `k` of a sample in each of five ways: A is what is there, B what should be.
fn plant(sample: Sample, k: usize) -> (Vec<Relationship>, Vec<Relationship>, Planted) {
    let mut b: Vec<Relationship> = sample.iter().collect();
    let mut a = b.clone();
    let mut planted = Planted::new();
    let stride = (a.len() / (5 * k.max(1) + 5)).max(1);
    let mut places = (0..a.len()).step_by(stride);
    let (mut gone_from_a, mut gone_from_b) = (BTreeSet::new(), BTreeSet::new());
    let changed = |place: usize,
                   a: &mut Vec<Relationship>,
                   planted: &mut Planted,
                   change: &dyn Fn(&mut Relationship)| {
        change(&mut a[place]);
        planted.insert(name_of("OPERATION_TOUCH", &a[place]));
    };
    for _ in 0..k {
        let place = places.next().unwrap();
        planted.insert(name_of("OPERATION_TOUCH", &b[place]));
        gone_from_a.insert(place);
        let place = places.next().unwrap();
        planted.insert(name_of("OPERATION_DELETE", &a[place]));
        gone_from_b.insert(place);
        changed(places.next().unwrap(), &mut a, &mut planted, &|one| {
            let caveat = authzed::v1::ContextualizedCaveat {
                caveat_name: "another".to_owned(),
                context: None,
            };
            one.optional_caveat = Some(caveat);
        });
        changed(places.next().unwrap(), &mut a, &mut planted, &|one| {
            let value = prost_types::Value {
                kind: Some(prost_types::value::Kind::NumberValue(0.125)),
            };
            let caveat = one.optional_caveat.get_or_insert_default();
            if caveat.caveat_name.is_empty() {
                caveat.caveat_name = "another".to_owned();
            }
            let context = caveat.context.get_or_insert_default();
            context.fields.insert("another".to_owned(), value);
        });
        changed(places.next().unwrap(), &mut a, &mut planted, &|one| {
            let expiry = one.optional_expires_at.get_or_insert_default();
            expiry.seconds = expiry.seconds.max(4_000_000_000);
            expiry.nanos = (expiry.nanos / 1_000 + 1) % 1_000_000 * 1_000;
        });
    }
    let keep = |all: Vec<Relationship>, gone: &BTreeSet<usize>| {
        let all = all.into_iter().enumerate();
        all.filter(|(place, _)| !gone.contains(place))
            .map(|(_, one)| one)
            .collect()
    };
    a = keep(a, &gone_from_a);
    b = keep(b, &gone_from_b);
    // Another order: that of another collation, or of a parallel read.
    b.reverse();
    (a, b, planted)
}

fn found(stdout: &[Value]) -> Planted {
    let updates = stdout.iter().filter_map(|record| record.get("update"));
    updates
        .map(|update| {
            name(
                update["operation"].as_str().unwrap(),
                &update["relationship"],
            )
        })
        .collect()
}

#[test]
fn planted_differences_are_all_found_and_no_other() {
    let folder = folder();
    let sample = Sample::rich(u64::from(repeat(100_000, 1_000_000)));
    for k in [0, 1, 1_000] {
        let (a, b, planted) = plant(sample, k);
        assert_eq!(planted.len(), 5 * k);
        let a = sealed(folder.path(), "a", sample, &a);
        let b = sealed(folder.path(), "b", sample, &b);
        for memory in ["1MiB", "256MiB"] {
            let finished = diff(&a, &b).args(["--max-memory", memory]).run();
            let finished = finished.expect_code(if k == 0 { 0 } else { 3 });
            let lines = finished.json_lines();
            assert_eq!(found(&lines), planted, "--max-memory {memory}");
            assert_eq!(lines.first().unwrap()["header"]["stream"], "updates");
            assert_eq!(lines.last().unwrap()["trailer"]["updates"], 5 * k);
        }
    }
}

#[test]
fn only_what_any_file_of_keys_names_is_compared() {
    let folder = folder();
    let sample = Sample::rich(1_000);
    let (a, b, planted) = plant(sample, 2);
    let a = sealed(folder.path(), "a", sample, &a);
    let b = sealed(folder.path(), "b", sample, &b);
    let complete = diff(&a, &b).run().expect_code(3);
    let mut updates = complete.json_lines();
    updates.retain(|line| line.get("update").is_some());
    let by_hand = |name: &str, updates: &[Value]| -> PathBuf {
        let lines = updates.iter().map(|line| {
            let mut line = line.clone();
            line["update"].as_object_mut().unwrap().remove("checksum");
            format!("{line}\n")
        });
        let path = folder.path().join(name);
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        path
    };
    let stream = folder.path().join("stream");
    std::fs::write(&stream, &complete.stdout).unwrap();
    let [first, second] = [
        by_hand("first", &updates[..3]),
        by_hand("second", &updates[5..]),
    ];
    let named = |files: &[&Path]| {
        let flags = files
            .iter()
            .flat_map(|file| [Path::new("--keys-from"), file]);
        found(&diff(&a, &b).args(flags).run().expect_code(3).json_lines())
    };
    let without = found(&[&updates[..3], &updates[5..]].concat());
    assert_eq!(without.len(), planted.len() - 2);
    assert_eq!(named(&[&first, &second]), without);
    assert_eq!(named(&[&first, &stream]), planted);
}

#[test]
fn exports_in_another_order_are_equal() {
    let folder = folder();
    let sample = Sample::portable(5_000);
    let memory = holding(sample, Datastore::Memory);
    let icu = Server::builder(Datastore::Postgres).icu().start();
    Pipe::from(export(&memory))
        .to(import(&icu))
        .expect_success();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    export(&memory)
        .arg("--output")
        .arg(&a)
        .run()
        .expect_success();
    export(&icu).arg("--output").arg(&b).run().expect_success();
    let lines = |path: &Path| -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .filter(|line| line.starts_with(r#"{"relationship"#))
            .map(str::to_owned)
            .collect()
    };
    assert_ne!(lines(&a), lines(&b), "the order does differ");
    diff(&a, &b).run().expect_success();
}

#[test]
fn shards_add_up_to_the_whole_and_the_table_to_its_total() {
    let folder = folder();
    let sample = Sample::rich(10_000);
    let all: Vec<Relationship> = sample.iter().collect();
    let whole = sealed(folder.path(), "whole", sample, &all);
    let one = sealed(folder.path(), "one", sample, &all[..3_333]);
    let two = sealed(folder.path(), "two", sample, &all[3_333..]);
    let record =
        |files: &[&Path]| digest(files).run().expect_success().json_lines()[0]["digest"].clone();
    let (of_whole, of_shards) = (record(&[&whole]), record(&[&two, &one]));
    assert_eq!(of_whole["total"]["relationships"], 10_000);
    assert_eq!(of_whole["total"], of_shards["total"]);
    assert_eq!(of_whole["relations"], of_shards["relations"]);
    let trailer = std::fs::read_to_string(&whole).unwrap();
    let trailer: Value = serde_json::from_str(trailer.lines().last().unwrap()).unwrap();
    assert_eq!(of_whole["total"]["digest"], trailer["trailer"]["digest"]);
    let count = |name: &str| {
        let relations = of_whole["relations"].as_array().unwrap();
        relations
            .iter()
            .map(|one| one[name].as_u64().unwrap())
            .sum::<u64>()
    };
    for name in ["relationships", "caveated", "expiring"] {
        assert!(count(name) > 0);
        assert_eq!(of_whole["total"][name], count(name), "{name}");
    }
    let table = Program::new("spice-digest")
        .arg(&whole)
        .run()
        .expect_success();
    assert!(
        table
            .text()
            .contains(trailer["trailer"]["digest"].as_str().unwrap())
    );
}

#[test]
fn what_has_expired_as_of_an_instant_is_left_out_on_both_sides() {
    let folder = folder();
    let sample = Sample::rich(1_000);
    let all: Vec<Relationship> = sample.iter().collect();
    let expires = |one: &&Relationship| one.optional_expires_at.is_some();
    let (a, b) = (
        sealed(folder.path(), "a", sample, &all),
        sealed(
            folder.path(),
            "b",
            sample,
            all.iter().filter(|one| !expires(one)),
        ),
    );
    diff(&a, &b).run().expect_code(3);
    let as_of = ["--as-of", "9999-12-01T00:00:00Z"];
    let last = all
        .iter()
        .filter(expires)
        .filter_map(|one| one.optional_expires_at.as_ref());
    let last = last.map(|expiry| expiry.seconds).max().unwrap();
    assert!(
        last < 253_000_000_000,
        "the sample has no expiry after that instant: {last}"
    );
    diff(&a, &b).args(as_of).run().expect_success();
    let total = |path: &Path| {
        digest(&[path])
            .args(as_of)
            .run()
            .expect_success()
            .json_lines()[0]["digest"]["total"]
            .clone()
    };
    assert_eq!(total(&a), total(&b));
}

#[test]
fn memory_of_a_comparison_is_bounded() {
    let folder = folder();
    let mut peaks = Vec::new();
    for relationships in [10_000, u64::from(repeat(500_000, 5_000_000))] {
        let sample = Sample::rich(relationships);
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let write = |path: &Path, sample: Sample| {
            let out = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
            let mut stream =
                SnapshotWriter::create(out, sample.header(), ExpiryPrecision::default()).unwrap();
            sample.iter().for_each(|one| stream.write(&one).unwrap());
            stream.finish().unwrap();
        };
        write(&a, sample);
        // Of another seed: nothing has its like on the other side.
        write(&b, Sample { seed: 9, ..sample });
        let memory = ["--max-memory", "64MiB", "--summary"];
        let finished = diff(&a, &b).args(memory).run().expect_code(3);
        peaks.push((relationships, finished.peak_kib / 1024));
    }
    figure(&format!(
        "peak MiB of spice-diff --max-memory 64MiB: {peaks:?}"
    ));
    assert!(peaks.iter().all(|(_, peak)| *peak <= 64), "{peaks:?}");
}
