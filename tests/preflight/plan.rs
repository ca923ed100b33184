//! `spice-migrate plan` runs it: what fails prevents the plan, and what warns is in the plan.

use testdata::Sample;

use super::Pair;
use crate::copy::holding;
use crate::support::free_port;
use crate::support::program::Program;
use crate::support::refusing::Refusing;
use crate::support::running::Finished;
use crate::support::spicedb::Datastore;

impl Pair {
    /// A plan from `old` to `new`.
    fn plan(&self, flags: &[&str]) -> Finished {
        self.step(&[&["plan", "--from", "old", "--to", "new"], flags].concat())
    }

    fn step(&self, step: &[&str]) -> Finished {
        Program::new("spice-migrate")
            .env("SPICE_CONTEXTS", self.contexts())
            .arg("--state")
            .arg(self.state())
            .args(step)
            .run()
    }

    fn state(&self) -> std::path::PathBuf {
        self.folder.path().join("migration")
    }

    /// A plan that is refused, and keeps and writes nothing.
    fn refused(&self, flags: &[&str], code: i32) -> String {
        let before = self.heads();
        let refused = self.unchanged(|| {
            let before = self.heads();
            let refused = self.plan(flags).expect_code(code);
            assert_eq!(self.heads(), before, "nothing was written");
            refused
        });
        assert_ne!(self.heads(), before, "a marker is a head");
        assert_eq!(refused.text(), "");
        for file in ["state.json", "plan.txt"] {
            assert!(!self.state().join(file).exists(), "{file}");
        }
        refused.stderr
    }
}

#[test]
fn plan_is_refused_by_all_that_fails_with_its_remedies() {
    let pair = Pair::in_memory();
    let calls = ["ImportBulkRelationships", "WriteSchema"];
    let gateway = Refusing::to(&pair.new, &calls);
    pair.connect(None, Some(&gateway.endpoint()));
    let refused = pair.refused(&[], 1);
    for call in calls {
        let found = format!("error: new, the target: the token may not call {call}");
        assert!(refused.contains(&found), "{refused}");
        let remedy = format!("hint: give the token the right to call {call}");
        assert!(refused.contains(&remedy), "{refused}");
    }
    for part in [
        "would fail: see the 2 findings above. Nothing was planned or written",
        "then run: ",
        " --accept rights",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

/// The gateway judges the real call as the one without effect: `copy` stops there.
#[test]
fn accepted_prediction_is_in_the_plan_and_stops_the_step() {
    let pair = Pair::in_memory();
    let gateway = Refusing::to(&pair.new, &["ImportBulkRelationships"]);
    pair.connect(None, Some(&gateway.endpoint()));
    let planned = pair.unchanged(|| pair.plan(&["--accept", "rights", "--settle", "0s"]));
    let planned = planned.expect_success();
    let warning = "  warning   new, the target: the token may not call ImportBulkRelationships";
    assert!(planned.text().contains(warning), "{}", planned.text());
    assert!(
        planned
            .text()
            .contains("            remedy: give the token")
    );
    let kept = std::fs::read_to_string(pair.state().join("plan.txt")).unwrap();
    assert_eq!(kept.trim_end(), planned.text().trim_end());
    let copied = Program::new("spice-migrate")
        .env("SPICE_CONTEXTS", pair.contexts())
        .arg("--state")
        .arg(pair.state())
        .arg("copy")
        .run()
        .expect_code(77);
    assert!(
        copied.stderr.contains("ImportBulkRelationships"),
        "{}",
        copied.stderr
    );
}

#[test]
fn facts_cannot_be_accepted() {
    let sample = Sample::portable(20);
    let pair = Pair::of(
        holding(sample, Datastore::Memory),
        holding(sample, Datastore::Memory),
    );
    let refused = pair.refused(&[], 2);
    assert!(refused.contains("holds 20 relationships"), "{refused}");
    assert!(!refused.contains("--accept"), "{refused}");
    for check in ["target", "same-datastore", "schema", "expiry", "watch"] {
        pair.plan(&["--accept", check]).expect_code(2);
    }
}

/// The command that plan proposes next needs no flag of plan's once more.
#[test]
fn policy_of_the_plan_is_that_of_the_copy() {
    let sample = Sample::portable(20);
    let pair = Pair::of(
        holding(sample, Datastore::Memory),
        holding(sample, Datastore::Memory),
    );
    let settle = ["--settle", "500ms"];
    let planned = pair.plan(&[&["--on-conflict", "skip"], &settle[..]].concat());
    let planned = planned.expect_success();
    let warning = "  warning   new, the target: ";
    assert!(planned.text().contains(warning), "{}", planned.text());
    // A plan that is made again keeps it.
    pair.plan(&settle).expect_success();
    let copied = pair.step(&["copy"]).expect_success();
    assert!(
        copied.stderr.contains("proven: new holds old"),
        "{}",
        copied.stderr
    );
}

#[test]
fn timeout_of_the_context_and_flags_of_plan_reach_the_preflight() {
    let pair = Pair::in_memory();
    let flags = ["--relationships", "100", "--timeout", "5m", "--print"];
    let printed = pair.plan(&flags).expect_success();
    let text = printed.text().replace(" \\\n  ", " ");
    let expected = "--for=all --relationships=100 --timeout=5m || [ $? = 3 ]\n";
    assert!(text.contains(expected), "{text}");
    // Too short for any server.
    let contexts = std::fs::read_to_string(pair.contexts()).unwrap();
    let hurried = contexts.replace("[new]\n", "[new]\nrequest-timeout = \"10us\"\n");
    std::fs::write(pair.contexts(), hurried).unwrap();
    pair.refused(&[], 75);
}

#[test]
fn plan_without_an_answer_is_to_be_tried_again() {
    let pair = Pair::in_memory();
    pair.connect(None, Some(&format!("127.0.0.1:{}", free_port())));
    let refused = pair.refused(&[], 75);
    for part in [
        "cannot be reached",
        "is not known",
        "when the server answers, run: ",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    // A finding that does not pass decides.
    let both = ["--gc-window", "1s"];
    let refused = pair.refused(&both, 1);
    assert!(refused.contains("see the 2 findings above"), "{refused}");
}

#[test]
fn plan_of_a_healthy_pair_has_no_warning() {
    let pair = Pair::in_memory();
    let planned = pair.unchanged(|| pair.plan(&[])).expect_success();
    let text = planned.text();
    assert!(
        text.contains("checks are well, nothing to warn of"),
        "{text}"
    );
    assert!(!text.contains("  warning   "), "{text}");
}

#[test]
fn printed_plan_begins_with_the_preflight() {
    let pair = Pair::in_memory();
    let flags = ["--gc-window", "2h", "--on-conflict", "touch", "--print"];
    let printed = pair.plan(&flags).expect_success();
    let text = printed.text().replace(" \\\n  ", " ");
    let expected = "spice-preflight --from=old --to=new --for=all --on-conflict=touch --gc-window=2h || [ $? = 3 ]\n";
    assert!(text.contains(expected), "{text}");
    assert!(!pair.state().exists());
    let printed = pair.plan(&["--fenced", "--print"]).expect_success();
    let expected = "spice-preflight --from=old --to=new --for=copy || [ $? = 3 ]\n";
    assert!(printed.text().contains(expected), "{}", printed.text());
}
