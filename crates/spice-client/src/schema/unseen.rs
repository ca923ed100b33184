//! What DiffSchema does not compare: type annotations of permissions, and `use` flags.
//!
//! Whether a server keeps these depends on how it stores schemas (measured, SpiceDB v1.56). As it is by
//! default, ReadSchema renders what is stored: no annotation, and no flag but those that the definitions
//! need. With `--experimental-schema-mode=read-new-write-new` it gives the text as it was written. So what
//! only one of two texts shows is no difference: the other server may not be able to keep it.

use std::collections::{BTreeMap, BTreeSet};

use super::text::declarations;
use spice_cli::display::few;

/// What both texts show and show otherwise, in words.
pub(super) fn difference(there: &str, text: &str) -> Option<String> {
    let (there, here) = (Shown::of(there), Shown::of(text));
    let mut named = Vec::new();
    if !there.flags.is_subset(&here.flags) && !here.flags.is_subset(&there.flags) {
        named.push("use flags".to_owned());
    }
    for (permission, types) in &here.annotations {
        if there
            .annotations
            .get(permission)
            .is_some_and(|others| others != types)
        {
            named.push(format!("type of permission {permission}"));
        }
    }
    (!named.is_empty()).then(|| few(named.into_iter()))
}

/// Whether a text shows anything of it.
pub(super) fn is_shown_in(text: &str) -> bool {
    let shown = Shown::of(text);
    !shown.flags.is_empty() || !shown.annotations.is_empty()
}

/// What a text shows of it.
#[derive(Default)]
struct Shown {
    flags: BTreeSet<String>,
    /// By definition and permission: the types, in any order.
    annotations: BTreeMap<String, BTreeSet<String>>,
}

impl Shown {
    fn of(text: &str) -> Self {
        let mut shown = Self::default();
        for tokens in declarations(text).into_values() {
            match tokens.as_slice() {
                [kind, flag, ..] if kind == "use" => {
                    shown.flags.insert(flag.clone());
                }
                [kind, name, body @ ..] if kind == "definition" || kind == "partial" => {
                    shown.annotate(name, body);
                }
                _ => {}
            }
        }
        shown
    }

    /// Notes what is between `permission view:` and the next `=`.
    fn annotate(&mut self, definition: &str, mut body: &[String]) {
        while let [_, rest @ ..] = body {
            if let [keyword, name, colon, types @ ..] = body
                && keyword == "permission"
                && colon == ":"
                && let Some(end) = types.iter().position(|token| token == "=")
            {
                let types = types[..end].split(|token| token == "|");
                self.annotations.insert(
                    format!("{definition}#{name}"),
                    types.map(<[String]>::concat).collect(),
                );
            }
            body = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::difference;

    /// As it is given by a server that keeps what was written, and by one that does not.
    const WRITTEN: &str = "use typechecking\nuse expiration\n\ndefinition user {}\n\n\
        // \"documents\"\ndefinition doc {\n\
        \trelation viewer: user | group#member\n\trelation permission: user\n\
        \t// permission view: nobody = nil\n\tpermission view: user | group#member = (viewer)\n\
        \tpermission edit = permission\n}\n\ndefinition group {\n\trelation member: user\n}\n";
    const RENDERED: &str = "// \"documents\"\ndefinition doc {\n\trelation viewer: user | group#member\n\
        \trelation permission: user\n\n\t// permission view: nobody = nil\n\tpermission view = viewer\n\
        \tpermission edit = permission\n}\n\ndefinition group {\n\trelation member: user\n}\n\ndefinition user {}\n";

    fn altered(from: &str, to: &str) -> String {
        let text = WRITTEN.replacen(from, to, 1);
        assert_ne!(text, WRITTEN, "{from}");
        text
    }

    #[test]
    fn two_renderings_of_a_schema_do_not_differ() {
        let others = [
            WRITTEN.to_owned(),
            RENDERED.to_owned(),
            altered("use typechecking\n", ""),
            altered(
                "use typechecking\nuse expiration",
                "use expiration use typechecking",
            ),
            altered(
                "view: user | group#member =",
                "view : group # member|user/* who */=",
            ),
            altered("view: user | group#member =", "view ="),
            altered("edit =", "edit: user ="),
            altered(
                "permission view: nobody = nil",
                "permission view: user = nil",
            ),
        ];
        for other in others {
            assert_eq!(difference(WRITTEN, &other), None, "{other}");
            assert_eq!(difference(&other, WRITTEN), None, "{other}");
        }
    }

    #[test]
    fn what_both_show_otherwise_is_named() {
        for (from, to, named) in [
            ("view: user |", "view: doc |", "type of permission doc#view"),
            (
                "view: user | group#member =",
                "view: user =",
                "type of permission doc#view",
            ),
            ("use typechecking", "use self", "use flags"),
        ] {
            let other = altered(from, to);
            assert_eq!(difference(WRITTEN, &other).as_deref(), Some(named));
            assert_eq!(difference(&other, WRITTEN).as_deref(), Some(named));
        }
    }
}
