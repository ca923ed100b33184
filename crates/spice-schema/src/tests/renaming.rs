use super::{assert_refused, parsed, renamed, renames};

const CRM: &str = "\
/** a person */
definition crm/user {}

caveat crm/at_work(now timestamp) {
\t// viewer of crm/doc
\tnow > timestamp('2026-01-01T00:00:00Z')
}

definition crm/folder {
\trelation viewer: crm/user   // crm/user
\tpermission view = viewer
}

definition crm/doc {
\trelation parent: crm/folder
\trelation viewer: crm/user | crm/user:* | crm/group#member with crm/at_work
\tpermission view = (viewer + parent->view) - nil
}

definition crm/group {
\trelation member: crm/user | crm/group#member
}

definition other {
\trelation doc: crm/doc#viewer|crm/doc#view
}
";

#[test]
fn prefix_changes_definitions_and_caveats_and_nothing_else() {
    let found = renamed(CRM, &["crm/=sales/"]).unwrap();
    let expected = CRM.replace("crm/", "sales/");
    // Comments are not names.
    let expected = expected.replace("viewer of sales/doc", "viewer of crm/doc");
    let expected = expected.replace("// sales/user", "// crm/user");
    assert_eq!(found, expected);
    let found = renamed(CRM, &["crm/="]).unwrap();
    assert!(found.contains("definition folder {") && found.contains("group#member with at_work"));
    let found = renamed("definition user {}\n", &["=org/"]).unwrap();
    assert_eq!(found, "definition org/user {}\n");
}

