//! What the flags mean: new names, removed parts, chosen and redacted types, and the header that results.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use authzed::v1::ObjectReference;
use spice_cli::compare::now;
use spice_cli::{CommandError, VERSION};
use spice_record::Header;
use spice_record::ReadError;
use spice_record::record::{Filter, MAX_MAPPING_BYTES};
use spice_schema::names::{CAVEAT_RULE, DEFINITION_RULE, is_caveat, is_definition};
use spice_schema::{Removal, Renames};

use crate::Map;
use crate::flags::{Part, Rename};
use crate::names::{Name, Named, RENAME};
use crate::redact::Redactor;

/// How a chosen type begins in a mapping.
const ONLY: &str = "only ";

/// Names are those of the input.
pub(crate) struct Plan {
    pub(crate) renames: Renames,
    pub(crate) removal: Removal,
    pub(crate) only: Option<Only>,
    pub(crate) redaction: Option<Redaction>,
    /// What the flags name, each once for each flag.
    pub(crate) names: BTreeSet<Named>,
    /// Each change, for the header.
    mapping: Vec<String>,
}

/// Which relationships are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Only {
    /// In the order of the flags.
    types: Vec<String>,
    /// Of some of these types.
    pub(crate) prefixes: BTreeMap<String, Vec<String>>,
}

impl Only {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.types.iter().any(|kept| kept == name)
    }

    pub(crate) fn types(&self) -> BTreeSet<String> {
        self.types.iter().cloned().collect()
    }
}

pub(crate) struct Redaction {
    pub(crate) types: BTreeSet<String>,
    pub(crate) contexts: bool,
    pub(crate) redactor: Redactor,
}

impl Plan {
    /// # Errors
    ///
    /// Exit 2 for flags that change nothing or contradict each other, and those of the key file.
    pub(crate) fn of(args: &Map) -> Result<Self, CommandError> {
        let removal = removal(args);
        let only = only(args, &removal)?;
        let mut plan = Self {
            renames: renames(&args.rename)?,
            redaction: redaction(args)?,
            names: names(args),
            mapping: Vec::new(),
            removal,
            only,
        };
        plan.mapping = plan.describe(args);
        if plan.mapping.is_empty() {
            return Err(CommandError::usage("nothing to change")
                .hint("give --rename, --drop, --only-type, --only-resource-prefix or --redact"));
        }
        Ok(plan)
    }

    /// Each change, sorted: flags in another order are the same mapping. It holds no id of a redacted type.
    fn describe(&self, args: &Map) -> Vec<String> {
        let renames = args.rename.iter().map(|rename| format!("rename {rename}"));
        let drops = args.drop.iter().map(|part| format!("drop {part}"));
        let types = args.only_type.iter().map(|name| format!("{ONLY}{name}"));
        let prefixes = args.only_resource_prefix.iter().map(|only| {
            let (kind, prefix) = (&only.kind, &only.prefix);
            match self.redactor_of(kind) {
                None => format!("{ONLY}{kind}:{prefix}"),
                Some(redactor) => redacted_prefix(redactor, kind, prefix),
            }
        });
        let mut mapping: Vec<String> = renames.chain(drops).chain(types).chain(prefixes).collect();
        if args.drop_references {
            mapping.push("drop references".to_owned());
        }
        if let Some(redaction) = &self.redaction {
            let key = redaction.redactor.key_name();
            let types = redaction.types.iter();
            mapping.extend(types.map(|name| format!("redact {name}, key {key}")));
            if redaction.contexts {
                mapping.push(format!("redact contexts, key {key}"));
            }
        }
        mapping.sort();
        mapping.dedup();
        mapping
    }

    /// Whether a relationship of this resource is kept, by its type and id.
    pub(crate) fn is_chosen(&self, resource: &ObjectReference) -> bool {
        let Some(only) = &self.only else {
            return true;
        };
        let prefixes = only.prefixes.get(&resource.object_type);
        let id = resource.object_id.as_str();
        only.has(&resource.object_type)
            && prefixes.is_none_or(|all| all.iter().any(|prefix| id.starts_with(prefix)))
    }

    /// The new name of a definition, or else of a caveat. A flag does not show of which it is.
    ///
    /// # Errors
    ///
    /// Exit 2 for one that SpiceDB refuses.
    pub(crate) fn new_name(&self, old: &str, is_type: bool) -> Result<String, CommandError> {
        let new = self.renames.of_object(old);
        let (is_name, rule) = match is_type {
            true => (is_definition(&new), DEFINITION_RULE),
            false => (is_caveat(&new), CAVEAT_RULE),
        };
        if *new != *old && !is_name {
            return Err(CommandError::usage(format!(
                "--rename: {old} cannot be called {new}: SpiceDB accepts no such name"
            ))
            .hint(rule)
            .also("the output is not complete: discard it"));
        }
        Ok(new.into_owned())
    }

