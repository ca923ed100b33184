//! A gateway that answers in place of either end, while everything is followed.

use std::time::Duration;

use super::{Migration, PATIENCE, relationship, touch};
use crate::support::gateway::Gateway;
use crate::support::oracle::{self, Precision};
use crate::support::spicedb::Datastore;
use crate::support::wait_until;

const AWAY: Duration = Duration::from_secs(8);

/// A copied source, with a gateway in front of each end.
fn copied() -> (Migration, [Gateway; 2]) {
    let migration = Migration::between(Datastore::Postgres, Datastore::Postgres);
    let gateways = [&migration.from, &migration.to].map(|end| Gateway::to(end.endpoint()));
    migration.behind(&gateways[0], &gateways[1]);
    migration.plan_and_copy();
    (migration, gateways)
}

#[test]
fn follow_resumes_after_a_gateway_answered_for_either_end() {
    let (migration, gateways) = copied();
    let following = migration.follow();
    for (round, status) in [503, 429, 504].into_iter().enumerate() {
        for gateway in &gateways {
            gateway.answer(status);
        }
        let id = format!("during-{round}");
        touch(&migration.from, &id);
        let answer = format!("HTTP {status} ");
        wait_until("a program got the answer", PATIENCE, || {
            let log = std::fs::read_to_string(migration.file("follow.log"));
            log.is_ok_and(|log| log.contains(&answer))
        });
        std::thread::sleep(AWAY);
        for gateway in &gateways {
            gateway.pass();
        }
        wait_until("it is on the target", PATIENCE, || {
            oracle::dump(&migration.to, Precision::Microseconds).contains(&relationship(&id))
        });
    }
    following.signal("TERM");
    following.wait();
}

/// A start also meets the answers of the gateway, and waits as long.
#[test]
fn follow_started_behind_an_answering_gateway_waits_for_it() {
    let (migration, gateways) = copied();
    touch(&migration.from, "before");
    gateways[1].answer(502);
    let status = migration.step(&["follow"]).run();
    assert_eq!(status.code(), Some(75), "{}", status.stderr);
    assert!(status.stderr.contains("HTTP 502 "), "{}", status.stderr);
    gateways[1].pass();
    let following = migration.follow();
    wait_until("it is on the target", PATIENCE, || {
        oracle::dump(&migration.to, Precision::Microseconds).contains(&relationship("before"))
    });
    following.signal("TERM");
    following.wait();
}
