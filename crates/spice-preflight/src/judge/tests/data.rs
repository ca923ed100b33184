//! What the ends hold and take: schemas, limits, history, expiries.

use std::time::Duration;

use authzed::DatastoreKind;
use spice_record::record::Filter;

use super::*;
use crate::facts::{Clock, SchemaText};

#[test]
fn schema_that_is_not_taken_or_differs_fails() {
    for (outcome, place, part) in [
        (
            SchemaFit::Differs("definition a missing".to_owned()),
            Place::Target,
            "definition a",
        ),
        (
            SchemaFit::Refused("parse error".to_owned()),
            Place::Target,
            "does not take",
        ),
        (SchemaFit::SourceHasNone, Place::Source, "has no schema"),
    ] {
        let finding = only(&plan(), |_, _, fit| *fit = outcome);
        expect(&finding, Severity::Fails, place, "schema", part);
    }
    let unknown = SchemaFit::Unknown("no answer".to_owned());
    let finding = only(&plan(), |_, _, fit| *fit = unknown);
    expect(
        &finding,
        Severity::Warns,
        Place::Target,
        "schema",
        "is not known",
    );
    let untried = SchemaFit::TargetHasNone { is_tried: false };
    let finding = only(&plan(), |_, _, fit| *fit = untried);
    expect(
        &finding,
        Severity::Warns,
        Place::Target,
        "schema",
        "cannot be asked",
    );
    for passes in [true, false] {
        let failed = SchemaFit::Failed {
            message: "no answer".to_owned(),
            passes,
        };
        let finding = only(&plan(), |_, _, fit| *fit = failed);
        expect(
            &finding,
            Severity::Fails,
            Place::Target,
            "schema",
            "is not known",
        );
        assert_eq!(finding.passes, passes);
    }
}

fn holds(count: u64, is_complete: bool) -> impl Fn(&mut Facts, &mut Facts, &mut SchemaFit) {
    move |_, target, _| {
        target.sample = Some(Sample {
            relationships: count,
            is_complete,
            ..Sample::default()
        });
    }
}

#[test]
fn filter_of_which_the_source_holds_nothing_fails() {
    let part = Plan {
        filter: Some(Filter {
            types: vec!["user".to_owned()],
            resource_prefix: None,
        }),
        ..plan()
    };
    let none = |source: &mut Facts, _: &mut Facts, _: &mut SchemaFit| {
        source.sample = Some(Sample {
            is_complete: true,
            ..Sample::default()
        });
    };
    let finding = only(&part, none);
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "filter",
        "holds no relationships of resources of type user",
    );
}

#[test]
fn type_that_the_source_does_not_have_fails() {
    let part = Plan {
        filter: Some(Filter {
            types: vec!["document".to_owned(), "grup".to_owned()],
            resource_prefix: None,
        }),
        ..plan()
    };
    let schema = |source: &mut Facts, _: &mut Facts, _: &mut SchemaFit| {
        let text = "definition document {}\n\ndefinition group {}";
        source.schema = SchemaText::Text(text.to_owned());
    };
    let finding = only(&part, schema);
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "filter",
        "--type grup: ",
    );
    assert!(finding.remedy.ends_with("it has: document, group"));
}

#[test]
fn filled_target_fails_unless_a_policy_is_planned() {
    let finding = only(&plan(), holds(3, true));
    expect(
        &finding,
        Severity::Fails,
        Place::Target,
        "target",
        "holds 3 relationships",
    );
    let finding = only(&plan(), holds(10_000, false));
    expect(
        &finding,
        Severity::Fails,
        Place::Target,
        "target",
        "at least 10000",
    );
    let part = Plan {
        filter: Some(Filter {
            types: Vec::new(),
            resource_prefix: Some("acme-".to_owned()),
        }),
        ..plan()
    };
    let finding = only(&part, holds(3, true));
    assert!(finding.found.contains("holds 3 relationships of resources"));
    assert!(!finding.remedy.contains("empty"), "others are on it");
    let filled = Plan {
        may_be_filled: true,
        ..plan()
    };
    let finding = only(&filled, holds(3, true));
    expect(
        &finding,
        Severity::Warns,
        Place::Target,
        "target",
        "holds 3 relationships",
    );
}

#[test]
fn small_limits_are_named_with_their_flags() {
    for (limits, flag) in [
        (
            Limits {
                page: Limit::AtMost(10),
                ..Limits::default()
            },
            "--max-bulk-export-relationships-limit",
        ),
        (
            Limits {
                updates: Limit::AtMost(10),
                ..Limits::default()
            },
            "--write-relationships-max-updates-per-call",
        ),
        (
            Limits {
                message: Limit::AtMost(1 << 20),
                ..Limits::default()
            },
            "proxy",
        ),
    ] {
        let finding = only(&plan(), |_, target, _| target.limits = limits);
        expect(
            &finding,
            Severity::Warns,
            Place::Target,
            "limits",
            "new:50051",
        );
        assert!(finding.remedy.contains(flag), "{finding:?}");
    }
}

