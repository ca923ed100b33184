//! A source whose schema changes while it is followed.

use std::path::Path;
use std::time::Duration;

use super::{
    Capture, PATIENCE, SCHEMA, apply, checkpoint, delete, head, header, ids, lines, mark, position,
    rejected_code, schema, sealed, token, touch, transaction, watch,
};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, folder, oracle, wait_until};

const WITH_EDITOR: &str = "definition user {}\n\ndefinition document {\n\trelation viewer: user\n\
                           \trelation editor: user\n}\n\ndefinition folder {\n\
                           \trelation viewer: user\n}";
const WITHOUT_FOLDER: &str = "definition user {}\n\ndefinition document {\n\
                              \trelation viewer: user\n\trelation editor: user\n}";
const WITH_CAVEAT: &str = "caveat named(name string) {\n\tname == 'x'\n}\n\ndefinition user {}\n\n\
                           definition document {\n\trelation viewer: user | user with named\n\
                           \trelation editor: user\n}";

fn follow(source: &Server, target: &Server, since: &str, file: &Path) -> Pipe {
    let watch = Program::new("spice-watch")
        .args(["--context", source.context()])
        .timeout(PATIENCE);
    let watch = watch.args(["--since", since, "--settle", "2s", "--heartbeat", "500ms"]);
    let watch = watch.arg("--since-file").arg(file);
    Pipe::from(watch).to(apply(target).arg("--position").arg(file))
}

fn schema_changes_of_the_source_reach_the_target(datastore: Datastore) {
    let (source, target, folder) = (Server::start(datastore), Server::start(datastore), folder());
    oracle::write_schema(&source, SCHEMA);
    oracle::write(&source, "touch", "document:a#viewer@user:eve");
    std::thread::sleep(Duration::from_millis(100));
    let since = head(&source);
    let file = folder.path().join("position");
    // What the copy would have brought.
    oracle::write_schema(&target, SCHEMA);
    oracle::write(&target, "touch", "document:a#viewer@user:eve");
    let running = follow(&source, &target, &since, &file).spawn();
    wait_until("it follows", PATIENCE, || file.exists());
    let arrives = |what: &str| {
        let (resource, rest) = what.split_once('#').unwrap();
        let relation = format!(
            r#""relation":"{}","resource":"{resource}""#,
            rest.split('@').next().unwrap()
        );
        wait_until(what, PATIENCE, || {
            let there = oracle::dump(&target, oracle::Precision::Seconds);
            there.iter().any(|line| line.contains(&relation))
        });
    };
    oracle::write_schema(&source, WITH_EDITOR);
    oracle::write(&source, "touch", "document:a#editor@user:eve");
    oracle::write(&source, "touch", "folder:f#viewer@user:eve");
    arrives("document:a#editor@user:eve");
    arrives("folder:f#viewer@user:eve");
    oracle::write(&source, "delete", "folder:f#viewer@user:eve");
    oracle::write_schema(&source, WITHOUT_FOLDER);
    wait_until("the definition is gone", PATIENCE, || {
        !oracle::read_schema(&target).contains("folder")
    });
    oracle::write_schema(&source, WITH_CAVEAT);
    oracle::load(
        &source,
        r#"{"op":"touch","resource":"document:c","relation":"viewer","subject":"user:eve","caveat":"named","context":{"name":"x"}}"#,
    );
    arrives("document:c#viewer@user:eve");
    for program in running.iter().rev() {
        program.signal("TERM");
    }
    for program in running {
        program.wait();
    }
    assert_eq!(oracle::read_schema(&target), oracle::read_schema(&source));
    oracle::assert_same_relationships(&source, &target, oracle::Precision::Seconds);
}

#[test]
fn schema_changes_of_postgres_reach_the_target() {
    schema_changes_of_the_source_reach_the_target(Datastore::Postgres);
}

#[test]
fn schema_changes_of_mysql_reach_the_target() {
    schema_changes_of_the_source_reach_the_target(Datastore::MySql);
}

#[test]
fn schema_changed_while_nothing_ran_is_applied() {
    let (source, target, folder) = (
        Server::start(Datastore::Postgres),
        Server::start(Datastore::Postgres),
        folder(),
    );
    oracle::write_schema(&source, SCHEMA);
    oracle::write_schema(&target, SCHEMA);
    let since = head(&source);
    oracle::write_schema(&source, WITH_EDITOR);
    let file = folder.path().join("position");
    let capture = Capture::start(&source, &folder.path().join("one"), &since);
    let spool = |name: &str| folder.path().join(name);
    wait_until("it captures", PATIENCE, || spool("one").exists());
    let run = |name: &str| {
        let program = apply(&target)
            .arg("--spool")
            .arg(spool(name))
            .arg("--position")
            .arg(&file);
        program
            .args(["--until", &mark(&source)])
            .run()
            .expect_success();
        assert_eq!(oracle::read_schema(&target), oracle::read_schema(&source));
    };
    run("one");
    capture.signal("TERM");
    drop(capture.wait());
    // Another capture, from the position: only its header has this one.
    oracle::write_schema(&source, WITHOUT_FOLDER);
    let again = watch(&source)
        .arg("--since-file")
        .arg(&file)
        .arg("--spool")
        .arg(spool("two"));
    let again = again.args(["--heartbeat", "1s"]).spawn();
    wait_until("it captures", PATIENCE, || spool("two").exists());
    run("two");
    again.signal("TERM");
    drop(again.wait());
}

