//! Two servers asked the same: equal ones give the same answers, and what makes them differ is named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testdata::Sample;

use crate::copy::{export, holding, import};
use crate::support::oracle;
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, wait_until};

pub(crate) fn check(server: &Server) -> Program {
    Program::new("spice-check").args(["--context", server.context()])
}

/// Questions about a server with its answers, in a file. The same ones in each run: of few relationships
/// the draw can leave out what a test looks for.
fn asked(server: &Server, folder: &Path, flags: &[&str]) -> PathBuf {
    let path = folder.join("asked");
    let answered = Pipe::from(export(server))
        .to(check(server).args(["--seed", "7"]).args(flags))
        .expect_success();
    std::fs::write(&path, &answered.stdout).unwrap();
    path
}

/// The same questions to another server, as it is now.
fn compared(server: &Server, asked: &Path) -> Program {
    check(server)
        .args(["--at", &oracle::head(server)])
        .arg(asked)
}

fn checks(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter_map(|line| line.get("check")).collect()
}

fn lines_of(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

#[test]
fn equal_servers_give_the_same_answers() {
    let folder = folder();
    let source = holding(Sample::portable(5_000), Datastore::Memory);
    let target = Server::start(Datastore::Postgres);
    Pipe::from(export(&source))
        .to(import(&target))
        .expect_success();
    let flags = ["--sample", "800"];
    let path = asked(&source, folder.path(), &flags);
    let lines = lines_of(&path);
    assert_eq!(lines[0]["header"]["stream"], "checks");
    let all = checks(&lines);
    assert_eq!(lines.last().unwrap()["trailer"]["checks"], all.len());
    let mut answers = BTreeMap::<&str, usize>::new();
    for check in &all {
        let answer = check["item"]["permissionship"].as_str().unwrap();
        *answers.entry(answer).or_default() += 1;
    }
    for answer in ["HAS_PERMISSION", "NO_PERMISSION", "CONDITIONAL_PERMISSION"] {
        let count = answers.get(format!("PERMISSIONSHIP_{answer}").as_str());
        assert!(*count.unwrap() >= 5, "{answers:?}");
    }
    let with_context = all
        .iter()
        .filter(|one| one["request"]["context"].is_object());
    assert_eq!(all.len() - with_context.clone().count(), 800);
    let decided = with_context.filter(|one| one["item"]["partialCaveatInfo"].is_null());
    assert!(decided.count() > 10, "a context decides what depends on it");
    let sets = all
        .iter()
        .filter(|one| one["request"]["subject"]["optionalRelation"].is_string());
    assert!(sets.count() > 10, "subject sets are asked about, too");

    let compared = compared(&target, &path).run().expect_success();
    assert!(
        compared.stderr.contains("same answers"),
        "{}",
        compared.stderr
    );
    assert_eq!(checks(&compared.json_lines()).len(), 0);

    // The same seed draws the same, and --record asks it again.
    let again = asked(&source, folder.path(), &flags);
    assert_eq!(checks(&lines_of(&again)), all);
    let again = check(&source)
        .arg("--record")
        .arg(&path)
        .run()
        .expect_success();
    assert_eq!(checks(&again.json_lines()), all);
}

/// Twenty documents that a group may see, and one that somebody owns.
const SCHEMA: &str = "definition user {}

definition group {
	relation member: user
}

definition document {
	relation owner: user
	relation viewer: group#member
	permission view = viewer + owner
}
";

fn holding_a_group(schema: &str, member: bool) -> Server {
    let server = Server::start(Datastore::Memory);
    oracle::write_schema(&server, schema);
    let mut lines =
        vec![r#"{"resource":"group:eng","relation":"member","subject":"user:bob"}"#.to_owned()];
    if member {
        lines.push(lines[0].replace("bob", "ann"));
    }
    for n in 0..100 {
        let resource = format!(r#"{{"resource":"document:d{n}","relation":"#);
        lines.push(format!(
            r#"{resource}"viewer","subject":"group:eng#member"}}"#
        ));
        lines.push(format!(r#"{resource}"owner","subject":"user:eve{n}"}}"#));
    }
    oracle::load_bulk(&server, &(lines.join("\n") + "\n"));
    server
}

/// What two servers answer differently: resource, permission and subject.
fn disagreements(lines: &[Value]) -> BTreeSet<String> {
    let named = checks(lines).into_iter().map(|check| {
        assert_ne!(check["item"], check["other"]["item"]);
        let of = |object: &Value| {
            format!("{}:{}", object["objectType"], object["objectId"]).replace('"', "")
        };
        let request = &check["request"];
        let permission = request["permission"].as_str().unwrap();
        let subject = of(&request["subject"]["object"]);
        format!("{}#{permission}@{subject}", of(&request["resource"]))
    });
    named.collect()
}

#[test]
fn member_removed_on_one_server_is_found_and_named() {
    let folder = folder();
    let (one, other) = (
        holding_a_group(SCHEMA, true),
        holding_a_group(SCHEMA, false),
    );
    let path = asked(&one, folder.path(), &[]);
    let found = compared(&other, &path).run().expect_code(3);
    let named = disagreements(&found.json_lines());
    assert!(!named.is_empty());
    for name in &named {
        assert!(name.ends_with("@user:ann"), "{name}");
    }
    let first = named
        .iter()
        .find(|name| found.stderr.contains(name.as_str()));
    assert!(first.is_some(), "{}", found.stderr);
    assert!(
        found.stderr.contains(": yes there, no on "),
        "{}",
        found.stderr
    );
}

#[test]
fn permission_that_means_something_else_is_found_and_named() {
    let folder = folder();
    let one = holding_a_group(SCHEMA, true);
    let other = SCHEMA.replace("view = viewer + owner", "view = viewer");
    let other = holding_a_group(&other, true);
    let path = asked(&one, folder.path(), &[]);
    let found = compared(&other, &path).run().expect_code(3);
    let what = "expression of permission document#view";
    assert!(found.stderr.contains(what), "{}", found.stderr);
    let named = disagreements(&found.json_lines());
    assert!(!named.is_empty());
    for name in &named {
        assert!(name.contains("#view@user:eve"), "{name}");
    }
    // The schema alone, without a question.
    let schema = check(&one).args(["--at", &oracle::head(&one), "--sample", "0"]);
    let mut found = Pipe::from(schema)
        .to(check(&other).args(["--at", &oracle::head(&other)]))
        .run();
    let found = found.pop().unwrap().expect_code(3);
    assert!(found.stderr.contains(what), "{}", found.stderr);
}

#[test]
fn server_without_a_schema_differs_from_one_with_a_schema() {
    let one = holding_a_group(SCHEMA, true);
    let none = Server::start(Datastore::Memory);
    let also_none = Server::start(Datastore::Memory);
    let against = |server: &Server| {
        let head = Program::new("spice-revision")
            .args(["--context", server.context(), "--head", "--settle", "0s"])
            .run()
            .expect_success();
        check(server).args(["--at", head.text().trim()])
    };
    let schema_of = |server: &Server| against(server).args(["--sample", "0"]);
    for (from, to, what) in [
        (&none, &one, "it should have none"),
        (&one, &none, "it has none"),
    ] {
        let mut found = Pipe::from(schema_of(from)).to(against(to)).run();
        let found = found.pop().unwrap().expect_code(3);
        assert!(found.stderr.contains(what), "{}", found.stderr);
        // A later try compares it again.
        let header = &found.json_lines()[0]["header"];
        assert!(header["schema"].is_string(), "{header}");
    }
    Pipe::from(schema_of(&none))
        .to(against(&also_none))
        .expect_success();
}

#[test]
fn checks_that_are_cut_or_altered_or_asked_nowhere_are_refused() {
    let folder = folder();
    let server = holding_a_group(SCHEMA, true);
    let path = asked(&server, folder.path(), &["--sample", "20"]);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let cut = lines[..lines.len() - 1].concat();
    let short = [&lines[..3], &lines[4..]].concat().concat();
    let altered = text.replacen("viewer + owner", "viewer - owner", 1);
    assert_ne!(altered, text);
    let (no, yes) = ("NO_PERMISSION\"", "HAS_PERMISSION\"");
    let (this, that) = if text.contains(no) {
        (no, yes)
    } else {
        (yes, no)
    };
    let answer = text.replacen(this, that, 1);
    assert_ne!(answer, text);
    let both = text.replacen(
        r#""item":{"#,
        r#""error":{"code":9,"message":""},"item":{"#,
        1,
    );
    assert_ne!(both, text);
    for bad in [cut.as_str(), &short, &altered, &answer, &both, ""] {
        std::fs::write(&path, bad).unwrap();
        let refused = compared(&server, &path).run().expect_code(65);
        assert!(refused.stdout.is_empty());
    }
    std::fs::write(&path, &text).unwrap();
    let nowhere = check(&server).arg(&path).run().expect_code(2);
    assert!(nowhere.stderr.contains("--at"), "{}", nowhere.stderr);
    compared(&server, &path)
        .args(["--sample", "5"])
        .run()
        .expect_code(2);
    let snapshot = folder.path().join("snapshot");
    export(&server)
        .arg("--output")
        .arg(&snapshot)
        .run()
        .expect_success();
    check(&server)
        .arg("--record")
        .arg(&snapshot)
        .run()
        .expect_code(2);
}

#[test]
fn expiry_between_two_answers_is_no_difference() {
    let folder = folder();
    let schema = "use expiration\n\ndefinition user {}\n\ndefinition document {\n\
                  \trelation viewer: user with expiration\n\tpermission view = viewer\n}\n";
    let servers = [Datastore::Memory, Datastore::Postgres].map(|datastore| {
        let server = Server::start(datastore);
        oracle::write_schema(&server, schema);
        server
    });
    let [one, other] = &servers;
    let yes = |lines: &[Value]| {
        let answers = checks(lines)
            .into_iter()
            .map(|check| &check["item"]["permissionship"]);
        answers
            .filter(|one| *one == "PERMISSIONSHIP_HAS_PERMISSION")
            .count()
    };
    // As long as the machine needs to ask before it.
    let asked = [12, 40, 90].into_iter().find_map(|seconds| {
        let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        for server in &servers {
            let lines = (0..30).map(|n| {
                let of = format!(
                    r#""resource":"document:d{n}","relation":"viewer","subject":"user:u{n}""#
                );
                format!(r#"{{"op":"touch",{of},"expires":"{expiry}"}}"#)
            });
            oracle::load(server, &(lines.collect::<Vec<_>>().join("\n") + "\n"));
        }
        let path = asked(one, folder.path(), &[]);
        (yes(&lines_of(&path)) > 0).then_some((expiry, path))
    });
    let (expiry, path) = asked.expect("asked before the expiry");
    wait_until("all has expired", Duration::from_secs(120), || {
        jiff::Timestamp::now() > expiry + jiff::SignedDuration::from_secs(1)
    });
    let disagree = compared(other, &path).run().expect_code(3);
    let left = folder.path().join("left");
    std::fs::write(&left, &disagree.stdout).unwrap();
    for server in &servers {
        // Any write makes a newer revision: at the old one a server repeats what it has answered.
        oracle::write_schema(server, schema);
    }
    let again = compared(one, &left).arg("--record").run().expect_success();
    assert_eq!(yes(&again.json_lines()), 0);
    std::fs::write(&path, &again.stdout).unwrap();
    compared(other, &path).run().expect_success();
}

/// Two teams that are each other's parent, and what depends on them.
const CYCLE: [&str; 7] = [
    "team:a#parent@team:b",
    "team:b#parent@team:a",
    "team:b#direct@user:ann",
    "team:a#direct@user:bob",
    "doc:d#owner@team:a",
    "doc:d#banned@user:cyn",
    "doc:d#banned@user:ann",
];

/// An old server reports with another code that it gave up at its maximum depth: one that passes, which was
/// asked again until the retries were spent.
#[test]
fn two_versions_that_give_up_on_the_same_cycle_agree() {
    let folder = folder();
    let schema = "definition user {}\n\ndefinition team {\n\trelation parent: team\n\trelation direct: user\n\
        \tpermission member = direct + parent->member\n}\n\ndefinition doc {\n\trelation owner: team\n\
        \trelation banned: user\n\tpermission view = owner->member - banned\n}\n";
    let builders = [
        Server::builder(Datastore::Memory).version("v1.45.4"),
        Server::builder(Datastore::Memory),
    ];
    let servers = builders.map(|builder| {
        let server = builder.start();
        oracle::write_schema(&server, schema);
        let lines = CYCLE.map(|line| {
            let (resource, subject) = line.split_once('@').unwrap();
            let (resource, relation) = resource.split_once('#').unwrap();
            format!("{{\"resource\":\"{resource}\",\"relation\":\"{relation}\",\"subject\":\"{subject}\"}}\n")
        });
        oracle::load_bulk(&server, &lines.concat());
        server
    });
    let [old, new] = servers;
    for (one, other) in [(&old, &new), (&new, &old)] {
        let path = asked(one, folder.path(), &["--sample", "100"]);
        let lines = lines_of(&path);
        let deep = checks(&lines)
            .into_iter()
            .filter(|check| check["error"]["reason"] == "MAXIMUM_DEPTH_EXCEEDED");
        assert!(deep.count() > 0, "a question is too deep: {lines:?}");
        let alike = compared(other, &path).run().expect_success();
        assert!(alike.stderr.contains("same answers"), "{}", alike.stderr);
        assert!(!alike.stderr.contains(" 0 too deep"), "{}", alike.stderr);
    }
}
