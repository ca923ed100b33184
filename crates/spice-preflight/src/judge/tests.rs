//! Each finding from the facts that it follows from, and none from those of a healthy pair.

mod data;
mod datastore;

use std::time::Duration;

use authzed::{DatastoreKind, Kind};

use super::*;
use crate::facts::tests::failure;
use crate::facts::{Answer, Encryption, Failure, Has, Limit, Limits, Sample, SchemaText, Watched};
use crate::finding::Verdict;
use crate::steps::{Call, needs};

/// Revision 7 of two datastores, on MySQL, and one that names none.
const TOKENS: [&str; 3] = ["GgoKATcSBTEyMzQ1", "GgoKATgSBTk4NzY1", "GgMKATc="];

fn plan() -> Plan {
    Plan {
        steps: Steps::All,
        gc_window: None,
        settle: None,
        relationships: None,
        may_be_filled: false,
        filter: None,
    }
}

/// An end of which everything was seen, and is well.
fn healthy(place: Place) -> Facts {
    let (context, token) = match place {
        Place::Source => ("old", TOKENS[0]),
        _ => ("new", TOKENS[1]),
    };
    let allowed = needs(place, Steps::All).map(|need| (need.call, Answer::Allowed));
    Facts {
        version: Some("v1.56.0".to_owned()),
        head: Some(token.to_owned()),
        kind: Ok(DatastoreKind::Postgres),
        schema: SchemaText::Text("definition user {}".to_owned()),
        answers: allowed.collect(),
        limits: Limits {
            page: Limit::AtMost(10_000),
            updates: Limit::AtMost(1_000),
            context: Limit::AtMost(25_000),
            message: Limit::AtMost(4 << 20),
        },
        sample: Some(Sample {
            relationships: if place == Place::Source { 100 } else { 0 },
            is_complete: true,
            seconds: 0.1,
            ..Sample::default()
        }),
        watched: Some(Watched {
            first: Some(Duration::from_millis(300)),
            open: Duration::from_millis(300),
        }),
        unknown_fields: Some(Vec::new()),
        ..Facts::new(context, &format!("{context}:50051"))
    }
}

/// What is judged of a healthy pair after a change, without what is well.
fn changed(
    plan: &Plan,
    change: impl FnOnce(&mut Facts, &mut Facts, &mut SchemaFit),
) -> Vec<Finding> {
    let (mut source, mut target) = (healthy(Place::Source), healthy(Place::Target));
    let mut fit = SchemaFit::Equal;
    // The version of SpiceDB on MySQL is known to be a good one.
    change(&mut source, &mut target, &mut fit);
    let ends = Ends {
        source: Some(&source),
        target: Some(&target),
        fit: Some(&fit),
    };
    let mut findings = judge(&ends, plan);
    findings.retain(|finding| finding.severity != Severity::Ok);
    findings
}

/// The one finding after a change: severity, end and check; why and remedy are there.
#[track_caller]
fn only(plan: &Plan, change: impl FnOnce(&mut Facts, &mut Facts, &mut SchemaFit)) -> Finding {
    let mut findings = changed(plan, change);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let finding = findings.remove(0);
    assert!(
        !finding.why.is_empty() && !finding.remedy.is_empty(),
        "{finding:?}"
    );
    finding
}

#[track_caller]
fn expect(finding: &Finding, severity: Severity, place: Place, check: &str, part: &str) {
    assert_eq!(
        (finding.severity, finding.place, finding.check),
        (severity, place, check),
        "{finding:?}"
    );
    assert!(
        finding.found.contains(part),
        "{part:?} is not in {finding:?}"
    );
}

#[test]
fn healthy_pair_has_no_finding_to_act_on() {
    for steps in [Steps::Copy, Steps::Live, Steps::All] {
        let plan = Plan { steps, ..plan() };
        assert_eq!(changed(&plan, |_, _, _| {}), []);
    }
}

#[test]
fn one_end_alone_is_judged_by_itself() {
    let source = healthy(Place::Source);
    let ends = Ends {
        source: Some(&source),
        target: None,
        fit: None,
    };
    let findings = judge(&ends, &plan());
    assert!(
        findings
            .iter()
            .all(|finding| finding.place == Place::Source)
    );
    assert_eq!(Verdict::of(&findings).exit, spice_cli::Exit::Done);
    let source = Facts {
        schema: SchemaText::None,
        ..healthy(Place::Source)
    };
    let ends = Ends {
        source: Some(&source),
        ..ends
    };
    expect(
        &judge(&ends, &plan())[0],
        Severity::Fails,
        Place::Source,
        "schema",
        "has no schema",
    );
}

