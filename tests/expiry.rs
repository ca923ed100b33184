//! A touch that changes an expiry takes effect, also where the server acknowledges it and does not do it:
//! SpiceDB before v1.49 on MySQL keeps the expiry of what is touched without one.
//!
//! What is expected is what a newer server holds after the same touches.

use serde_json::{Value, json};

use crate::apply::{apply, head, mark};
use crate::copy::import;
use crate::support::folder;
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};

const SCHEMA: &str = "use expiration

caveat at_night(hour int) {
\thour > 20
}

definition user {}

definition doc {
\trelation viewer: user | user with expiration | user with at_night | user with at_night and expiration
}";

/// What a relationship is before and after a touch: nothing, or with caveat and expiry.
fn states() -> Vec<Value> {
    let (soon, later) = ("2040-01-01T00:00:00Z", "2041-01-01T00:00:00Z");
    let caveat = json!({"caveat": "at_night", "context": {"hour": 3.0}});
    let with = |mut state: Value, name: &str, value: &str| {
        state[name] = value.into();
        state
    };
    vec![
        Value::Null,
        json!({}),
        json!({"expires": soon}),
        json!({"expires": later}),
        json!({"caveat": "at_night"}),
        with(json!({"caveat": "at_night"}), "expires", soon),
        caveat.clone(),
        with(caveat, "expires", soon),
        // It has expired, and is not collected yet.
        json!({"expires": "2001-01-01T00:00:00Z"}),
    ]
}

/// All pairs of states, each as a relationship of its own, as it is before and after.
fn pairs() -> Vec<(Option<Value>, Value)> {
    let mut pairs = Vec::new();
    for before in states() {
        for after in states().into_iter().skip(1) {
            let id = format!("doc:d{}", pairs.len());
            let as_relationship = |state: Value| {
                let mut one = json!({"resource": id, "relation": "viewer", "subject": "user:u"});
                one.as_object_mut()
                    .unwrap()
                    .extend(state.as_object().cloned()?);
                Some(one)
            };
            pairs.push((
                as_relationship(before.clone()),
                as_relationship(after).unwrap(),
            ));
        }
    }
    pairs
}

fn touches<'a>(relationships: impl Iterator<Item = &'a Value>) -> String {
    let touch = |relationship: &Value| {
        let mut touch = relationship.clone();
        touch["op"] = "touch".into();
        format!("{touch}\n")
    };
    relationships.map(touch).collect()
}

fn before() -> String {
    touches(pairs().iter().filter_map(|(before, _)| before.as_ref()))
}

fn after() -> String {
    touches(pairs().iter().map(|(_, after)| after))
}

/// As it is written in a stream.
fn proto(relationship: &Value) -> Value {
    let text = |name: &str| relationship[name].as_str().unwrap();
    let object = |text: &str| {
        let (object_type, id) = text.split_once(':').unwrap();
        json!({"objectType": object_type, "objectId": id})
    };
    let mut proto = json!({
        "resource": object(text("resource")),
        "relation": text("relation"),
        "subject": {"object": object(text("subject"))},
    });
    if let Some(expiry) = relationship.get("expires") {
        proto["optionalExpiresAt"] = expiry.clone();
    }
    if let Some(caveat) = relationship.get("caveat") {
        proto["optionalCaveat"] = json!({"caveatName": caveat});
        if let Some(context) = relationship.get("context") {
            proto["optionalCaveat"]["context"] = context.clone();
        }
    }
    proto
}

fn lines(wrapped: impl Fn(Value) -> Value) -> String {
    let pairs = pairs();
    let lines = pairs.iter().map(|(_, after)| wrapped(proto(after)));
    lines.map(|line| format!("{line}\n")).collect()
}

/// A server that does not do what it acknowledges, with the schema.
fn old_server() -> Server {
    let server = Server::builder(Datastore::MySql)
        .version("v1.45.4")
        .flag("--enable-experimental-relationship-expiration")
        .start();
    oracle::write_schema(&server, SCHEMA);
    server
}

fn new_server(datastore: Datastore) -> Server {
    let server = Server::start(datastore);
    oracle::write_schema(&server, SCHEMA);
    server
}

/// Fails unless the server holds what one that does every touch would.
#[track_caller]
fn assert_all_are_done(server: &Server, of: &str) {
    let right = new_server(Datastore::Memory);
    oracle::load(&right, &before());
    oracle::load(&right, &after());
    let expected = oracle::dump(&right, Precision::Seconds);
    let there = oracle::dump(server, Precision::Seconds);
    oracle::assert_same_lines("a right server", &expected, of, &there);
}

#[test]
fn old_server_acknowledges_touches_that_it_does_not_do() {
    let server = old_server();
    oracle::load(&server, &before());
    oracle::load(&server, &after());
    let there = oracle::dump(&server, Precision::Seconds).join("\n");
    let undone = pairs().into_iter().filter(|(before, after)| {
        let expires = before
            .as_ref()
            .is_some_and(|before| before.get("expires").is_some());
        expires && after.get("expires").is_none() && {
            let id = format!("{}\"", after["resource"].as_str().unwrap());
            let line = there.lines().find(|line| line.contains(&id));
            line.is_none_or(|line| line.contains("expires"))
        }
    });
    // Else nothing here proves anything.
    assert_eq!(undone.count(), 4, "{there}");
}

