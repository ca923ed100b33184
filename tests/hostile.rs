//! A server that lies, hangs or breaks the rules: every program ends in time, with an error, and small.
//!
//! The server is `tests/oracle/hostile.py`, which also lists what can be done to each call. All programs
//! are given a second for a request and one retry, so that each case ends within seconds; a case that
//! must wait for a fixed time, as a write does for 60 s, is only part of `make soak`.

mod bench;

use std::path::Path;
use std::time::Duration;

use testdata::Sample;

use self::bench::{BENCH, Case, LIMIT, LONG, SHORT, Who, run, run_with};
use crate::support::{figure, repeat};

fn case(who: Who, treatment: &str, codes: &[i32]) -> Case {
    (who, treatment.to_owned(), codes.to_vec())
}

#[test]
fn server_that_behaves_is_used_without_an_error() {
    use Who::{Apply, Check, Export, ExportShards, Head, Import, Mark, Watch};
    let all = [
        Export,
        ExportShards,
        Import,
        Watch,
        Apply,
        Check,
        Head,
        Mark,
    ];
    run(all.map(|who| case(who, "", &[0])).to_vec());
}

/// The calls that each program makes, and does not end well without.
const CALLS: [(Who, &[&str]); 8] = [
    (
        Who::Export,
        &["ReadSchema", "DiffSchema", "ExportBulkRelationships"],
    ),
    (
        Who::ExportShards,
        &["ReflectSchema", "ExportBulkRelationships"],
    ),
    (
        Who::Import,
        &[
            "ReadSchema",
            "ReadSchema=noschema;WriteSchema",
            "ImportBulkRelationships",
        ],
    ),
    (
        Who::Watch,
        &["ReadSchema", "ExportBulkRelationships", "Watch"],
    ),
    (Who::Apply, &["ReadSchema", "WriteRelationships"]),
    (
        Who::Check,
        &[
            "ReadSchema",
            "DiffSchema",
            "ReflectSchema",
            "CheckBulkPermissions",
            "ReadRelationships",
        ],
    ),
    (Who::Head, &["ReadSchema"]),
    (Who::Mark, &["WriteRelationships"]),
];

/// The exit code of an error that a server answers with.
fn exit_of(code: u32) -> i32 {
    match code {
        1 | 2 | 4 | 8 | 10 | 13 | 14 => 75,
        7 | 16 => 77,
        11 => 4,
        _ => 1,
    }
}

#[test]
fn every_code_for_every_call_has_its_exit_code() {
    let mut cases = Vec::new();
    for (who, calls) in CALLS {
        for call in calls {
            for code in 1..=16 {
                let codes = match (who, *call, code) {
                    // Every relationship is refused, one by one; or was there, or cannot be held.
                    (Who::Import, "ImportBulkRelationships", 3 | 9) => vec![3],
                    (Who::Import, "ImportBulkRelationships", 6) => vec![0],
                    // A set may be a permission, which has no relationships.
                    (Who::Check, "ReadRelationships", 3 | 9) => vec![0],
                    // Retried where a call is part of long work.
                    (_, _, 13) => vec![1, 75],
                    _ => vec![exit_of(code)],
                };
                cases.push((who, format!("{call}=code:{code}"), codes));
            }
        }
    }
    run(cases);
}

#[test]
fn server_that_breaks_the_rules_of_a_call_gets_an_error() {
    let mut cases = Vec::new();
    for (who, calls) in CALLS {
        for call in calls {
            let streams = matches!(
                *call,
                "ExportBulkRelationships" | "Watch" | "ReadRelationships"
            );
            let writes = call.contains("Write") || call.starts_with("Import");
            let mut add = |treatment: &str, codes: &[i32]| {
                cases.push((who, format!("{call}={treatment}"), codes.to_vec()));
            };
            add("garbage", &[1]);
            add(
                "long",
                if *call == "ImportBulkRelationships" {
                    &[3]
                } else {
                    &[0, 1]
                },
            );
            add("wire:reset", &[75, 3]);
            add("wire:refuse", &[75, 3]);
            add("wire:goaway", &[75, 3]);
            add("wire:cut", &[75, 3]);
            add("wire:open", &[75, 3]);
            // A Watch may be silent for ever.
            if !writes && *call != "Watch" {
                add("hang", &[75]);
                add("headers", &[75]);
                add("wire:drip", &[75]);
            }
            if !streams {
                add("none", &[1]);
                add("two", &[1]);
            }
            if !matches!(
                *call,
                "DiffSchema" | "ReflectSchema" | "CheckBulkPermissions"
            ) && !streams
            {
                add("empty", &[1]);
            }
        }
    }
    run(cases);
}