#[test]
fn longest_prefix_counts_and_a_name_of_its_own_before_it() {
    let flags = ["crm/=sales/", "crm/doc=file", "=all/"];
    let found = renamed(CRM, &flags).unwrap();
    for part in [
        "definition sales/user",
        "definition file {",
        "definition all/other",
        "file#viewer|file#view",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
}

#[test]
fn relation_changes_wherever_it_is_meant() {
    let flags = ["crm/doc#viewer=reader", "crm/doc=sales/file"];
    let found = renamed(CRM, &flags).unwrap();
    for part in [
        "relation reader: crm/user | crm/user:*",
        "permission view = (reader + parent->view)",
        "relation doc: sales/file#reader|sales/file#view",
        // That of another definition.
        "definition crm/folder {\n\trelation viewer: crm/user",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
}

#[test]
fn right_side_of_an_arrow_follows_the_definition_that_it_reaches() {
    let found = renamed(CRM, &["crm/folder#view=see"]).unwrap();
    assert!(found.contains("(viewer + parent->see)"), "{found}");
    assert!(found.contains("\tpermission see = viewer"), "{found}");
    assert!(found.contains("crm/doc#view\n"), "{found}");
}

const TWO_PARENTS: &str = "\
definition user {}
definition folder {
 relation viewer: user
}
definition doc {
 relation viewer: user
 relation reader: user
 relation parent: folder | doc
 permission view = parent.any(viewer)
}
";

#[test]
fn arrow_whose_targets_would_differ_is_refused() {
    assert_refused(
        renamed(TWO_PARENTS, &["folder#viewer=watcher"]),
        &["line 9", "folder#viewer", "doc#viewer", "watcher"],
    );
    let both = renamed(
        TWO_PARENTS,
        &["folder#viewer=watcher", "doc#viewer=watcher"],
    )
    .unwrap();
    assert!(both.contains("parent.any(watcher)"), "{both}");
    // Another relation of one target would get in the way.
    let one = TWO_PARENTS.replacen(" relation viewer: user\n}", " relation owner: user\n}", 1);
    assert_refused(
        renamed(&one, &["folder#owner=viewer"]),
        &["line 9", "would also reach folder#viewer"],
    );
    let reader = TWO_PARENTS.replace("any(viewer)", "any(reader)");
    assert_refused(
        renamed(&reader, &["folder#viewer=reader"]),
        &["would also reach folder#reader"],
    );
}

#[test]
fn names_that_would_become_one_are_refused() {
    let text = "definition user {}\ndefinition person {}\ncaveat c(a int) { a > 1 }\n\
                definition doc {\n relation viewer: user\n relation reader: person\n}\n";
    assert_refused(
        renamed(text, &["user=person"]),
        &["line 2", "user and person", "person"],
    );
    assert_refused(renamed(text, &["c=user"]), &["would both be called user"]);
    assert_refused(
        renamed(text, &["doc#viewer=reader"]),
        &["line 6", "doc#viewer and doc#reader"],
    );
    // Exchanged, they are two.
    let found = renamed(
        text,
        &[
            "user=person",
            "person=user",
            "doc#viewer=reader",
            "doc#reader=viewer",
        ],
    );
    let found = found.unwrap();
    assert!(
        found.contains("relation reader: person\n relation viewer: user"),
        "{found}"
    );
    let partial = "use partial\npartial shared {}\ndefinition user {}\n";
    assert_refused(renamed(partial, &["user=shared"]), &["shared"]);
    // A chain is two names: each is that of the input.
    let found = renamed(text, &["user=person", "person=robot"]).unwrap();
    assert!(
        found.starts_with("definition person {}\ndefinition robot {}\n"),
        "{found}"
    );
    assert!(
        found.contains("viewer: person\n relation reader: robot"),
        "{found}"
    );
    let prefixed = "definition crm/doc {}\ndefinition doc {}\ndefinition hrm/doc {}\n";
    assert_refused(
        renamed(prefixed, &["crm/="]),
        &["line 2", "crm/doc and doc", "be called doc"],
    );
    assert_refused(
        renamed(prefixed, &["crm/=all/", "hrm/=all/"]),
        &["line 3", "crm/doc and hrm/doc"],
    );
}

#[test]
fn name_that_no_server_accepts_is_refused() {
    let text = "use expiration\ndefinition user {}\ncaveat c(a int) { a > 1 }\n\
                definition doc {\n relation viewer: user with expiration\n}\n";
    for flag in [
        "user=relation",
        "user=org/permission",
        "user=expiration",
        "user=ab",
        "user=User",
        "doc#viewer=nil",
        "doc#viewer=and",
        "doc#viewer=a/b",
        "c=caveat",
    ] {
        assert_refused(renamed(text, &[flag]), &["accepts no such name"]);
    }
    for flag in ["c=d", "user=self", "doc#viewer=self"] {
        renamed(text, &[flag]).unwrap();
    }
}

const PARTIALS: &str = "\
use partial
use typechecking
partial shared {
 relation viewer: user | doc#viewer
 permission view: user = viewer + parent->view
}
definition user {}
definition doc {
 relation parent: doc
 ...shared
}
definition file {
 relation parent: file
 ...shared
}
";

#[test]
fn partial_changes_only_if_all_of_its_definitions_do() {
    assert_refused(
        renamed(PARTIALS, &["doc#viewer=reader"]),
        &["line 4", "in a partial", "reader", "file"],
    );
    let found = renamed(PARTIALS, &["doc#viewer=reader", "file#viewer=reader"]).unwrap();
    assert!(
        found.contains("relation reader: user | doc#reader\n"),
        "{found}"
    );
    assert!(
        found.contains("permission view: user = reader + parent->view"),
        "{found}"
    );
    assert_refused(
        renamed(PARTIALS, &["doc#view=see"]),
        &["line 5", "view is in a partial"],
    );
    let found = renamed(PARTIALS, &["doc#view=see", "file#view=see"]).unwrap();
    assert!(
        found.contains("permission see: user = viewer + parent->see"),
        "{found}"
    );
}

#[test]
fn annotation_takes_no_prefix() {
    let found = renamed(PARTIALS, &["user=person"]).unwrap();
    assert!(
        found.contains("permission view: person = viewer"),
        "{found}"
    );
    assert_refused(
        renamed(PARTIALS, &["user=org/user"]),
        &["line 5", "org/user", "no prefix"],
    );
}

#[test]
fn unknown_names_are_listed() {
    let schema = parsed(CRM);
    let unknown = |flags: &[&str]| renames(flags).unknown(&schema).unwrap();
    assert!(unknown(&["crm/=sales/", "crm/at_work=c", "crm/doc#view=see"]).is_empty());
    let found = unknown(&[
        "nosuch/=sales/",
        "user=person",
        "crm/doc#viewed=seen",
        "user#a_b=b_c",
    ]);
    assert_eq!(found, ["user", "nosuch/", "crm/doc#viewed", "user#a_b"]);
}

#[test]
fn name_with_spaces_around_its_slash_is_one() {
    let found = renamed("definition crm / doc {}\n", &["crm/doc=file"]).unwrap();
    assert_eq!(found, "definition file {}\n");
}

#[test]
fn contradictory_declarations_are_refused() {
    assert_refused(
        renamed("definition user {}\ndefinition user {}\n", &["a=b"]),
        &["line 2", "twice"],
    );
    let twice = "definition doc {\n relation a_b: doc\n permission a_b = nil\n}\n";
    assert_refused(renamed(twice, &["a=b"]), &["doc#a_b is declared twice"]);
    let missing = "use partial\ndefinition doc {\n ...shared\n}\n";
    assert_refused(renamed(missing, &["a=b"]), &["no partial shared"]);
}

#[test]
fn analysis_of_a_text_made_to_be_slow_ends() {
    // Each partial has all others; each definition has them all.
    let all: String = (0..400).map(|n| format!(" ...p{n}\n")).collect();
    let partials: String = (0..400)
        .map(|n| format!("partial p{n} {{\n{all}}}\n"))
        .collect();
    let definitions: String = (0..400)
        .map(|n| format!("definition d{n} {{\n{all}}}\n"))
        .collect();
    let text = format!("use partial\n{partials}{definitions}");
    assert_refused(renamed(&text, &["a=b"]), &["steps to analyse"]);
}