    /// What redacts the ids of a type.
    pub(crate) fn redactor_of(&self, object_type: &str) -> Option<&Redactor> {
        let redaction = self.redaction.as_ref();
        let redaction = redaction.filter(|redaction| redaction.types.contains(object_type));
        redaction.map(|redaction| &redaction.redactor)
    }

    /// The header of what is written. The revision remains that of the source: changes after it continue
    /// the snapshot, once they are mapped in the same way, and `mapping` shows that they were.
    ///
    /// # Errors
    ///
    /// Exit 2 where the list of changes is longer than readers take.
    pub(crate) fn header(
        &self,
        header: &Header,
        schema: Option<String>,
    ) -> Result<Header, CommandError> {
        let earlier = header.mapping.iter().map(|change| self.without_ids(change));
        let mapping: Vec<String> = earlier.chain(self.mapping.iter().cloned()).collect();
        if mapping.iter().map(String::len).sum::<usize>() > MAX_MAPPING_BYTES {
            return Err(CommandError::usage(format!(
                "a mapping of more than {} KiB: it has to be in the header",
                MAX_MAPPING_BYTES >> 10
            ))
            .hint("rename prefixes instead of many names"));
        }
        Ok(Header {
            revision: header.revision.clone(),
            filter: self.filter(header.filter.as_ref())?,
            mapping,
            schema,
            ..Header::new(header.stream, format!("spice-map {VERSION}"), now())
        })
    }

    /// A change that an earlier run lists. The prefix that it chose by is a part of an id, of a type that may
    /// have had another name then.
    fn without_ids(&self, change: &str) -> String {
        let prefix = change
            .strip_prefix(ONLY)
            .and_then(|one| one.split_once(':'));
        match (&self.redaction, prefix) {
            (Some(redaction), Some((kind, prefix))) => {
                redacted_prefix(&redaction.redactor, kind, prefix)
            }
            _ => change.to_owned(),
        }
    }

    /// Which relationships are in the output on purpose, by their new names.
    ///
    /// # Errors
    ///
    /// Exit 2 where the input holds nothing of what is chosen: the output would claim that there is nothing.
    fn filter(&self, filter: Option<&Filter>) -> Result<Option<Filter>, CommandError> {
        if self.only.is_none() && filter.is_none() {
            return Ok(None);
        }
        let before = filter.map_or(&[][..], |filter| filter.types.as_slice());
        let types: Vec<&String> = match &self.only {
            None => {
                let kept = |name: &&String| !self.removal.objects.contains(*name);
                let kept: Vec<&String> = before.iter().filter(kept).collect();
                // No types would mean all of them.
                if kept.is_empty() {
                    before.iter().collect()
                } else {
                    kept
                }
            }
            Some(only) => {
                let is_missing = |name: &&String| !before.is_empty() && !before.contains(*name);
                if let Some(missing) = only.types.iter().find(is_missing) {
                    return Err(self.not_there(missing, filter));
                }
                only.types.iter().collect()
            }
        };
        let types = types.into_iter();
        let types = types.map(|name| self.renames.of_object(name).into_owned());
        let prefix = self.prefix(filter)?;
        Ok(Some(Filter {
            types: types.collect::<BTreeSet<_>>().into_iter().collect(),
            // It can be an id.
            resource_prefix: prefix.filter(|_| self.redaction.is_none()),
        }))
    }

    /// The prefix that all ids of the output have: that of the input, or the one that is chosen by. Several of
    /// them have no place in a filter.
    fn prefix(&self, filter: Option<&Filter>) -> Result<Option<String>, CommandError> {
        let before = filter.and_then(|filter| filter.resource_prefix.as_deref());
        let only = self.only.as_ref();
        let prefixes = only.map(|only| &only.prefixes).into_iter().flatten();
        let mut common: Option<&str> = None;
        let mut is_one = only.is_some_and(|only| only.prefixes.len() == only.types.len());
        for (kind, prefixes) in prefixes {
            for prefix in prefixes {
                let is_outside =
                    |before: &str| !before.starts_with(prefix) && !prefix.starts_with(before);
                if before.is_some_and(is_outside) {
                    return Err(self.not_there(kind, filter));
                }
                is_one &= *common.get_or_insert(prefix) == prefix;
            }
        }
        let chosen = common.filter(|_| is_one);
        // The longer one: each begins with the other.
        let longest = before
            .into_iter()
            .chain(chosen)
            .max_by_key(|prefix| prefix.len());
        Ok(longest.map(str::to_owned))
    }

    fn not_there(&self, name: &str, filter: Option<&Filter>) -> CommandError {
        let there = match &self.redaction {
            None => Filter::described(filter),
            // Its prefix can be an id.
            Some(_) => "a part of its source".to_owned(),
        };
        CommandError::usage(format!(
            "the stream holds {there}, and so nothing of what is chosen of {name}"
        ))
        .hint(
            "leave it out of --only-type and --only-resource-prefix, or map a stream that holds it",
        )
    }