#[test]
fn server_that_does_not_get_on_gets_an_error() {
    let mut cases = Vec::new();
    for who in [Who::Export, Who::ExportShards] {
        for (treatment, code) in [("same", 1), ("circle", 1), ("blank", 75)] {
            let treatment = format!("ExportBulkRelationships={treatment}");
            cases.push((who, treatment, vec![code]));
        }
    }
    cases.push(case(Who::Watch, "Watch=end", &[75]));
    cases.push(case(Who::Watch, "Watch=empty", &[1]));
    // It never gets further than where it began; each of its ends is a failure that counts.
    cases.push(case(Who::Watch, "Watch=none", &[75]));
    cases.push(case(Who::Watch, "Watch=blank", &[1]));
    // Members without end: as many are read as were asked for.
    for treatment in ["same", "fast"] {
        cases.push(case(
            Who::Check,
            &format!("ReadRelationships={treatment}"),
            &[0],
        ));
    }
    cases.push(case(Who::Check, "ReadRelationships=blank", &[0, 75]));
    run(cases);
}

#[test]
fn import_whose_large_messages_are_reset_sends_smaller_ones() {
    let bench = &*BENCH;
    // Each call may take its time: what is tried is the size of messages.
    let treatment = "ImportBulkRelationships=many:3";
    let loaded = bench.run_within(Who::Import, treatment, LONG, LIMIT);
    let loaded = loaded.expect_success();
    assert!(loaded.stderr.contains("halving them"), "{}", loaded.stderr);
    assert!(loaded.text().contains("\"loaded\":12"), "{}", loaded.text());
}

#[test]
fn server_that_sends_too_much_gets_an_error_and_little_memory() {
    let mut cases = vec![
        case(Who::Check, "ReflectSchema=nested", &[0]),
        // It is received, and would take twice as much.
        case(Who::Watch, "Watch=huge:200", &[1]),
        // Proper relationships: the most that fit, and more than that.
        case(Who::Watch, "Watch=rows:400000", &[0]),
        case(Who::Watch, "Watch=rows:2000000", &[1]),
    ];
    for (who, calls) in CALLS {
        for call in calls {
            let huge = if *call == "Watch" { 300 } else { 20 };
            cases.push((who, format!("{call}=huge:{huge}"), vec![1]));
            let has_a_list = matches!(
                *call,
                "ExportBulkRelationships"
                    | "Watch"
                    | "ReflectSchema"
                    | "DiffSchema"
                    | "CheckBulkPermissions"
            );
            if has_a_list {
                cases.push((who, format!("{call}=bomb"), vec![1]));
            }
        }
    }
    // The fake server takes its time to send so much.
    run_with(cases, 3);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let mut cases = Vec::new();
    for (who, call) in [
        (Who::Export, "ExportBulkRelationships"),
        (Who::Watch, "Watch"),
        (Who::Check, "ReadRelationships"),
    ] {
        for treatment in [
            "unknown",
            "time:0:-1",
            "time:0:1000000000",
            "time:253402300800:0",
            "time:-9223372036854775808:0",
        ] {
            cases.push((who, format!("{call}={treatment}"), vec![1]));
        }
    }
    for token in ["", "garbage", "two+words", "Gh8="] {
        for (who, call) in [
            (Who::Head, "ReadSchema"),
            (Who::Export, "ReadSchema"),
            (Who::Watch, "ReadSchema"),
            (Who::Watch, "Watch"),
            (Who::Mark, "WriteRelationships"),
            (Who::Apply, "WriteRelationships"),
        ] {
            cases.push((who, format!("{call}=token:{token}"), vec![1]));
        }
    }
    for limit in ["0", "1", "18446744073709551615", "-1", "x", ""] {
        for (who, call, codes) in [
            (Who::Export, "ExportBulkRelationships", vec![1]),
            (Who::Apply, "WriteRelationships", vec![1]),
            (Who::Import, "ImportBulkRelationships", vec![3]),
            (
                Who::Import,
                "ImportBulkRelationships=code:6;WriteRelationships",
                vec![1],
            ),
            (Who::Check, "CheckBulkPermissions", vec![1]),
            (Who::Mark, "WriteRelationships", vec![1]),
        ] {
            cases.push((who, format!("{call}=limit:{limit}"), codes));
        }
    }
    for count in ["0", "1", "11", "13", "18446744073709551615"] {
        let treatment = format!("ImportBulkRelationships=count:{count}");
        cases.push((Who::Import, treatment, vec![1]));
    }
    run(cases);
}

