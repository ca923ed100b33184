//! Streams that were written by released versions stay readable. The files are never changed; a new
//! format version gets a folder of its own, and a line in `FOLDERS`.

use std::path::{Path, PathBuf};

use spice_record::{CheckReader, Record, RecordReader};

use crate::support::program::Program;

const FOLDERS: [&str; 1] = ["v1"];

/// The content of each file, under its name: relationships and digest of a snapshot, the last revision of
/// changes, or how many checks were answered how.
const V1: [(&str, &str); 5] = [
    ("changes.ndjson", "GhAKBENNMEgSCDBmNDQ4MDg2"),
    ("checks.ndjson", "8 questions: 4 yes, 3 no, 1 conditional"),
    // Renamed and redacted by spice-map: its header has a mapping.
    (
        "mapped.ndjson",
        "60 relationships, digest 834d695bd5ca2c56146a4ea413c9d7c4 (us)",
    ),
    (
        "seconds.ndjson.zst",
        "60 relationships, digest 0a9c75e99dc45595171e44bd15cc7fa9 (s)",
    ),
    (
        "snapshot.ndjson",
        "60 relationships, digest da6ea7e593303d6f6edf2447df0cb92c (us)",
    ),
];

fn data() -> PathBuf {
    crate::support::root().join("tests/data/format")
}

fn names(folder: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn no_old_stream_is_forgotten() {
    assert_eq!(names(data()), FOLDERS);
    assert_eq!(names(data().join("v1")), V1.map(|(name, _)| name));
}

#[test]
fn streams_of_version_1_are_read() {
    for (name, expected) in V1 {
        let path = data().join("v1").join(name);
        if name == "changes.ndjson" {
            let found = Program::new("spice-revision")
                .arg(&path)
                .run()
                .expect_success();
            assert_eq!(found.text().trim(), expected, "{name}");
            continue;
        }
        if name == "checks.ndjson" {
            assert_eq!(answers(&path), expected, "{name}");
            continue;
        }
        let checked = Program::new("spice-import")
            .arg("--dry-run")
            .arg(&path)
            .run();
        let stderr = checked.expect_success().stderr;
        assert!(
            stderr.contains(&format!("complete: {expected}")),
            "{name}: {stderr}"
        );
    }
}

fn answers(path: &Path) -> String {
    let input = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut records = RecordReader::new(input, "checks");
    let Some(Record::Header(header)) = records.next_record().unwrap() else {
        panic!("no header");
    };
    let mut reader = CheckReader::after(records, header).unwrap();
    let checks: Vec<_> = std::iter::from_fn(|| reader.next_check().unwrap()).collect();
    let count = |wanted: &str| {
        let said = checks.iter().map(|check| check.answer.to_string());
        said.filter(|said| said.starts_with(wanted)).count()
    };
    let (yes, no, conditional) = (count("yes"), count("no"), count("conditional"));
    format!(
        "{} questions: {yes} yes, {no} no, {conditional} conditional",
        checks.len()
    )
}

#[test]
fn example_in_the_documentation_is_a_whole_stream() {
    let document = std::fs::read_to_string(crate::support::root().join("docs/format.md")).unwrap();
    let lines = document
        .lines()
        .skip_while(|line| !line.starts_with(r#"{"header":"#))
        .take_while(|line| line.starts_with('{'));
    let stream: String = lines.map(|line| format!("{line}\n")).collect();
    let checked = Program::new("spice-import")
        .arg("--dry-run")
        .input(stream)
        .run()
        .expect_success();
    assert!(
        checked.stderr.contains("complete: 1 relationships"),
        "{}",
        checked.stderr
    );
}
