//! Differences that were planted on real servers: found, named, repaired, and nothing else touched.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use authzed::v1::{ContextualizedCaveat, Relationship};
use prost_types::value::Kind;
use serde_json::{Value, json};
use testdata::Sample;

use super::{Planted, diff, found, name_of};
use crate::apply::apply;
use crate::copy::{export, import, stream_of};

use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server, but_for_dead_mysql_servers};
use crate::support::{figure, folder, repeat, wait_until};

const PATIENCE: Duration = Duration::from_secs(900);

/// Two ends that hold the same sample; of another seed are those that are planted as extra.
struct Ends {
    source: Server,
    target: Server,
    sample: Sample,
    precision: Precision,
}

impl Ends {
    fn holding(sample: Sample, from: Datastore, to: Datastore) -> Self {
        let stream = stream_of(sample);
        let holding = |datastore| {
            let server = Server::start(datastore);
            let load = import(&server).input(stream.clone()).timeout(PATIENCE);
            load.run().expect_success();
            if datastore == Datastore::Postgres {
                server.sql("VACUUM ANALYZE");
            }
            server
        };
        let precision = if sample.expiry_step == 1_000_000_000 {
            Precision::Seconds
        } else {
            Precision::Microseconds
        };
        Self {
            source: holding(from),
            target: holding(to),
            sample,
            precision,
        }
    }

    /// Changes the target in each of five ways, `k` times, by the independent client; returns what
    /// has to be found.
    fn plant(&self, k: usize) -> Planted {
        let all: Vec<Relationship> = self.sample.iter().collect();
        let mut planted = Planted::new();
        let mut updates = String::new();
        let mut write = |operation: &str, one: &Relationship| {
            updates += &judged(operation, one);
            updates += "\n";
        };
        let [mut caveats, mut contexts, mut expiries, mut missing] = [k; 4];
        // All over the sample: the stride and its size have no divisor in common.
        for place in (0..all.len()).map(|step| step * 7_919 % all.len()) {
            let mut one = all[place].clone();
            let (left, operation) = if caveats > 0 && takes_another_caveat(&one) {
                another_caveat(&mut one);
                (&mut caveats, "touch")
            } else if contexts > 0 && one.optional_caveat.is_some() {
                another_context(&mut one);
                (&mut contexts, "touch")
            } else if expiries > 0 && one.optional_expires_at.is_some() {
                later(&mut one, self.sample.expiry_step);
                (&mut expiries, "touch")
            } else if missing > 0 {
                (&mut missing, "delete")
            } else {
                continue;
            };
            *left -= 1;
            write(operation, &one);
            planted.insert(name_of("OPERATION_TOUCH", &all[place]));
        }
        assert_eq!([caveats, contexts, expiries, missing], [0; 4], "too few");
        let others = Sample {
            seed: self.sample.seed + 1,
            relationships: k as u64,
            ..self.sample
        };
        for one in others.iter() {
            write("touch", &one);
            planted.insert(name_of("OPERATION_DELETE", &one));
        }
        assert_eq!(planted.len(), 5 * k, "each is another one");
        if k > 0 {
            oracle::load(&self.target, &updates);
        }
        planted
    }

    /// `spice-export` of the target, piped into a comparison with an export of the source.
    fn compare(&self, source: &Path, flags: &[&str]) -> (Option<i32>, Vec<Value>) {
        let compared = diff(Path::new("-"), source).args(flags);
        let mut ended = Pipe::from(export(&self.target).args(["--expiry-precision", "us"]))
            .to(compared)
            .timeout(PATIENCE)
            .run()
            .into_iter();
        ended.next().unwrap().expect_success();
        let compared = ended.next().unwrap();
        (compared.code(), compared.json_lines())
    }
}

fn takes_another_caveat(one: &Relationship) -> bool {
    let subject = one.subject.as_ref().unwrap();
    one.optional_caveat.is_some()
        && one.optional_expires_at.is_none()
        && one.resource.as_ref().unwrap().object_type == "tenant/document"
        && subject.object.as_ref().unwrap().object_type == "user"
}

fn another_caveat(one: &mut Relationship) {
    let had = &one.optional_caveat.as_ref().unwrap().caveat_name;
    let names = ["on_network", "attributes"];
    let other = names.iter().find(|name| *name != had).unwrap();
    one.optional_caveat = Some(ContextualizedCaveat {
        caveat_name: (*other).to_owned(),
        context: None,
    });
}

fn another_context(one: &mut Relationship) {
    let caveat = one.optional_caveat.as_mut().unwrap();
    let (field, value) = match caveat.caveat_name.as_str() {
        "on_network" => ("cidr", Kind::StringValue("192.0.2.0/24".to_owned())),
        _ => ("level", Kind::NumberValue(11.0)),
    };
    let value = prost_types::Value { kind: Some(value) };
    let context = caveat.context.get_or_insert_default();
    context.fields.insert(field.to_owned(), value);
}

/// By the smallest part of a second that both ends keep.
fn later(one: &mut Relationship, step: i32) {
    let expiry = one.optional_expires_at.as_mut().unwrap();
    let nanos = expiry.nanos + step;
    expiry.seconds += i64::from(nanos / 1_000_000_000);
    expiry.nanos = nanos % 1_000_000_000;
}

