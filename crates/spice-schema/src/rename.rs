//! Other names for definitions, caveats, relations and permissions.
//!
//! A change of names must not change what the schema means. The right side of an arrow is a name that
//! several definitions may have: all of them have to get the same new one, and no other definition that the
//! arrow reaches may have it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use crate::edit::Edits;
use crate::error::{MAX_PROBLEMS, Problem, Refused, Remedy};
use crate::names::{
    CAVEAT_RULE, DEFINITION_RULE, RELATION_RULE, is_caveat, is_definition, is_keyword, is_relation,
};
use crate::resolve::{Declared, Resolved};
use crate::tree::{Definition, Member, Name, Operand, Span, Subject, TypeReference};
use crate::{Schema, SyntaxError};

/// New names, by the old ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renames {
    prefixes: BTreeMap<String, String>,
    objects: BTreeMap<String, String>,
    members: BTreeMap<String, BTreeMap<String, String>>,
}

impl Renames {
    /// Another prefix for all definitions and caveats that have this one. Of several the longest counts,
    /// and a name of its own before any. Both end in a slash, or are empty.
    pub fn prefix(&mut self, from: impl Into<String>, to: impl Into<String>) {
        self.prefixes.insert(from.into(), to.into());
    }

    /// Another name for a definition or caveat.
    pub fn object(&mut self, from: impl Into<String>, to: impl Into<String>) {
        self.objects.insert(from.into(), to.into());
    }

    /// Another name for a relation or permission of a definition, which is named as it was before.
    pub fn member(
        &mut self,
        definition: impl Into<String>,
        from: impl Into<String>,
        to: impl Into<String>,
    ) {
        let members = self.members.entry(definition.into()).or_default();
        members.insert(from.into(), to.into());
    }

    /// Whether nothing gets another name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.objects.is_empty() && self.members.is_empty()
    }

    /// The new name of a definition or caveat.
    #[must_use]
    pub fn of_object<'a>(&'a self, name: &'a str) -> Cow<'a, str> {
        if let Some(new) = self.objects.get(name) {
            return Cow::Borrowed(new);
        }
        let prefixes = self.prefixes.iter();
        let matching = prefixes.filter_map(|(from, to)| Some((to, name.strip_prefix(&**from)?)));
        match matching.min_by_key(|(_, rest)| rest.len()) {
            Some((to, rest)) => Cow::Owned(format!("{to}{rest}")),
            None => Cow::Borrowed(name),
        }
    }

    /// The new name of a relation or permission. `definition` is the old name.
    #[must_use]
    pub fn of_member<'a>(&'a self, definition: &str, member: &'a str) -> &'a str {
        let members = self.members.get(definition);
        members
            .and_then(|members| members.get(member))
            .map_or(member, String::as_str)
    }

    /// What these name and a schema does not have: `name`, `prefix/` or `name#member`.
    ///
    /// # Errors
    ///
    /// As [`Schema::rename`].
    pub fn unknown(&self, schema: &Schema) -> Result<Vec<String>, Refused> {
        let resolved = Resolved::of(schema)?;
        let definitions = schema.definitions.iter().map(|found| &*found.name.text);
        let caveats = schema.caveats.iter().map(|found| &*found.name.text);
        let names: Vec<&str> = definitions.chain(caveats).collect();
        let objects = self.objects.keys();
        let objects = objects.filter(|name| !names.contains(&name.as_str()));
        let prefixes = self.prefixes.keys();
        let prefixes =
            prefixes.filter(|prefix| !names.iter().any(|name| name.starts_with(&**prefix)));
        let mut unknown: Vec<String> = objects.chain(prefixes).cloned().collect();
        for (definition, members) in &self.members {
            let missing = members.keys();
            let missing = missing.filter(|name| resolved.member(definition, name).is_none());
            unknown.extend(missing.map(|name| format!("{definition}#{name}")));
        }
        Ok(unknown)
    }
}

impl Schema {
    /// The text with other names. Names in comments and in expressions of caveats stay as they are.
    ///
    /// # Errors
    ///
    /// Every place that forbids it: a name that SpiceDB does not accept, two names that would become one,
    /// an arrow or a partial whose names would no longer agree.
    pub fn rename(&self, renames: &Renames) -> Result<String, Refused> {
        let mut renamer = Renamer {
            schema: self,
            resolved: Resolved::of(self)?,
            renames,
            edits: Edits::default(),
            problems: Vec::new(),
        };
        renamer.declarations();
        for definition in &self.definitions {
            let owner = definition.name.text.as_str();
            renamer.object(&definition.name);
            renamer.members(definition, &[owner])?;
        }
        for partial in &self.partials {
            let owners = renamer.resolved.users(&partial.name.text).to_vec();
            renamer.members(partial, &owners)?;
        }
        for caveat in &self.caveats {
            renamer.object(&caveat.name);
        }
        let Renamer {
            edits, problems, ..
        } = renamer;
        Refused::unless_empty(problems)?;
        let text = edits.apply(&self.text);
        // What was written is read again: an error here is one of this crate.
        match Self::parse(text) {
            Ok(schema) => Ok(schema.text),
            Err(SyntaxError { position, message }) => Err(Refused::one(
                position,
                format!("the renamed schema is not understood: {message}"),
            )),
        }
    }
}