#[test]
fn unknown_field_is_named_and_dropped_only_on_request() {
    let bench = &*BENCH;
    for (who, treatment) in [
        (Who::Export, "ExportBulkRelationships=unknown"),
        (Who::Watch, "Watch=unknown"),
    ] {
        let refused = bench.run(who, treatment).expect_code(1);
        for text in [
            "field 77 of Relationship",
            "document:d7#viewer@user:eve",
            "--ignore-unknown-fields",
        ] {
            assert!(refused.stderr.contains(text), "{}", refused.stderr);
        }
    }
    let taken = bench
        .server
        .program("spice-export", "ExportBulkRelationships=unknown")
        .arg("--ignore-unknown-fields")
        .run()
        .expect_success();
    assert!(taken.text().contains("\"d7\""), "{}", taken.text());
    assert!(
        taken.stderr.contains("dropped") && taken.stderr.contains("does not know"),
        "{}",
        taken.stderr
    );
}

#[test]
fn writes_that_hang_are_given_up_in_the_documented_time() {
    // A write waits for 60 s and an import for 180 s, whatever --request-timeout is.
    if repeat(0, 1) == 0 {
        return;
    }
    let bench = &*BENCH;
    for (who, treatment, minutes) in [
        (Who::Mark, "WriteRelationships=hang", 2),
        (Who::Apply, "WriteRelationships=headers", 4),
        (Who::Import, "ImportBulkRelationships=hang", 8),
    ] {
        let limit = Duration::from_secs(60 * minutes);
        let finished = bench.run_within(who, treatment, SHORT, limit);
        finished.expect_code(75);
    }
}

#[test]
fn checks_of_any_length_take_little_memory() {
    let bench = &*BENCH;
    let path = bench.folder.path().join("checks");
    write_checks(&path, repeat(60_000, 1_000_000));
    let answered = bench
        .server
        .program("spice-check", "")
        .args(["--at", &bench.server.until])
        .arg(&path)
        .timeout(Duration::from_secs(600))
        .run()
        .expect_success();
    figure(&format!("{} KiB, {:?}", answered.peak_kib, answered.took));
    assert!(answered.peak_kib <= 64 << 10, "{} KiB", answered.peak_kib);

    // A stream that proves to be cut at its end has been asked, and has no trailer.
    let text = std::fs::read_to_string(&path).unwrap();
    let cut = &text[..text[..text.len() - 1].rfind('\n').unwrap() + 1];
    std::fs::write(&path, cut).unwrap();
    let refused = bench
        .server
        .program("spice-check", "")
        .args(["--at", &bench.server.until])
        .arg(&path)
        .timeout(Duration::from_secs(600))
        .run()
        .expect_code(65);
    assert!(!refused.text().contains("\"trailer\""));
}

fn write_checks(path: &Path, count: u32) {
    use authzed::v1::{CheckBulkPermissionsRequestItem, ObjectReference, SubjectReference};
    use spice_record::CheckWriter;
    use spice_record::checks::{Answer, Check, Item, Permissionship, Question};

    let object = |kind: &str, id: String| {
        Some(ObjectReference {
            object_type: kind.to_owned(),
            object_id: id,
        })
    };
    let mut header = Sample::rich(0).header();
    header.stream = spice_record::record::StreamKind::Checks;
    header.schema = None;
    let file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut writer = CheckWriter::create(file, header).unwrap();
    for number in 0..count {
        let check = Check {
            request: Question(CheckBulkPermissionsRequestItem {
                resource: object("document", format!("d{number}")),
                permission: "view".to_owned(),
                subject: Some(SubjectReference {
                    object: object("user", "eve".to_owned()),
                    optional_relation: String::new(),
                }),
                context: None,
            }),
            answer: Answer::Item(Item {
                permissionship: Permissionship::Yes,
                partial_caveat_info: None,
            }),
            other_server: None,
            inconclusive: false,
        };
        writer.write(check).unwrap();
    }
    drop(writer.finish().unwrap());
}
