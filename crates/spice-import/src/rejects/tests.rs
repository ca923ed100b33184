//! What is refused is in the file, and named on stderr up to a bound.

use std::path::Path;

use spice_cli::Exit;
use spice_client::scripted::{expiring, internal, refused, relationship};

use super::{Rejects, conflict};
use crate::chunk::Row;

fn row(line: u64, id: &str) -> Row {
    Row {
        line,
        relationship: relationship(id),
    }
}

#[test]
fn without_a_file_the_first_refused_row_ends_the_import() {
    let mut rejects = Rejects::open(None, Path::new("-"), "skip").expect("nothing to open");
    let failure = rejects.reject(&row(7, "a"), &refused("INVALID_SUBJECT_TYPE"));
    let failure = failure.expect_err("no file");
    assert_eq!(failure.exit, Exit::Failed);
    assert!(
        failure
            .message()
            .starts_with("line 7: the target refuses item:a#viewer@user:u: ")
    );
}

#[test]
fn refused_rows_are_appended_and_the_file_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rejects");
    for id in ["a", "b"] {
        let mut rejects = Rejects::open(Some(&path), Path::new("-"), "skip").expect("opened");
        let error = refused("MAX_RELATIONSHIP_CONTEXT_SIZE");
        rejects.reject(&row(1, id), &error).expect("appended");
        rejects.finish().expect("synced");
    }
    let text = std::fs::read_to_string(&path).expect("the file");
    let ids: Vec<bool> = text
        .lines()
        .zip(["a", "b"])
        .map(|(line, id)| line.contains(&format!(r#""objectId":"{id}""#)))
        .collect();
    assert_eq!(ids, [true, true], "{text}");
}

#[test]
fn an_empty_file_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rejects");
    let mut rejects = Rejects::open(Some(&path), Path::new("-"), "skip").expect("opened");
    assert!(path.exists());
    rejects.finish().expect("removed");
    assert!(!path.exists());
}

#[test]
fn rows_of_a_refused_shape_are_refused_without_a_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rejects");
    let mut rejects = Rejects::open(Some(&path), Path::new("-"), "skip").expect("opened");
    assert!(!rejects.reject_by_shape(&row(1, "a")).expect("unknown"));
    // A reason that depends on the ids or the context does not apply to others.
    let error = refused("MAX_RELATIONSHIP_CONTEXT_SIZE");
    rejects.reject(&row(1, "a"), &error).expect("appended");
    assert!(!rejects.reject_by_shape(&row(2, "b")).expect("another"));
    let error = refused("INVALID_SUBJECT_TYPE");
    rejects.reject(&row(2, "b"), &error).expect("appended");
    assert!(
        rejects
            .reject_by_shape(&row(3, "c"))
            .expect("the same shape")
    );
    // A wildcard, an expiry, another relation: other shapes.
    let mut wildcard = row(4, "d");
    let subject = wildcard.relationship.subject.as_mut();
    if let Some(object) = subject.and_then(|subject| subject.object.as_mut()) {
        object.object_id = "*".to_owned();
    }
    assert!(!rejects.reject_by_shape(&wildcard).expect("another"));
    let mut relation = row(5, "e");
    relation.relationship.relation = "editor".to_owned();
    assert!(!rejects.reject_by_shape(&relation).expect("another"));
    let with_expiry = |seconds| Row {
        line: 6,
        relationship: expiring("f", seconds),
    };
    assert!(!rejects.reject_by_shape(&with_expiry(9)).expect("another"));
    rejects.reject(&with_expiry(9), &error).expect("appended");
    assert!(
        rejects
            .reject_by_shape(&with_expiry(10))
            .expect("the same shape")
    );
}

#[test]
fn an_internal_error_names_its_likely_cause() {
    let mut rejects = Rejects::open(None, Path::new("-"), "skip").expect("nothing to open");
    let failure = rejects
        .reject(&row(1, "a"), &internal())
        .expect_err("no file");
    assert!(
        failure
            .message()
            .contains("perhaps its database cannot hold a value")
    );
}

#[test]
fn a_conflict_names_what_is_there() {
    let message = |row: &Row, known: &Row| conflict(row, known).message().to_owned();
    let on_target = Row::of_target(expiring("a", 9));
    assert_eq!(
        message(&row(3, "a"), &on_target),
        "line 3: conflict of item:a#viewer@user:u: the target holds \
         item:a#viewer@user:u[expiration:1970-01-01T00:00:09Z]"
    );
    assert!(
        message(&row(3, "a"), &row(2, "a")).ends_with("line 2 has it with another caveat context")
    );
}