struct Renamer<'s> {
    schema: &'s Schema,
    resolved: Resolved<'s>,
    renames: &'s Renames,
    edits: Edits,
    problems: Vec<Problem>,
}

impl<'s> Renamer<'s> {
    fn problem(&mut self, span: Span, message: String) {
        self.problem_with(span, message, Remedy::Unknown);
    }

    fn problem_with(&mut self, span: Span, message: String, remedy: Remedy) {
        if self.problems.len() < MAX_PROBLEMS {
            let position = self.schema.position(span.start);
            self.problems.push(Problem {
                position,
                message,
                remedy,
            });
        }
    }

    /// Whether each new name is a good one, and the only one of its kind.
    fn declarations(&mut self) {
        let schema = self.schema;
        let mut taken: HashMap<String, &str> = HashMap::new();
        for partial in &schema.partials {
            taken.insert(partial.name.text.clone(), &partial.name.text);
        }
        let definitions = schema.definitions.iter().map(|found| (&found.name, true));
        let caveats = schema.caveats.iter().map(|found| (&found.name, false));
        for (name, is_of_objects) in definitions.chain(caveats) {
            let new = self.renames.of_object(&name.text);
            let is_good = match is_of_objects {
                true => is_definition(&new),
                false => is_caveat(&new),
            };
            let rule = match is_of_objects {
                true => DEFINITION_RULE,
                false => CAVEAT_RULE,
            };
            if *new != name.text {
                self.new_name(name.span, &name.text, &new, is_good, rule);
            }
            if let Some(other) = taken.insert(new.clone().into_owned(), &name.text) {
                self.problem_with(
                    name.span,
                    format!("{other} and {} would both be called {new}", name.text),
                    Remedy::OtherName,
                );
            }
        }
        for definition in &schema.definitions {
            self.member_names(&definition.name.text);
        }
    }

    fn member_names(&mut self, owner: &str) {
        let renames = self.renames;
        let Some(new_names) = renames.members.get(owner) else {
            return;
        };
        let members = self.resolved.members(owner).into_iter();
        let members = members.flat_map(|members| members.values());
        let mut names: Vec<&'s Name> = members.map(|found| found.declared.name()).collect();
        names.sort_by_key(|name| name.span);
        let mut taken: HashMap<&str, &str> = HashMap::new();
        for name in names {
            let old = name.text.as_str();
            let new = new_names.get(old).map_or(old, String::as_str);
            if new != old {
                let is_good = is_relation(new);
                self.new_name(
                    name.span,
                    &format!("{owner}#{old}"),
                    new,
                    is_good,
                    RELATION_RULE,
                );
            }
            if let Some(other) = taken.insert(new, old) {
                self.problem_with(
                    name.span,
                    format!("{owner}#{other} and {owner}#{old} would both be called {new}"),
                    Remedy::OtherName,
                );
            }
        }
    }

    /// Whether SpiceDB accepts a new name.
    fn new_name(&mut self, span: Span, old: &str, new: &str, is_good: bool, rule: &'static str) {
        let refused = format!("{old} cannot be called {new}: SpiceDB accepts no such name");
        if !is_good {
            self.problem_with(span, refused, Remedy::Rule(rule));
        } else if let Some(word) = new.split('/').find(|part| self.is_keyword(part)) {
            self.problem(span, format!("{refused}: {word} is a keyword"));
        }
    }

    fn is_keyword(&self, word: &str) -> bool {
        let uses = &self.schema.uses;
        is_keyword(word, |flag| uses.iter().any(|used| used.flag == flag))
    }

