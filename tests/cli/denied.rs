//! A token that may make some calls and not others, by a gateway that knows which.

use testdata::Sample;

use super::run;
use crate::copy::{holding, stream_of};
use crate::support::program::Program;
use crate::support::refusing::Refusing;
use crate::support::spicedb::{Datastore, Server};

const UPDATE: &str = r#"{"update":{"operation":"OPERATION_TOUCH","relationship":{"resource":{"objectType":"tenant/document","objectId":"d"},"relation":"owner","subject":{"object":{"objectType":"user","objectId":"u"}}}}}"#;

/// The message for a call that is refused.
const RIGHTS: [(&str, &str, &str); 10] = [
    ("spice-export", "ReadSchema", "to read the schema"),
    (
        "spice-export",
        "ExportBulkRelationships",
        "to read relationships",
    ),
    ("spice-revision", "ReadSchema", "to read the schema"),
    ("spice-import", "WriteSchema", "to write the schema"),
    (
        "spice-import",
        "WriteRelationships",
        "to write relationships",
    ),
    (
        "spice-import",
        "ImportBulkRelationships",
        "to write relationships",
    ),
    ("spice-watch", "Watch", "to watch changes"),
    (
        "spice-watch",
        "ExportBulkRelationships",
        "to read relationships",
    ),
    (
        "spice-apply",
        "WriteRelationships",
        "to write relationships",
    ),
    (
        "spice-check",
        "CheckBulkPermissions",
        "to check permissions",
    ),
];

#[test]
fn denied_call_is_named_with_the_missing_permission() {
    let sample = Sample::portable(20);
    let server = holding(sample, Datastore::Memory);
    let head = Program::new("spice-revision").args(["--context", server.context(), "--head"]);
    let head = head.args(["--settle", "0s"]).run().expect_success();
    for (name, method, right) in RIGHTS {
        // What is imported goes into an empty one.
        let empty = (name == "spice-import").then(|| Server::start(Datastore::Memory));
        let server = empty.as_ref().unwrap_or(&server);
        let gateway = Refusing::to(server, &[method]);
        let program = Program::new(name).args(server.flags_by(&gateway.endpoint()));
        let denied = run(match name {
            "spice-export" => program.args(["--settle", "0s"]),
            "spice-revision" => program.args(["--head", "--settle", "0s"]),
            "spice-watch" => program.args(["--since", head.text().trim(), "--settle", "0s"]),
            "spice-check" => program
                .args(["--at", head.text().trim()])
                .input(stream_of(sample)),
            "spice-apply" => program.arg("--no-trailer").input(UPDATE),
            _ => program.input(stream_of(sample)),
        })
        .expect_code(77);
        let text = &denied.stderr;
        for part in [method, "may not call", right] {
            assert!(
                text.contains(part),
                "{name}, {method}: {part:?} is not in {text}"
            );
        }
        assert!(!text.contains("another preshared key"), "{name}: {text}");
    }
}

#[test]
fn gateway_that_refuses_nothing_is_not_noticed() {
    let server = Server::start(Datastore::Memory);
    let gateway = Refusing::to(&server, &[]);
    let program = |name| Program::new(name).args(server.flags_by(&gateway.endpoint()));
    let stream = stream_of(Sample::portable(20));
    run(program("spice-import").input(stream)).expect_success();
    let exported = run(program("spice-export").args(["--settle", "0s"])).expect_success();
    assert_eq!(exported.json_lines().len(), 20 + 2);
}
