//! What was found: how bad it is, at which end, why it matters and what to do about it.

use spice_cli::Exit;

/// How bad a finding is. The order is that of the badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Nothing to do.
    Ok,
    /// The migration can succeed, with the limitation that is named.
    Warns,
    /// The migration would fail.
    Fails,
}

impl Severity {
    /// As people and records have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warns => "warns",
            Self::Fails => "fails",
        }
    }
}

/// Which end a finding is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Source,
    Target,
    Both,
}

impl Place {
    /// As people and records have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Target => "target",
            Self::Both => "both",
        }
    }
}

/// One fact about the ends, judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) place: Place,
    /// What was looked at: a word of docs/preflight.md.
    pub(crate) check: &'static str,
    /// What was found.
    pub(crate) found: String,
    /// Why that matters; empty where nothing is to do.
    pub(crate) why: String,
    /// What to do about it; empty where nothing is.
    pub(crate) remedy: String,
    /// Whether it may be otherwise a moment later, with nothing changed.
    pub(crate) passes: bool,
}

impl Finding {
    pub(crate) fn new(
        severity: Severity,
        place: Place,
        check: &'static str,
        found: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            place,
            check,
            found: found.into(),
            why: String::new(),
            remedy: String::new(),
            passes: false,
        }
    }

    pub(crate) fn ok(place: Place, check: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Ok, place, check, found)
    }

    pub(crate) fn warns(place: Place, check: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Warns, place, check, found)
    }

    pub(crate) fn fails(place: Place, check: &'static str, found: impl Into<String>) -> Self {
        Self::new(Severity::Fails, place, check, found)
    }

    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// It may be otherwise a moment later.
    pub(crate) fn passing(mut self) -> Self {
        self.passes = true;
        self
    }
}

/// The worst of all findings, and how many there are of each severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) fails: usize,
    pub(crate) warns: usize,
    pub(crate) ok: usize,
    pub(crate) exit: Exit,
}

impl Verdict {
    /// Exit 1 where the migration would fail. 75 where all that fails may pass by itself: then the same
    /// command can have another verdict, so this is no verdict on the migration. 3 with warnings.
    pub(crate) fn of(findings: &[Finding]) -> Self {
        let count = |severity| {
            let found = findings.iter().filter(|one| one.severity == severity);
            found.count()
        };
        let fails = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Fails);
        let stays = fails.clone().any(|finding| !finding.passes);
        let warns = count(Severity::Warns);
        Self {
            fails: fails.clone().count(),
            warns,
            ok: count(Severity::Ok),
            exit: match (stays, fails.count(), warns) {
                (true, _, _) => Exit::Failed,
                (false, 1.., _) => Exit::TryAgain,
                (false, 0, 1..) => Exit::Partial,
                (false, 0, 0) => Exit::Done,
            },
        }
    }

    /// The worst severity.
    pub(crate) fn severity(&self) -> Severity {
        match (self.fails, self.warns) {
            (0, 0) => Severity::Ok,
            (0, _) => Severity::Warns,
            _ => Severity::Fails,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worst_finding_decides_the_exit_code() {
        let ok = || Finding::ok(Place::Source, "contact", "");
        let warns = || Finding::warns(Place::Source, "contact", "");
        let fails = || Finding::fails(Place::Target, "contact", "");
        for (findings, exit) in [
            (vec![], Exit::Done),
            (vec![ok(), ok()], Exit::Done),
            (vec![ok(), warns()], Exit::Partial),
            (vec![warns().passing()], Exit::Partial),
            (vec![warns(), fails()], Exit::Failed),
            (vec![warns(), fails().passing()], Exit::TryAgain),
            (vec![fails().passing(), fails()], Exit::Failed),
        ] {
            assert_eq!(Verdict::of(&findings).exit, exit, "{findings:?}");
        }
    }

    #[test]
    fn findings_are_counted_by_severity() {
        let findings = [
            Finding::ok(Place::Source, "contact", ""),
            Finding::fails(Place::Target, "rights", ""),
            Finding::fails(Place::Target, "rights", "").passing(),
        ];
        let verdict = Verdict::of(&findings);
        assert_eq!((verdict.fails, verdict.warns, verdict.ok), (2, 0, 1));
        assert_eq!(verdict.severity(), Severity::Fails);
    }
}
