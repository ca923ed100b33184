//! Streams in, streams out, without a server.

mod changes;
mod redaction;
mod snapshots;
mod updates;

use std::fs;
use std::path::Path;

use authzed::v1::{ContextualizedCaveat, ObjectReference, Relationship, SubjectReference};
use clap::{CommandFactory as _, Parser as _};
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit};
use spice_record::record::StreamKind;
use spice_record::{
    ExpiryPrecision, Header, Integrity, RecordReader, SnapshotReader, SnapshotWriter,
};

use crate::Map;
use crate::mapper::Counts;
use crate::plan::Plan;

const KEY: &[u8] = b"a key of the tests, no secret";
const REVISION: &str = "Gh8KEzE3OTU0MTUxMDcxNDI1MDIxMjcSCDhkYjFiNWNl";

#[test]
fn flags_are_consistent() {
    Map::command().debug_assert();
}

/// The path of a file with the key.
fn private_key(folder: &Path) -> String {
    let path = folder.join("key");
    fs::write(&path, KEY).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(&path, private).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What an input becomes, by these flags. `KEY` is replaced by the path of a file with the key.
fn map(flags: &[&str], input: &str) -> Result<(String, Counts), CommandError> {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    fs::write(&from, input).unwrap();
    let key = private_key(folder.path());
    let flags = flags.iter();
    let flags = flags.map(|&flag| if flag == "KEY" { key.as_str() } else { flag });
    let ends = ["--output", to.to_str().unwrap(), from.to_str().unwrap()];
    let args = Map::try_parse_from(["spice-map"].into_iter().chain(flags).chain(ends));
    let args = args.map_err(|error| CommandError::usage(error.to_string()))?;
    let plan = Plan::of(&args);
    let progress = Progress::start("relationships read", true);
    let counts = plan.and_then(|plan| crate::stream::map(&args, plan, &progress));
    let written = fs::read_to_string(&to);
    match counts {
        Ok(counts) => Ok((written.unwrap(), counts)),
        Err(failure) => {
            assert!(
                written.is_err(),
                "an output that is not complete has its name"
            );
            let leftovers = fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(leftovers, 2, "an unfinished file is left");
            Err(failure)
        }
    }
}

/// That it is refused with this code, and why.
fn assert_refused(flags: &[&str], input: &str, exit: Exit, part: &str) {
    let failure = map(flags, input).map(|(stream, _)| stream).unwrap_err();
    assert_eq!(failure.exit, exit, "{flags:?}: {failure:?}");
    let text = format!("{} {}", failure.message(), failure.hint_text());
    assert!(text.contains(part), "{flags:?}: {text}");
}

/// `doc:readme#viewer@user:ann`, `...@group:eng#member[caveat]`.
fn relationship(text: &str) -> Relationship {
    let (text, caveat) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((text, caveat)) => (text, Some(caveat)),
        None => (text, None),
    };
    let (resource, subject) = text.split_once('@').unwrap();
    let (resource, relation) = resource.split_once('#').unwrap();
    let (subject, subject_relation) = subject.split_once('#').unwrap_or((subject, ""));
    let object = |text: &str| {
        let (kind, id) = text.split_once(':').unwrap();
        Some(ObjectReference {
            object_type: kind.to_owned(),
            object_id: id.to_owned(),
        })
    };
    Relationship {
        resource: object(resource),
        relation: relation.to_owned(),
        subject: Some(SubjectReference {
            object: object(subject),
            optional_relation: subject_relation.to_owned(),
        }),
        optional_caveat: caveat.map(|name| ContextualizedCaveat {
            caveat_name: name.to_owned(),
            context: None,
        }),
        optional_expires_at: None,
    }
}

fn header(stream: StreamKind, schema: &str) -> Header {
    Header {
        revision: Some(REVISION.to_owned()),
        schema: (!schema.is_empty()).then(|| schema.to_owned()),
        ..Header::new(stream, "test", "2026-11-27T00:00:00Z")
    }
}

/// A sealed snapshot.
fn snapshot(schema: &str, relationships: &[&str]) -> String {
    let relationships = relationships.iter().map(|text| relationship(text));
    sealed(header(StreamKind::Snapshot, schema), relationships)
}

fn sealed(header: Header, relationships: impl IntoIterator<Item = Relationship>) -> String {
    let writer = SnapshotWriter::create(Vec::new(), header, ExpiryPrecision::Micros);
    let mut writer = writer.unwrap();
    for relationship in relationships {
        writer.write(&relationship).unwrap();
    }
    String::from_utf8(writer.finish().unwrap().1).unwrap()
}

/// What a sealed snapshot holds, its header first.
fn read(stream: &str) -> (Header, Vec<Relationship>) {
    let records = RecordReader::new(stream.as_bytes(), "test");
    let mut reader = SnapshotReader::open(records, Integrity::Verified).unwrap();
    let mut relationships = Vec::new();
    while let Some(relationship) = reader.next_relationship().unwrap() {
        relationships.push(relationship);
    }
    assert!(reader.is_verified());
    (reader.header().unwrap().clone(), relationships)
}

/// The relationships of a sealed snapshot, as text.
fn shown(stream: &str) -> Vec<String> {
    let relationships = read(stream).1;
    let shown = relationships
        .iter()
        .map(spice_record::relationship::DisplayRelationship);
    shown.map(|relationship| relationship.to_string()).collect()
}