    /// The statements of a definition or partial. `owners` are the definitions that have them.
    fn members(&mut self, part: &'s Definition, owners: &[&'s str]) -> Result<(), Refused> {
        for member in &part.members {
            match member {
                Member::Include(_) => {}
                Member::Relation(relation) => {
                    self.own(&relation.name, owners)?;
                    for reference in &relation.types {
                        self.type_reference(reference);
                    }
                }
                Member::Permission(permission) => {
                    self.own(&permission.name, owners)?;
                    for name in &permission.annotation {
                        self.annotated(name);
                    }
                    for operand in &permission.operands {
                        self.operand(operand, owners)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn operand(&mut self, operand: &'s Operand, owners: &[&'s str]) -> Result<(), Refused> {
        match operand {
            Operand::Nil | Operand::SelfReference => Ok(()),
            Operand::Name(name) => self.own(name, owners),
            Operand::Arrow {
                relation, target, ..
            } => {
                self.own(relation, owners)?;
                let mut agreed = None;
                for &owner in owners {
                    let new = self.target(owner, relation, target)?;
                    self.agree(target, owner, new, &mut agreed);
                }
                self.replace(target, agreed);
                Ok(())
            }
        }
    }

    /// A name of the definition in which it is, or of each that has its partial.
    fn own(&mut self, name: &'s Name, owners: &[&'s str]) -> Result<(), Refused> {
        self.resolved.step(owners.len())?;
        let renames = self.renames;
        let mut agreed = None;
        for &owner in owners {
            let new = match self.resolved.member(owner, &name.text) {
                Some(_) => renames.of_member(owner, &name.text),
                None => name.text.as_str(),
            };
            self.agree(name, owner, new, &mut agreed);
        }
        self.replace(name, agreed);
        Ok(())
    }

    /// Notes the new name of one owner: all must have the same.
    fn agree(
        &mut self,
        name: &Name,
        owner: &'s str,
        new: &'s str,
        agreed: &mut Option<(&'s str, &'s str)>,
    ) {
        let (other, agreed) = *agreed.get_or_insert((owner, new));
        if agreed != new {
            let old = &name.text;
            self.problem(
                name.span,
                format!(
                    "{old} is in a partial, and would be called {agreed} in {other} and {new} in {owner}"
                ),
            );
        }
    }

    fn replace(&mut self, name: &Name, agreed: Option<(&str, &str)>) {
        if let Some((_, new)) = agreed
            && new != name.text
        {
            self.edits.replace(name.span, new);
        }
    }

    /// The new name on the right of an arrow.
    fn target(
        &mut self,
        owner: &str,
        relation: &'s Name,
        target: &'s Name,
    ) -> Result<&'s str, Refused> {
        let (renames, old) = (self.renames, target.text.as_str());
        let found = self.resolved.member(owner, &relation.text);
        let Some(Declared::Relation(parents)) = found.map(|found| found.declared) else {
            let relation_name = &relation.text;
            self.problem(
                relation.span,
                format!("an arrow from {owner}#{relation_name}, which is no relation"),
            );
            return Ok(old);
        };
        self.resolved.step(parents.types.len())?;
        let reached = || parents.types.iter().map(|found| found.object.text.as_str());
        let mut agreed: Option<(&str, &'s str)> = None;
        for object in reached() {
            if self.resolved.member(object, old).is_none() {
                continue;
            }
            let new = renames.of_member(object, old);
            let (other, first) = *agreed.get_or_insert((object, new));
            if first != new {
                self.problem(
                    target.span,
                    format!(
                        "this arrow reaches {other}#{old} and {object}#{old}, which would be called \
                         {first} and {new}: give both the same name"
                    ),
                );
            }
        }
        let new = agreed.map_or(old, |(_, new)| new);
        for object in reached() {
            if self.resolved.member(object, old).is_some() {
                continue;
            }
            let Some(members) = self.resolved.members(object) else {
                continue;
            };
            let renamed = renames.members.get(object).into_iter().flatten();
            let mut renamed = renamed.filter(|(_, to)| *to == new);
            let gained = renamed.find(|(from, _)| members.contains_key(from.as_str()));
            let is_kept = members.contains_key(new) && renames.of_member(object, new) == new;
            if gained.is_some() || is_kept {
                self.problem(
                    target.span,
                    format!("this arrow, called {new}, would also reach {object}#{new}"),
                );
            }
        }
        Ok(new)
    }

    fn type_reference(&mut self, reference: &'s TypeReference) {
        self.object(&reference.object);
        if let Subject::Members(name) = &reference.subject {
            let object = &reference.object.text;
            if self.resolved.member(object, &name.text).is_some() {
                let new = self.renames.of_member(object, &name.text);
                self.replace(name, Some(("", new)));
            }
        }
        if let Some(caveat) = &reference.caveat {
            self.object(caveat);
        }
    }

    fn object(&mut self, name: &Name) {
        let new = self.renames.of_object(&name.text);
        if *new != name.text {
            self.edits.replace(name.span, &new);
        }
    }

    fn annotated(&mut self, name: &'s Name) {
        let new = self.renames.of_object(&name.text);
        if new.contains('/') && *new != name.text {
            self.problem(
                name.span,
                format!("the annotation of a permission cannot name {new}: SpiceDB reads no prefix there"),
            );
        }
        self.object(name);
    }
}
