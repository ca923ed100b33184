//! The contexts of zed.

use serde_json::json;

use super::{WRONG, assert_says, run, with_schema};
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::zed::write_contexts;

const PASSWORD: &str = "keyring-password-4711";

fn head() -> Program {
    let program = Program::new("spice-revision").args(["--head", "--settle", "0s"]);
    program.env("ZED_KEYRING_PASSWORD", PASSWORD)
}

#[test]
fn contexts_of_zed_lead_to_their_servers() {
    let plain = with_schema(Datastore::Memory);
    let tls = Server::builder(Datastore::Memory).tls().start();
    oracle::write_schema(&tls, testdata::SCHEMA);
    let home = crate::support::folder();
    let certificate = std::fs::read(tls.certificate().unwrap()).unwrap();
    let certificate = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, certificate);
    let context = |name: &str, server: &Server, insecure: bool, certificate: Option<&str>| {
        json!({
            "Name": name,
            "Endpoint": server.endpoint(),
            "APIToken": server.token().trim(),
            "Insecure": insecure,
            "NoVerifyCA": false,
            "CACert": certificate,
            "HostnameOverride": "",
        })
    };
    let contexts = [
        context("plain", &plain, true, None),
        context("tls", &tls, false, Some(&certificate)),
    ];
    write_contexts(home.path(), PASSWORD, &contexts);
    for (name, server) in [("plain", &plain), ("tls", &tls)] {
        let by_flag = head().args(["--zed-context", name]);
        let by_environment = head().env("SPICE_ZED_CONTEXT", name);
        let text = format!("[it]\nzed-context = \"{name}\"\n");
        let contexts = super::contexts::contexts(home.path(), &text);
        let by_context = head().args(["--context", "it"]);
        let by_context = by_context.env("SPICE_CONTEXTS", contexts);
        for program in [by_flag, by_environment, by_context] {
            let finished = run(program.env("HOME", home.path())).expect_success();
            assert_eq!(finished.text().trim(), oracle::head(server), "{name}");
            assert_eq!(finished.stderr, "", "{name}");
        }
    }
    // Another server's token in the environment is not sent to it; a flag's is.
    let by_flag = || {
        let program = head().args(["--zed-context", "plain"]);
        program.env("HOME", home.path())
    };
    let finished = run(by_flag().env("SPICE_TOKEN", WRONG)).expect_success();
    let words = ["--zed-context plain replaces the environment: ignoring SPICE_TOKEN"];
    assert_says(&finished, 0, &words, "environment");
    let file = home.path().join("wrong");
    std::fs::write(&file, WRONG).unwrap();
    let finished = run(by_flag().arg("--token-file").arg(file));
    assert_says(&finished, 77, &["invalid token"], "flag");
}

#[test]
fn what_is_wrong_in_a_context_of_zed_is_named_with_it() {
    let home = crate::support::folder();
    let bad = |name: &str, endpoint: &str, token: &str, certificate: &str| json!({"Name": name, "Endpoint": endpoint, "APIToken": token, "CACert": certificate});
    let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "no PEM");
    let contexts = [
        bad("no token", "localhost:1", "", ""),
        bad("two lines", "localhost:1", &format!("{WRONG}\n{WRONG}"), ""),
        bad("no endpoint", "", WRONG, ""),
        bad("no certificate", "localhost:1", WRONG, &encoded),
    ];
    write_contexts(home.path(), PASSWORD, &contexts);
    for (name, word) in [
        ("no token", "token: empty"),
        ("two lines", "token: not a preshared key"),
        ("no endpoint", "endpoint: "),
        ("no certificate", "certificate: no certificate in it"),
    ] {
        let program = head().args(["--zed-context", name]);
        let finished = run(program.env("HOME", home.path()));
        let words = format!("--zed-context {name:?}: {word}");
        assert_says(&finished, 2, &[&words], name);
        assert!(!finished.stderr.contains(WRONG), "{}", finished.stderr);
    }
}

#[test]
fn context_of_zed_that_cannot_be_read_is_named() {
    let home = crate::support::folder();
    let ask = |name: &str| {
        let program = head().args(["--zed-context", name]);
        program.env("HOME", home.path())
    };
    let words = [
        "--zed-context \"a\"",
        "no contexts of zed",
        "hint: zed context list",
    ];
    assert_says(&run(ask("a")), 2, &words, "nothing");
    let contexts = [json!({"Name": "a", "Endpoint": "localhost:1", "APIToken": WRONG})];
    write_contexts(home.path(), PASSWORD, &contexts);
    let words = [
        "no such context",
        "it has: \"a\"",
        "its current one is \"a\"",
    ];
    assert_says(&run(ask("b")), 2, &words, "another name");
    let without = run(ask("a").env("ZED_KEYRING_PASSWORD", ""));
    let words = [
        "ZED_KEYRING_PASSWORD is not set",
        "read -rs ZED_KEYRING_PASSWORD",
    ];
    assert_says(&without, 2, &words, "no password");
    let wrong = run(ask("a").env("ZED_KEYRING_PASSWORD", "another-password"));
    let words = [
        "is not the password",
        "hint: give the one that zed asks for",
    ];
    assert_says(&wrong, 2, &words, "wrong password");
    assert!(!wrong.stderr.contains("another-password"));
    write_contexts(home.path(), PASSWORD, &[]);
    let words = ["holds no contexts of zed", "hint: zed context set"];
    assert_says(&run(ask("a")), 2, &words, "no contexts");
    write_contexts(home.path(), PASSWORD, &contexts);
    std::fs::remove_dir_all(home.path().join(".zed/keyring.jwt")).unwrap();
    let words = ["a keyring of the system", "--token-file"];
    assert_says(&run(ask("a")), 2, &words, "no file");
    let both = run(ask("a").args(["--context", "b"]));
    assert_says(&both, 2, &["--context", "cannot be used with"], "both");
}
