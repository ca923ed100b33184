use std::fs;

use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustix::fs::{CWD, FileType, Mode};
use secrecy::ExposeSecret as _;

use super::*;
use crate::Exit;

/// A file as zed writes it (tests/data/zed/README.md), with this password. Its contexts are those of
/// [`tokens_of_the_file_are_read`].
const FILE: &str = include_str!("../../../../tests/data/zed/keyring");
const PASSWORD_OF_FILE: &str = "correct horse";

fn decrypted(text: &str, password: &str) -> Result<Vec<u8>, Problem> {
    keyring::decrypt(text, &password.into())
}

/// A folder of zed's with this file and this current context.
fn folder_with(text: Option<&str>, current: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    if let Some(text) = text {
        fs::create_dir(folder.path().join("keyring.jwt")).unwrap();
        fs::write(folder.path().join(KEYRING), text).unwrap();
    }
    if let Some(name) = current {
        let text = format!("{{\"Version\":\"v1\",\"CurrentToken\":{name:?}}}");
        fs::write(folder.path().join("config.json"), text).unwrap();
    }
    folder
}

fn context(folder: &tempfile::TempDir, name: &str) -> Result<Settings, CommandError> {
    let password = PASSWORD_OF_FILE.into();
    read_from(Some(folder.path().to_owned()), Some(&password), name)
}

#[test]
fn tokens_of_the_file_are_read() {
    let folder = folder_with(Some(FILE), Some("prod"));
    let prod = context(&folder, "prod").unwrap();
    assert_eq!(prod.endpoint.as_deref(), Some("grpc.authzed.com:443"));
    let token = prod.token.as_ref().unwrap();
    assert_eq!(token.expose_secret(), "tc_prod_hunter2");
    assert!(!prod.insecure && !prod.no_verify_ca);
    assert!(prod.certificate_pem.is_none() && prod.hostname_override.is_none());

    let local = context(&folder, "local").unwrap();
    assert_eq!(local.endpoint.as_deref(), Some("localhost:50051"));
    assert!(local.insecure && !local.no_verify_ca && local.certificate_pem.is_none());

    let own = context(&folder, "own ca").unwrap();
    let pem = own.certificate_pem.unwrap();
    assert_eq!(pem.source, "--zed-context \"own ca\": certificate");
    assert_eq!(pem.text, b"PEM\n");
    assert_eq!(own.hostname_override.as_deref(), Some("db.example"));

    let any = context(&folder, "any").unwrap();
    assert!(any.no_verify_ca && any.certificate_pem.is_none());
    assert!(!format!("{prod:?} {local:?}").contains("hunter2"));
}

#[test]
fn unknown_context_names_those_of_zed() {
    let folder = folder_with(Some(FILE), Some("prod"));
    let failure = context(&folder, "prd").unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    for part in [
        &format!("in {}", folder.path().display()),
        "\"prod\", \"local\", \"own ca\", \"any\"",
        "its current one is \"prod\"",
    ] {
        assert!(failure.message().contains(part), "{failure:?}");
    }
    assert!(!format!("{failure:?}").contains("hunter2"));
}

#[test]
fn password_is_needed_and_a_wrong_one_is_named() {
    let folder = folder_with(Some(FILE), None);
    let path = Some(folder.path().to_owned());
    let failure = read_from(path.clone(), None, "prod").unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(
        failure
            .message()
            .contains("ZED_KEYRING_PASSWORD is not set"),
        "{failure:?}"
    );
    assert!(failure.hint_text().contains("read -rs"), "{failure:?}");
    let wrong = "wrong horse".into();
    let failure = read_from(path, Some(&wrong), "prod").unwrap_err();
    assert!(
        failure.message().contains("is not the password"),
        "{failure:?}"
    );
    assert!(failure.hint_text().contains("read -rs"), "{failure:?}");
    assert!(!format!("{failure:?}").contains("horse"), "{failure:?}");
}

#[test]
fn pipe_in_the_place_of_a_file_is_not_waited_for() {
    let folder = folder_with(Some(FILE), None);
    let pipe = |path: &str| {
        let (path, mode) = (folder.path().join(path), Mode::from_raw_mode(0o600));
        let _ = fs::remove_file(&path);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
    };
    pipe("config.json");
    let unknown = context(&folder, "prd").unwrap_err();
    assert!(unknown.message().contains("no such context"), "{unknown:?}");
    pipe(KEYRING);
    let failure = context(&folder, "prod").unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(
        failure
            .message()
            .ends_with("zed secrets: not a regular file"),
        "{failure:?}"
    );
}

