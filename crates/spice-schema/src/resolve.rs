//! The members of a definition, those of its partials included.

use std::collections::{HashMap, HashSet};

use crate::Schema;
use crate::error::{MAX_PROBLEMS, Problem, Refused, Remedy};
use crate::tree::{Definition, Member, Name, Permission, Relation, Span};

/// The most steps of an analysis: a text of 4 MiB can ask for billions, by partials of partials or long
/// lists of types. A schema of 300 definitions takes some thousands.
const MAX_STEPS: u64 = 20_000_000;

/// A relation or permission.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Declared<'s> {
    Relation(&'s Relation),
    Permission(&'s Permission),
}

impl<'s> Declared<'s> {
    pub(crate) fn name(self) -> &'s Name {
        match self {
            Self::Relation(relation) => &relation.name,
            Self::Permission(permission) => &permission.name,
        }
    }

    pub(crate) fn span(self) -> Span {
        match self {
            Self::Relation(relation) => relation.span,
            Self::Permission(permission) => permission.span,
        }
    }
}

/// A member as one definition has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'s> {
    pub(crate) declared: Declared<'s>,
    /// The partial that it comes from.
    pub(crate) partial: Option<&'s str>,
}

/// The members of each definition, and the definitions of each partial.
#[derive(Debug)]
pub(crate) struct Resolved<'s> {
    members: HashMap<&'s str, HashMap<&'s str, Found<'s>>>,
    users: HashMap<&'s str, Vec<&'s str>>,
    steps: u64,
}

impl<'s> Resolved<'s> {
    /// # Errors
    ///
    /// A name that is declared twice, a partial that does not exist, or too much work.
    pub(crate) fn of(schema: &'s Schema) -> Result<Self, Refused> {
        let mut resolved = Self {
            members: HashMap::new(),
            users: HashMap::new(),
            steps: 0,
        };
        let mut problems = Vec::new();
        let mut problem = |name: &Name, message: String| {
            if problems.len() < MAX_PROBLEMS {
                let position = schema.position(name.span.start);
                problems.push(Problem {
                    position,
                    message,
                    remedy: Remedy::Unknown,
                });
            }
        };
        let mut names = HashSet::new();
        let partials = schema.partials.iter().map(|partial| &partial.name);
        let definitions = schema.definitions.iter().map(|found| &found.name);
        let caveats = schema.caveats.iter().map(|caveat| &caveat.name);
        for name in partials.chain(definitions).chain(caveats) {
            if !names.insert(name.text.as_str()) {
                problem(name, format!("{} is declared twice", name.text));
            }
        }
        let partials: HashMap<&str, &Definition> = schema
            .partials
            .iter()
            .map(|partial| (partial.name.text.as_str(), partial))
            .collect();
        for definition in &schema.definitions {
            let owner = definition.name.text.as_str();
            let mut members = HashMap::new();
            let mut visited = HashSet::new();
            let mut open = vec![(definition, None)];
            while let Some((part, partial)) = open.pop() {
                if let Some(partial) = partial {
                    resolved.users.entry(partial).or_default().push(owner);
                }
                for member in &part.members {
                    resolved.step(1)?;
                    let declared = match member {
                        Member::Relation(relation) => Declared::Relation(relation),
                        Member::Permission(permission) => Declared::Permission(permission),
                        Member::Include(include) => {
                            let name = include.name.text.as_str();
                            match partials.get(name) {
                                None => problem(&include.name, format!("no partial {name}")),
                                Some(found) if visited.insert(name) => {
                                    open.push((*found, Some(name)));
                                }
                                Some(_) => {}
                            }
                            continue;
                        }
                    };
                    let name = declared.name();
                    let found = Found { declared, partial };
                    if members.insert(name.text.as_str(), found).is_some() {
                        problem(name, format!("{owner}#{} is declared twice", name.text));
                    }
                }
            }
            resolved.members.insert(owner, members);
        }
        Refused::unless_empty(problems)?;
        Ok(resolved)
    }

    /// Counts work.
    pub(crate) fn step(&mut self, steps: usize) -> Result<(), Refused> {
        self.steps += steps as u64;
        match self.steps > MAX_STEPS {
            true => Err(too_large()),
            false => Ok(()),
        }
    }

    /// The members of a definition.
    pub(crate) fn members(&self, definition: &str) -> Option<&HashMap<&'s str, Found<'s>>> {
        self.members.get(definition)
    }

    /// A member of a definition.
    pub(crate) fn member(&self, definition: &str, member: &str) -> Option<Found<'s>> {
        self.members.get(definition)?.get(member).copied()
    }

    /// The definitions that have the members of a partial.
    pub(crate) fn users(&self, partial: &str) -> &[&'s str] {
        self.users.get(partial).map_or(&[], Vec::as_slice)
    }
}

fn too_large() -> Refused {
    let position = crate::Position { line: 1, column: 1 };
    Refused::one(
        position,
        format!("the schema takes more than {MAX_STEPS} steps to analyse"),
    )
}
