use std::collections::BTreeSet;

use super::{assert_refused, parsed};
use crate::{Refused, Removal, Removed};

fn without(text: &str, parts: &[&str], references: bool) -> Result<Removed, Refused> {
    let mut removal = Removal {
        references,
        ..Removal::default()
    };
    for part in parts {
        match part.split_once('#') {
            Some((definition, member)) => {
                let member = (definition.to_owned(), member.to_owned());
                removal.members.insert(member)
            }
            None => removal.objects.insert((*part).to_owned()),
        };
    }
    let removed = parsed(text).without(&removal)?;
    parsed(&removed.text);
    Ok(removed)
}

fn only(text: &str, types: &[&str]) -> Result<String, Refused> {
    let types: BTreeSet<String> = types.iter().map(|&name| name.to_owned()).collect();
    let kept = parsed(text).only(&types)?;
    parsed(&kept);
    Ok(kept)
}

const TEXT: &str = "\
// The schema.

/** a person */
definition user {}

// An old one.
// It can go.
definition old {
\trelation viewer: user
} // never used

caveat at_work(now timestamp) {
\tnow > timestamp('2026-01-01T00:00:00Z')
}

definition doc {
\t// who owns it
\trelation owner: user
\trelation viewer: user | old | user:* with at_work // many
\trelation legacy: old

\tpermission view = viewer + owner
}
";

#[test]
fn removal_is_completed_by_what_refers_to_it() {
    let removable = |parts: &[&str], references: bool| {
        let removal = Removal {
            objects: parts
                .iter()
                .map(|&name| name.to_owned())
                .filter(|name| !name.contains('#'))
                .collect(),
            members: parts
                .iter()
                .filter_map(|name| name.split_once('#'))
                .map(|(definition, member)| (definition.to_owned(), member.to_owned()))
                .collect(),
            references,
        };
        let schema = parsed(TEXT);
        let more = schema.removable(&removal)?;
        schema.without(&more).unwrap();
        let members = more.members.into_iter();
        let members = members.map(|(definition, member)| format!("{definition}#{member}"));
        Some((members.collect::<Vec<_>>(), more.references))
    };
    let view = vec!["doc#view".to_owned(), "doc#viewer".to_owned()];
    assert_eq!(
        removable(&["doc#viewer"], false),
        Some((view.clone(), false))
    );
    assert_eq!(removable(&["doc#viewer"], true), Some((view, true)));
    assert_eq!(removable(&["old"], false), Some((Vec::new(), true)));
    let both = removable(&["user"], false);
    assert_eq!(both, Some((vec!["doc#view".to_owned()], true)));
}

#[test]
fn unreferenced_parts_go_with_their_comments_and_lines() {
    let text = TEXT
        .replace(" | old", "")
        .replace("\trelation legacy: old\n", "");
    let found = without(&text, &["old"], false).unwrap();
    let begin = text.find("// An old one").unwrap();
    let end = text.find("caveat at_work").unwrap();
    assert_eq!(found.text, [&text[..begin], &text[end..]].concat());
    let found = without(TEXT, &["doc#view"], false).unwrap();
    assert!(
        found.text.ends_with("\trelation legacy: old\n\n}\n"),
        "{}",
        found.text
    );
}

#[test]
fn part_that_is_referred_to_is_refused_with_the_list() {
    assert_refused(
        without(TEXT, &["old"], false),
        &[
            "line 19",
            "doc#viewer refers to old",
            "line 20",
            "doc#legacy refers to old",
        ],
    );
    assert_refused(
        without(TEXT, &["at_work"], false),
        &["doc#viewer refers to at_work"],
    );
    for references in [false, true] {
        assert_refused(
            without(TEXT, &["doc#owner"], references),
            &[
                "line 22, column 29",
                "permission doc#view refers to doc#owner",
            ],
        );
    }
}

