//! Where the connection comes from: flags, then all of the named context, else the environment.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{WRONG, assert_says, run, with_schema};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};

fn head() -> Program {
    Program::new("spice-revision").args(["--head", "--settle", "0s"])
}

/// Fails unless the program has spoken with this server.
#[track_caller]
fn assert_asked(finished: Finished, server: &Server) -> Finished {
    let finished = finished.expect_success();
    assert_eq!(finished.text().trim(), oracle::head(server));
    finished
}

/// A contexts file with this text, readable for its owner alone.
pub(super) fn contexts(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("contexts.toml");
    std::fs::write(&path, text).unwrap();
    set_mode(&path, 0o600);
    path
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn named_context_is_taken_whole_and_says_what_it_ignores() {
    let (named, other) = (
        with_schema(Datastore::Memory),
        with_schema(Datastore::Memory),
    );
    let program = head()
        .args(["--context", named.context()])
        .env("SPICE_ENDPOINT", other.endpoint())
        .env("SPICE_TOKEN", WRONG)
        .env("SPICE_MAX_RETRIES", "no number");
    let finished = assert_asked(run(program), &named);
    let ignored =
        "replaces the environment: ignoring SPICE_ENDPOINT, SPICE_TOKEN, SPICE_MAX_RETRIES";
    assert_eq!(
        finished.stderr.matches(ignored).count(),
        1,
        "{}",
        finished.stderr
    );
    assert_eq!(finished.stderr.lines().count(), 1);
    // A context without a token stays without one: another server's must not be sent to it.
    let folder = crate::support::folder();
    let text = format!(
        "[bare]\nendpoint = \"{}\"\ninsecure = true\n",
        named.endpoint()
    );
    let program = head()
        .args(["--context", "bare"])
        .env("SPICE_CONTEXTS", contexts(folder.path(), &text))
        .env("SPICE_TOKEN", named.token().trim());
    assert_says(&run(program), 77, &["unauthenticated"], "no token");
}

#[test]
fn environment_alone_works() {
    let server = with_schema(Datastore::Memory);
    let by_environment = || {
        head()
            .env("SPICE_ENDPOINT", server.endpoint())
            .env("SPICE_INSECURE", "true")
    };
    // As a secret mounted into a container's environment often is.
    let token = format!("{}\n", server.token().trim());
    let finished = assert_asked(run(by_environment().env("SPICE_TOKEN", &token)), &server);
    assert_eq!(finished.stderr, "");
    let by_file = by_environment().env("SPICE_TOKEN_FILE", server.token_file());
    assert_asked(run(by_file.env("SPICE_TOKEN", WRONG)), &server);
    for (name, value) in [
        ("SPICE_INSECURE", "maybe"),
        ("SPICE_REQUEST_TIMEOUT", "soon"),
        ("SPICE_MAX_RETRIES", "many"),
        ("SPICE_DATASTORE", "oracle"),
    ] {
        let finished = run(by_environment().env(name, value));
        assert_says(&finished, 2, &["environment", name, "expected"], name);
    }
}

#[test]
fn flag_beats_context_and_environment() {
    let (first, second) = (
        with_schema(Datastore::Memory),
        with_schema(Datastore::Memory),
    );
    let by_context = head().args(["--context", first.context()]);
    assert_asked(run(by_context.args(second.flags())), &second);
    let by_environment = head()
        .env("SPICE_ENDPOINT", first.endpoint())
        .env("SPICE_TOKEN", first.token().trim());
    assert_asked(run(by_environment.args(second.flags())), &second);
    // The three sources of a token are one setting.
    let program = head()
        .args(["--context", first.context()])
        .args(["--token-command", &format!("echo {WRONG}-of-the-command")]);
    assert_says(&program.run(), 77, &["invalid token"], "the flag's token");
}

#[test]
fn unknown_context_names_those_there_are() {
    let folder = crate::support::folder();
    let text = "stray = 1\n[new]\nendpoint = \"b:1\"\n[old]\nendpoint = \"a:1\"\n";
    let path = contexts(folder.path(), text);
    for name in ["ol", "stray"] {
        let program = head()
            .args(["--context", name])
            .env("SPICE_CONTEXTS", &path);
        let quoted = format!("no context {name:?}");
        let words = [
            &*quoted,
            "it has: new, old",
            path.to_str().unwrap(),
            "hint: ",
        ];
        assert_says(&run(program), 2, &words, name);
    }
    let gone = head()
        .args(["--context", "old"])
        .env("SPICE_CONTEXTS", "/nosuch/contexts.toml");
    let words = ["--context old", "/nosuch/contexts.toml", "hint: ", "[old]"];
    assert_says(&run(gone), 2, &words, "no file");
}

#[test]
fn broken_contexts_file_names_file_and_line_and_shows_no_token() {
    let folder = crate::support::folder();
    // Each has the token somewhere, and a mistake on line 3 or in the table.
    for (line, words) in [
        (format!("token = {WRONG}"), &[":3: "][..]),
        (format!("token = \"{WRONG}"), &[":3: "]),
        (format!("token \"{WRONG}\""), &[":3: "]),
        (WRONG.to_owned(), &[":3: "]),
        (format!("token = \"{WRONG}\" {WRONG}"), &[":3: "]),
        (
            format!("token = \"{WRONG}\"\ntoken = \"{WRONG}\""),
            &[":4: "],
        ),
        (
            format!("tokn = \"{WRONG}\""),
            &["\"old\"", "unknown field `tokn`", "`token`"],
        ),
        (
            format!("token = [\"{WRONG}\"]"),
            &["\"old\"", "token must be in quotes"],
        ),
        (
            format!("token = \"{WRONG} {WRONG}\""),
            &["not a preshared key"],
        ),
        (
            format!("token = \"{WRONG}\"\nrequest-timeout = 5"),
            &["\"old\"", "string"],
        ),
        (
            format!("token = \"{WRONG}\"\nrequest-timeout = \"soon\""),
            &["\"old\"", "a duration such as 35s"],
        ),
        (
            format!("token = \"{WRONG}\"\ninsecure = \"yes\""),
            &["\"old\"", "boolean"],
        ),
    ] {
        let text = format!("[old]\nendpoint = \"a.example:1\"\n{line}\n");
        let path = contexts(folder.path(), &text);
        let program = head()
            .args(["--context", "old"])
            .env("SPICE_CONTEXTS", &path);
        let finished = run(program);
        assert_says(&finished, 2, words, &line.replace(WRONG, "KEY"));
        if !words[0].contains("preshared") {
            let name = path.to_str().unwrap();
            assert!(finished.stderr.contains(name), "{}", finished.stderr);
        }
    }
    // A token outside of any table is nobody's, and not shown.
    let path = contexts(folder.path(), &format!("token = \"{WRONG}\"\n"));
    let program = head()
        .args(["--context", "token"])
        .env("SPICE_CONTEXTS", &path);
    assert_says(&run(program), 2, &["no context \"token\""], "outside");
}

#[test]
fn paths_in_the_contexts_file_are_relative_to_it() {
    let server = Server::builder(Datastore::Memory).tls().start();
    oracle::write_schema(&server, testdata::SCHEMA);
    let folder = crate::support::folder();
    std::fs::copy(server.token_file(), folder.path().join("my.token")).unwrap();
    let authority = server.certificate().unwrap();
    std::fs::copy(authority, folder.path().join("my.pem")).unwrap();
    let text = format!(
        "[old]\nendpoint = \"{}\"\ntoken-file = \"my.token\"\ncertificate-path = \"my.pem\"\n",
        server.endpoint()
    );
    let path = contexts(folder.path(), &text);
    let program = head().args(["--context", "old"]);
    let elsewhere = program
        .env("SPICE_CONTEXTS", &path)
        .current_folder(Path::new("/"));
    assert_asked(run(elsewhere), &server);
    // Without $SPICE_CONTEXTS: the user's config folder.
    let home = folder.path().join("home");
    let config = home.join(".config/spice-pipes");
    std::fs::create_dir_all(&config).unwrap();
    for name in ["contexts.toml", "my.token", "my.pem"] {
        std::fs::copy(folder.path().join(name), config.join(name)).unwrap();
    }
    let at_home = head().args(["--context", "old"]).env("SPICE_CONTEXTS", "");
    assert_asked(run(at_home.env("HOME", &home)), &server);
}

#[test]
fn contexts_file_with_a_token_that_others_can_read_warns() {
    let server = with_schema(Datastore::Memory);
    let folder = crate::support::folder();
    let table = format!(
        "[old]\nendpoint = \"{}\"\ninsecure = true\n",
        server.endpoint()
    );
    let ask = |token: &str, mode: u32| {
        let path = contexts(folder.path(), &format!("{table}{token}\n"));
        set_mode(&path, mode);
        let program = head()
            .args(["--context", "old"])
            .env("SPICE_CONTEXTS", &path);
        assert_asked(run(program), &server).stderr
    };
    let inside = format!("token = \"{}\"", server.token().trim());
    let beside = format!("token-file = \"{}\"", server.token_file().display());
    let warned = ask(&inside, 0o640);
    assert!(
        warned.contains("warning: ") && warned.contains("chmod 600"),
        "{warned}"
    );
    assert_eq!(ask(&inside, 0o600), "");
    assert_eq!(ask(&beside, 0o644), "");
}

#[test]
fn declared_datastore_is_refused_where_the_server_has_another() {
    let servers = [Datastore::Memory, Datastore::Postgres].map(with_schema);
    let folder = crate::support::folder();
    for (server, right, wrong) in [
        (&servers[0], "memory", ["spanner", "postgres"]),
        (&servers[1], "postgres", ["memory", "mysql"]),
    ] {
        let by_flag = |kind: &str| {
            let head = head().args(["--context", server.context()]);
            run(head.args(["--datastore", kind]))
        };
        let by_context = |kind: &str| {
            let text = format!(
                "[it]\nendpoint = \"{}\"\ntoken-file = \"{}\"\ninsecure = true\ndatastore = \"{kind}\"\n",
                server.endpoint(),
                server.token_file().display()
            );
            let file = contexts(folder.path(), &text);
            run(head().args(["--context", "it"]).env("SPICE_CONTEXTS", file))
        };
        let by_environment = |kind: &str| {
            let head = head().env("SPICE_ENDPOINT", server.endpoint());
            let head = head.env("SPICE_TOKEN_FILE", server.token_file());
            run(head
                .env("SPICE_INSECURE", "true")
                .env("SPICE_DATASTORE", kind))
        };
        for finished in [by_flag(right), by_context(right), by_environment(right)] {
            finished.expect_success();
        }
        for kind in wrong {
            for finished in [by_flag(kind), by_context(kind), by_environment(kind)] {
                let declared = format!("(--datastore {kind})");
                assert_says(
                    &finished,
                    2,
                    &["is declared", &declared, "hint: correct"],
                    kind,
                );
            }
        }
        let unknown = by_context("Oracle");
        assert_says(&unknown, 2, &["expected one of memory, mysql"], "no kind");
    }
}
