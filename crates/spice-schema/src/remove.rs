//! A schema without some of its definitions, caveats, relations and permissions.
//!
//! A part that something refers to is not removed, unless references are to be removed as well. Then a
//! relation loses the types that are gone. One that loses all of its types is removed itself, if
//! nothing refers to it. An expression is never changed: what it would mean without a part is for a person
//! to decide.

use std::collections::BTreeSet;

use crate::Schema;
use crate::edit::Edits;
use crate::error::{MAX_PROBLEMS, Problem, Refused, Remedy};
use crate::layout::extent;
use crate::removal::{Removal, Removed};
use crate::resolve::{Declared, Found, Resolved};
use crate::tree::{
    Function, Member, Name, Operand, Permission, Relation, Span, Subject, TypeReference,
};

impl Schema {
    /// What has to be removed as well, and whether from the types of relations, where a removal is refused.
    /// Parts that refer to what is gone are added until nothing does.
    #[must_use]
    pub fn removable(&self, removal: &Removal) -> Option<Removal> {
        /// A permission that refers to a permission that refers to ...
        const ROUNDS: usize = 20;
        let with_references = Removal {
            references: true,
            ..removal.clone()
        };
        if self.without(&with_references).is_ok() {
            return Some(with_references);
        }
        [removal.clone(), with_references]
            .into_iter()
            .find_map(|mut more| {
                for _ in 0..ROUNDS {
                    let Err(refused) = self.without(&more) else {
                        return Some(more);
                    };
                    for problem in refused.problems {
                        match problem.remedy {
                            Remedy::Remove { definition, member } => {
                                more.members.insert((definition, member));
                            }
                            _ => return None,
                        }
                    }
                }
                None
            })
    }

    /// The text without some of its parts. Names that it does not have are ignored.
    ///
    /// # Errors
    ///
    /// Every place that still refers to a removed part.
    pub fn without(&self, removal: &Removal) -> Result<Removed, Refused> {
        let mut remover = Remover {
            schema: self,
            resolved: Resolved::of(self)?,
            removal,
            lost: BTreeSet::new(),
            problems: Vec::new(),
        };
        remover.find_lost()?;
        remover.check()?;
        let Remover { lost, problems, .. } = &remover;
        Refused::unless_empty(problems.clone())?;
        let (text, lost) = (remover.edits().apply(&self.text), lost.clone());
        Ok(Removed { text, lost })
    }
}

struct Remover<'s> {
    schema: &'s Schema,
    resolved: Resolved<'s>,
    removal: &'s Removal,
    /// Relations without types.
    lost: BTreeSet<(String, String)>,
    problems: Vec<Problem>,
}

impl<'s> Remover<'s> {
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

    fn is_object_gone(&self, name: &Name) -> bool {
        self.removal.objects.contains(&name.text)
    }

    fn is_member_gone(&self, definition: &str, member: &str) -> bool {
        let key = (definition.to_owned(), member.to_owned());
        self.removal.members.contains(&key) || self.lost.contains(&key)
    }

    /// What of a type is gone, for messages. A type of a relation that is lost is not: that is an error.
    fn gone(&self, reference: &TypeReference) -> Option<String> {
        let object = &reference.object.text;
        if self.removal.objects.contains(object) {
            return Some(object.clone());
        }
        if let Some(caveat) = &reference.caveat
            && self.is_object_gone(caveat)
        {
            return Some(caveat.text.clone());
        }
        match &reference.subject {
            Subject::Members(name) => {
                let key = (object.clone(), name.text.clone());
                let is_gone = self.removal.members.contains(&key);
                is_gone.then(|| format!("{object}#{}", name.text))
            }
            _ => None,
        }
    }

    /// The relations, own or of partials, that remain: each with its definitions, and whether it is in a
    /// partial.
    fn relations(&self) -> Vec<(&'s Relation, Vec<&'s str>, bool)> {
        let schema = self.schema;
        let definitions = schema.definitions.iter();
        let definitions = definitions.filter(|found| !self.is_object_gone(&found.name));
        let own = definitions.map(|found| (found, vec![found.name.text.as_str()], false));
        let partials = schema.partials.iter();
        let shared = partials.map(|found| {
            let users = self.resolved.users(&found.name.text).to_vec();
            (found, users, true)
        });
        let mut relations = Vec::new();
        for (part, owners, is_shared) in own.chain(shared) {
            for member in &part.members {
                if let Member::Relation(relation) = member {
                    let is_removed = !is_shared && self.is_removed(owners[0], &relation.name);
                    if !is_removed {
                        relations.push((relation, owners.clone(), is_shared));
                    }
                }
            }
        }
        relations
    }