#[test]
fn references_are_removed_from_lists_and_relations_without_types_with_them() {
    let found = without(TEXT, &["old"], true).unwrap();
    assert!(
        found
            .text
            .contains("relation viewer: user | user:* with at_work // many\n"),
        "{}",
        found.text
    );
    assert!(
        !found.text.contains("old") && !found.text.contains("legacy"),
        "{}",
        found.text
    );
    let lost: Vec<_> = found.lost.iter().map(|(a, b)| format!("{a}#{b}")).collect();
    assert_eq!(lost, ["doc#legacy"]);
    // A grant with a condition does not become one without.
    let found = without(TEXT, &["at_work"], true).unwrap();
    assert!(
        found.text.contains("relation viewer: user | old // many\n"),
        "{}",
        found.text
    );
}

#[test]
fn entries_of_lists_are_removed_wherever_they_are() {
    let text = |types: &str| {
        format!(
            "definition aaa {{}}\ndefinition bbb {{}}\ndefinition ccc {{}}\ndefinition doc {{\n relation viewer: {types}\n}}\n"
        )
    };
    for (types, expected) in [
        ("aaa | bbb", "bbb"),
        ("bbb | aaa", "bbb"),
        ("aaa | aaa:* | bbb", "bbb"),
        ("bbb | aaa | ccc | aaa:*", "bbb | ccc"),
        ("aaa|bbb|aaa|ccc", "bbb|ccc"),
        ("bbb | /* one */ aaa |\n ccc", "bbb |\n ccc"),
        ("aaa | // one\n bbb", "bbb"),
    ] {
        let found = without(&text(types), &["aaa"], true).unwrap();
        let expected = text(expected).replacen("definition aaa {}\n", "", 1);
        assert_eq!(found.text, expected, "{types}");
    }
}

#[test]
fn relation_without_types_that_is_still_needed_is_refused() {
    let used = TEXT.replace("viewer + owner", "viewer + owner + legacy");
    assert_refused(
        without(&used, &["old"], true),
        &["line 22", "permission doc#view refers to doc#legacy"],
    );
    let subject = TEXT.replace("relation owner: user", "relation owner: user | doc#legacy");
    assert_refused(
        without(&subject, &["old"], true),
        &[
            "line 18",
            "doc#owner refers to doc#legacy, which would have no types",
        ],
    );
}

const TREE: &str = "\
definition user {}
definition folder {
 relation viewer: user
 permission view = viewer
}
definition drive {
 relation viewer: user
 permission view = viewer
}
definition doc {
 relation parent: folder | drive
 relation viewer: user | folder#viewer
 permission view = viewer + parent->view
}
";

#[test]
fn arrow_that_would_reach_nothing_is_refused() {
    let found = without(TREE, &["drive"], true).unwrap();
    assert!(
        found.text.contains("relation parent: folder\n"),
        "{}",
        found.text
    );
    assert_refused(
        without(TREE, &["drive", "folder"], true),
        &["line 13", "permission doc#view refers to doc#parent"],
    );
    assert_refused(
        without(TREE, &["drive#view"], false),
        &["line 13", "follows parent->view to drive#view"],
    );
    without(TREE, &["drive#view"], true).unwrap();
    assert_refused(
        without(TREE, &["drive#view", "folder#view"], true),
        &["line 13", "nothing that parent takes would have view"],
    );
    let found = without(TREE, &["folder#view", "folder#viewer", "drive"], true);
    assert_refused(found, &["line 13"]);
}

/// The relationships to what is dropped are left out with it, and nobody asks there any more.
#[test]
fn arrow_to_all_subjects_is_refused_without_one_of_them() {
    let all = TREE.replace("parent->view", "parent.all(view)");
    let any = TREE.replace("parent->view", "parent.any(view)");
    without(&any, &["drive"], true).unwrap();
    assert_refused(
        without(&all, &["drive"], true),
        &[
            "line 13",
            "doc#view asks all of parent for view",
            "without drive",
        ],
    );
    without(&all, &["drive", "doc#view"], true).unwrap();
    without(&all, &["doc#viewer"], true).unwrap_err();
    // That of one that has it without a caveat.
    let caveated = all.replace("folder | drive", "folder | folder with at_work")
        + "caveat at_work(now timestamp) {\n now > timestamp('2026-01-01T00:00:00Z')\n}\n";
    assert_refused(
        without(&caveated, &["at_work"], true),
        &["line 13", "without at_work"],
    );
    // Whoever it leads to without the permission never agrees.
    without(&all, &["drive#view"], true).unwrap();
}

