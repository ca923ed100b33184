//! The forms of an endpoint, each with a real server.

use super::{assert_says, run, with_schema};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::relay::UnixSocket;
use crate::support::spicedb::{Datastore, Server};

fn head(server: &Server, endpoint: &str) -> Program {
    let program = Program::new("spice-revision").args(["--head", "--settle", "0s"]);
    let program = program.arg("--token-file").arg(server.token_file());
    program.args(["--endpoint", endpoint])
}

#[test]
fn url_name_of_grpc_and_socket_lead_to_the_server() {
    let server = with_schema(Datastore::Memory);
    let (endpoint, socket) = (server.endpoint(), UnixSocket::to(server.endpoint()));
    let path = socket.path().display().to_string();
    for (endpoint, flags) in [
        (format!("http://{endpoint}"), &[][..]),
        (format!("http://{endpoint}/"), &["--insecure"]),
        (format!("dns:{endpoint}"), &["--insecure"]),
        (format!("dns:///{endpoint}"), &["--insecure"]),
        (format!("unix:{path}"), &[]),
        (format!("unix://{path}"), &["--insecure"]),
    ] {
        let finished = run(head(&server, &endpoint).args(flags)).expect_success();
        assert_eq!(finished.text().trim(), oracle::head(&server), "{endpoint}");
        assert_eq!(finished.stderr, "", "{endpoint}");
    }
    // The token is needed there, as everywhere.
    let program = Program::new("spice-revision").arg("--head");
    let program = program.args(["--endpoint", &format!("unix:{path}")]);
    assert_says(&run(program), 77, &["unauthenticated"], "no token");
}

#[test]
fn url_of_a_server_with_tls_needs_no_other_flag() {
    let server = Server::builder(Datastore::Memory).tls().start();
    oracle::write_schema(&server, testdata::SCHEMA);
    let certificate = server.certificate().unwrap();
    let endpoint = format!("https://{}", server.endpoint());
    let program = head(&server, &endpoint).arg("--certificate-path");
    let finished = run(program.arg(certificate)).expect_success();
    assert_eq!(finished.text().trim(), oracle::head(&server));
    let plain = format!("http://{}", server.endpoint());
    let words = ["the server speaks TLS", "https:// for http://"];
    assert_says(&run(head(&server, &plain)), 77, &words, "http");
}

#[test]
fn url_that_contradicts_a_flag_or_the_server_is_named() {
    let server = with_schema(Datastore::Memory);
    let endpoint = server.endpoint();
    let secure = format!("https://{endpoint}");
    let words = ["does not speak TLS", "http:// for https://"];
    assert_says(&run(head(&server, &secure)), 77, &words, "https");
    for (endpoint, flag, words) in [
        (
            secure,
            "--insecure",
            ["--insecure means no TLS", "https:// in --endpoint"],
        ),
        (
            format!("http://{endpoint}"),
            "--no-verify-ca",
            ["http:// in --endpoint means no TLS", "--no-verify-ca"],
        ),
        (
            "unix:/nosuch/socket".to_owned(),
            "--no-verify-ca",
            ["a Unix socket means no TLS", "--no-verify-ca"],
        ),
    ] {
        let finished = run(head(&server, &endpoint).arg(flag));
        assert_says(&finished, 2, &words, &endpoint);
    }
    let gone = run(head(&server, "unix:/nosuch/socket"));
    let words = [
        "/nosuch/socket",
        "No such file",
        "hint: is the server running",
    ];
    assert_says(&gone, 75, &words, "no socket");
    let folder = crate::support::folder();
    let file = run(head(&server, &format!("unix:{}", folder.path().display())));
    let words = ["is no socket", "hint: --endpoint unix:/PATH"];
    assert_says(&file, 2, &words, "a folder");
}
