//! The language, and what changes of a text leave as it was.

mod generated;
mod properties;
mod removal;
mod renaming;
mod syntax;

use std::path::PathBuf;
use std::sync::LazyLock;

use crate::{Refused, Renames, Schema};

fn parsed(text: &str) -> Schema {
    Schema::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The schemas of this repository.
static FILES: LazyLock<Vec<(PathBuf, String)>> = LazyLock::new(|| {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![
        root.join("tests/data/writers.zed"),
        root.join("crates/testdata/src/schema.zed"),
    ];
    let folder = std::fs::read_dir(root.join("tests/data/schemas")).unwrap();
    files.extend(folder.map(|entry| entry.unwrap().path()));
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    files.into_iter().map(read).collect()
});

/// `crm/=sales/`, `doc=file` or `doc#viewer=reader`.
fn renames(flags: &[&str]) -> Renames {
    let mut renames = Renames::default();
    for flag in flags {
        let (from, to) = flag.split_once('=').unwrap();
        match from.split_once('#') {
            Some((definition, member)) => renames.member(definition, member, to),
            None if from.ends_with('/') || from.is_empty() => renames.prefix(from, to),
            None => renames.object(from, to),
        }
    }
    renames
}

fn renamed(text: &str, flags: &[&str]) -> Result<String, Refused> {
    parsed(text).rename(&renames(flags))
}

/// That it is refused, and why.
fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Refused>, parts: &[&str]) {
    let refused = outcome.unwrap_err().to_string();
    for part in parts {
        assert!(refused.contains(part), "{part:?} is not in {refused:?}");
    }
}