#[test]
fn references_of_removed_parts_do_not_matter() {
    let found = without(TREE, &["doc", "folder", "drive"], false).unwrap();
    assert_eq!(found.text, "definition user {}\n");
    let found = without(TREE, &["doc#view", "doc#parent", "drive"], false).unwrap();
    assert!(
        found
            .text
            .ends_with("definition doc {\n relation viewer: user | folder#viewer\n}\n")
    );
}

#[test]
fn statements_on_one_line_are_removed_without_their_neighbours() {
    let text = "definition user {} definition doc { relation a_a: user; relation b_b: user; permission c_c = b_b; } definition end {}\n";
    for (parts, expected) in [
        (
            &["doc#a_a"][..],
            "definition user {} definition doc { relation b_b: user; permission c_c = b_b; } definition end {}\n",
        ),
        (
            &["doc#c_c"],
            "definition user {} definition doc { relation a_a: user; relation b_b: user; } definition end {}\n",
        ),
        (&["doc"], "definition user {}  definition end {}\n"),
    ] {
        assert_eq!(without(text, parts, false).unwrap().text, expected);
    }
    let mixed = "definition doc { relation a_a: doc\n relation b_b: doc\n}\n";
    let found = without(mixed, &["doc#a_a"], false).unwrap();
    assert_eq!(found.text, "definition doc { \n relation b_b: doc\n}\n");
    let windows = "definition user {}\r\n// gone\r\ndefinition old {}\r\ndefinition doc {}\r\n";
    let found = without(windows, &["old"], false).unwrap();
    assert_eq!(found.text, "definition user {}\r\ndefinition doc {}\r\n");
}

#[test]
fn annotations_and_partials_are_kept_sound() {
    let text = "use partial\npartial shared {\n relation viewer: user | old\n}\n\
                definition user {}\ndefinition old {}\ndefinition doc {\n ...shared\n \
                permission view: user | old = viewer\n}\n";
    assert_refused(
        without(text, &["old"], false),
        &[
            "line 3",
            "line 9",
            "the annotation of permission doc#view names old",
        ],
    );
    let found = without(text, &["old"], true).unwrap();
    assert!(
        found.text.contains("relation viewer: user\n")
            && found.text.contains("view: user = viewer")
    );
    assert_refused(
        without(text, &["doc#viewer"], true),
        &["declared in the partial shared"],
    );
    assert_refused(
        without(text, &["old", "user"], true),
        &["would have no types"],
    );
}

#[test]
fn only_what_is_needed_is_kept() {
    let text = format!(
        "use partial\n{TREE}caveat used(a int) {{ a > 1 }}\ncaveat unused(a int) {{ a > 1 }}\n\
         partial shared {{\n relation team: group with used\n}}\npartial none {{}}\n\
         definition group {{\n ...shared\n}}\ndefinition alone {{}}\n"
    );
    let found = only(&text, &["folder"]).unwrap();
    assert_eq!(parsed(&found).definitions().len(), 2, "{found}");
    assert!(
        found.starts_with("use partial\ndefinition user {}\ndefinition folder {"),
        "{found}"
    );
    let found = only(&text, &["doc"]).unwrap();
    assert_eq!(parsed(&found).definitions().len(), 4, "{found}");
    assert!(parsed(&found).caveats().is_empty(), "{found}");
    let found = only(&text, &["group"]).unwrap();
    let kept = parsed(&found);
    assert_eq!(
        (kept.definitions().len(), kept.partials().len()),
        (1, 1),
        "{found}"
    );
    assert_eq!(kept.caveats()[0].name.text, "used");
    assert_refused(only(&text, &["nosuch"]), &["no definition nosuch"]);
    let all = ["user", "folder", "drive", "doc"];
    assert_eq!(only(TREE, &all).unwrap(), TREE);
}

#[test]
fn unknown_names_are_listed() {
    let removal = Removal {
        objects: BTreeSet::from(["user".to_owned(), "nosuch".to_owned()]),
        members: BTreeSet::from([("doc".to_owned(), "seen".to_owned())]),
        references: false,
    };
    assert_eq!(
        removal.unknown(&parsed(TREE)).unwrap(),
        ["nosuch", "doc#seen"]
    );
}
