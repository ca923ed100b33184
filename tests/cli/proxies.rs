//! Connections through an HTTP proxy. The name of the server is known to the proxy alone.

use super::{AT_ONCE, assert_says, run, with_schema};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::relay::{Answer, HttpProxy};
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};

/// A password of a proxy, and `me` with it as base64.
const PASSWORD: &str = "proxy-password-4711";
const CREDENTIALS: &str = "bWU6cHJveHktcGFzc3dvcmQtNDcxMQ==";

fn head(server: &Server, endpoint: &str) -> Program {
    let program = Program::new("spice-revision").args(["--head", "--settle", "0s"]);
    program.args(server.flags_by(endpoint))
}

/// Runs it; the proxy's password shows nowhere.
#[track_caller]
fn run_secretly(program: Program) -> Finished {
    let finished = run(program.arg("--verbose"));
    for secret in [PASSWORD, CREDENTIALS] {
        assert!(!finished.stderr.contains(secret), "{}", finished.stderr);
    }
    finished
}

#[test]
fn server_is_reached_through_the_proxy_of_the_environment() {
    let plain = with_schema(Datastore::Memory);
    let tls = Server::builder(Datastore::Memory).tls().start();
    oracle::write_schema(&tls, testdata::SCHEMA);
    for (server, hostname) in [(&plain, None), (&tls, Some("localhost"))] {
        let upstream = server.endpoint().to_owned();
        let proxy = HttpProxy::start(Answer::ConnectWith(upstream, CREDENTIALS));
        let url = format!("http://me:{PASSWORD}@{}", proxy.address());
        let program = head(server, "spicedb.test:50051").env("HTTPS_PROXY", &url);
        let hostname = hostname.map(|name| ["--hostname-override", name]);
        let program = program.args(hostname.into_iter().flatten());
        let finished = run_secretly(program).expect_success();
        assert_eq!(finished.text().trim(), oracle::head(server));
        let named = format!("through the proxy {}", proxy.address());
        assert!(finished.stderr.contains(&named), "{}", finished.stderr);
        let requests = proxy.requests();
        assert!(!requests.is_empty());
        for request in requests {
            let start = "CONNECT spicedb.test:50051 HTTP/1.1\r\nHost: spicedb.test:50051\r\n";
            assert!(request.starts_with(start), "{request}");
        }
    }
}

/// Behind a proxy, localhost is the proxy's machine.
#[test]
fn token_that_leaves_through_a_proxy_without_tls_is_warned_of() {
    let server = with_schema(Datastore::Memory);
    let proxy = HttpProxy::start(Answer::Text("HTTP/1.1 403 Forbidden\r\n\r\n"));
    let program = head(&server, "localhost:50051").args(["--proxy", &proxy.address()]);
    let words = [
        "the token is sent to localhost:50051 without TLS",
        "HTTP 403",
    ];
    assert_says(&run(program), 77, &words, "a proxy");
}

#[test]
fn own_machine_and_exceptions_are_not_proxied() {
    let server = with_schema(Datastore::Memory);
    let proxy = HttpProxy::start(Answer::Text("HTTP/1.1 403 Forbidden\r\n\r\n"));
    let by_environment = |endpoint: &str| head(&server, endpoint).env("ALL_PROXY", proxy.address());
    run(by_environment(server.endpoint())).expect_success();
    assert!(proxy.requests().is_empty());
    let direct = run(by_environment("nosuch.invalid:50051").env("NO_PROXY", ".invalid"));
    assert_says(
        &direct,
        75,
        &["cannot resolve the host name"],
        "an exception",
    );
    assert!(proxy.requests().is_empty());
    // A context decides for itself.
    let text = |proxy: &str| {
        format!(
            "[it]\nendpoint = \"{}\"\ntoken-file = \"{}\"\ninsecure = true\nproxy = \"{proxy}\"\n",
            server.endpoint(),
            server.token_file().display()
        )
    };
    let folder = crate::support::folder();
    let by_context = |proxy: &str| {
        let contexts = super::contexts::contexts(folder.path(), &text(proxy));
        let program = Program::new("spice-revision").args(["--head", "--settle", "0s"]);
        run(program
            .args(["--context", "it"])
            .env("SPICE_CONTEXTS", contexts))
    };
    by_context("none").expect_success();
    let refused = by_context(&format!("http://{}", proxy.address()));
    assert_says(
        &refused,
        77,
        &["the proxy", "HTTP 403 Forbidden"],
        "a context",
    );
    assert_eq!(proxy.requests().len(), 1);
}

#[test]
fn proxy_that_does_not_connect_is_named() {
    let server = with_schema(Datastore::Memory);
    let needs = Answer::ConnectWith(server.endpoint().to_owned(), CREDENTIALS);
    for (answer, code, words) in [
        (needs, 77, ["HTTP 407", "hint: the proxy wants a user name"]),
        (
            Answer::Text("HTTP/1.1 503 Busy\r\n\r\n"),
            75,
            [
                "HTTP 503 Service Unavailable",
                "is SpiceDB behind it running",
            ],
        ),
        (
            Answer::Text("HTTP/1.1 405 No\r\n\r\n"),
            1,
            ["HTTP 405 Method Not Allowed", "allows CONNECT"],
        ),
        (
            Answer::Text("220 mail.example\r\n\r\n"),
            1,
            ["does not answer as an HTTP proxy", "allows CONNECT"],
        ),
        (
            Answer::Text(""),
            75,
            ["ended the connection", "HTTPS_PROXY"],
        ),
        // Which of two limits of 5 seconds is noticed first is chance: the call's, or the connection's.
        (Answer::Silence, 75, [" 5 seconds", "HTTPS_PROXY"]),
    ] {
        let proxy = HttpProxy::start(answer);
        // Another password than the proxy's.
        let url = format!("http://me:{PASSWORD}-not@{}", proxy.address());
        let program = head(&server, "spicedb.test:50051").env("https_proxy", &url);
        let finished = run_secretly(program);
        assert_says(&finished, code, &words, words[0]);
        let named = format!("the proxy {}", proxy.address());
        assert_says(&finished, code, &[&named, "spicedb.test:50051"], words[0]);
        assert!(finished.took < AT_ONCE);
    }
    let unused = format!("127.0.0.1:{}", crate::support::free_port());
    let program = head(&server, "spicedb.test:50051").env("HTTPS_PROXY", &unused);
    let words = ["Connection refused", &*unused, "the proxy", "HTTPS_PROXY"];
    assert_says(&run(program), 75, &words, "no proxy there");
    let socks = format!("socks5://me:{PASSWORD}@{unused}");
    let program = head(&server, "spicedb.test:50051").env("ALL_PROXY", &socks);
    let words = ["ALL_PROXY: ", "socks5:// is not supported", "hint: --proxy"];
    assert_says(&run_secretly(program), 2, &words, "SOCKS");
}