    fn is_removed(&self, owner: &str, name: &Name) -> bool {
        let key = (owner.to_owned(), name.text.clone());
        self.removal.members.contains(&key)
    }

    fn find_lost(&mut self) -> Result<(), Refused> {
        for (relation, owners, is_shared) in self.relations() {
            self.resolved.step(relation.types.len())?;
            let gone: Vec<_> = relation
                .types
                .iter()
                .filter_map(|reference| Some((reference, self.gone(reference)?)))
                .collect();
            let owner = owners.first().copied().unwrap_or_default();
            let name = &relation.name.text;
            for (reference, what) in &gone {
                if !self.removal.references {
                    self.problem(
                        reference.span,
                        format!("relation {owner}#{name} refers to {what}"),
                    );
                }
            }
            if gone.len() < relation.types.len() {
                continue;
            }
            if is_shared {
                self.problem(
                    relation.span,
                    format!("relation {name} is in a partial, and would have no types"),
                );
            } else {
                self.lost.insert((owner.to_owned(), name.clone()));
            }
        }
        Ok(())
    }

    /// Whether anything that remains refers to what is gone.
    fn check(&mut self) -> Result<(), Refused> {
        for (definition, member) in &self.removal.members {
            if let Some(Found {
                declared,
                partial: Some(partial),
            }) = self.resolved.member(definition, member)
            {
                self.problem(
                    declared.span(),
                    format!("{definition}#{member} is declared in the partial {partial}: it stays"),
                );
            }
        }
        for (relation, owners, _) in self.relations() {
            let owner = owners.first().copied().unwrap_or_default();
            if self.is_member_gone(owner, &relation.name.text) {
                continue;
            }
            for reference in &relation.types {
                if let Subject::Members(name) = &reference.subject {
                    let key = (reference.object.text.clone(), name.text.clone());
                    if self.lost.contains(&key) && !self.is_object_gone(&reference.object) {
                        let (relation, (definition, lost)) = (&relation.name.text, key);
                        self.problem_with(
                            reference.span,
                            format!(
                                "relation {owner}#{relation} refers to {definition}#{lost}, which would have \
                                 no types"
                            ),
                            remove(owner, relation),
                        );
                    }
                }
            }
        }
        for definition in &self.schema.definitions {
            if self.is_object_gone(&definition.name) {
                continue;
            }
            let owner = definition.name.text.as_str();
            let members = self.resolved.members(owner).into_iter();
            let members: Vec<_> = members.flat_map(|found| found.values().copied()).collect();
            for found in members {
                if let Declared::Permission(permission) = found.declared
                    && !self.is_member_gone(owner, &permission.name.text)
                {
                    self.permission(owner, permission)?;
                }
            }
        }
        Ok(())
    }

    fn permission(&mut self, owner: &str, permission: &'s Permission) -> Result<(), Refused> {
        let name = &permission.name.text;
        let gone = |name: &&Name| self.removal.objects.contains(&name.text);
        let gone: Vec<&Name> = permission.annotation.iter().filter(gone).collect();
        if !gone.is_empty()
            && (!self.removal.references || gone.len() == permission.annotation.len())
        {
            let what = &gone[0].text;
            self.problem_with(
                gone[0].span,
                format!("the annotation of permission {owner}#{name} names {what}"),
                remove(owner, name),
            );
        }
        for operand in &permission.operands {
            let (own, target) = match operand {
                Operand::Nil | Operand::SelfReference => continue,
                Operand::Name(own) => (own, None),
                Operand::Arrow {
                    relation,
                    target,
                    function,
                } => (relation, Some((target, *function))),
            };
            if self.is_member_gone(owner, &own.text) {
                let what = &own.text;
                self.problem_with(
                    own.span,
                    format!("permission {owner}#{name} refers to {owner}#{what}"),
                    remove(owner, name),
                );
            } else if let Some((target, function)) = target {
                let types = self.types_of(owner, own)?;
                if function == Some(Function::All) {
                    self.all_of(owner, name, own, target, types);
                }
                self.arrow(owner, name, own, target, types);
            }
        }
        Ok(())
    }