/// As the oracle takes it.
fn judged(operation: &str, one: &Relationship) -> String {
    let mut line = Vec::new();
    spice_record::snapshot::write_relationship(&mut line, one).unwrap();
    let record: Value = serde_json::from_slice(&line).unwrap();
    let record = &record["relationship"];
    let object = |object: &Value| {
        let part = |name: &str| object[name].as_str().unwrap().to_owned();
        format!("{}:{}", part("objectType"), part("objectId"))
    };
    let subject = &record["subject"];
    let on = subject["optionalRelation"].as_str();
    let mut result = json!({
        "op": operation,
        "resource": object(&record["resource"]),
        "relation": record["relation"],
        "subject": object(&subject["object"]) + &on.map_or(String::new(), |on| format!("#{on}")),
    });
    if let Some(caveat) = record.get("optionalCaveat") {
        result["caveat"] = caveat["caveatName"].clone();
        result["context"] = caveat["context"].clone();
    }
    if let Some(expires) = record.get("optionalExpiresAt") {
        result["expires"] = expires.clone();
    }
    result.to_string()
}

fn save(updates: &[Value], path: &Path) {
    let lines: Vec<String> = updates.iter().map(Value::to_string).collect();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// Runs `change` while the target is watched. Then something is written there that has to arrive, so
/// what came before it is all that there was: returns its transactions.
fn watched(target: &Server, sample: Sample, change: impl FnOnce()) -> Vec<Value> {
    let since = oracle::head(target);
    let watch = Program::new("spice-watch")
        .args(["--context", target.context(), "--since", &since])
        .args(["--settle", "0s"])
        .timeout(PATIENCE)
        .spawn();
    watch.wait_for_stderr("watching", Duration::from_secs(60));
    change();
    let last = Sample {
        seed: sample.seed + 2,
        relationships: 1,
        ..sample
    };
    let last = last.iter().next().unwrap();
    let id = &last.resource.as_ref().unwrap().object_id;
    oracle::load(target, &judged("touch", &last));
    wait_until(
        "the Watch has what was written last",
        Duration::from_secs(60),
        || String::from_utf8_lossy(&watch.stdout_so_far()).contains(id),
    );
    let lines = watch.terminate().json_lines();
    oracle::load(target, &judged("delete", &last));
    let transactions = lines.into_iter().filter_map(|mut line| {
        let transaction = line.get_mut("transaction")?;
        Some(transaction.take())
    });
    let mut transactions: Vec<Value> = transactions.collect();
    let own = transactions.pop().unwrap();
    assert!(own.to_string().contains(id), "{own}");
    transactions
}

fn found_repaired_and_then_left_alone(sample: Sample, from: Datastore, to: Datastore) {
    let ends = Ends::holding(sample, from, to);
    let folder = folder();
    let source = folder.path().join("source");
    let exported = export(&ends.source).args(["--expiry-precision", "us", "--zstd", "--output"]);
    exported
        .arg(&source)
        .timeout(PATIENCE)
        .run()
        .expect_success();
    for k in [0, 1, 1_000] {
        let planted = ends.plant(k);
        let (code, lines) = ends.compare(&source, &[]);
        assert_eq!(found(&lines), planted);
        assert_eq!(code, Some(if k == 0 { 0 } else { 3 }));
        let updates = folder.path().join("updates");
        save(&lines, &updates);
        let repaired = watched(&ends.target, sample, || {
            apply(&ends.target).arg(&updates).run().expect_success();
        });
        let told: BTreeSet<String> = repaired.iter().map(Value::to_string).collect();
        assert_eq!(told.is_empty(), k == 0, "a repair is seen by Watch");
        let (code, lines) = ends.compare(&source, &[]);
        assert_eq!((code, found(&lines)), (Some(0), Planted::new()));
        let again = watched(&ends.target, sample, || {
            apply(&ends.target).arg(&updates).run().expect_success();
        });
        assert_eq!(again, Vec::<Value>::new(), "nothing was left to repair");
        figure(&format!(
            "{from:?}, {to:?}, {} relationships: {} planted, all found, repaired in {} transactions",
            sample.relationships,
            planted.len(),
            repaired.len()
        ));
    }
    let left = oracle::assert_same_relationships(&ends.source, &ends.target, ends.precision);
    assert_eq!(left as u64, sample.relationships);
}

#[test]
fn planted_on_postgres_they_are_found_and_repaired_once() {
    let sample = Sample::rich(u64::from(repeat(20_000, 1_000_000)));
    found_repaired_and_then_left_alone(sample, Datastore::Postgres, Datastore::Postgres);
}

#[test]
fn planted_on_memory_they_are_found_and_repaired_once() {
    let sample = Sample::rich(20_000);
    found_repaired_and_then_left_alone(sample, Datastore::Postgres, Datastore::Memory);
}

#[test]
fn planted_on_mysql_they_are_found_and_repaired_once() {
    but_for_dead_mysql_servers(|| {
        let sample = Sample::portable(20_000);
        found_repaired_and_then_left_alone(sample, Datastore::Memory, Datastore::MySql);
    });
}
