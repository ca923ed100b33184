//! A backup that is put back where it came from.

use testdata::Sample;

use super::dump;
use crate::copy::{export, holding, import, summary};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};

const SAMPLE: u64 = 2_000;

fn delete<'a>(server: &Server, relationships: impl IntoIterator<Item = &'a String>) {
    let line = |one: &String| oracle::line_of("delete", one);
    let lines: String = relationships.into_iter().map(line).collect();
    oracle::load(server, &lines);
}

/// As a script with a wrong filter does.
fn delete_all(server: &Server) {
    delete(server, &dump(server));
    assert!(dump(server).is_empty());
}

#[test]
fn backup_is_put_back_after_a_mass_delete_and_without_a_schema() {
    for datastore in [Datastore::Memory, Datastore::Postgres] {
        let server = holding(Sample::portable(SAMPLE), datastore);
        let before = dump(&server);
        let backup = export(&server).run().expect_success().stdout;
        delete_all(&server);
        let refused = import(&server).input(backup.clone()).run().expect_code(2);
        for said in ["the target's own datastore", "--same-datastore"] {
            assert!(refused.stderr.contains(said), "{}", refused.stderr);
        }
        let restore = || {
            import(&server)
                .arg("--same-datastore")
                .input(backup.clone())
        };
        let restored = restore().run().expect_success();
        assert_eq!(summary(&restored)["loaded"], SAMPLE);
        assert_eq!(dump(&server), before);

        // Half of it is gone, and something was written since.
        delete(&server, before.iter().step_by(2));
        oracle::write(&server, "touch", "tenant/group:later#member@user:u");
        restore().run().expect_code(2);
        let restored = restore().args(["--on-conflict", "skip"]).run();
        let restored = restored.expect_success();
        assert_eq!(summary(&restored)["loaded"], SAMPLE / 2);
        assert_eq!(dump(&server).len(), before.len() + 1);

        delete_all(&server);
        oracle::write_schema(&server, "definition other {}");
        let restored = restore().args(["--schema", "write"]).run();
        restored.expect_success();
        assert_eq!(dump(&server), before);
    }
}

/// What would change is shown by a comparison, before and after.
#[test]
fn difference_to_a_backup_can_be_applied_to_its_datastore() {
    let server = holding(Sample::portable(SAMPLE), Datastore::Postgres);
    let before = dump(&server);
    let folder = crate::support::folder();
    let (backup, now) = (
        folder.path().join("backup.ndjson"),
        folder.path().join("now.ndjson"),
    );
    export(&server).output_file(&backup).run().expect_success();
    delete(&server, before.iter().take(300));
    export(&server).output_file(&now).run().expect_success();
    let difference = Program::new("spice-diff").args([&now, &backup]);
    let difference = difference.run().expect_code(3);
    assert_eq!(difference.json_lines().len(), 300 + 2);
    // Updates name no datastore: what they change was read there just now.
    let apply = Program::new("spice-apply")
        .args(["--context", server.context()])
        .input(difference.stdout);
    apply.run().expect_success();
    assert_eq!(dump(&server), before);
}
