//! A part of a source, by `--type` and `--resource-prefix`: nothing of others arrives, nothing of it is missing.

use super::{Folded, PATIENCE, mark, source, watch, write, writers};
use crate::apply::apply;
use crate::support::folder;
use crate::support::oracle::{self, Precision};
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server, but_for_dead_mysql_servers};

/// Only what begins with "a_": `_` is no wildcard, and upper case is another letter.
const PART: [&str; 4] = ["--type", "item", "--resource-prefix", "a_"];
const OTHERS: [&str; 3] = ["ab", "A_", "b-"];

fn dump(server: &Server) -> Vec<String> {
    oracle::dump(server, Precision::Seconds)
}

/// Of relationships as the oracle dumps them, those in the part and the others.
pub(crate) fn split(lines: Vec<String>, prefix: &str) -> [Vec<String>; 2] {
    let of_part = format!(r#""resource":"item:{prefix}"#);
    let (part, others) = lines.into_iter().partition(|line| line.contains(&of_part));
    [part, others]
}

/// Four tenants are written while one is copied and followed into a target that holds another one.
fn one_of_four(datastore: Datastore) {
    let (server, target) = (source(datastore), source(datastore));
    let folder = folder();
    write(&target, "touch", "b-theirs");
    write(&target, "touch", "abtheirs");
    let before = dump(&target);
    let tenants = ["a_"].into_iter().chain(OTHERS).map(|prefix| {
        let of_one = folder.path().join(prefix);
        std::fs::create_dir(&of_one).unwrap();
        let flags = ["--writers", "2", "--rate", "10", "--keys", "50"];
        let own = ["--updates", "10", "--prefix", prefix, "--seed", prefix];
        writers(&server, &of_one, &[&flags[..], &own].concat())
    });
    let tenants: Vec<_> = tenants.collect();

    let snapshot = folder.path().join("snapshot.ndjson");
    let export = Program::on("spice-export", &server).args(["--settle", "2s"]);
    let export = export.args(PART).output_file(&snapshot);
    export.run().expect_success();
    let import = Program::on("spice-import", &target).arg(&snapshot);
    let imported = import.run().expect_success();
    assert!(
        imported
            .stderr
            .contains(r#"none of resources of type item with ids that begin with "a_""#),
        "{}",
        imported.stderr
    );
    let changes = folder.path().join("changes.ndjson");
    for tenant in tenants {
        tenant.stop();
    }
    let end = mark(&server);
    let watched = watch(&server)
        .args(["--settle", "2s", "--until", &end, "--since-file"])
        .arg(&snapshot)
        .args(PART)
        .output_file(&changes);
    watched.run().expect_success();
    let position = folder.path().join("position");
    let applied = apply(&target).arg("--position").arg(&position);
    applied.input_file(&changes).run().expect_success();

    let [part, others] = split(dump(&target), "a_");
    let [expected, not_moved] = split(dump(&server), "a_");
    assert!(expected.len() > 20 && not_moved.len() > 60, "they wrote");
    oracle::assert_same_lines("the source", &expected, "the target", &part);
    oracle::assert_same_lines("before", &before, "after", &others);
    let folded = Folded::of(&std::fs::read(&changes).unwrap());
    assert!(folded.updates > 20, "it was followed");
    let text = std::fs::read_to_string(&changes).unwrap();
    for other in OTHERS {
        assert!(
            !text.contains(&format!(r#""objectId":"{other}"#)),
            "{other}"
        );
    }
    let kept = std::fs::read_to_string(&position).unwrap();
    let filter = r#""filter":{"types":["item"],"resourcePrefix":"a_"}"#;
    assert!(kept.contains(filter), "{kept}");
    assert!(text.lines().next().unwrap().contains(filter));

    // A part that nothing changes in comes to its end as well: checkpoints pass. The snapshot is of another one.
    let of_nobody = ["--until", &end, "--resource-prefix", "nobody-"];
    let refused = watch(&server).args(of_nobody).arg("--since-file");
    let refused = refused.arg(&snapshot).run().expect_code(2);
    assert!(refused.stderr.contains("\"nobody-\""), "{}", refused.stderr);
    let revision = Program::new("spice-revision").arg(&snapshot).run();
    let revision = revision.expect_success().stdout;
    let revision = String::from_utf8(revision).unwrap();
    let since = ["--since", revision.trim()];
    let nothing = watch(&server).args(of_nobody).args(since);
    let nothing = Folded::of(&nothing.run().expect_success().stdout);
    assert_eq!((nothing.updates, nothing.count("transaction")), (0, 0));
    assert!(nothing.count("checkpoint") > 0);

    // Another part than the position's is refused before it is written.
    let other = watch(&server).args(["--until", &end, "--type", "item"]);
    let other = other.args(since);
    let other = other.run().expect_success();
    let refused = apply(&target).arg("--position").arg(&position);
    refused.input(other.stdout).run().expect_code(2);
    oracle::assert_same_lines("before", &before, "after", &split(dump(&target), "a_")[1]);
}

#[test]
fn one_tenant_of_four_on_postgres_is_exact() {
    one_of_four(Datastore::Postgres);
}

#[test]
fn one_tenant_of_four_on_mysql_is_exact() {
    but_for_dead_mysql_servers(|| one_of_four(Datastore::MySql));
}

#[test]
fn one_tenant_of_four_in_memory_is_exact() {
    one_of_four(Datastore::Memory);
}

#[test]
fn spool_is_continued_with_its_own_prefix_only() {
    let server = source(Datastore::Memory);
    let folder = folder();
    let spool = folder.path().join("changes.ndjson");
    let since = oracle::head(&server);
    write(&server, "touch", "a_1");
    write(&server, "touch", "b_1");
    let run = |prefix: &[&str]| {
        let end = mark(&server);
        let watch = watch(&server).args(["--since", &since, "--until", &end, "--spool"]);
        watch.arg(&spool).args(prefix).timeout(PATIENCE).run()
    };
    run(&["--resource-prefix", "a_"]).expect_success();
    for other in [&[][..], &["--resource-prefix", "b_"], &PART] {
        let refused = run(other).expect_code(2);
        assert!(
            refused.stderr.contains(r#"begin with "a_""#),
            "{}",
            refused.stderr
        );
    }
    write(&server, "touch", "a_2");
    write(&server, "touch", "b_2");
    run(&["--resource-prefix", "a_"]).expect_success();
    let folded = Folded::of(&super::spool_of(&spool));
    let names: Vec<&String> = folded.relationships.keys().collect();
    assert_eq!(names, ["item:a_1#holder@user:u", "item:a_2#holder@user:u"]);
}

#[test]
fn target_with_relationships_of_the_part_is_refused() {
    let (server, target) = (source(Datastore::Memory), source(Datastore::Memory));
    for name in ["a_1", "b_1"] {
        write(&server, "touch", name);
    }
    write(&target, "touch", "a_2");
    let export = Program::on("spice-export", &server).args(["--settle", "0s"]);
    let stream = export.args(PART).run().expect_success().stdout;
    let import = || Program::on("spice-import", &target).input(stream.clone());
    let refused = import().run().expect_code(2);
    assert!(
        refused
            .stderr
            .contains("already holds relationships of resources of type item"),
        "{}",
        refused.stderr
    );
    import()
        .args(["--on-conflict", "fail"])
        .run()
        .expect_success();
    let [part, others] = split(dump(&target), "a_");
    assert_eq!((part.len(), others.len()), (2, 0));
}
