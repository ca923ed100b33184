//! No id of the input is in what is written or reported, and equal ids stay equal.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use testdata::Sample;

use super::{key, map, stream_with};
use crate::copy::{export, holding, import};
use crate::support::oracle::{self, Precision};
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, folder};

const ALL: [&str; 4] = ["user", "tenant/group", "tenant/folder", "tenant/document"];

fn redacting(types: &[&str], key: &str) -> Program {
    let types = types.iter().flat_map(|&name| ["--redact", name]);
    map(&[]).args(types).args(["--key-file", key])
}

/// Type and id of what a dumped line relates.
fn objects(line: &str) -> [(String, String); 2] {
    let line: Value = serde_json::from_str(line).unwrap();
    ["resource", "subject"].map(|end| {
        let (kind, id) = line[end].as_str().unwrap().split_once(':').unwrap();
        let id = id.split('#').next().unwrap();
        (kind.to_owned(), id.to_owned())
    })
}

/// What else than ids a dumped line holds.
fn without_ids(line: &str) -> String {
    let all = objects(line).into_iter();
    all.fold(line.to_owned(), |line, (kind, id)| {
        line.replace(&format!("{kind}:{id}"), &kind)
    })
}

/// All ids that a server holds, but the wildcard.
fn ids(server: &Server) -> BTreeSet<(String, String)> {
    let dumped = oracle::dump(server, Precision::Seconds);
    let all = dumped.iter().flat_map(|line| objects(line));
    all.filter(|(_, id)| id != "*").collect()
}

/// Fails if an id is anywhere in what a program has written or reported.
fn assert_holds_none(ids: &BTreeSet<(String, String)>, finished: &Finished) {
    let stdout = String::from_utf8(finished.stdout.clone()).unwrap();
    for (kind, id) in ids {
        for (what, text) in [("stdout", &stdout), ("stderr", &finished.stderr)] {
            assert!(!text.contains(id), "{kind}:{id} is on {what}");
        }
    }
}

#[test]
fn redacted_copy_loads_and_holds_no_id() {
    let source = holding(Sample::portable(3_000), Datastore::Memory);
    let target = Server::start(Datastore::Memory);
    let folder = folder();
    let key = key(folder.path());
    let exported = export(&source).run().expect_success().stdout;
    let before = ids(&source);
    assert!(before.len() > 1_000, "{}", before.len());
    let mapped = ["text", "json"].map(|format| {
        let flags = ["--verbose", "--log-format", format];
        let mapped = redacting(&ALL, &key)
            .args(flags)
            .input(exported.clone())
            .run();
        let mapped = mapped.expect_success();
        assert_holds_none(&before, &mapped);
        mapped.stdout
    });
    let [_, mapped] = mapped;
    import(&target).input(mapped).run().expect_success();
    // As many different ones of each type, and each relationship once.
    let after = ids(&target);
    let count = |all: &BTreeSet<(String, String)>| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (kind, _) in all {
            *counts.entry(kind.clone()).or_default() += 1;
        }
        counts
    };
    assert_eq!(count(&before), count(&after));
    let shape = |server: &Server| {
        let dumped = oracle::dump(server, Precision::Seconds);
        let lines = dumped.iter().map(|line| {
            let mut line: Value = serde_json::from_str(&without_ids(line)).unwrap();
            line["context"] = Value::Null;
            line.to_string()
        });
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    };
    oracle::assert_same_lines("before", &shape(&source), "after", &shape(&target));
    figure(&format!("{} ids searched for", before.len()));
}

const SCHEMA: &str = "\
definition user {}

