//! What cannot be reached, and why: within 5 s, with the exit code for whether to try again.

use std::net::TcpListener;
use std::path::Path;

use testdata::Sample;

use super::{
    AT_ONCE, WRONG, assert_says, assert_secret, command_line, programs, run, said, with_schema,
};
use crate::copy::stream_of;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{free_port, oracle};

/// A server without TLS and one with it, both with a schema.
fn plain_and_tls() -> (Server, Server) {
    let tls = Server::builder(Datastore::Memory).tls().start();
    oracle::write_schema(&tls, testdata::SCHEMA);
    (with_schema(Datastore::Memory), tls)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn failed_connections_say_what_is_wrong_within_five_seconds() {
    let (plain, tls) = plain_and_tls();
    let folder = crate::support::folder();
    let wrong = folder.path().join("wrong.token");
    std::fs::write(&wrong, WRONG).unwrap();
    let (token, tls_token) = (plain.token_file(), tls.token_file());
    let (token, tls_token, wrong) = (text(&token), text(&tls_token), text(&wrong));
    let authority = tls.certificate().unwrap();
    let nobody = format!("127.0.0.1:{}", free_port());
    let at = |server: &Server, token: &str| -> Vec<String> {
        ["--endpoint", server.endpoint(), "--token-file", token]
            .map(str::to_owned)
            .to_vec()
    };
    let with = |mut flags: Vec<String>, more: &[&str]| {
        flags.extend(more.iter().copied().map(str::to_owned));
        flags
    };
    let elsewhere = |endpoint: &str| {
        ["--insecure", "--endpoint", endpoint, "--token-file", token]
            .map(str::to_owned)
            .to_vec()
    };
    let cases: [(&str, Vec<String>, i32, &[&str]); 9] = [
        (
            "nothing listens",
            elsewhere(&nobody),
            75,
            &["Connection refused", &nobody, "hint: is the server running"],
        ),
        (
            "unknown host",
            elsewhere("nosuch.invalid:50051"),
            75,
            &["cannot resolve the host name", "nosuch.invalid:50051"],
        ),
        (
            "no token",
            ["--insecure", "--endpoint", plain.endpoint()]
                .map(str::to_owned)
                .to_vec(),
            77,
            &["unauthenticated", "hint: give the server's preshared key"],
        ),
        (
            "wrong token",
            with(at(&plain, wrong), &["--insecure"]),
            77,
            &["invalid token", "hint: the server knows another"],
        ),
        (
            "another server's token",
            with(at(&plain, tls_token), &["--insecure"]),
            77,
            &["invalid token", plain.endpoint()],
        ),
        (
            "TLS against plaintext",
            at(&plain, token),
            77,
            &[
                "does not speak TLS",
                "hint: to connect without TLS: --insecure",
            ],
        ),
        (
            "plaintext against TLS",
            with(at(&tls, tls_token), &["--insecure"]),
            77,
            &["the server speaks TLS", "hint: drop --insecure"],
        ),
        (
            "unknown authority",
            at(&tls, tls_token),
            77,
            &["certificate", "UnknownIssuer", "--certificate-path"],
        ),
        (
            "wrong host name",
            with(
                at(&tls, tls_token),
                &[
                    "--certificate-path",
                    text(&authority),
                    "--hostname-override",
                    "other",
                ],
            ),
            77,
            &[
                "not valid for name \"other\"",
                "localhost",
                "--hostname-override",
            ],
        ),
    ];
    for (what, flags, code, words) in &cases {
        for program in programs() {
            let finished = run(program.args(flags));
            assert_says(&finished, *code, words, what);
            assert!(finished.stdout.is_empty(), "{what}");
            assert!(finished.took < AT_ONCE, "{what}: {:?}", finished.took);
        }
    }
}

#[test]
fn silent_server_is_given_up_after_five_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = silent.local_addr().unwrap().to_string();
    for flags in [&["--insecure"][..], &[]] {
        let program = Program::new("spice-revision").args(["--head", "--endpoint", &endpoint]);
        let finished = run(program.args(flags));
        assert_says(&finished, 75, &["5 seconds", &endpoint], "silence");
        assert!(finished.took < AT_ONCE);
    }
}

#[test]
fn tls_connections_work_in_each_way_they_can_be_asked_for() {
    let (_, tls) = plain_and_tls();
    let (token, authority) = (tls.token_file(), tls.certificate().unwrap());
    let by_name = format!("localhost:{}", tls.port());
    let authority = text(&authority);
    for (endpoint, flags) in [
        (tls.endpoint(), &["--certificate-path", authority][..]),
        (&by_name, &["--certificate-path", authority]),
        (tls.endpoint(), &["--no-verify-ca"]),
        (
            tls.endpoint(),
            &[
                "--certificate-path",
                authority,
                "--hostname-override",
                "localhost",
            ],
        ),
        (
            tls.endpoint(),
            &["--no-verify-ca", "--hostname-override", "whatever.example"],
        ),
    ] {
        let program = Program::new("spice-revision").args(["--head", "--settle", "0s"]);
        let program = program.args(["--endpoint", endpoint, "--token-file", text(&token)]);
        let finished = run(program.args(flags)).expect_success();
        let warned = finished
            .stderr
            .starts_with("spice-revision: warning: --no-verify-ca: ");
        assert_eq!(warned, flags[0] == "--no-verify-ca", "{}", finished.stderr);
        assert!(finished.stderr.lines().count() <= 1, "{}", finished.stderr);
        assert_eq!(finished.text().trim(), oracle::head(&tls));
    }
}

