//! The documentation: each command of README.md and docs/ is run as it is written.
//!
//! A page is one script for bash, in a folder and a HOME of its own, with two servers where it names contexts:
//! `old` (also `prod`, `dev`) holds tests/docs/sample.yaml, `new` (also `staging`, `clone`) is empty. How pages are
//! marked is in [`blocks`].

mod blocks;
mod catalogue;
mod output;
mod script;
mod tables;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::blocks::{Kind, Page};
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, folder, root};

const OLD: [&str; 3] = ["old", "prod", "dev"];
const NEW: [&str; 3] = ["new", "staging", "clone"];

/// A test for each page that has commands.
macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        $(#[test]
        fn $name() {
            run($path);
        })*
        const PAGES: &[&str] = &[$($path),*];
    };
}

pages! {
    readme: "README.md",
    connecting: "docs/connecting.md",
    contributing: "CONTRIBUTING.md",
    convert: "docs/convert.md",
    cookbook: "docs/cookbook.md",
    cutover: "docs/cutover.md",
    exit_codes: "docs/exit-codes.md",
    format: "docs/format.md",
    getting_started: "docs/getting-started.md",
    map: "docs/map.md",
    preflight: "docs/preflight.md",
    restore: "docs/restore.md",
}

/// All pages: README.md, CONTRIBUTING.md and those of docs/, with their path from the root.
fn all_pages() -> Vec<String> {
    let mut found: Vec<PathBuf> = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    found.extend(["README.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    let from_root = |path: PathBuf| {
        path.strip_prefix(root())
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    found.into_iter().map(from_root).collect()
}

#[test]
fn every_page_is_in_the_book() {
    let contents = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    for path in all_pages()
        .iter()
        .filter(|path| !path.ends_with("SUMMARY.md"))
    {
        let link = path
            .strip_prefix("docs/")
            .map_or(format!("](../{path})"), |name| format!("]({name})"));
        assert!(
            contents.contains(&link),
            "docs/SUMMARY.md does not list {path}"
        );
    }
}

fn read(path: &str) -> Page {
    let text = fs::read_to_string(root().join(path)).unwrap();
    blocks::parse(&text).unwrap_or_else(|wrong| panic!("{path}:\n{}", wrong.join("\n")))
}

#[test]
fn every_page_with_a_command_is_run_and_little_is_skipped() {
    let (mut run, mut skipped, mut elsewhere) = (0, 0, 0);
    for path in all_pages() {
        let page = read(&path);
        if let Some(file) = &page.run_by {
            let test = fs::read_to_string(root().join(file)).unwrap_or_default();
            assert!(
                test.contains(&path),
                "{path} is to be run by {file}, which does not name it"
            );
        }
        let commands = page
            .blocks
            .iter()
            .filter(|block| block.kind != Kind::Hidden);
        for block in commands {
            if let Some(reason) = &block.how.skip {
                skipped += 1;
                figure(&format!("skipped: {path}:{}: {reason}", block.line));
            } else if page.run_by.is_some() {
                elsewhere += 1;
            } else {
                run += 1;
                assert!(
                    PAGES.contains(&path.as_str()),
                    "{path} is in the list of tests/docs.rs"
                );
            }
        }
    }
    figure(&format!(
        "{run} blocks are run here, {elsewhere} by other tests, {skipped} are skipped"
    ));
    assert!(run >= 60 && skipped <= 10, "{run} run, {skipped} skipped");
}

/// Runs a page and compares what its `console` blocks show.
fn run(path: &str) {
    let page = read(path);
    let (script, compared) = script::script(path, &page);
    let folder = folder();
    let home = folder.path().join("home");
    let settings = home.join(".config/spice-pipes");
    let work = folder.path().join("work");
    for made in [&settings, &work] {
        fs::create_dir_all(made).unwrap();
    }
    let contexts = settings.join("contexts.toml");
    let names_contexts = ["--context ", "--from "]
        .iter()
        .any(|flag| script.contains(flag));
    let servers = (names_contexts && !script.contains("tests/servers/spicedb start"))
        .then(|| [OLD, NEW].map(|names| serve(&names, &settings)));
    if servers.is_some() {
        load(&contexts);
    }
    for name in ["prelude.sh", "script"] {
        let text = if name == "script" {
            &script
        } else {
            include_str!("docs/prelude.sh")
        };
        fs::write(folder.path().join(name), text).unwrap();
    }
    let ended = Program::at(Path::new("bash"))
        .arg(folder.path().join("script"))
        .current_folder(&work)
        .env("HOME", &home)
        .env("DOCS", folder.path())
        .env("REPOSITORY", root())
        .env("SPICE_CONTEXTS", &contexts)
        .timeout(Duration::from_secs(300))
        .run();
    assert_eq!(
        ended.code(),
        Some(0),
        "{path} fails:\n{}\n{}",
        ended.text(),
        ended.stderr
    );
    let mut found = Vec::new();
    for one in compared {
        let printed = fs::read_to_string(folder.path().join(&one.file)).unwrap();
        let differences = output::differences(&one.shown, &printed).into_iter();
        found.extend(differences.map(|difference| format!("{path}:{}: {difference}", one.line)));
    }
    assert!(found.is_empty(), "not as shown:\n{}", found.join("\n"));
}

/// Starts a server and adds it to the contexts file, under each of these names.
fn serve(names: &[&str], settings: &Path) -> Server {
    let server = Server::start(Datastore::Postgres);
    let token = settings.join(format!("{}.token", names[0]));
    fs::write(&token, server.token()).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let file = settings.join("contexts.toml");
    let mut contexts = fs::read_to_string(&file).unwrap_or_default();
    for name in names {
        let (endpoint, token) = (
            server.endpoint(),
            token.file_name().unwrap().to_str().unwrap(),
        );
        contexts += &format!(
            "[{name}]\nendpoint = \"{endpoint}\"\ntoken-file = \"{token}\"\ninsecure = true\n\n"
        );
    }
    fs::write(file, contexts).unwrap();
    server
}

/// Gives `old` what pages expect there.
fn load(contexts: &Path) {
    let sample = Program::new("spice-convert")
        .arg(root().join("tests/docs/sample.yaml"))
        .run()
        .expect_success();
    let import = Program::new("spice-import")
        .args(["--context", "old"])
        .env("SPICE_CONTEXTS", contexts);
    import.input(sample.text()).run().expect_success();
}
