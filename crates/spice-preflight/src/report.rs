//! The findings for people, and as records.

use std::fmt::Write as _;

use serde_json::{Value, json};
use spice_cli::display::{bounded, escape};

use crate::finding::{Finding, Place, Severity, Verdict};
use crate::steps::Steps;

/// The longest line of a finding.
const LINE_BYTES: usize = 1_300;

/// What the findings are of.
pub(crate) struct Report<'a> {
    pub(crate) from: Option<&'a str>,
    pub(crate) to: Option<&'a str>,
    pub(crate) steps: Steps,
    pub(crate) findings: &'a [Finding],
    pub(crate) verdict: Verdict,
    /// Whether a marker was written to the source.
    pub(crate) has_marked: bool,
}

impl Report<'_> {
    fn context(&self, place: Place) -> Option<&str> {
        match place {
            Place::Source => self.from,
            Place::Target => self.to,
            Place::Both => None,
        }
    }

    /// A list: one finding after the other, with why and remedy where there is something to do.
    pub(crate) fn text(&self) -> String {
        let ends = match (self.from, self.to) {
            (Some(from), Some(to)) => format!("{from} -> {to}"),
            (Some(from), None) => format!("{from}, as a source"),
            (None, to) => format!("{}, as a target", to.unwrap_or_default()),
        };
        let mut out = String::new();
        let _ = writeln!(
            out,
            "Preflight: {}, for {}\n",
            line(&ends),
            self.steps.name()
        );
        for finding in self.findings {
            let severity = match finding.severity {
                Severity::Fails => "FAILS",
                other => other.name(),
            };
            let place = finding.place.name();
            let found = line(&finding.found);
            let _ = writeln!(
                out,
                "{severity:<5}  {place:<6}  {:<14}  {found}",
                finding.check
            );
            if finding.severity == Severity::Ok {
                continue;
            }
            for (name, text) in [("why", &finding.why), ("remedy", &finding.remedy)] {
                if !text.is_empty() {
                    let _ = writeln!(out, "{:31}{name}: {}", "", line(text));
                }
            }
        }
        let _ = write!(out, "\n{}", self.summary());
        out
    }

    /// The verdict in a sentence.
    fn summary(&self) -> String {
        let Verdict {
            fails, warns, ok, ..
        } = self.verdict;
        let written = match self.has_marked {
            true => "One marker, an empty transaction, was written to the source; nothing else",
            false => "Nothing was written",
        };
        let verdict = match self.verdict.exit {
            spice_cli::Exit::TryAgain => "undecided: what fails may pass by itself",
            _ => match self.verdict.severity() {
                Severity::Ok => "all is well",
                Severity::Warns => "it can succeed, with the limitations above",
                Severity::Fails => "the migration would fail",
            },
        };
        format!("Verdict: {verdict} ({fails} fail, {warns} warn, {ok} ok). {written}.")
    }

    /// A record for each finding, and one with the verdict.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut records: Vec<Value> = self
            .findings
            .iter()
            .map(|finding| json!({ "finding": self.record(finding) }))
            .collect();
        let Verdict {
            fails, warns, ok, ..
        } = self.verdict;
        let mut verdict = json!({
            "verdict": match self.verdict.exit {
                spice_cli::Exit::TryAgain => "undecided",
                _ => self.verdict.severity().name(),
            },
            "for": self.steps.name(),
            "fails": fails,
            "warns": warns,
            "ok": ok,
            "marked": self.has_marked,
        });
        for (name, context) in [("from", self.from), ("to", self.to)] {
            if let Some(context) = context {
                verdict[name] = context.into();
            }
        }
        records.push(json!({ "preflight": verdict }));
        records
    }

    fn record(&self, finding: &Finding) -> Value {
        let mut record = json!({
            "severity": finding.severity.name(),
            "end": finding.place.name(),
            "check": finding.check,
            "found": finding.found,
        });
        let context = self.context(finding.place).unwrap_or_default();
        for (name, text) in [
            ("context", context),
            ("why", finding.why.as_str()),
            ("remedy", finding.remedy.as_str()),
        ] {
            if !text.is_empty() {
                record[name] = text.into();
            }
        }
        if finding.passes {
            record["passes"] = true.into();
        }
        record
    }
}

/// One line, escaped and bounded: names and messages come from files and servers.
fn line(text: &str) -> String {
    let text = bounded(LINE_BYTES, format_args!("{text}"));
    escape(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: &[Finding]) -> Report<'_> {
        Report {
            from: Some("old"),
            to: Some("new"),
            steps: Steps::Live,
            verdict: Verdict::of(findings),
            findings,
            has_marked: false,
        }
    }

    #[test]
    fn finding_is_a_line_with_why_and_remedy_below() {
        let findings = [
            Finding::fails(Place::Target, "rights", "no\u{1b}[31m")
                .why("because")
                .remedy("do"),
            Finding::ok(Place::Source, "contact", "answers").why("not shown"),
        ];
        let text = report(&findings).text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Preflight: old -> new, for live");
        assert_eq!(lines[2], r"FAILS  target  rights          no\u{1b}[31m");
        assert_eq!(lines[3].trim_start(), "why: because");
        assert_eq!(lines[4].trim_start(), "remedy: do");
        assert_eq!(lines[5], "ok     source  contact         answers");
        assert!(lines[7].starts_with("Verdict: the migration would fail (1 fail, 0 warn, 1 ok)"));
        assert!(lines[7].ends_with("Nothing was written."));
    }

    #[test]
    fn records_name_the_end_and_leave_out_what_is_empty() {
        let findings = [
            Finding::warns(Place::Source, "history", "short")
                .why("w")
                .remedy("r"),
            Finding::ok(Place::Both, "same-datastore", "two"),
        ];
        let records = report(&findings).records();
        assert_eq!(
            records[0],
            json!({"finding": {"severity": "warns", "end": "source", "context": "old",
                "check": "history", "found": "short", "why": "w", "remedy": "r"}})
        );
        assert_eq!(
            records[1],
            json!({"finding": {"severity": "ok", "end": "both", "check": "same-datastore", "found": "two"}})
        );
        assert_eq!(
            records[2],
            json!({"preflight": {"verdict": "warns", "from": "old", "to": "new", "for": "live",
                "fails": 0, "warns": 1, "ok": 1, "marked": false}})
        );
    }

    #[test]
    fn what_may_pass_is_no_verdict() {
        let findings = [Finding::fails(Place::Target, "contact", "away").passing()];
        let records = report(&findings).records();
        assert_eq!(records[0]["finding"]["passes"], true);
        assert_eq!(records[1]["preflight"]["verdict"], "undecided");
        assert!(report(&findings).text().contains("Verdict: undecided"));
    }
}
