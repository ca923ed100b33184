//! A proxy that answers in the server's place: on first contact, and in the middle of everything.

use testdata::Sample;

use super::{
    PATIENCE, SAMPLE, assert_accounted, assert_exports, assert_holds, loaded, seen, slow_way_there,
    source,
};
use crate::copy::stream_of;
use crate::support::gateway::Gateway;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::toxiproxy::Proxy;

/// What a status leads to.
const STATUSES: [(u16, i32); 10] = [
    (302, 1),
    (401, 77),
    (403, 77),
    (404, 1),
    (413, 1),
    (429, 75),
    (500, 75),
    (502, 75),
    (503, 75),
    (504, 75),
];

/// How often the gateway answers by itself, at least.
const ANSWERS: usize = 4;

fn program(name: &str, gateway: &Gateway, server: &Server) -> Program {
    Program::through(&gateway.endpoint(), name, server).timeout(PATIENCE)
}

#[test]
fn http_status_on_first_contact_is_named_by_each_program() {
    let sample = Sample::rich(20);
    let server = loaded(sample, Datastore::Memory);
    let gateway = Gateway::to(server.endpoint());
    let stream = stream_of(sample);
    let head = program("spice-revision", &gateway, &server).arg("--head");
    let head = head.args(["--settle", "0s"]).run().expect_success();
    let by_hand = |name: &str| program(name, &gateway, &server);
    for (status, code) in STATUSES {
        gateway.answer(status);
        for program in [
            by_hand("spice-export"),
            by_hand("spice-import").input(stream.clone()),
            by_hand("spice-revision").arg("--head"),
            by_hand("spice-revision").arg("--mark"),
            by_hand("spice-watch").args(["--since", head.text().trim()]),
            by_hand("spice-apply").arg("--no-trailer").input(UPDATE),
            by_hand("spice-check").input(stream.clone()),
        ] {
            let finished = program.run().expect_code(code);
            let named = format!("HTTP {status} ");
            for part in [named.as_str(), "text/html: the answer of a proxy", "hint: "] {
                assert!(finished.stderr.contains(part), "{}", finished.stderr);
            }
        }
        gateway.pass();
    }
}

const UPDATE: &str = r#"{"update":{"operation":"OPERATION_TOUCH","relationship":{"resource":{"objectType":"document","objectId":"d"},"relation":"viewer","subject":{"object":{"objectType":"user","objectId":"u"}}}}}
"#;

#[test]
fn gateway_answering_during_export_is_waited_for() {
    let sample = Sample::rich(SAMPLE);
    let server = source(sample);
    let proxy = Proxy::to(server.endpoint());
    // It lasts until it has met the answers.
    proxy.bandwidth(500);
    let gateway = Gateway::to(&proxy.endpoint());
    let export = program("spice-export", &gateway, &server)
        .args(["--settle", "0s", "--page-size", "300"])
        .spawn();
    export.wait_for_output(1);
    for status in [503, 429] {
        gateway.answer(status);
        export.wait_for_more(&format!("HTTP {status}"), ANSWERS, PATIENCE);
        let seen = export.stdout_so_far().len();
        gateway.pass();
        export.wait_for_output(seen + 1);
    }
    proxy.heal();
    assert_exports(&export.wait().expect_success(), &seen(sample));
}

#[test]
fn gateway_answering_during_import_is_waited_for() {
    let sample = Sample::rich(SAMPLE);
    let server = Server::start(Datastore::Postgres);
    let proxy = Proxy::to(server.endpoint());
    slow_way_there(&proxy, 500);
    let gateway = Gateway::to(&proxy.endpoint());
    let import = program("spice-import", &gateway, &server)
        .input(stream_of(sample))
        .spawn();
    import.wait_for_stderr("wrote the schema", PATIENCE);
    gateway.answer(502);
    import.wait_for_more("HTTP 502", ANSWERS, PATIENCE);
    gateway.pass();
    proxy.heal();
    let finished = import.wait().expect_success();
    assert_accounted(&finished, sample);
    assert_holds(&server, &seen(sample));
}

#[test]
fn gateway_refusing_during_import_ends_it_as_denied() {
    let server = Server::start(Datastore::Postgres);
    let proxy = Proxy::to(server.endpoint());
    slow_way_there(&proxy, 500);
    let gateway = Gateway::to(&proxy.endpoint());
    let import = program("spice-import", &gateway, &server)
        .input(stream_of(Sample::rich(SAMPLE)))
        .spawn();
    import.wait_for_stderr("wrote the schema", PATIENCE);
    gateway.answer(403);
    let finished = import.wait().expect_code(77);
    assert!(finished.stderr.contains("HTTP 403 "), "{}", finished.stderr);
}
