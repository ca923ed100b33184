//! The tables of docs/needs.md, docs/exit-codes.md and README.md against the code.

use std::collections::BTreeSet;
use std::fs;

use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, root};

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The cells of each line of a page that is a row of a table.
fn rows(page: &str) -> Vec<Vec<String>> {
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let cells = |row: &str| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    rows.map(cells).collect()
}

/// The row of a program, by its first cell.
fn row(page: &str, first: &str) -> Vec<String> {
    let found = rows(page).into_iter().find(|row| row[0] == first);
    found.unwrap_or_else(|| panic!("no row for {first}"))
}

/// The names of calls in a cell.
fn calls(cell: &str) -> BTreeSet<String> {
    let words = cell.split(|c: char| !c.is_ascii_alphanumeric());
    let is_call = |word: &&str| {
        ["Schema", "Relationships", "Permissions", "Watch"]
            .iter()
            .any(|end| word.ends_with(end))
    };
    words.filter(is_call).map(str::to_owned).collect()
}

/// The values of a field in the server's log since the last time.
struct Requests<'a> {
    server: &'a Server,
    read: usize,
}

impl Requests<'_> {
    fn of(server: &Server) -> Requests<'_> {
        Requests {
            server,
            read: server.log().len(),
        }
    }

    /// The calls that were made since then. A call is logged when it has ended.
    fn made(&mut self) -> BTreeSet<String> {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let log = self.server.log();
        let new = log[self.read..].split(r#""grpc.method":""#).skip(1);
        let names = new
            .filter_map(|rest| rest.split('"').next())
            .filter(|name| *name != "ServerReflectionInfo");
        let names = names.map(str::to_owned).collect();
        self.read = log.len();
        names
    }
}

#[test]
fn needs_page_lists_the_calls_that_servers_log() {
    let page = text("docs/needs.md");
    let (old, new) = (
        Server::start(Datastore::Postgres),
        Server::start(Datastore::Postgres),
    );
    let folder = folder();
    let file = |name: &str| folder.path().join(name);
    let sample = Program::new("spice-convert")
        .arg(root().join("tests/docs/sample.yaml"))
        .run()
        .expect_success();
    Program::on("spice-import", &old)
        .input(sample.text())
        .run()
        .expect_success();
    let (mut of_old, mut of_new) = (Requests::of(&old), Requests::of(&new));
    let listed = |program: &str, made: &BTreeSet<String>| {
        let row = row(&page, &format!("`{program}`"));
        let (always, sometimes) = (calls(&row[1]), calls(&row[2]));
        let missing: Vec<_> = always.difference(made).collect();
        assert!(missing.is_empty(), "{program} does not call {missing:?}");
        let unlisted: Vec<_> = made
            .iter()
            .filter(|call| !always.contains(*call) && !sometimes.contains(*call))
            .collect();
        assert!(unlisted.is_empty(), "{program} also calls {unlisted:?}");
    };
    let run = |program: Program, name: &str| {
        program.output_file(&file(name)).run().expect_success();
        fs::read_to_string(file(name)).unwrap().trim().to_owned()
    };
    run(Program::on("spice-export", &old), "all");
    listed("spice-export", &of_old.made());
    Program::on("spice-import", &new)
        .arg(file("all"))
        .run()
        .expect_success();
    listed("spice-import", &of_new.made());
    let head = run(Program::on("spice-revision", &old).arg("--head"), "head");
    listed("spice-revision --head", &of_old.made());
    let mark = run(Program::on("spice-revision", &old).arg("--mark"), "mark");
    listed("spice-revision --mark", &of_old.made());
    run(
        Program::on("spice-watch", &old).args(["--since", &head, "--until", &mark]),
        "watched",
    );
    listed("spice-watch", &of_old.made());
    let update = concat!(
        r#"{"update":{"operation":"OPERATION_TOUCH","relationship":{"#,
        r#""resource":{"objectType":"document","objectId":"new"},"relation":"owner","#,
        r#""subject":{"object":{"objectType":"user","objectId":"anne"}}}}}"#
    );
    Program::on("spice-apply", &new)
        .arg("--no-trailer")
        .input(format!("{update}\n"))
        .run()
        .expect_success();
    listed("spice-apply", &of_new.made());
    run(
        Program::on("spice-check", &old).input_file(&file("all")),
        "asked",
    );
    listed("spice-check", &of_old.made());
    let both = [
        "--from",
        old.context(),
        "--to",
        new.context(),
        "--on-conflict",
        "skip",
    ];
    Program::new("spice-preflight").args(both).run();
    let required: BTreeSet<String> = calls(&row(&page, "`spice-preflight`")[1]);
    assert!(required.is_subset(&of_old.made()));
    for program in ["digest", "diff", "convert", "map"] {
        let help = text(&format!("docs/help/spice-{program}.txt"));
        assert!(
            !help.contains("--context <"),
            "spice-{program} needs no server"
        );
    }
}

/// A Rust literal that is continued with `\`, as one line.
pub(super) fn joined(literal: &str) -> String {
    let mut lines = literal.split("\\\n");
    let first = lines.next().unwrap().to_owned();
    lines.fold(first, |all, line| all + line.trim_start())
}

#[test]
fn needs_page_lists_what_preflight_tries() {
    let source = text("crates/spice-preflight/src/steps.rs");
    let page = rows(&text("docs/needs.md"));
    let mut count = 0;
    for need in source.split("        need(\n").skip(1) {
        let (arguments, _) = need.split_once("\n        )").unwrap();
        let (names, literal) = arguments.split_once('"').unwrap();
        let what_for = joined(
            literal
                .trim_end()
                .trim_end_matches(',')
                .trim_end_matches('"'),
        );
        let names: Vec<&str> = names.split(',').map(str::trim).collect();
        let call = names[1].strip_prefix("Call::").unwrap();
        let of_api = source
            .split(&format!("Self::{call} => \""))
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap();
        let required = if names[3] == "Must" { "yes" } else { "no" };
        let row = [
            &names[0].to_lowercase(),
            of_api,
            &names[2].to_lowercase(),
            required,
            &what_for,
        ];
        assert!(
            page.iter().any(|found| found.iter().eq(row)),
            "docs/needs.md has no row {row:?}"
        );
        count += 1;
    }
    let listed = page
        .iter()
        .filter(|row| ["source", "target"].contains(&row[0].as_str()) && row.len() == 5)
        .count();
    assert_eq!((count, listed), (19, 19));
}

#[test]
fn exit_codes_are_those_of_the_code() {
    let source = text("crates/spice-cli/src/exit.rs");
    let (_, numbers) = source.split_once("fn number(self) -> u8 {").unwrap();
    let codes: Vec<String> = numbers
        .lines()
        .take_while(|line| !line.contains("Signal"))
        .filter_map(|line| Some(line.split_once("=> ")?.1.trim_end_matches(',').to_owned()))
        .collect();
    assert_eq!(codes.len(), 8, "{codes:?}");
    for path in ["README.md", "docs/exit-codes.md"] {
        let found: Vec<String> = rows(&text(path))
            .into_iter()
            .map(|row| row[0].clone())
            .collect();
        let found: Vec<_> = found
            .into_iter()
            .filter(|first| first.parse::<u8>().is_ok())
            .collect();
        assert_eq!(found, codes, "{path}");
    }
}
