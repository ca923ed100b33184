//! Kinds of datastores, versions, zedtokens, and Watch.

use std::time::Duration;

use authzed::{DatastoreKind, Kind};

use super::*;
use crate::facts::{Has, Marker};

#[test]
fn one_datastore_behind_both_ends_fails() {
    // It is never proposed to empty the target then: it is the source.
    let finding = only(&plan(), |_, target, _| {
        target.head = Some(TOKENS[0].to_owned());
        target.sample = Some(Sample {
            relationships: 100,
            ..Sample::default()
        });
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Both,
        "same-datastore",
        "12345",
    );
    assert!(!finding.remedy.contains("empty it"), "{finding:?}");
}

#[test]
fn ends_that_do_not_name_their_datastore_are_a_warning_each() {
    let findings = changed(&plan(), |source, target, _| {
        source.head = Some(TOKENS[2].to_owned());
        target.head = Some(TOKENS[2].to_owned());
    });
    let checks: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(
        checks,
        ["version", "version", "same-datastore", "zedtokens"]
    );
    assert!(
        findings
            .iter()
            .all(|finding| finding.severity == Severity::Warns)
    );
}

#[test]
fn declared_datastore_that_is_another_one_fails() {
    let finding = only(&plan(), |_, target, _| {
        target.kind = Err(Failure {
            message: "is declared to keep".to_owned(),
            hint: "correct --datastore".to_owned(),
            ..failure(Kind::Config, None)
        });
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Target,
        "datastore",
        "is declared",
    );
}

#[test]
fn old_version_on_mysql_skips_touches() {
    let mysql = |target: &mut Facts, version: Option<&str>| {
        target.kind = Ok(DatastoreKind::MySql);
        target.version = version.map(str::to_owned);
    };
    for version in [Some("v1.45.4"), None] {
        let finding = only(&plan(), |_, target, _| mysql(target, version));
        expect(
            &finding,
            Severity::Warns,
            Place::Target,
            "version",
            "acknowledge touches",
        );
    }
    assert_eq!(
        changed(&plan(), |_, target, _| mysql(target, Some("v1.49.0"))),
        []
    );
}

#[test]
fn spanner_is_not_followed_and_copied_from() {
    let spanner = |source: &mut Facts, _: &mut Facts, _: &mut SchemaFit| {
        source.kind = Ok(DatastoreKind::Spanner);
    };
    let finding = only(&plan(), spanner);
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "watch",
        "cannot be followed",
    );
    assert!(finding.remedy.contains("plan --fenced"));
    let copy = Plan {
        steps: Steps::Copy,
        ..plan()
    };
    assert_eq!(changed(&copy, spanner), []);
    let finding = only(&plan(), |_, target, _| {
        target.kind = Ok(DatastoreKind::Spanner);
    });
    expect(
        &finding,
        Severity::Warns,
        Place::Target,
        "watch",
        "cannot be followed",
    );
    let live = Plan {
        steps: Steps::Live,
        ..plan()
    };
    let target = |_: &mut Facts, target: &mut Facts, _: &mut SchemaFit| {
        target.kind = Ok(DatastoreKind::Spanner);
    };
    assert_eq!(changed(&live, target), []);
}

#[test]
fn source_that_is_memory_or_spanner_has_to_be_declared() {
    let finding = only(&plan(), |source, _, _| {
        source.kind = Ok(DatastoreKind::MemoryOrSpanner);
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "datastore",
        "memory or on Spanner",
    );
    assert!(finding.remedy.contains("[old]"), "{finding:?}");
}

#[test]
fn end_without_a_revision_is_undecided_unless_denied() {
    let finding = only(&plan(), |_, target, _| target.head = None);
    expect(
        &finding,
        Severity::Fails,
        Place::Target,
        "datastore",
        "gave no revision",
    );
    assert!(finding.passes);
    let findings = changed(&plan(), |_, target, _| {
        target.head = None;
        let denied = Answer::Denied("no".to_owned());
        target.answers.insert(Call::ReadSchema, denied);
    });
    let found: Vec<_> = findings
        .iter()
        .map(|one| (one.severity, one.check))
        .collect();
    assert_eq!(
        found,
        [(Severity::Fails, "rights"), (Severity::Warns, "datastore")]
    );
    // An old server without a schema gives it with the answer to a question, which a copy does not ask.
    let copy = Plan {
        steps: Steps::Copy,
        ..plan()
    };
    let finding = only(&copy, |_, target, _| {
        target.head = None;
        let denied = Answer::Denied("no".to_owned());
        target.answers.insert(Call::CheckBulk, denied);
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Target,
        "datastore",
        "gave no revision",
    );
    assert!(
        finding.remedy.contains("CheckBulkPermissions"),
        "{finding:?}"
    );
    assert!(!finding.passes);
}

#[test]
fn watch_that_is_off_fails_live_and_not_a_copy() {
    let off = |source: &mut Facts, _: &mut Facts, _: &mut SchemaFit| {
        source.answers.insert(Call::Watch, Answer::Missing);
    };
    let finding = only(&plan(), off);
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "watch",
        "does not offer Watch",
    );
    assert!(finding.remedy.contains("track_commit_timestamp"));
    let copy = Plan {
        steps: Steps::Copy,
        ..plan()
    };
    assert_eq!(changed(&copy, off), []);
}

#[test]
fn watch_without_checkpoints_fails() {
    let finding = only(&plan(), |source, _, _| {
        source.has = Has {
            checkpoints: false,
            ..Has::ALL
        };
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "watch",
        "no checkpoints",
    );
}

#[test]
fn marker_that_is_late_or_never_comes_is_a_warning() {
    let marked = |millis: Option<u64>| {
        move |source: &mut Facts, _: &mut Facts, _: &mut SchemaFit| {
            source.marker = Some(Ok(Marker {
                token: TOKENS[0].to_owned(),
                delivered: millis.map(Duration::from_millis),
            }));
        }
    };
    assert_eq!(changed(&plan(), marked(Some(900))), []);
    for millis in [None, Some(3_000)] {
        let finding = only(&plan(), marked(millis));
        expect(
            &finding,
            Severity::Warns,
            Place::Source,
            "marker",
            "marker was written",
        );
    }
}
