//! What `spice-preflight` finds of both ends, before they are planned.

use serde::Deserialize;

use crate::cli::{self, Accept};
use crate::commands::{self, Preflight};
use crate::ends;
use crate::phase::Procedure;
use crate::process::Ended;
use crate::session::Session;
use crate::suite::{CommandError, Exit, Outcome, quoted};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Ok,
    Warns,
    Fails,
}

/// A finding, as `spice-preflight --json` prints it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Finding {
    severity: Severity,
    end: String,
    #[serde(default)]
    context: Option<String>,
    pub(crate) check: String,
    pub(crate) found: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    pub(crate) remedy: String,
    /// It may be otherwise a moment later.
    #[serde(default)]
    passes: bool,
}

/// What decides in the record at the end: without that record the findings are not all there.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Record {
    Finding(Finding),
    Preflight(serde::de::IgnoredAny),
}

/// All findings; `None` of an output that is not complete.
fn read(output: &[u8]) -> Option<Vec<Finding>> {
    let lines = output.split(|byte| *byte == b'\n');
    let mut findings = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Record>(line).ok()? {
            Record::Finding(finding) => findings.push(finding),
            Record::Preflight(_) => return Some(findings),
        }
    }
    None
}

impl Finding {
    /// What is found, and at which end.
    pub(crate) fn text(&self) -> String {
        match &self.context {
            Some(context) => format!("{context}, the {}: {}", self.end, self.found),
            None => self.found.clone(),
        }
    }

    fn is_accepted(&self, accept: &[Accept]) -> bool {
        accept.iter().any(|accept| accept.name() == self.check)
    }

    /// Whether flags or the contexts file have to be changed, and no server.
    fn is_usage(&self) -> bool {
        matches!(
            self.check.as_str(),
            "datastore" | "same-datastore" | "target" | "filter"
        )
    }

    fn report(&self, exit: Exit) {
        let message = match self.why.as_str() {
            "" => self.text(),
            why => format!("{} ({why})", self.text()),
        };
        CommandError::new(exit, message).hint(&self.remedy).report();
    }
}

/// What prevents the plan: an exit code, or nothing.
fn prevents(failing: &[&Finding]) -> Option<Exit> {
    let lasting = || failing.iter().filter(|finding| !finding.passes);
    if failing.is_empty() {
        None
    } else if lasting().next().is_none() {
        Some(Exit::TryAgain)
    } else if lasting().all(|finding| finding.is_usage()) {
        Some(Exit::Usage)
    } else {
        Some(Exit::Failed)
    }
}

/// What spice-preflight has found, and does not prevent the plan.
pub(crate) struct Passed {
    /// Warnings, and findings that were accepted, the worst first.
    pub(crate) warnings: Vec<Finding>,
    /// How many findings are well.
    pub(crate) ok: usize,
}

/// Refuses ends between which the migration would fail.
///
/// `is_begun`: the target holds what was copied before.
pub(crate) async fn run(
    session: &Session,
    planned: &Preflight<'_>,
    flags: &cli::Plan,
    is_begun: bool,
) -> Outcome<Passed> {
    let command = commands::preflight(planned).arg("--json");
    let (ended, output) = session.runner.run(&command).await?;
    let (Ended::Code(0 | 1 | 3 | 75), Some(findings)) = (ended, read(&output)) else {
        let (source, target) = (planned.source, planned.target);
        let what = format!("{source} and {target} cannot be checked");
        return Err(session.failed("spice-preflight", ended, &what));
    };
    let is_failing = |finding: &&Finding| {
        finding.severity == Severity::Fails && !finding.is_accepted(&flags.accept)
    };
    let failing: Vec<&Finding> = findings.iter().filter(is_failing).collect();
    if let Some(exit) = prevents(&failing) {
        for finding in &failing {
            finding.report(exit);
        }
        return Err(refused(session, planned, flags, &failing, exit, is_begun));
    }
    let (ok, mut warnings): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|finding| finding.severity == Severity::Ok);
    if is_begun {
        warnings.retain(|finding| finding.check != "target");
    }
    Ok(Passed {
        warnings,
        ok: ok.len(),
    })
}