caveat named(who string, more map<any>, at timestamp, level int) {
\tlevel > 1 && who in more && at > timestamp(\"2020-01-01T00:00:00Z\")
}

definition doc {
\trelation viewer: user | user with named | doc#viewer
}
";

/// Ids that contain each other, in objects and in contexts, as values and as keys.
#[test]
fn ids_in_contexts_and_within_ids_are_redacted() {
    let [source, target] = [Datastore::Memory; 2].map(Server::start);
    oracle::write_schema(&source, SCHEMA);
    let names = ["zoe", "zoe|zoe", "zoe/zoe=zoe", "ZOE", "zoe_zoe+zoe-zoe"];
    let mut lines = String::new();
    for name in names {
        for other in names {
            let context = json!({ "who": other, "more": { other: { name: [other, 7] } }, "level": 3,
                                  "at": "2026-01-01T00:00:00Z" });
            let line = json!({ "resource": format!("doc:{name}"), "relation": "viewer",
                               "subject": format!("user:{other}"), "caveat": "named", "context": context });
            lines += &format!("{line}\n");
            let nested = format!("doc:{other}#viewer");
            let line = json!({ "resource": format!("doc:{name}"), "relation": "viewer", "subject": nested });
            lines += &format!("{line}\n");
        }
    }
    oracle::load_bulk(&source, &lines);
    let folder = folder();
    let key = key(folder.path());
    let exported = export(&source).run().expect_success().stdout;
    let mapped = redacting(&["user", "doc"], &key).input(exported).run();
    let mapped = mapped.expect_success();
    let text = mapped.text().to_lowercase() + &mapped.stderr.to_lowercase();
    assert!(!text.contains("zoe"), "{text}");
    import(&target).input(mapped.stdout).run().expect_success();
    let after = oracle::dump(&target, Precision::Seconds);
    assert_eq!(after.len(), lines.lines().count());
    // The same text of two contexts stays the same, and so does what is no string.
    let contexts = after.iter().filter_map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line.get("context").cloned()
    });
    let mut who = BTreeSet::new();
    for context in contexts {
        let name = context["who"].as_str().unwrap().to_owned();
        assert_eq!(context["level"], 3.0);
        assert!(context.get("at").is_none(), "{context}");
        let more = context["more"].as_object().unwrap();
        assert_eq!(more.keys().collect::<Vec<_>>(), [&name]);
        who.insert(name);
    }
    assert_eq!(who.len(), names.len());
}

/// Each line damaged in turn, and the input cut behind it: no message shows an id.
#[test]
fn messages_about_damaged_input_hold_no_id() {
    let source = holding(Sample::portable(40), Datastore::Memory);
    let folder = folder();
    let key = key(folder.path());
    let exported = export(&source).run().expect_success();
    let before = ids(&source);
    let lines: Vec<&str> = exported.text().lines().collect();
    for number in (1..lines.len()).step_by(3) {
        let (begin, line) = (lines[..number].join("\n"), lines[number]);
        let names: Vec<&str> = ["objectId", "relation", "subject"]
            .into_iter()
            .filter(|name| line.contains(name))
            .collect();
        let mut damaged = vec![
            line.chars().take(line.len() / 2).collect::<String>(),
            line.replace("\":\"", "\":x\""),
        ];
        damaged.extend(names.iter().map(|name| line.replace(name, "objectid")));
        damaged.push(line.replace("{\"relationship\":", "{\"relationship\":5,\"a\":"));
        // The id as a key, and as the value of something else.
        damaged.push(line.replace("\"objectId\":", ""));
        damaged.push(line.replace("\"resource\":", "\"optionalExpiresAt\":"));
        for damaged in damaged.iter().filter(|damaged| *damaged != line) {
            let input = format!("{begin}\n{damaged}\n");
            let flags = ["--verbose", "--log-format", "json"];
            let refused = redacting(&ALL, &key).args(flags).input(input).run();
            assert_eq!(refused.code(), Some(65), "{damaged}: {}", refused.stderr);
            assert_holds_none(&before, &refused);
        }
    }
}

/// How a key file can be wrong.
#[test]
fn key_file_that_is_no_secret_is_refused() {
    let folder = folder();
    let key = key(folder.path());
    let refused = |path: &Path, part: &str| {
        let program = redacting(&["user"], path.to_str().unwrap());
        let refused = program.input(stream_with("definition user {}\n")).run();
        let refused = refused.expect_code(2);
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        assert!(!refused.stderr.contains("no secret"), "{}", refused.stderr);
        assert!(refused.stdout.is_empty());
    };
    let path = |name: &str| folder.path().join(name);
    let private = |name: &str, bytes: &[u8]| {
        std::fs::write(path(name), bytes).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path(name), mode).unwrap();
    };
    private("short", b"15 bytes exactl");
    private("empty", b"");
    refused(&path("short"), "15 bytes, expected at least 16");
    refused(&path("empty"), "0 bytes, expected at least 16");
    refused(&path("missing"), "No such file");
    refused(&path("missing"), "head -c 32 /dev/urandom");
    refused(folder.path(), "not a regular file");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&key, mode).unwrap();
    refused(Path::new(&key), "chmod 600");
    // What it is a link to counts.
    std::os::unix::fs::symlink(&key, path("link")).unwrap();
    refused(&path("link"), "chmod 600");
}
