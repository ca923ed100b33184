//! What a server accepts is understood. Its renamed form is accepted as well, and the server renders it as
//! the renamed form of what it renders of the first one.

use authzed::Client;
use authzed::v1::{Consistency, ReflectSchemaResponse};

use super::{map, schema_of, stream_with};
use crate::support::spicedb::{Datastore, Server};
use crate::support::{Random, figure, repeat, root};
use crate::watch::client;

/// The schema of a server that was given this text; `None` where it refuses it.
async fn rendered(server: &Client, text: &str) -> Option<String> {
    // A caveat of the schema before keeps its parameters.
    server
        .write_schema("definition unrelated {}")
        .await
        .unwrap();
    server.write_schema(text).await.ok()?;
    Some(server.read_schema().await.unwrap().unwrap().text)
}

async fn reflected(server: &Client) -> ReflectSchemaResponse {
    let newest = Consistency::fully_consistent();
    let mut found = server.reflect_schema(newest).await.unwrap();
    found.read_at = None;
    found
}

/// What a text becomes; else why it is refused.
fn mapped(text: &str, flags: &[String]) -> Result<String, String> {
    let finished = map(&[]).args(flags).input(stream_with(text)).run();
    match finished.code() {
        Some(0) => Ok(schema_of(&finished)),
        _ => Err(finished.stderr),
    }
}

fn rename(from: &str, to: &str) -> [String; 2] {
    ["--rename".to_owned(), format!("{from}={to}")]
}

/// A name with an end that none has, where there is room for it.
fn longer(name: &str) -> Option<String> {
    let has_room = name.rsplit('/').next().is_some_and(|last| last.len() < 60);
    has_room.then(|| format!("{name}_zq"))
}

/// Each relation and permission, or each definition and caveat, with a longer name.
fn all_longer(schema: &ReflectSchemaResponse, members: bool) -> Vec<String> {
    let definitions = schema.definitions.iter();
    let mut flags = Vec::new();
    for definition in definitions.filter(|_| members) {
        let relations = definition.relations.iter().map(|found| &found.name);
        let permissions = definition.permissions.iter().map(|found| &found.name);
        for name in relations.chain(permissions) {
            if let Some(new) = longer(name) {
                flags.extend(rename(&format!("{}#{name}", definition.name), &new));
            }
        }
    }
    let definitions = schema.definitions.iter().map(|found| &found.name);
    let caveats = schema.caveats.iter().map(|found| &found.name);
    for name in definitions.chain(caveats).filter(|_| !members) {
        if let Some(new) = longer(name) {
            flags.extend(rename(name, &new));
        }
    }
    flags
}

/// The declarations of a rendering, sorted: their order is that of their names.
fn declarations(text: &str) -> Vec<&str> {
    let mut all: Vec<&str> = text.trim().split("\n\n").collect();
    all.sort_unstable();
    all
}

/// Every form of comment and every kind of syntax, with everything in it renamed.
#[tokio::test(flavor = "multi_thread")]
async fn renamed_schemas_are_rendered_as_renamed_renderings() {
    let [source, target] = [Datastore::Memory; 2].map(Server::start);
    let [source, target] = [client(&source).await, client(&target).await];
    let (mut refused, mut compared) = (Vec::new(), 0);
    for entry in std::fs::read_dir(root().join("tests/data/schemas")).unwrap() {
        let path = entry.unwrap().path();
        let what = path.file_name().unwrap().display();
        let text = std::fs::read_to_string(&path).unwrap();
        let rendering = rendered(&source, &text).await.expect("a sound schema");
        let found = reflected(&source).await;
        let prefix = rename("", "org/").to_vec();
        for flags in [prefix, all_longer(&found, true), all_longer(&found, false)] {
            if flags.is_empty() {
                continue;
            }
            let new = match mapped(&text, &flags) {
                Ok(new) => new,
                Err(why) => {
                    refused.push(format!("{what}: {why}"));
                    continue;
                }
            };
            let there = rendered(&target, &new).await;
            let there = there.unwrap_or_else(|| panic!("{what}: refused by the server:\n{new}"));
            let expected = mapped(&rendering, &flags).unwrap_or_else(|why| panic!("{what}: {why}"));
            assert_eq!(
                declarations(&there),
                declarations(&expected),
                "{what}: {flags:?}"
            );
            assert_ne!(there, rendering, "{what}: {flags:?}");
            compared += 1;
        }
    }
    // SpiceDB reads no prefix in an annotation; one schema has names that are too long with a prefix.
    let of = |reason: &str| refused.iter().filter(|why| why.contains(reason)).count();
    assert_eq!(of("annotation"), 2, "{refused:?}");
    assert_eq!(of("SpiceDB accepts no such name"), 1, "{refused:?}");
    assert_eq!(refused.len(), 3, "{refused:?}");
    figure(&format!("{compared} schemas compared"));
    assert!(compared > 100, "{compared}");
}