/// The error behind the failing findings, which were reported one by one.
fn refused(
    session: &Session,
    planned: &Preflight<'_>,
    flags: &cli::Plan,
    failing: &[&Finding],
    exit: Exit,
    is_begun: bool,
) -> CommandError {
    let (source, target) = (planned.source, planned.target);
    let count = match failing.len() {
        1 => "the finding above".to_owned(),
        count => format!("the {count} findings above"),
    };
    let same = session.words.same();
    if exit == Exit::TryAgain {
        let message = format!(
            "whether a migration from {source} to {target} would succeed is not known: see {count}. Nothing \
             was planned or written"
        );
        let hint = format!("when the server answers, run: {same}");
        return in_spite(CommandError::new(exit, message).hint(hint), same, failing);
    }
    let message = format!(
        "a migration from {source} to {target} would fail: see {count}. Nothing was planned or written"
    );
    let mut error =
        CommandError::new(exit, message).hint(format!("follow the hints above; then run: {same}"));
    let is_watch = |finding: &&Finding| finding.check == "watch" && finding.end == "source";
    if failing.iter().any(is_watch) && planned.procedure == Procedure::Live && !is_begun {
        error = error.also(format!(
            "or migrate with writes stopped from copy to switch: {}",
            fenced_plan(session, planned, flags)
        ));
    }
    in_spite(error, same, failing)
}

/// Offers to accept what fails, where that is possible.
fn in_spite(error: CommandError, same: &str, failing: &[&Finding]) -> CommandError {
    let Some(accept) = acceptable(failing) else {
        return error;
    };
    error.also(format!(
        "or plan in spite of it, where you know better: {same}{accept}. Each step checks again, and stops where \
         it fails"
    ))
}

/// The same plan, by the other procedure.
fn fenced_plan(session: &Session, planned: &Preflight<'_>, flags: &cli::Plan) -> String {
    let mut more = String::new();
    for (flag, value) in [
        ("--settle", planned.settle),
        ("--gc-window", planned.gc_window),
        ("--on-conflict", planned.policy),
        ("--timeout", planned.timeout),
    ] {
        more += &value.map_or_else(String::new, |value| format!(" {flag} {}", quoted(value)));
    }
    for accept in &flags.accept {
        more += &format!(" --accept {}", accept.name());
    }
    ends::fenced_plan(session, planned.source, planned.target, planned.filter) + &more
}

/// The flags that accept what fails; `None` where something else fails as well.
fn acceptable(failing: &[&Finding]) -> Option<String> {
    let all = failing
        .iter()
        .all(|finding| finding.is_accepted(&Accept::ALL));
    let fails = |accept: &&Accept| failing.iter().any(|one| one.check == accept.name());
    let flags = Accept::ALL.iter().filter(fails);
    all.then(|| {
        flags
            .map(|accept| format!(" --accept {}", accept.name()))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARNS: &str = r#"{"finding":{"severity":"warns","end":"both","check":"zedtokens","found":"f","why":"w"}}"#;
    const VERDICT: &str = r#"{"preflight":{"verdict":"warns","fails":0}}"#;

    fn failing(check: &str, passes: bool) -> Finding {
        Finding {
            severity: Severity::Fails,
            end: "source".to_owned(),
            context: Some("old".to_owned()),
            check: check.to_owned(),
            found: "found".to_owned(),
            why: String::new(),
            remedy: String::new(),
            passes,
        }
    }

    #[test]
    fn findings_count_only_with_the_verdict_at_their_end() {
        let whole = format!("{WARNS}\n{VERDICT}\n");
        let findings = read(whole.as_bytes()).unwrap();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].severity, Severity::Warns);
        assert_eq!(findings[0].text(), "f");
        assert!(read(format!("{WARNS}\n").as_bytes()).is_none());
        let torn = whole.replace("\"verdict\"", "\"verd");
        assert!(read(torn.as_bytes()).is_none());
        assert!(read(b"").is_none());
    }

    #[test]
    fn exit_code_is_that_of_the_worst_finding() {
        for (findings, exit) in [
            (vec![], None),
            (vec![failing("contact", true)], Some(Exit::TryAgain)),
            (vec![failing("contact", false)], Some(Exit::Failed)),
            (vec![failing("same-datastore", false)], Some(Exit::Usage)),
            (
                vec![failing("target", false), failing("contact", true)],
                Some(Exit::Usage),
            ),
            (
                vec![failing("target", false), failing("rights", false)],
                Some(Exit::Failed),
            ),
        ] {
            let findings: Vec<_> = findings.iter().collect();
            assert_eq!(prevents(&findings), exit, "{findings:?}");
        }
    }

    #[test]
    fn what_a_step_proves_itself_can_be_accepted_and_nothing_else() {
        let (history, rights) = (failing("history", false), failing("rights", false));
        let flags = acceptable(&[&history, &rights, &rights]);
        assert_eq!(flags.unwrap(), " --accept history --accept rights");
        for check in [
            "same-datastore",
            "target",
            "schema",
            "expiry",
            "watch",
            "contact",
        ] {
            let fact = failing(check, false);
            assert_eq!(acceptable(&[&history, &fact]), None, "{check}");
            assert!(!fact.is_accepted(&Accept::ALL), "{check}");
        }
    }
}
