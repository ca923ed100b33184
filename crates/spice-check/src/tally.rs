//! How many answers there are of each kind, and what a comparison of them proves.

use spice_record::checks::{Answer, Check, Comparison, Permissionship};

/// How many answers there are of each kind.
#[derive(Default)]
pub(crate) struct Tally {
    yes: usize,
    no: usize,
    conditional: usize,
    errors: usize,
    too_deep: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, checks: &[Check]) {
        for check in checks {
            *match &check.answer {
                Answer::Error(fault) if fault.is_too_deep() => &mut self.too_deep,
                Answer::Error(_) => &mut self.errors,
                Answer::Item(item) => match item.permissionship {
                    Permissionship::Yes => &mut self.yes,
                    Permissionship::No => &mut self.no,
                    Permissionship::Conditional => &mut self.conditional,
                },
            } += 1;
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            yes,
            no,
            conditional,
            errors,
            too_deep,
        } = self;
        let all = yes + no + conditional + errors + too_deep;
        write!(
            f,
            "{all} questions: {yes} yes, {no} no, {conditional} conditional, {errors} errors, {too_deep} too deep"
        )
    }
}

/// The outcome of each question that two servers were asked.
#[derive(Default)]
pub(crate) struct Compared {
    pub(crate) different: usize,
    /// The other server answered, this one gave up at its maximum depth.
    too_deep_here: usize,
    /// This server answered, the other one gave up.
    too_deep_there: usize,
    /// The same answer, or an error of the same code.
    equal: usize,
    asked: usize,
}

/// So many inconclusive questions are accepted, however few were asked.
const FEW: usize = 3;

/// Of how many questions that some server answered one may be inconclusive. Equal servers with many
/// cycles in their data have 1 in 200 or fewer: each answer that is too deep is asked for again.
const ONE_IN: usize = 20;

impl Compared {
    /// What the other server's answer and this one's are.
    pub(crate) fn add(&mut self, there: &Answer, here: &Answer) -> Comparison {
        let comparison = there.compare(here);
        self.asked += 1;
        match comparison {
            Comparison::Different => self.different += 1,
            Comparison::Inconclusive if here.is_too_deep() => self.too_deep_here += 1,
            Comparison::Inconclusive => self.too_deep_there += 1,
            // Two that gave up prove nothing, and are no reason to doubt.
            Comparison::Alike if here.is_too_deep() => {}
            Comparison::Alike => self.equal += 1,
        }
        comparison
    }

    pub(crate) fn inconclusive(&self) -> usize {
        self.too_deep_here + self.too_deep_there
    }

    /// Questions that at least one server answered.
    fn answered(&self) -> usize {
        self.equal + self.different + self.inconclusive()
    }

    /// Whether so much is inconclusive that the rest proves nothing: one server may have a smaller
    /// `--dispatch-max-depth`, which would pass for cycles in the data.
    pub(crate) fn proves_too_little(&self) -> bool {
        let (inconclusive, answered) = (self.inconclusive(), self.answered());
        inconclusive > FEW && inconclusive * ONE_IN > answered
            || inconclusive == answered && self.asked > 0
    }

    /// Which server gave up how often.
    pub(crate) fn describe_inconclusive(&self, endpoint: &str) -> String {
        format!(
            "{} of {} answered questions are inconclusive: {endpoint} gave up at its maximum depth in {}, \
             the other server in {}",
            self.inconclusive(),
            self.answered(),
            self.too_deep_here,
            self.too_deep_there,
        )
    }
}

#[cfg(test)]
mod tests {
    use spice_record::checks::{Fault, Item};

    use super::*;

    fn item(permissionship: Permissionship) -> Answer {
        Answer::Item(Item {
            permissionship,
            partial_caveat_info: None,
        })
    }

    fn error(code: i32, reason: Option<&str>) -> Answer {
        Answer::Error(Fault {
            code,
            message: "words of a server".to_owned(),
            reason: reason.map(str::to_owned),
        })
    }

    fn compared(times: &[(usize, &Answer, &Answer)]) -> Compared {
        let mut compared = Compared::default();
        for (count, there, here) in times {
            for _ in 0..*count {
                compared.add(there, here);
            }
        }
        compared
    }

    #[test]
    fn a_too_deep_answer_compared_with_another_is_inconclusive() {
        let yes = item(Permissionship::Yes);
        let deep = error(9, Some("MAXIMUM_DEPTH_EXCEEDED"));
        let other_errors = [error(9, None), error(8, None)];
        let mut compared = Compared::default();
        for other in [&yes, &other_errors[0], &other_errors[1]] {
            assert_eq!(compared.add(&deep, other), Comparison::Inconclusive);
            assert_eq!(compared.add(other, &deep), Comparison::Inconclusive);
        }
        assert_eq!((compared.too_deep_here, compared.too_deep_there), (3, 3));
        // An older server reports it with another code.
        let deep_of_old = error(8, Some("MAXIMUM_DEPTH_EXCEEDED"));
        assert_eq!(compared.add(&deep, &deep_of_old), Comparison::Alike);
        assert_eq!(
            compared.add(&yes, &item(Permissionship::No)),
            Comparison::Different
        );
        assert_eq!(compared.add(&yes, &error(9, None)), Comparison::Different);
        assert_eq!((compared.inconclusive(), compared.different), (6, 2));
    }

    #[test]
    fn more_than_5_percent_inconclusive_checks_prove_too_little() {
        let yes = item(Permissionship::Yes);
        let deep = error(9, Some("MAXIMUM_DEPTH_EXCEEDED"));
        let proves_too_little = |equal, inconclusive, both_deep| {
            compared(&[
                (equal, &yes, &yes),
                (inconclusive, &yes, &deep),
                (both_deep, &deep, &deep),
            ])
            .proves_too_little()
        };
        assert!(!proves_too_little(100, 0, 0));
        assert!(proves_too_little(0, 0, 100), "nothing was answered");
        assert!(!proves_too_little(1, 3, 0), "few");
        assert!(proves_too_little(1, 4, 0));
        assert!(!proves_too_little(95, 5, 0));
        assert!(proves_too_little(94, 6, 0));
        assert!(
            proves_too_little(94, 6, 500),
            "not of those that were answered"
        );
        assert!(proves_too_little(0, 1, 5), "all that could be compared");
    }
}
