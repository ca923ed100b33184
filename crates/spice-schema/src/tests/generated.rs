//! A schema of 300 definitions, as large systems have them.

use std::fmt::Write as _;

use super::{parsed, renamed};
use crate::Schema;
use crate::tree::{Member, Operand, Subject};

const DEFINITIONS: usize = 300;

/// Each definition has relations to others, permissions with arrows to them, caveats and comments.
fn schema() -> String {
    let mut text = "use expiration\n\n".to_owned();
    for n in 0..20 {
        let _ = writeln!(
            text,
            "caveat crm/cav{n}(level int, \n\ttags list<string>) {{\n\tlevel > {n} && \"}}crm/cav1\" in tags\n}}\n"
        );
    }
    for n in 0..DEFINITIONS {
        let (a, b, c) = (n, (n * 7 + 1) % DEFINITIONS, (n * 13 + 5) % DEFINITIONS);
        let caveat = n % 20;
        let _ = writeln!(
            text,
            "/**\n * crm/def{a} is number {n}\n */\ndefinition crm/def{a} {{\n\
             \t// crm/def{b}\n\trelation parent{a}: crm/def{b} | crm/def{c}\n\
             \trelation viewer: crm/def{b} | crm/def{c}#viewer | crm/def{b}:* with crm/cav{caveat} | \
             crm/def{c} with expiration /* viewer */\n\
             \trelation owner: crm/def{c}#edit with crm/cav{caveat} and expiration\n\
             \tpermission edit = owner + parent{a}->edit\n\
             \tpermission view = (viewer + edit) - parent{a}.all(view)\n}}\n"
        );
    }
    text
}

/// Every name in its place.
fn names(schema: &Schema) -> Vec<String> {
    let mut names = Vec::new();
    for definition in schema.definitions() {
        names.push(definition.name.text.clone());
        for member in &definition.members {
            match member {
                Member::Include(include) => names.push(include.name.text.clone()),
                Member::Relation(relation) => {
                    names.push(relation.name.text.clone());
                    for reference in &relation.types {
                        names.push(reference.object.text.clone());
                        if let Subject::Members(name) = &reference.subject {
                            names.push(name.text.clone());
                        }
                        names.extend(reference.caveat.iter().map(|name| name.text.clone()));
                    }
                }
                Member::Permission(permission) => {
                    names.push(permission.name.text.clone());
                    for operand in &permission.operands {
                        match operand {
                            Operand::Nil | Operand::SelfReference => {}
                            Operand::Name(name) => names.push(name.text.clone()),
                            Operand::Arrow {
                                relation, target, ..
                            } => names.extend([relation.text.clone(), target.text.clone()]),
                        }
                    }
                }
            }
        }
    }
    names.extend(
        schema
            .caveats()
            .iter()
            .map(|caveat| caveat.name.text.clone()),
    );
    names
}

#[test]
fn prefix_of_300_definitions_is_renamed_and_back() {
    let text = schema();
    let there = renamed(&text, &["crm/=long/sales/"]).unwrap();
    assert_ne!(there, text);
    let expected: Vec<_> = names(&parsed(&text))
        .iter()
        .map(|name| name.replace("crm/", "long/sales/"))
        .collect();
    assert_eq!(names(&parsed(&there)), expected);
    assert_eq!(renamed(&there, &["long/sales/=crm/"]).unwrap(), text);
}

#[test]
fn relation_of_300_definitions_is_renamed_and_back() {
    let text = schema();
    let flags = |old: &str, new: &str| -> Vec<String> {
        let all = 0..DEFINITIONS;
        all.map(|n| format!("crm/def{n}#{old}={new}")).collect()
    };
    let rename = |text: &str, old: &str, new: &str| {
        let flags = flags(old, new);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        renamed(text, &flags)
    };
    let there = rename(&text, "view", "see").unwrap();
    let expected: Vec<_> = names(&parsed(&text))
        .into_iter()
        .map(|name| {
            if name == "view" {
                "see".to_owned()
            } else {
                name
            }
        })
        .collect();
    assert_eq!(names(&parsed(&there)), expected);
    assert_eq!(rename(&there, "see", "view").unwrap(), text);
    // Of one definition only: arrows reach others that keep the name.
    assert!(renamed(&text, &["crm/def1#view=see"]).is_err());
}