/// Everything in the language, a space or a line break between any two tokens. `doc` is a definition, a
/// parameter, a relation and a word in strings.
const TOKENS: &str = r#"use expiration
use self
caveat org/limit ( doc int , viewer list < string > , more map < any > ) { doc > 1 && "}org/doc" in viewer
&& more [ 'viewer' ] . size ( ) > 0 }
caveat org/small ( doc bool ) { ! doc }
definition org/user { }
/** viewer of doc */
definition org / folder {
relation doc : org/folder | org/doc
relation member : org/user | org/doc # banned
relation viewer : org/user | org/user : * with org/small
permission see = viewer + doc -> see + self - nil
}
definition org/doc {
relation parent : org/folder
relation viewer : org/user with org/limit and expiration | org / user # ... | org/user : *
relation banned : org/user | org/folder # member with expiration
permission use = ( viewer & parent . all ( see ) ) - banned
permission see = use + ( parent . any ( viewer ) + self )
}
"#;

/// What may be between two tokens, or breaks them.
const BETWEEN: [&str; 16] = [
    "",
    "  ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\n\n\n",
    ";",
    " ;\n",
    "/**/",
    " /* viewer: doc */ ",
    "/* it's\n\t\"*/",
    " // doc#viewer '\n",
    "//\r\n",
    " /** see */\n",
    "\n/* { */",
];

const RENAMES: [&str; 8] = [
    "org/=sales/crm/",
    "org/doc=sales/crm/file",
    "org/limit=sales/crm/limited",
    "org/doc#viewer=reader",
    "org/folder#viewer=watcher",
    "org/folder#see=look",
    "org/doc#see=look",
    "org/doc#use=viewer",
];

/// The layout of a text is that of a person or of a generator: what the server accepts, we understand.
#[tokio::test(flavor = "multi_thread")]
async fn layouts_that_a_server_accepts_are_understood() {
    let [source, target] = [Datastore::Memory; 2].map(Server::start);
    let [source, target] = [client(&source).await, client(&target).await];
    let flags: Vec<String> = RENAMES
        .iter()
        .flat_map(|flag| ["--rename".to_owned(), (*flag).to_owned()])
        .collect();
    let mut random = Random::new(14);
    let pieces: Vec<&str> = TOKENS.split_inclusive([' ', '\n']).collect();
    let (cases, mut accepted) = (repeat(250, 10_000), 0_u32);
    for case in 0..cases {
        let mut pieces: Vec<String> = pieces.iter().map(|&piece| piece.to_owned()).collect();
        for _ in 0..=random.below(3) {
            let at = random.below(pieces.len());
            let between = BETWEEN[random.below(BETWEEN.len())];
            let token = pieces[at].trim_end().to_owned();
            pieces[at] = token + between;
        }
        let text = pieces.concat();
        let Some(rendering) = rendered(&source, &text).await else {
            continue;
        };
        accepted += 1;
        let new = mapped(&text, &flags).unwrap_or_else(|why| panic!("case {case}: {why}\n{text}"));
        let there = rendered(&target, &new).await;
        let there = there.unwrap_or_else(|| panic!("case {case}: refused:\n{new}"));
        let expected = mapped(&rendering, &flags).unwrap();
        assert_eq!(
            declarations(&there),
            declarations(&expected),
            "case {case}:\n{text}"
        );
        // Where names are, and nowhere else.
        for old in [
            "org/",
            "file#use",
            "crm/folder#viewer",
            "->see",
            "(see)",
            "permission see",
        ] {
            let code: String = there.lines().filter(|line| !line.contains("/*")).collect();
            let in_string = "\"}org/doc\"";
            assert!(
                !code.replace(in_string, "").contains(old),
                "case {case}: {old}:\n{there}"
            );
        }
    }
    figure(&format!("{accepted} of {cases} layouts accepted"));
    assert!(accepted > cases / 4, "{accepted} of {cases}");
}

#[tokio::test(flavor = "multi_thread")]
async fn longest_names_are_those_that_a_server_accepts() {
    let server = Server::start(Datastore::Memory);
    let server = client(&server).await;
    let text = "definition crm/user {}\n\ncaveat crm/cav(a int) {\n\ta > 1\n}\n\ndefinition crm/doc {\n\
                \trelation viewer: crm/user | crm/user with crm/cav\n}\n";
    let name = |bytes: usize| "n".repeat(bytes);
    let path = |prefix: usize, last: usize| format!("{}/{}", name(prefix), name(last));
    for (from, longest, more) in [
        ("crm/user", path(63, 64), path(63, 65)),
        ("crm/user", path(63, 64), path(64, 63)),
        ("crm/cav", path(63, 64), path(64, 64)),
        ("crm/cav", name(128), name(129)),
        ("crm/doc#viewer", name(64), name(65)),
    ] {
        let new = mapped(text, &rename(from, &longest)).unwrap();
        assert!(rendered(&server, &new).await.is_some(), "{new}");
        let why = mapped(text, &rename(from, &more)).unwrap_err();
        assert!(
            why.contains("no such name") || why.contains("no name"),
            "{why}"
        );
        // And the server refuses it indeed. It takes a longer name of a caveat, which no relationship can name.
        let new = new.replace(&longest, &more);
        let is_refused = rendered(&server, &new).await.is_none();
        assert!(is_refused || from == "crm/cav", "{new}");
    }
}
