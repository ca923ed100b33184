//! Schemas as people write them: every form of a comment and every kind of syntax that SpiceDB takes.
//! They are in `tests/data/schemas`.

use std::path::PathBuf;

use crate::copy::{export, import};
use crate::support::judge;
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
        judge::write_schema(&source, text);
        let exported = export(&source).run();
        assert_eq!(exported.code(), Some(0), "{what}: {}", exported.stderr);
        // Over another one, and over itself.
        judge::write_schema(&target, UNRELATED);
        for _ in 0..2 {
            let imported = import(&target)
                .args(["--schema", "write"])
                .input(exported.stdout.clone())
                .run();
            assert_eq!(imported.code(), Some(0), "{what}: {}", imported.stderr);
            let (there, here) = (judge::read_schema(&source), judge::read_schema(&target));
            assert_eq!(there, here, "{what}");
        }
        // A target that was deployed from the same file by somebody's own pipeline.
        judge::write_schema(&deployed, text);
        let imported = import(&deployed)
            .args(["--schema", "check"])
            .input(exported.stdout)
            .run();
        assert_eq!(imported.code(), Some(0), "{what}: {}", imported.stderr);
    }
    figure(&format!("{} schemas", schemas.len()));
}

/// What is otherwise is told, whatever the comments look like.
#[test]
fn comment_with_other_words_is_another_schema() {
    let [source, target] = [Datastore::Memory; 2].map(Server::start);
    let schema = |words: &str| format!("/**{words}*/\ndefinition user {{}}\n");
    judge::write_schema(&source, &schema("a person"));
    let exported = export(&source).run();
    let exported = exported.expect_success();
    judge::write_schema(&target, &schema("a robot"));
    let check = import(&target)
        .args(["--schema", "check"])
        .input(exported.stdout)
        .run()
        .expect_code(1);
    let said = "comment of definition user";
    assert!(check.stderr.contains(said), "{}", check.stderr);
}