#[test]
fn context_of_the_sample_has_to_fit_a_write_of_the_target() {
    let large = |source: &mut Facts, _: &mut Facts, _: &mut SchemaFit| {
        source.sample = Some(Sample {
            relationships: 100,
            is_complete: true,
            largest_context: 30_000,
            ..Sample::default()
        });
    };
    let finding = only(&plan(), large);
    expect(
        &finding,
        Severity::Fails,
        Place::Both,
        "limits",
        "30000 bytes",
    );
    assert!(finding.remedy.contains("--max-relationship-context-size"));
    let copy = Plan {
        steps: Steps::Copy,
        ..plan()
    };
    let finding = only(&copy, large);
    expect(
        &finding,
        Severity::Warns,
        Place::Both,
        "limits",
        "30000 bytes",
    );
}

/// A source of which 100,000 were read in a second, and more are there.
fn big(source: &mut Facts, _: &mut Facts, _: &mut SchemaFit) {
    source.sample = Some(Sample {
        relationships: 100_000,
        is_complete: false,
        seconds: 1.0,
        ..Sample::default()
    });
}

#[test]
fn history_has_to_outlast_the_copy() {
    let with = |hours: u64, relationships: u64| Plan {
        gc_window: Some(Duration::from_secs(hours * 3600)),
        relationships: Some(relationships),
        ..plan()
    };
    // A load of 40,000 a second is assumed: 1,000,000,000 take 7 hours.
    let finding = only(&with(6, 1_000_000_000), big);
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "history",
        "--relationships",
    );
    assert!(finding.remedy.contains("--datastore-gc-window"));
    let finding = only(&with(10, 1_000_000_000), big);
    expect(
        &finding,
        Severity::Warns,
        Place::Source,
        "history",
        "--gc-window",
    );
    assert_eq!(changed(&with(24, 1_000_000_000), big), []);
    assert_eq!(changed(&plan(), big), []);
}

#[test]
fn history_has_to_outlast_settling_and_markers() {
    let short = Plan {
        gc_window: Some(Duration::from_secs(20)),
        ..plan()
    };
    let finding = only(&short, |_, _, _| {});
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "history",
        "interval of markers",
    );
    let copy = Plan {
        steps: Steps::Copy,
        ..short
    };
    assert_eq!(changed(&copy, |_, _, _| {}), []);
    let mysql = |source: &mut Facts, _: &mut Facts, _: &mut SchemaFit| {
        source.kind = Ok(DatastoreKind::MySql);
    };
    let finding = only(&copy, mysql);
    expect(&finding, Severity::Fails, Place::Source, "history", "35 s");
    let settles = Plan {
        settle: Some(Duration::from_secs(1)),
        ..copy
    };
    assert_eq!(changed(&settles, mysql), []);
}

fn expiring(source: &mut Facts) {
    source.schema = SchemaText::Text("use expiration\n".to_owned());
}

#[test]
fn expiry_that_the_target_does_not_keep_is_named() {
    let finding = only(&plan(), |source, target, _| {
        expiring(source);
        target.kind = Ok(DatastoreKind::MySql);
    });
    expect(
        &finding,
        Severity::Warns,
        Place::Target,
        "expiry",
        "to the second",
    );
    let finding = only(&plan(), |source, target, _| {
        expiring(source);
        target.has = Has {
            expiry: false,
            ..Has::ALL
        };
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Target,
        "expiry",
        "does not know expiries",
    );
    let finding = only(&plan(), |source, target, _| {
        expiring(source);
        target.takes_expiry = Some(false);
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Target,
        "expiry",
        "switched off",
    );
    assert_eq!(changed(&plan(), |source, _, _| expiring(source)), []);
}

#[test]
fn clock_that_is_off_matters_where_relationships_expire() {
    let off = |ahead, is_now| {
        move |source: &mut Facts, _: &mut Facts, _: &mut SchemaFit| {
            expiring(source);
            source.clock = Some(Clock { ahead, is_now });
        }
    };
    let finding = only(&plan(), off(60.0, false));
    expect(
        &finding,
        Severity::Warns,
        Place::Source,
        "clock",
        "60 s ahead",
    );
    let finding = only(&plan(), off(-60.0, true));
    expect(
        &finding,
        Severity::Warns,
        Place::Source,
        "clock",
        "60 s behind",
    );
    // An old revision is behind any clock.
    assert_eq!(changed(&plan(), off(-60.0, false)), []);
    assert_eq!(changed(&plan(), off(1.0, true)), []);
    let clock = Clock {
        ahead: 60.0,
        is_now: true,
    };
    assert_eq!(
        changed(&plan(), |source, _, _| source.clock = Some(clock)),
        []
    );
}

#[test]
fn fields_that_only_the_source_knows_are_named() {
    let finding = only(&plan(), |source, _, _| {
        source.unknown_fields = Some(vec!["Relationship.weight".to_owned()]);
    });
    expect(
        &finding,
        Severity::Warns,
        Place::Source,
        "fields",
        "Relationship.weight",
    );
    assert_eq!(
        changed(&plan(), |source, _, _| source.unknown_fields = None),
        []
    );
}