#[test]
fn unreachable_end_is_the_only_finding_of_it_and_may_pass() {
    let finding = only(&plan(), |source, _, _| {
        source.contact = Err(failure(Kind::Unreachable, None));
        source.answers.clear();
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "contact",
        "cannot be reached",
    );
    assert!(finding.passes);
}

#[test]
fn wrong_key_and_wrong_tls_do_not_pass() {
    for (kind, part) in [
        (Kind::Tls, "do not agree about TLS"),
        (Kind::Unauthenticated, "wants a token"),
        (Kind::Config, "with these settings"),
        (Kind::Unimplemented, "as SpiceDB does"),
    ] {
        let finding = only(&plan(), |_, target, _| {
            target.contact = Err(failure(kind, None));
        });
        expect(&finding, Severity::Fails, Place::Target, "contact", part);
        assert!(!finding.passes, "{kind:?}");
    }
    let finding = only(&plan(), |_, target, _| {
        target.contact = Err(Failure {
            is_other_key: true,
            ..failure(Kind::Denied, None)
        });
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Target,
        "contact",
        "does not know the token",
    );
}

#[test]
fn token_that_others_can_read_is_a_warning() {
    for encryption in [
        Encryption::Plaintext { is_exposed: true },
        Encryption::Unverified,
    ] {
        let finding = only(&plan(), |source, _, _| source.encryption = encryption);
        expect(
            &finding,
            Severity::Warns,
            Place::Source,
            "contact",
            "old:50051",
        );
    }
    let local = Encryption::Plaintext { is_exposed: false };
    assert_eq!(
        changed(&plan(), |source, _, _| source.encryption = local),
        []
    );
}

#[test]
fn each_refused_call_is_named_with_its_use() {
    for place in [Place::Source, Place::Target] {
        for need in needs(place, Steps::All) {
            let denied = Answer::Denied("no".to_owned());
            let findings = changed(&plan(), |source, target, fit| {
                let end = if place == Place::Source {
                    source
                } else {
                    target
                };
                end.answers.insert(need.call, denied);
                *fit = SchemaFit::TargetHasNone { is_tried: true };
            });
            let name = format!("may not call {}", need.call.name());
            let found = findings.iter().find(|found| found.found.contains(&name));
            let found = found.unwrap_or_else(|| panic!("{name}: {findings:?}"));
            assert_eq!(found.place, place);
            assert_eq!(found.why, need.use_for);
            let must = need.level == crate::steps::Level::Must;
            assert_eq!(found.severity == Severity::Fails, must, "{found:?}");
        }
    }
}

#[test]
fn definitions_must_be_readable_with_types_and_the_revision_without_a_schema() {
    let typed = Plan {
        filter: Some(Filter {
            types: vec!["user".to_owned()],
            resource_prefix: None,
        }),
        ..plan()
    };
    let prefixed = Plan {
        filter: Some(Filter {
            types: Vec::new(),
            resource_prefix: Some("a".to_owned()),
        }),
        ..plan()
    };
    for place in [Place::Source, Place::Target] {
        for (plan, has_schema, lacks_definitions, severity) in [
            (plan(), true, false, Severity::Warns),
            (prefixed.clone(), true, false, Severity::Warns),
            (typed.clone(), true, false, Severity::Fails),
            (plan(), false, false, Severity::Fails),
            (plan(), true, true, Severity::Fails),
        ] {
            let findings = changed(&plan, |source, target, _| {
                let end = if place == Place::Source {
                    source
                } else {
                    target
                };
                let denied = Answer::Denied("no".to_owned());
                end.answers.insert(Call::ReflectSchema, denied);
                end.lacks_definitions = lacks_definitions;
                if !has_schema {
                    end.schema = SchemaText::None;
                }
            });
            let found = findings.iter().find(|found| found.check == "rights");
            let found = found.map(|found| (found.severity, found.place));
            assert_eq!(found, Some((severity, place)), "{plan:?} {has_schema}");
        }
    }
}

#[test]
fn all_refused_calls_are_named_at_once() {
    let findings = changed(&plan(), |_, target, _| {
        for call in [Call::Import, Call::WriteRelationships, Call::Export] {
            target.answers.insert(call, Answer::Denied("no".to_owned()));
        }
    });
    assert_eq!(findings.len(), 3, "{findings:#?}");
}

#[test]
fn schema_that_is_there_need_not_be_written() {
    let denied = |_: &mut Facts, target: &mut Facts, _: &mut SchemaFit| {
        let denied = Answer::Denied("no".to_owned());
        target.answers.insert(Call::WriteSchema, denied);
    };
    let finding = only(&plan(), denied);
    expect(
        &finding,
        Severity::Warns,
        Place::Target,
        "rights",
        "WriteSchema",
    );
}

#[test]
fn call_without_an_answer_may_pass() {
    let finding = only(&plan(), |source, _, _| {
        let unsure = Answer::Unsure("no answer in time".to_owned());
        source.answers.insert(Call::Export, unsure);
    });
    expect(
        &finding,
        Severity::Fails,
        Place::Source,
        "rights",
        "is not known",
    );
    assert!(finding.passes);
}

#[test]
fn read_only_target_fails_and_source_limits_a_follow() {
    let read_only = |facts: &mut Facts| {
        facts
            .answers
            .insert(Call::WriteRelationships, Answer::ReadOnly);
    };
    let finding = only(&plan(), |_, target, _| read_only(target));
    expect(
        &finding,
        Severity::Fails,
        Place::Target,
        "read-only",
        "takes no writes",
    );
    let finding = only(&plan(), |source, _, _| read_only(source));
    expect(
        &finding,
        Severity::Warns,
        Place::Source,
        "read-only",
        "takes no writes",
    );
    let copy = Plan {
        steps: Steps::Copy,
        ..plan()
    };
    assert_eq!(changed(&copy, |source, _, _| read_only(source)), []);
}

#[test]
fn worst_findings_come_first() {
    let findings = changed(&plan(), |source, target, _| {
        source.limits.page = Limit::AtMost(10);
        target.answers.insert(Call::Import, Answer::ReadOnly);
        source.answers.insert(Call::Watch, Answer::Missing);
    });
    let order: Vec<_> = findings
        .iter()
        .map(|finding| (finding.severity, finding.place))
        .collect();
    assert_eq!(
        order,
        [
            (Severity::Fails, Place::Source),
            (Severity::Fails, Place::Target),
            (Severity::Warns, Place::Source),
        ]
    );
}
