//! A target that bears a few hundred relationships a second: its database is far away.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use testdata::Sample;

use super::assert_accounted;
use crate::copy::{import, stream_of, summary};
use crate::support::program::Program;
use crate::support::repeat;
use crate::support::spicedb::{Datastore, Server, rows};
use crate::support::state_folder;
use crate::support::toxiproxy::Proxy;

/// Bytes a second between SpiceDB and PostgreSQL: about 400 relationships.
const KILOBYTES: u32 = 60;

/// A server of PostgreSQL whose way to its database is slow. It must not be dropped before the proxy.
fn behind_a_slow_line() -> (Server, Proxy) {
    let server = Server::start(Datastore::Postgres);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap().trim().to_owned();
    let postgres = state_folder().join(".postgres");
    let home = read(&postgres.join("home"));
    let password = read(&Path::new(&home).join("password"));
    let proxy = Proxy::to(&format!("127.0.0.1:{}", read(&postgres.join("port"))));
    let folder = server.token_file();
    let database = read(&folder.parent().unwrap().join("database"));
    let uri = format!(
        "postgres://postgres:{password}@{}/{database}?sslmode=disable",
        proxy.endpoint()
    );
    server.restart_with(&[&format!("--datastore-conn-uri={uri}")]);
    proxy.toxic("bandwidth", "upstream", &json!({ "rate": KILOBYTES }));
    (server, proxy)
}

#[test]
fn too_slow_target_gets_smaller_transactions() {
    let (server, _proxy) = behind_a_slow_line();
    let sample = Sample::rich(u64::from(repeat(20_000, 50_000)));
    let finished = import(&server)
        .input(stream_of(sample))
        .timeout(Duration::from_secs(900))
        .run()
        .expect_success();
    assert_accounted(&finished, sample);
    assert_eq!(rows(&server), sample.relationships);
    // They begin small and stay so: none is begun that cannot end.
    let size = summary(&finished)["callSize"].as_u64().unwrap();
    assert!((100..=4_000).contains(&size), "{size}");
    assert!(!finished.stderr.contains("halving"), "{}", finished.stderr);
}

#[test]
fn target_that_is_slow_takes_all_that_is_applied() {
    let (server, _proxy) = behind_a_slow_line();
    let schema = Sample::rich(1);
    let first = import(&server).input(stream_of(schema));
    first.run().expect_success();
    let count = u64::from(repeat(4_000, 50_000));
    let update = |n: u64| {
        let relationship = json!({
            "resource": {"objectType": "tenant/group", "objectId": format!("slow{n}")},
            "relation": "member",
            "subject": {"object": {"objectType": "user", "objectId": "u"}},
        });
        let update = json!({"operation": "OPERATION_TOUCH", "relationship": relationship});
        json!({ "update": update }).to_string() + "\n"
    };
    let updates: String = (0..count).map(update).collect();
    Program::new("spice-apply")
        .args(server.flags())
        .arg("--no-trailer")
        .input(updates)
        .timeout(Duration::from_secs(900))
        .run()
        .expect_success();
    assert_eq!(rows(&server), schema.relationships + count);
}