#[test]
fn source_without_schema_is_an_error() {
    let server = Server::start(Datastore::Memory);
    let finished = run(crate::copy::export(&server));
    assert_says(
        &finished,
        1,
        &["has no schema", "is this the right server"],
        "",
    );
    assert!(finished.stdout.is_empty() && finished.took < AT_ONCE);
}

#[test]
fn token_comes_from_a_file_a_command_or_a_flag() {
    let server = with_schema(Datastore::Memory);
    let folder = crate::support::folder();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        text(&path).to_owned()
    };
    let head = |flags: &[&str]| {
        let program = Program::new("spice-revision").args(["--head", "--settle", "0s"]);
        let program = program.args(["--insecure", "--endpoint", server.endpoint()]);
        program.args(flags)
    };
    let (token, token_file) = (server.token(), server.token_file());
    let token = token.trim();
    let print_it = format!("echo this goes to stderr >&2; cat '{}'", text(&token_file));
    let spaced = file("spaced", &format!("  {token} \r\n\n"));
    run(head(&["--token-file", &spaced])).expect_success();
    let by_command = run(head(&["--token-command", &print_it])).expect_success();
    assert_eq!(by_command.stderr, "this goes to stderr\n");
    let by_flag = said(head(&["--token", token]).run()).expect_success();
    assert_says(
        &by_flag,
        0,
        &["warning: --token", "use --token-file"],
        "--token",
    );

    let two = format!("{WRONG} {WRONG}");
    for (flags, words) in [
        (
            ["--token-file", "/nosuch/token"],
            &["--token-file /nosuch/token", "No such file"][..],
        ),
        (
            ["--token-file", &file("empty", "\n")],
            &["--token-file", "empty", "preshared key"],
        ),
        (
            ["--token-file", &file("two", &two)],
            &["--token-file", "not a preshared key"],
        ),
        (
            ["--token-command", "echo no vault here >&2; exit 3"],
            &["no vault here", "--token-command failed", "exit status: 3"],
        ),
        (["--token-command", "true"], &["--token-command", "empty"]),
        (["--token", ""], &["--token", "empty"]),
        (["--token", " a b "], &["--token", "not a preshared key"]),
    ] {
        assert_says(&run(head(&flags)), 2, words, flags[0]);
    }
    let both = run(head(&[
        "--token-file",
        &spaced,
        "--token-command",
        &print_it,
    ]));
    assert_says(&both, 2, &["--token-file", "cannot be used with"], "both");
}

#[test]
fn flags_that_cannot_be_used_are_usage_errors() {
    let cases: [(&[&str], &[&str]); 8] = [
        (
            &[],
            &["no server given", "--context NAME", "--endpoint HOST:PORT"],
        ),
        (
            &["--endpoint", "localhost"],
            &["--endpoint", "is not host:port"],
        ),
        (
            &["--endpoint", "localhost:port"],
            &["--endpoint", "is no port number"],
        ),
        (
            &["--endpoint", "grpc://localhost:1"],
            &["without grpc://, as localhost:1"],
        ),
        (
            &["--endpoint", "localhost:1", "--insecure", "--no-verify-ca"],
            &["--insecure means no TLS, --no-verify-ca means TLS"],
        ),
        (
            &[
                "--endpoint",
                "localhost:1",
                "--insecure",
                "--certificate-path",
                "ca.pem",
            ],
            &["--insecure means no TLS, --certificate-path means TLS"],
        ),
        (
            &[
                "--endpoint",
                "localhost:1",
                "--certificate-path",
                "/nosuch/ca.pem",
            ],
            &["/nosuch/ca.pem", "--certificate-path"],
        ),
        (
            &["--endpoint", "localhost:1", "--client-key-path", "key.pem"],
            &["--client-certificate-path and --client-key-path go together"],
        ),
    ];
    for (flags, words) in cases {
        for program in programs() {
            assert_says(&run(program.args(flags)), 2, words, &format!("{flags:?}"));
        }
    }
}

#[test]
fn no_key_shows_in_the_arguments_of_a_program_that_runs() {
    let server = with_schema(Datastore::Memory);
    let print_it = format!("cat '{}'", text(&server.token_file()));
    let import = || Program::new("spice-import").input_later();
    let at = ["--insecure", "--endpoint", server.endpoint()];
    for program in [
        import().args(["--context", server.context()]),
        import().args(server.flags()),
        import().args(at).args(["--token-command", &print_it]),
        import().args(at).env("SPICE_TOKEN", server.token().trim()),
    ] {
        let mut running = program.arg("--verbose").spawn();
        running.wait_for_stderr("connected to", AT_ONCE);
        let shown = command_line(running.pid());
        assert!(shown.contains("spice-import"));
        assert_secret("the arguments", &shown);
        assert!(running.is_running(), "it waits for its input");
        drop(running.take_stdin());
        assert_says(&said(running.wait()), 65, &["<stdin>: empty input"], "");
    }
    assert!(oracle::dump(&server, oracle::Precision::Nanoseconds).is_empty());
}

#[test]
fn server_that_takes_no_writes_is_denied_at_once() {
    let server = with_schema(Datastore::Postgres);
    server.restart_with(&["--datastore-readonly"]);
    let import = crate::copy::import(&server).input(stream_of(Sample::portable(10)));
    let mark = Program::new("spice-revision").args(["--mark", "--context", server.context()]);
    for program in [import, mark] {
        let finished = run(program);
        let words = ["read-only", "the server takes no writes", server.endpoint()];
        assert_says(&finished, 77, &words, "read-only");
        assert!(finished.stdout.is_empty() && finished.took < AT_ONCE);
    }
    run(crate::copy::export(&server)).expect_success();
}