    /// An error of the input. It may quote the line, which may hold an id that is to be redacted: then what
    /// is quoted is left out.
    pub(crate) fn unreadable(&self, error: ReadError) -> CommandError {
        let (name, line, column, message) = match error {
            ReadError::Line {
                name,
                line,
                column,
                message,
            } => (name, line, column, message),
            other => return other.into(),
        };
        let quote = message.find(['"', '`', '\'']);
        let quote = quote.filter(|_| self.redaction.is_some());
        let message = match quote {
            Some(quote) => format!("{}... (not shown: ids are redacted)", &message[..quote]),
            None => message,
        };
        let error = ReadError::Line {
            name,
            line,
            column,
            message,
        };
        error.into()
    }
}

/// How a mapping lists a prefix that is not to be shown.
fn redacted_prefix(redactor: &Redactor, kind: &str, prefix: &str) -> String {
    format!("{ONLY}{kind}, prefix {}", redactor.id(kind, prefix))
}

/// What the flags say that the input has.
fn names(args: &Map) -> BTreeSet<Named> {
    let renames = args.rename.iter().map(|rename| {
        let name = match rename {
            Rename::Prefix { from, .. } => Name::Prefix(from.clone()),
            Rename::Object { from, .. } => Name::Object(from.clone()),
            Rename::Member {
                definition, from, ..
            } => Name::Member(definition.clone(), from.clone()),
        };
        Named::new(RENAME, name)
    });
    let drops = args.drop.iter().map(|part| {
        let name = match part {
            Part::Object(name) => Name::Object(name.clone()),
            Part::Member(definition, member) => Name::Member(definition.clone(), member.clone()),
        };
        Named::new("--drop", name)
    });
    let of_type =
        |flag: &'static str| move |name: &String| Named::new(flag, Name::Type(name.clone()));
    let types = args.only_type.iter().map(of_type("--only-type"));
    let prefixed = args.only_resource_prefix.iter().map(|only| &only.kind);
    let prefixed = prefixed.map(of_type("--only-resource-prefix"));
    let redacted = args.redact.iter().map(of_type("--redact"));
    let all = renames.chain(drops).chain(types).chain(prefixed);
    all.chain(redacted).collect()
}

fn renames(flags: &[Rename]) -> Result<Renames, CommandError> {
    let (mut renames, mut seen) = (Renames::default(), HashSet::new());
    for rename in flags {
        let old = match rename {
            Rename::Prefix { from, to } => {
                renames.prefix(from, to);
                from.clone()
            }
            Rename::Object { from, to } => {
                renames.object(from, to);
                from.clone()
            }
            Rename::Member {
                definition,
                from,
                to,
            } => {
                renames.member(definition, from, to);
                format!("{definition}#{from}")
            }
        };
        if !seen.insert(old) {
            return Err(CommandError::usage(format!(
                "--rename {rename}: that already gets another name"
            )));
        }
    }
    Ok(renames)
}

fn removal(args: &Map) -> Removal {
    let mut removal = Removal {
        references: args.drop_references,
        ..Removal::default()
    };
    for part in &args.drop {
        match part {
            Part::Object(name) => removal.objects.insert(name.clone()),
            Part::Member(definition, member) => {
                let member = (definition.clone(), member.clone());
                removal.members.insert(member)
            }
        };
    }
    removal
}

fn only(args: &Map, removal: &Removal) -> Result<Option<Only>, CommandError> {
    let mut only = Only::default();
    let prefixed = args.only_resource_prefix.iter().map(|only| &only.kind);
    for name in args.only_type.iter().chain(prefixed) {
        if removal.objects.contains(name) {
            return Err(CommandError::usage(format!(
                "{name} is both kept and dropped"
            )));
        }
        if !only.has(name) {
            only.types.push(name.clone());
        }
    }
    for prefix in &args.only_resource_prefix {
        if args.only_type.contains(&prefix.kind) {
            let name = &prefix.kind;
            return Err(CommandError::usage(format!(
                "{name} is kept by --only-type and by --only-resource-prefix"
            )));
        }
        let prefixes = only.prefixes.entry(prefix.kind.clone()).or_default();
        prefixes.push(prefix.prefix.clone());
    }
    Ok((!only.types.is_empty()).then_some(only))
}

fn redaction(args: &Map) -> Result<Option<Redaction>, CommandError> {
    let Some(path) = &args.key_file else {
        return Ok(None);
    };
    Ok(Some(Redaction {
        types: args.redact.iter().cloned().collect(),
        contexts: !args.keep_contexts,
        redactor: Redactor::from_file(path)?,
    }))
}