#[test]
fn keyring_without_contexts_is_told_from_an_unknown_context() {
    let data = BASE64_STANDARD.encode("{}");
    let item = format!("{{\"Data\":{data:?}}}");
    assert!(tokens(item.as_bytes()).unwrap().is_empty());
    let path = Path::new("/home/u/.zed/secrets");
    let failure = no_contexts(path);
    assert_eq!(failure.exit, Exit::Usage);
    assert_eq!(
        failure.message(),
        "/home/u/.zed/secrets holds no contexts of zed"
    );
    assert!(
        failure.hint_text().contains("zed context set"),
        "{failure:?}"
    );
}

#[test]
fn where_there_is_no_file_the_way_out_is_named() {
    let nothing = context(&folder_with(None, None), "prod").unwrap_err();
    assert!(
        nothing.message().contains("no contexts of zed"),
        "{nothing:?}"
    );
    let system = context(&folder_with(None, Some("prod")), "prod").unwrap_err();
    assert!(
        system.message().contains("a keyring of the system"),
        "{system:?}"
    );
    assert!(system.hint_text().contains("--token-file"), "{system:?}");
    assert_eq!((nothing.exit, system.exit), (Exit::Usage, Exit::Usage));
    assert_eq!(read_from(None, None, "prod").unwrap_err().exit, Exit::Usage);
    let hostile = context(&folder_with(Some(FILE), None), "p\u{1b}d").unwrap_err();
    assert!(
        hostile.message().contains("control characters"),
        "{hostile:?}"
    );
}

#[test]
fn folder_is_that_of_zed() {
    let find = |set: &[(&str, &str)]| {
        folder(|name| {
            let found = set.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    let both = [("HOME", "/home/u"), ("XDG_CONFIG_HOME", "/etc/u")];
    assert_eq!(find(&both), Some("/etc/u/zed".into()));
    assert_eq!(find(&both[..1]), Some("/home/u/.zed".into()));
    let relative = [("HOME", "/home/u"), ("XDG_CONFIG_HOME", "rel")];
    assert_eq!(find(&relative), Some("/home/u/.zed".into()));
    for nowhere in [&[][..], &[("HOME", ".")], &[("XDG_CONFIG_HOME", "x")]] {
        assert_eq!(find(nowhere), None);
    }
}

/// The file with another header.
fn with_header(header: &str) -> String {
    let rest = FILE.trim().split_once('.').unwrap().1;
    format!("{}.{rest}", BASE64_URL_SAFE_NO_PAD.encode(header))
}

#[test]
fn damaged_file_is_refused() {
    let text = FILE.trim();
    let parts: Vec<&str> = text.split('.').collect();
    for place in [0, 2, 3, 4] {
        let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let other = if parts[place].starts_with('A') {
            "B"
        } else {
            "A"
        };
        parts[place].replace_range(..1, other);
        let problem = decrypted(&parts.join("."), PASSWORD_OF_FILE).unwrap_err();
        assert!(
            matches!(problem, Problem::Form(_)),
            "part {place}: {problem:?}"
        );
    }
    for text in [
        "",
        "a.b.c",
        "....",
        &text[..text.len() / 2],
        &format!("{text}.x"),
    ] {
        let problem = decrypted(text, PASSWORD_OF_FILE).unwrap_err();
        assert!(matches!(problem, Problem::Form(_)), "{text}: {problem:?}");
    }
}

#[test]
fn header_decides_neither_algorithm_nor_cost() {
    let header = |alg: &str, enc: &str, rounds: &str, more: &str| {
        with_header(&format!(
            "{{\"alg\":\"{alg}\",\"enc\":\"{enc}\",\"p2s\":\"AAAA\",\"p2c\":{rounds}{more}}}"
        ))
    };
    let (alg, enc) = ("PBES2-HS256+A128KW", "A256GCM");
    for (text, part) in [
        (header("dir", enc, "8192", ""), "another way"),
        (header("PBES2-HS512+A256KW", enc, "8192", ""), "another way"),
        (header(alg, "A128CBC-HS256", "8192", ""), "another way"),
        (header(alg, enc, "8192", ",\"zip\":\"DEF\""), "another way"),
        (header(alg, enc, "8192", ",\"crit\":[\"x\"]"), "another way"),
        (header(alg, enc, "0", ""), "rounds"),
        (header(alg, enc, "1300001", ""), "rounds"),
        (header(alg, enc, "4294967295", ""), "rounds"),
        (header(alg, enc, "4294967296", ""), "not an encrypted file"),
        (header(alg, enc, "-1", ""), "not an encrypted file"),
    ] {
        let began = std::time::Instant::now();
        let problem = decrypted(&text, PASSWORD_OF_FILE).unwrap_err();
        assert!(
            matches!(problem, Problem::Form(form) if form.contains(part)),
            "{problem:?}"
        );
        assert!(began.elapsed().as_secs() < 5);
    }
    // Another salt gives another key.
    assert_eq!(
        decrypted(&header(alg, enc, "1000", ""), PASSWORD_OF_FILE),
        Err(Problem::Password)
    );
}
