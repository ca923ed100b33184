//! A migration of a part of the source: of the resources of some types, or with ids of one prefix.
//!
//! Source and target may hold other relationships, which others read and write meanwhile. None of them is read,
//! counted, written or deleted.

use spice_record::record::Filter;

use crate::commands::Command;
use crate::suite::{CommandError, Outcome, quoted};

/// The mode of `--schema` for a target that holds what is of others: their schema is not changed in passing.
const SHARED_SCHEMA: &str = "check";

impl Command {
    /// Of this part only.
    pub(crate) fn only(self, filter: Option<&Filter>) -> Self {
        let Some(filter) = filter else {
            return self;
        };
        let types = filter.types.iter();
        types
            .fold(self, |command, name| command.flag("--type", name))
            .flag_if("--resource-prefix", filter.resource_prefix.as_ref())
    }
}

/// The flags of a plan, for a hint.
pub(crate) fn flags(filter: Option<&Filter>) -> String {
    let Some(filter) = filter else {
        return String::new();
    };
    let types = filter.types.iter();
    let types = types.map(|name| format!(" --type {}", quoted(name)));
    let prefix = filter.resource_prefix.iter();
    let prefix = prefix.map(|prefix| format!(" --resource-prefix {}", quoted(prefix)));
    types.chain(prefix).collect()
}

/// What an operator is asked to do with a target that is not as it should be.
pub(crate) fn empty(target: &str, filter: Option<&Filter>) -> String {
    match filter {
        None => format!("empty {target}"),
        Some(filter) => format!("delete what {target} holds of {filter}, and nothing else"),
    }
}

/// What to do where the target holds more.
pub(crate) fn extra(source: &str, target: &str, filter: Option<&Filter>) -> String {
    let empty = empty(target, filter);
    format!(
        "if that does not help, {target} holds what {source} does not (deleted there meanwhile, or written by others): \
         {empty}; plan with another --state, copy"
    )
}

/// What follow and cutover do about a change of the schema: what is asked for. Without that the schema of a target
/// that is shared stays as it is.
pub(crate) fn schema_mode<'a>(filter: Option<&Filter>, asked: Option<&'a str>) -> Option<&'a str> {
    asked.or(filter.map(|_| SHARED_SCHEMA))
}

/// Refuses to compare answers: they depend on relationships that are not moved.
pub(crate) fn refuse_sample(filter: Option<&Filter>, sample: u64, without: &str) -> Outcome {
    match filter {
        Some(filter) if sample > 0 => Err(CommandError::usage(format!(
            "--check-sample: this migration is of {filter}, and who has which permission on them also \
             depends on relationships outside of that"
        ))
        .hint(format!("relationships and schema are compared by: {without}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{At, Since, Watch, export, watch_between, watch_live};

    fn filter() -> Filter {
        Filter {
            types: vec!["document".to_owned(), "folder".to_owned()],
            resource_prefix: Some("a_".to_owned()),
        }
    }

    fn words(command: &Command) -> Vec<String> {
        let words = command.arguments.iter();
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    /// A program of a step that forgot it would read what is of others.
    #[test]
    fn every_read_of_a_server_is_of_the_part_only() {
        let filter = filter();
        let part = Some(&filter);
        let at = At::Revision("r");
        let watch = Watch {
            context: "old",
            spool: std::path::Path::new("spool"),
            segment: "1MiB",
            settle: None,
            filter: part,
        };
        for command in [
            export("old", at, "us", None, part),
            crate::commands::export_relationships("old", at, "us", Some(2), part),
            watch_live("old", Since::Revision("r"), part),
            watch_between("old", "r", "s", part),
            watch.capture(Since::Revision("r"), &"30s".parse().unwrap()),
            watch.until("r", None),
            watch.until_quiet("5s", None),
        ] {
            let words = words(&command);
            for flag in ["--type=document", "--type=folder", "--resource-prefix=a_"] {
                let found = words.iter().filter(|word| *word == flag).count();
                assert_eq!(found, 1, "{flag} in {} {words:?}", command.program);
            }
        }
        let all = export("old", at, "us", None, None);
        assert!(words(&all).iter().all(|word| !word.starts_with("--type")));
    }

    #[test]
    fn schema_of_a_shared_target_is_changed_on_request_only() {
        let filter = filter();
        assert_eq!(schema_mode(None, None), None);
        assert_eq!(schema_mode(None, Some("stop")), Some("stop"));
        assert_eq!(schema_mode(Some(&filter), None), Some("check"));
        assert_eq!(schema_mode(Some(&filter), Some("apply")), Some("apply"));
    }

    #[test]
    fn answers_of_a_part_are_not_compared() {
        let filter = filter();
        refuse_sample(None, 10, "verify").unwrap();
        refuse_sample(Some(&filter), 0, "verify").unwrap();
        let refused = refuse_sample(Some(&filter), 1, "verify").unwrap_err();
        assert!(refused.message().contains("--check-sample"), "{refused:?}");
    }

    #[test]
    fn nobody_is_asked_to_empty_a_shared_target() {
        let filter = filter();
        assert_eq!(empty("new", None), "empty new");
        let asked = empty("new", Some(&filter));
        assert!(!asked.contains("empty"), "{asked}");
        assert!(asked.contains(r#""a_""#), "{asked}");
    }

    #[test]
    fn flags_of_a_hint_can_be_pasted() {
        let filter = Filter {
            types: vec!["document".to_owned()],
            resource_prefix: Some("a|b".to_owned()),
        };
        let shown = flags(Some(&filter));
        assert_eq!(shown, " --type document --resource-prefix 'a|b'");
        assert_eq!(flags(None), "");
    }
}
