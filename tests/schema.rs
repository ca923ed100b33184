//! Schemas as people write them: every form of a comment and every kind of syntax that SpiceDB takes.
//! They are in `tests/data/schemas`.

use std::path::PathBuf;

use crate::copy::{export, import};
use crate::support::oracle;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, root};

/// What a target holds before.
const UNRELATED: &str = "definition unrelated {}";

fn schemas() -> Vec<(PathBuf, String)> {
    let folder = root().join("tests/data/schemas");
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn schema_of_any_form_is_moved_and_known_again() {
    let [source, target, deployed] = [Datastore::Memory; 3].map(Server::start);
    let schemas = schemas();
    for (path, text) in &schemas {
        let what = path.file_name().unwrap().display();
        oracle::write_schema(&source, text);
        let exported = export(&source).run();
        assert_eq!(exported.code(), Some(0), "{what}: {}", exported.stderr);
        // Over another one, and over itself.
        oracle::write_schema(&target, UNRELATED);
        for _ in 0..2 {
            let imported = import(&target)
                .args(["--schema", "write"])
                .input(exported.stdout.clone())
                .run();
            assert_eq!(imported.code(), Some(0), "{what}: {}", imported.stderr);
            let (there, here) = (oracle::read_schema(&source), oracle::read_schema(&target));
            assert_eq!(there, here, "{what}");
        }
        // A target that was deployed from the same file by somebody's own pipeline.
        oracle::write_schema(&deployed, text);
        let imported = import(&deployed)
            .args(["--schema", "check"])
            .input(exported.stdout)
            .run();
        assert_eq!(imported.code(), Some(0), "{what}: {}", imported.stderr);
    }
    figure(&format!("{} schemas", schemas.len()));
}

/// Differences are reported, whatever the comments look like.
#[test]
fn comment_with_other_words_is_another_schema() {
    let [source, target] = [Datastore::Memory; 2].map(Server::start);
    let schema = |words: &str| format!("/**{words}*/\ndefinition user {{}}\n");
    oracle::write_schema(&source, &schema("a person"));
    let exported = export(&source).run();
    let exported = exported.expect_success();
    oracle::write_schema(&target, &schema("a robot"));
    let check = import(&target)
        .args(["--schema", "check"])
        .input(exported.stdout)
        .run()
        .expect_code(1);
    let said = "comment of definition user";
    assert!(check.stderr.contains(said), "{}", check.stderr);
}

/// A server that gives a schema as it was written: with annotations and flags, which others drop.
fn keeping_texts() -> Server {
    Server::builder(Datastore::Memory)
        .flag("--experimental-schema-mode=read-new-write-new")
        .start()
}

/// From a server that keeps the text of a schema to one that renders it, and the other way round.
#[test]
fn schema_is_recognised_by_a_server_that_stores_another_form() {
    let [keeping, rendering] = [keeping_texts(), Server::start(Datastore::Memory)];
    let schemas = schemas();
    for (path, text) in &schemas {
        let what = path.file_name().unwrap().display();
        oracle::write_schema(&keeping, text);
        oracle::write_schema(&rendering, text);
        for (source, target, schema) in [
            (&keeping, &rendering, "check"),
            (&rendering, &keeping, "check"),
            (&keeping, &rendering, "write"),
        ] {
            let exported = export(source).run();
            assert_eq!(exported.code(), Some(0), "{what}: {}", exported.stderr);
            let imported = import(target)
                .args(["--schema", schema])
                .input(exported.stdout)
                .run();
            assert_eq!(imported.code(), Some(0), "{what}: {}", imported.stderr);
        }
    }
    figure(&format!("{} schemas", schemas.len()));
}

/// DiffSchema does not report these.
#[test]
fn annotation_of_another_type_is_another_schema() {
    let [source, target] = [keeping_texts(), keeping_texts()];
    let schema = |types: &str| {
        format!(
            "use typechecking\n\ndefinition user {{}}\n\ndefinition robot {{}}\n\ndefinition doc {{\n\
             \trelation viewer: user | robot\n\tpermission view{types} = viewer\n}}\n"
        )
    };
    oracle::write_schema(&source, &schema(": user | robot"));
    let exported = export(&source).run().expect_success();
    let check = |types: &str| {
        oracle::write_schema(&target, &schema(types));
        import(&target)
            .args(["--schema", "check"])
            .input(exported.stdout.clone())
            .run()
    };
    for types in [": user | robot", ": robot  |user", ""] {
        check(types).expect_success();
    }
    let refused = check(": user | robot | doc").expect_code(1);
    let said = "type of permission doc#view";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
}

/// SpiceDB renders a caveat so that it does not parse it: such a schema cannot be written anywhere, but what it grants
/// can be read.
#[test]
fn schema_that_its_own_server_does_not_parse_is_exported() {
    let server = Server::start(Datastore::Memory);
    let text = "caveat c(a string) {\n\ta == 'it\"s'\n}\n\ndefinition user {}\n\ndefinition doc {\n\
                \trelation viewer: user with c\n}\n";
    oracle::write_schema(&server, text);
    let exported = export(&server).run().expect_success();
    let at = exported.json_lines()[0]["header"]["revision"].clone();
    let at = ["--at", at.as_str().unwrap()];
    export(&server).args(at).run().expect_success();
    export(&server).arg("--no-schema").run().expect_success();
    let changed = text.replace("relation viewer", "relation owner: user\n\trelation viewer");
    oracle::write_schema(&server, &changed);
    let refused = export(&server).args(at).run().expect_code(1).stderr;
    assert!(refused.contains("has been changed since"), "{refused}");
    export(&server)
        .args(at)
        .arg("--no-schema")
        .run()
        .expect_success();
}

/// SpiceDB renders `!(!a)` as `!!a`, and takes that for `a` when it reads it: the texts of both ends differ, and
/// nothing else.
#[test]
fn caveat_with_double_signs_is_moved_and_known_again() {
    let [source, target] = [Datastore::Memory; 2].map(Server::start);
    let text = "caveat c(a bool, x int) {\n\t!(!a) && -(-x) > 1 && -x * -(x + 1) > -(-(-x))\n}\n\n\
                definition user {}\n\ndefinition doc {\n\trelation viewer: user with c\n}\n";
    oracle::write_schema(&source, text);
    let exported = export(&source).run().expect_success();
    for mode in ["write", "check"] {
        let import = import(&target).args(["--schema", mode]);
        import.input(exported.stdout.clone()).run().expect_success();
    }
    // The same file, deployed to both.
    oracle::write_schema(&target, text);
    let check = import(&target).args(["--schema", "check"]);
    check.input(exported.stdout.clone()).run().expect_success();
    oracle::write_schema(&target, &text.replace("> 1", "> 2"));
    let check = import(&target).args(["--schema", "check"]);
    let refused = check.input(exported.stdout).run().expect_code(1).stderr;
    assert!(refused.contains("expression of caveat c"), "{refused}");
}