#[test]
fn imported_touches_take_effect_on_a_server_that_skips_them() {
    for (server, is_old) in [(old_server(), true), (new_server(Datastore::MySql), false)] {
        oracle::load(&server, &before());
        let touch = || {
            import(&server)
                .args(["--no-trailer", "--on-conflict", "touch"])
                .input(lines(|relationship| json!({"relationship": relationship})))
                .run()
                .expect_success()
        };
        let warned = touch().stderr.contains("does not do them");
        assert_all_are_done(&server, "after the import");
        touch();
        assert_all_are_done(&server, "after the import, again");
        assert_eq!(warned, is_old, "only the old one is warned of");
    }
}

#[test]
fn applied_touches_take_effect_on_a_server_that_skips_them() {
    let server = old_server();
    oracle::load(&server, &before());
    let update = |relationship| json!({"update": {"operation": "OPERATION_TOUCH", "relationship": relationship}});
    apply(&server)
        .arg("--no-trailer")
        .input(lines(update))
        .run()
        .expect_success();
    assert_all_are_done(&server, "after the updates");
}

/// What has expired is in the way until it is collected, also where the schema allows no expiry any more, and
/// where the same stream names it twice.
#[test]
fn what_has_expired_unseen_swallows_no_touch() {
    let server = old_server();
    let names = ["applied", "imported"];
    let row = |name: &str| json!({"resource": format!("doc:{name}"), "relation": "viewer", "subject": "user:u"});
    let expired = names.map(|name| {
        let mut row = row(name);
        row["expires"] = "2001-01-01T00:00:00Z".into();
        row
    });
    oracle::load(&server, &touches(expired.iter()));
    let schema = SCHEMA.replace(" | user with expiration", "");
    let schema = schema.replace(" | user with at_night and expiration", "");
    oracle::write_schema(&server, &schema);
    let update =
        json!({"update": {"operation": "OPERATION_TOUCH", "relationship": proto(&row("applied"))}});
    let applied = apply(&server)
        .arg("--no-trailer")
        .input(format!("{update}\n"));
    applied.run().expect_success();
    let mut first = row("imported");
    first["caveat"] = "at_night".into();
    let twice =
        [first, row("imported")].map(|row| json!({"relationship": proto(&row)}).to_string());
    let flags = ["--no-trailer", "--on-conflict", "touch"];
    let imported = import(&server).args(flags).input(twice.join("\n") + "\n");
    imported.run().expect_success();
    let there = oracle::dump(&server, Precision::Seconds);
    assert_eq!(there, names.map(|name| row(name).to_string()));
}

/// Each relationship takes all states, one after the other, and ends in the last one.
#[test]
fn followed_expiries_end_as_on_the_source() {
    for flags in [&[][..], &["--no-coalesce"]] {
        let (source, target) = (new_server(Datastore::Postgres), old_server());
        let folder = folder();
        let start = head(&source);
        for round in 0..states().len() {
            let mut all = pairs();
            let count = all.len();
            for number in 0..count {
                let state = all[(number + round * 8) % count].1.clone();
                let mut one = state;
                one["resource"] = format!("doc:d{number}").into();
                all[number].0 = Some(one);
            }
            oracle::load(
                &source,
                &touches(all.iter().filter_map(|(one, _)| one.as_ref())),
            );
        }
        oracle::load(&source, &before());
        oracle::load(&source, &after());
        let end = mark(&source);
        let watch = Program::new("spice-watch").args([
            "--context",
            source.context(),
            "--since",
            &start,
            "--until",
            &end,
        ]);
        let apply = apply(&target)
            .arg("--position")
            .arg(folder.path().join("position"))
            .args(["--until", &end])
            .args(flags);
        Pipe::from(watch).to(apply).expect_success();
        assert_all_are_done(&target, "the follower");
    }
}

#[test]
fn resync_makes_expiries_equal_on_a_server_that_skips_touches() {
    let source = new_server(Datastore::Postgres);
    oracle::load(&source, &after());
    let target = Server::builder(Datastore::MySql)
        .version("v1.45.4")
        .flag("--enable-experimental-relationship-expiration")
        .start();
    let folder = folder();
    let step = |arguments: &[&str]| {
        let state = folder.path().join("migration");
        let step = Program::new("spice-migrate").arg("--state").arg(state);
        step.args(arguments)
            .timeout(std::time::Duration::from_secs(180))
            .run()
            .expect_success()
    };
    step(&["plan", "--from", source.context(), "--to", target.context()]);
    step(&["copy"]);
    oracle::load(&target, &before());
    step(&["resync"]);
    oracle::assert_same_relationships(&source, &target, Precision::Seconds);
}