    /// The types of a relation; none of what is no relation.
    fn types_of(&mut self, owner: &str, relation: &Name) -> Result<&'s [TypeReference], Refused> {
        let found = self.resolved.member(owner, &relation.text);
        let Some(Declared::Relation(found)) = found.map(|found| found.declared) else {
            return Ok(&[]);
        };
        self.resolved.step(found.types.len())?;
        Ok(&found.types)
    }

    /// Of `parent.all(view)` fewer subjects would have to agree without a type of the relation.
    fn all_of(
        &mut self,
        owner: &str,
        permission: &str,
        relation: &Name,
        target: &Name,
        types: &[TypeReference],
    ) {
        let gone = types.iter().find_map(|reference| self.gone(reference));
        if let Some(gone) = gone {
            let (left, right) = (&relation.text, &target.text);
            self.problem_with(
                target.span,
                format!(
                    "permission {owner}#{permission} asks all of {left} for {right}, and fewer would be left to \
                     agree without {gone}"
                ),
                remove(owner, permission),
            );
        }
    }

    fn arrow(
        &mut self,
        owner: &str,
        permission: &str,
        relation: &Name,
        target: &Name,
        types: &[TypeReference],
    ) {
        let (mut before, mut after, mut cut) = (0, 0, None);
        for reference in types {
            let object = reference.object.text.as_str();
            if self.resolved.member(object, &target.text).is_none() {
                continue;
            }
            before += 1;
            if self.is_member_gone(object, &target.text) {
                cut = Some(object);
            } else if self.gone(reference).is_none() {
                after += 1;
            }
        }
        let (left, right) = (&relation.text, &target.text);
        if before > 0 && after == 0 {
            self.problem_with(
                target.span,
                format!(
                    "permission {owner}#{permission} follows {left}->{right}, and nothing that {left} takes \
                     would have {right}"
                ),
                remove(owner, permission),
            );
        } else if let Some(object) = cut.filter(|_| !self.removal.references) {
            self.problem_with(
                target.span,
                format!(
                    "permission {owner}#{permission} follows {left}->{right} to {object}#{right}"
                ),
                remove(owner, permission),
            );
        }
    }

    fn edits(&self) -> Edits {
        let (mut edits, schema) = (Edits::default(), self.schema);
        let mut remove = |span: Span| edits.remove(extent(&schema.text, &schema.comments, span));
        let definitions = schema
            .definitions
            .iter()
            .map(|found| (&found.name, found.span));
        let caveats = schema.caveats.iter().map(|found| (&found.name, found.span));
        for (name, span) in definitions.chain(caveats) {
            if self.is_object_gone(name) {
                remove(span);
            }
        }
        for definition in &schema.definitions {
            for member in &definition.members {
                let (name, span) = match member {
                    Member::Relation(relation) => (&relation.name, relation.span),
                    Member::Permission(permission) => (&permission.name, permission.span),
                    Member::Include(_) => continue,
                };
                if self.is_member_gone(&definition.name.text, &name.text) {
                    remove(span);
                }
            }
        }
        for (relation, owners, _) in self.relations() {
            let owner = owners.first().copied().unwrap_or_default();
            if !self.is_member_gone(owner, &relation.name.text) {
                let types = relation.types.iter();
                let types = types.map(|found| (found.span, self.gone(found).is_some()));
                remove_from_list(&mut edits, types.collect());
            }
        }
        for part in schema.definitions.iter().chain(&schema.partials) {
            for member in &part.members {
                if let Member::Permission(permission) = member {
                    let names = permission.annotation.iter();
                    let names = names.map(|name| (name.span, self.is_object_gone(name)));
                    remove_from_list(&mut edits, names.collect());
                }
            }
        }
        edits
    }
}

fn remove(definition: &str, member: &str) -> Remedy {
    Remedy::Remove {
        definition: definition.to_owned(),
        member: member.to_owned(),
    }
}

/// Removes entries of a list, each with the sign that separates it from one that stays.
fn remove_from_list(edits: &mut Edits, entries: Vec<(Span, bool)>) {
    let mut kept = None;
    let starts = entries.iter().skip(1).map(|(span, _)| span.start);
    let starts: Vec<usize> = starts.chain([0]).collect();
    for ((span, is_gone), next) in entries.into_iter().zip(starts) {
        if !is_gone {
            kept = Some(span.end);
            continue;
        }
        let gone = match kept {
            Some(start) => Span {
                start,
                end: span.end,
            },
            None => Span {
                start: span.start,
                end: next.max(span.end),
            },
        };
        edits.remove(gone);
        kept = kept.map(|_| span.end);
    }
}
