//! A schema of 300 definitions and its relationships: renamed, it loads and gives the same answers.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{answers, map};
use crate::check::check;
use crate::copy::{export, import};
use crate::support::figure;
use crate::support::oracle::{self, Precision};
use crate::support::spicedb::{Datastore, Server};

const DEFINITIONS: usize = 300;
const OBJECTS: usize = 6;

/// The definitions to which one refers: two that come before it.
fn parents(n: usize) -> [usize; 2] {
    [n / 2, n / 3]
}

fn schema() -> String {
    let mut text = "use expiration\n\ndefinition crm/user {}\n\n".to_owned();
    for n in 0..20 {
        let _ = writeln!(
            text,
            "/** crm/cav{n} is about a level */\ncaveat crm/cav{n}(level int, tags list<string>) {{\n\
             \tlevel > {n} && \"}}crm/cav1\" in tags\n}}\n"
        );
    }
    for n in 0..DEFINITIONS {
        let ([a, b], caveat) = (parents(n), n % 20);
        let members = match a == b {
            true => format!("crm/def{a}#viewer"),
            false => format!("crm/def{a}#viewer | crm/def{b}#edit"),
        };
        let _ = writeln!(
            text,
            "// crm/def{a}, crm/def{b}\ndefinition crm/def{n} {{\n\
             \trelation parent: crm/def{a} | crm/user /* parent */\n\
             \trelation viewer: crm/user | {members}\n\
             \trelation public: crm/user:* with crm/cav{caveat}\n\
             \trelation owner: crm/user with crm/cav{caveat} and expiration | crm/user with expiration\n\
             \trelation banned: crm/user\n\
             \tpermission edit = owner + parent->edit\n\
             \tpermission view = (viewer + public + edit + parent.all(view)) - banned\n}}\n"
        );
    }
    text
}

/// Relationships of every form that the schema has.
fn relationships() -> String {
    let mut lines = String::new();
    let mut add = |line: Value| {
        let _ = writeln!(lines, "{line}");
    };
    for n in 0..DEFINITIONS {
        let ([a, _], caveat) = (parents(n), format!("crm/cav{}", n % 20));
        for i in 0..OBJECTS {
            let resource = format!("crm/def{n}:o{i}");
            let user = |k: usize| format!("crm/user:u{}", (n * 7 + i * 3 + k) % 40);
            let context = json!({ "level": i * 5, "tags": ["}crm/cav1"] });
            if n > 0 {
                add(json!({ "resource": resource, "relation": "parent",
                            "subject": format!("crm/def{a}:o{}", i * 5 % OBJECTS) }));
                add(json!({ "resource": resource, "relation": "viewer",
                            "subject": format!("crm/def{a}:o{}#viewer", (i + 1) % OBJECTS) }));
            }
            add(json!({ "resource": resource, "relation": "viewer", "subject": user(0) }));
            add(json!({ "resource": resource, "relation": "banned", "subject": user(1) }));
            add(
                json!({ "resource": resource, "relation": "owner", "subject": user(2),
                        "caveat": caveat, "context": context, "expires": "2100-01-01T00:00:00Z" }),
            );
            if i == 0 {
                add(
                    json!({ "resource": resource, "relation": "public", "subject": "crm/user:*",
                            "caveat": caveat }),
                );
            }
        }
    }
    lines
}

/// The new names keep the order of the old ones: so the same questions are drawn.
fn flags() -> Vec<String> {
    let mut flags = vec!["--rename".to_owned(), "crm/=crm_sales/emea/".to_owned()];
    for n in 0..DEFINITIONS {
        for (old, new) in [
            ("view", "viewable"),
            ("viewer", "viewers"),
            ("owner", "owns"),
        ] {
            flags.extend(["--rename".to_owned(), format!("crm/def{n}#{old}={new}")]);
        }
    }
    flags
}

/// A line of the source by the new names.
fn renamed(line: &str) -> String {
    let line = line.replace("crm/", "crm_sales/emea/");
    // What a caveat compares is no name.
    let line = line.replace("}crm_sales/emea/cav1", "}crm/cav1");
    let names = [
        ("view", "viewable"),
        ("viewer", "viewers"),
        ("owner", "owns"),
    ];
    names.into_iter().fold(line, |line, (old, new)| {
        let line = line.replace(&format!("\":\"{old}\""), &format!("\":\"{new}\""));
        line.replace(&format!("#{old}\""), &format!("#{new}\""))
    })
}

#[test]
fn renamed_300_definitions_load_and_give_the_same_answers() {
    let [source, target] = [Datastore::Memory; 2].map(Server::start);
    oracle::write_schema(&source, &schema());
    let loaded = relationships();
    oracle::load_bulk(&source, &loaded);
    let exported = export(&source).run().expect_success().stdout;
    let mapped = map(&[]).args(flags()).input(exported.clone()).run();
    let mapped = mapped.expect_success().stdout;
    import(&target).input(mapped.clone()).run().expect_success();
    let dump = |server: &Server| oracle::dump(server, Precision::Nanoseconds);
    let mut expected: Vec<String> = dump(&source).iter().map(|line| renamed(line)).collect();
    expected.sort();
    assert_eq!(expected.len(), loaded.lines().count());
    oracle::assert_same_lines("renamed", &expected, "target", &dump(&target));
    let drawn = ["--seed", "3", "--sample", "1000"];
    let ask = |server: &Server, stream: Vec<u8>, flags: &[&str]| {
        let asked = check(server).args(drawn).args(flags).input(stream);
        asked.run().expect_success()
    };
    let before = ask(&source, exported, &[]);
    let after = ask(&target, mapped, &["--at", &oracle::head(&target)]);
    let (before, after) = (answers(&before, renamed), answers(&after, str::to_owned));
    oracle::assert_same_lines("answers before", &before, "after", &after);
    let count = |part: &str| before.iter().filter(|check| check.contains(part)).count();
    let counts = ["HAS_PERMISSION", "NO_PERMISSION", "CONDITIONAL_PERMISSION"].map(count);
    figure(&format!("{} answers: {counts:?}", before.len()));
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
}

/// And back: the text of the schema is the first one again.
#[test]
fn renamed_300_definitions_get_their_old_names_back() {
    let there = super::schema_of(
        &map(&[])
            .args(flags())
            .input(super::stream_with(&schema()))
            .run(),
    );
    let mut back = vec!["--rename".to_owned(), "crm_sales/emea/=crm/".to_owned()];
    for flag in flags().chunks(2).skip(1) {
        let (member, new) = flag[1].split_once('=').unwrap();
        let (definition, old) = member.split_once('#').unwrap();
        let definition = definition.replace("crm/", "crm_sales/emea/");
        back.extend(["--rename".to_owned(), format!("{definition}#{new}={old}")]);
    }
    let again = map(&[]).args(back).input(super::stream_with(&there)).run();
    assert_eq!(super::schema_of(&again.expect_success()), schema());
}