#[test]
fn definition_added_and_removed_at_once_converges_or_stops() {
    let (source, target, folder) = (
        // Polled seldom, so that all of it is one poll.
        Server::builder(Datastore::Postgres)
            .flag("--watch-api-heartbeat=3s")
            .start(),
        Server::start(Datastore::Postgres),
        folder(),
    );
    oracle::write_schema(&source, WITHOUT_FOLDER);
    oracle::write_schema(&target, WITHOUT_FOLDER);
    let since = head(&source);
    let file = folder.path().join("position");
    oracle::write_schema(&source, WITH_EDITOR);
    oracle::write(&source, "touch", "folder:f#viewer@user:eve");
    oracle::write(&source, "delete", "folder:f#viewer@user:eve");
    oracle::write_schema(&source, WITHOUT_FOLDER);
    oracle::write(&source, "touch", "document:after#viewer@user:eve");
    let until = mark(&source);
    let run = || {
        let watch = watch(&source).args(["--since", &since, "--until", &until]);
        let apply = apply(&target)
            .arg("--position")
            .arg(&file)
            .args(["--until", &until]);
        let mut ended = Pipe::from(watch).to(apply).run();
        ended.pop().unwrap()
    };
    let ended = run();
    if ended.code() != Some(0) {
        let stderr = &ended.stderr;
        assert_eq!(ended.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("folder:f#viewer@user:eve") && stderr.contains("hint"),
            "{stderr}"
        );
        figure(&format!("stopped: {stderr}"));
        // The remedy.
        oracle::write_schema(&target, WITH_EDITOR);
        run().expect_success();
    }
    oracle::assert_same_relationships(&source, &target, oracle::Precision::Microseconds);
}

#[test]
fn schema_refused_for_relationships_is_pending_until_repaired() {
    let (server, folder) = (Server::start(Datastore::Postgres), folder());
    let file = folder.path().join("position");
    let text = "definition user {}\n\ndefinition document {\n\trelation editor: user\n}";
    let edit = {
        let mut edit = touch("e");
        edit["relationship"]["relation"] = "editor".into();
        edit
    };
    let changes = [
        transaction(2, &[touch("a")]),
        schema(3, text),
        transaction(4, &[delete("nothing")]),
        checkpoint(4),
    ];
    let program = |changes: &[serde_json::Value], until: u64| {
        let program = apply(&server).arg("--position").arg(&file);
        program
            .input(sealed(changes, until))
            .args(["--until", &token(until)])
            .run()
    };
    let stopped = program(&changes, 4).expect_code(1);
    let said = &stopped.stderr;
    assert!(
        said.contains(&token(3)) && said.contains("document:a#viewer@user:eve"),
        "{said}"
    );
    assert!(said.contains("run the same command again"), "{said}");
    assert_eq!(position(&file)["sourceRevision"], token(2));
    // What needs it reports that it waits.
    let needs = [schema(3, text), transaction(5, &[edit]), checkpoint(5)];
    let stopped = program(&needs, 5).expect_code(1);
    assert!(
        stopped
            .stderr
            .contains("does not take the schema of revision"),
        "{}",
        stopped.stderr
    );
    assert_eq!(position(&file)["sourceRevision"], token(2));
    oracle::write(&server, "delete", "document:a#viewer@user:eve");
    program(&[&changes[1..], &needs[1..]].concat(), 5).expect_success();
    assert_eq!(ids(&server), ["e"]);
    assert_eq!(position(&file)["sourceRevision"], token(5));
}

#[test]
fn pending_schema_is_written_once_nothing_conflicts() {
    let server = Server::start(Datastore::Postgres);
    let without = "definition document {\n\trelation editor: user\n}\n\ndefinition user {}";
    let follow = apply(&server).input_later();
    let mut follow = follow.spawn();
    let mut stdin = follow.take_stdin();
    let records = [
        header(1),
        transaction(2, &[touch("a")]),
        schema(3, without),
        transaction(4, &[delete("a")]),
        checkpoint(4),
    ];
    std::io::Write::write_all(&mut stdin, lines(&records).as_bytes()).unwrap();
    // Before that the target has none, and the oracle fails.
    follow.wait_for_output(1);
    wait_until("the schema is there", PATIENCE, || {
        oracle::read_schema(&server).contains("editor")
    });
    assert!(follow.is_running());
    drop(stdin);
    follow.wait().expect_code(75);
    assert!(ids(&server).is_empty());
}

#[test]
fn schema_is_only_checked_or_stops_where_that_is_asked_for() {
    for (mode, code) in [("check", 75), ("stop", 1)] {
        let (server, folder) = (Server::start(Datastore::Memory), folder());
        oracle::write_schema(&server, SCHEMA);
        let file = folder.path().join("position");
        let changes = [
            transaction(2, &[touch("a")]),
            schema(3, WITHOUT_FOLDER),
            transaction(4, &[touch("b")]),
        ];
        let program = || {
            let program = apply(&server)
                .arg("--position")
                .arg(&file)
                .args(["--schema", mode]);
            program.input(sealed(&changes, 4))
        };
        let stopped = program().run();
        rejected_code(stopped, code, "relation document#editor missing");
        assert_eq!(ids(&server), ["a"]);
        assert_eq!(position(&file)["sourceRevision"], token(2));
        if mode == "check" {
            let waiting = program().spawn();
            waiting.wait_for_stderr("waiting until the target has the schema", PATIENCE);
            oracle::write_schema(&server, WITHOUT_FOLDER);
            waiting.wait().expect_success();
        } else {
            oracle::write_schema(&server, WITHOUT_FOLDER);
            program().run().expect_success();
        }
        assert_eq!(ids(&server), ["a", "b"]);
    }
}
