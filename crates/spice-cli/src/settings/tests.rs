use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::Exit;

/// The settings from these variables.
fn environment(set: &[(&str, &str)]) -> Result<Settings, CommandError> {
    let set: HashMap<String, String> = set
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    from_variables(|name| set.get(name).cloned())
}

/// The settings of a table of this contexts file.
fn context(text: &str, name: &str) -> Result<Settings, CommandError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contexts.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    read_from(Some(path), name)
}

fn secret(settings: &Settings) -> Option<String> {
    let token = settings.token.as_ref();
    token.map(|token| token.expose_secret().to_owned())
}

#[test]
fn flags_win_over_what_they_leave_open() {
    let flags = Settings {
        endpoint: Some("flag:1".to_owned()),
        max_retries: Some(0),
        ..Settings::default()
    };
    let context = Settings {
        endpoint: Some("context:1".to_owned()),
        max_retries: Some(7),
        request_timeout: Some(Duration::from_secs(9)),
        datastore: Some(DatastoreKind::MySql),
        insecure: true,
        no_verify_ca: true,
        hostname_override: Some("host".to_owned()),
        certificate_path: Some("ca".into()),
        client_certificate_path: Some("certificate".into()),
        client_key_path: Some("key".into()),
        proxy: Some("none".into()),
        ..Settings::default()
    };
    let merged = flags.or(context);
    assert_eq!(merged.endpoint.as_deref(), Some("flag:1"));
    assert_eq!(merged.max_retries, Some(0));
    assert_eq!(merged.request_timeout, Some(Duration::from_secs(9)));
    assert_eq!(merged.datastore, Some(DatastoreKind::MySql));
    assert!(merged.insecure && merged.no_verify_ca);
    assert_eq!(merged.hostname_override.as_deref(), Some("host"));
    assert_eq!(merged.certificate_path, Some("ca".into()));
    assert_eq!(merged.client_certificate_path, Some("certificate".into()));
    assert_eq!(merged.client_key_path, Some("key".into()));
    assert!(merged.proxy.is_some());
}

#[test]
fn sources_of_a_token_are_one_setting() {
    let file = |name: &str| Settings {
        token_file: Some(name.into()),
        ..Settings::default()
    };
    let command = Settings {
        token_command: Some("pass".to_owned()),
        token: Some("key".to_owned().into()),
        ..Settings::default()
    };
    let merged = file("own").or(command.clone());
    assert_eq!(merged.token_file, Some("own".into()));
    assert_eq!((merged.token_command, secret(&file("own"))), (None, None));
    let merged = command.or(file("other"));
    assert_eq!(merged.token_file, None);
    assert_eq!(secret(&merged).as_deref(), Some("key"));
    let merged = Settings::default().or(file("other"));
    assert_eq!(merged.token_file, Some("other".into()));
}

#[test]
fn sources_of_authorities_are_one_setting() {
    let path = || Settings {
        certificate_path: Some("ca".into()),
        ..Settings::default()
    };
    let pem = || Settings {
        certificate_pem: Some(Pem {
            source: "zed".to_owned(),
            text: b"pem".to_vec(),
        }),
        ..Settings::default()
    };
    let merged = path().or(pem());
    assert_eq!(merged.certificate_path, Some("ca".into()));
    assert_eq!(merged.certificate_pem, None);
    let merged = Settings::default().or(pem());
    assert_eq!(merged.certificate_pem, pem().certificate_pem);
}

#[test]
fn each_variable_of_the_list_is_read() {
    let values = |name: &str| match name {
        "SPICE_INSECURE" | "SPICE_NO_VERIFY_CA" => "true",
        "SPICE_REQUEST_TIMEOUT" => "5s",
        "SPICE_MAX_RETRIES" => "3",
        "SPICE_DATASTORE" => "mysql",
        _ => "text",
    };
    for name in VARIABLES {
        let plain = environment(&[]).unwrap();
        let read = environment(&[(name, values(name))]).unwrap();
        assert_ne!(format!("{plain:?}"), format!("{read:?}"), "{name}");
    }
}

#[test]
fn variable_of_another_form_is_refused_by_name() {
    for (name, value) in [
        ("SPICE_INSECURE", "yes"),
        ("SPICE_NO_VERIFY_CA", "2"),
        ("SPICE_REQUEST_TIMEOUT", "soon"),
        ("SPICE_REQUEST_TIMEOUT", "0s"),
        ("SPICE_MAX_RETRIES", "-1"),
        ("SPICE_DATASTORE", "oracle"),
    ] {
        let failure = environment(&[(name, value)]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage, "{name}");
        assert!(failure.message().contains(name), "{failure:?}");
    }
    for value in ["0", "false"] {
        assert!(!environment(&[("SPICE_INSECURE", value)]).unwrap().insecure);
    }
}

#[test]
fn token_file_wins_over_command_and_key_in_the_environment() {
    let all = [
        ("SPICE_TOKEN", "key"),
        ("SPICE_TOKEN_COMMAND", "pass"),
        ("SPICE_TOKEN_FILE", "file"),
    ];
    for (count, expected) in [(3, "file"), (2, "pass"), (1, "key")] {
        let found = environment(&all[..count]).unwrap();
        let sources = [
            found
                .token_file
                .as_ref()
                .map(|path| path.display().to_string()),
            found.token_command.clone(),
            secret(&found),
        ];
        let sources: Vec<String> = sources.into_iter().flatten().collect();
        assert_eq!(sources, [expected]);
    }
}

#[test]
fn context_is_one_table_with_the_names_of_the_flags() {
    let text = "[old]\nendpoint = \"a:1\"\ninsecure = true\nmax-retries = 3\n\
                request-timeout = \"5s\"\ndatastore = \"postgres\"\n[new]\nendpoint = \"b:1\"\n";
    let old = context(text, "old").unwrap();
    assert_eq!(old.endpoint.as_deref(), Some("a:1"));
    assert!(old.insecure);
    assert_eq!(old.max_retries, Some(3));
    assert_eq!(old.request_timeout, Some(Duration::from_secs(5)));
    assert_eq!(old.datastore, Some(DatastoreKind::Postgres));
    let new = context(text, "new").unwrap();
    assert_eq!(
        (new.endpoint.as_deref(), new.insecure),
        (Some("b:1"), false)
    );
}

#[test]
fn paths_of_a_context_are_relative_to_its_file() {
    let text = "[old]\ntoken-file = \"old.token\"\ncertificate-path = \"/etc/ca\"\n";
    let found = context(text, "old").unwrap();
    let path = found.token_file.unwrap();
    assert!(
        path.is_absolute() && path.ends_with("old.token"),
        "{path:?}"
    );
    assert_eq!(found.certificate_path, Some("/etc/ca".into()));
}

#[test]
fn context_with_two_tokens_is_refused() {
    for (text, both) in [
        (
            "[old]\ntoken-file = \"a\"\ntoken = \"hunter2\"\n",
            "token-file and token",
        ),
        (
            "[old]\ntoken-command = \"a\"\ntoken = \"hunter2\"\n",
            "token-command and token",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        fs::write(&path, text).unwrap();
        let failure = read_from(Some(path), "old").unwrap_err();
        assert!(failure.message().contains(both), "{failure:?}");
        assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
    }
}

#[test]
fn missing_or_wrong_context_is_refused_without_its_token() {
    let secret = "hunter2";
    for (text, name, part) in [
        ("[old]\n", "new", "it has: old"),
        ("[old]\nendpont = \"a\"\n", "old", "endpont"),
        ("[old]\ntoken = hunter2\n", "old", ":2:"),
        ("[old]\ntoken = [\"hunter2\"]\n", "old", "in quotes"),
        ("old = \"hunter2\"\n", "old", "no context"),
        ("[old]\nproxy = [\"hunter2\"]\n", "old", "in quotes"),
        (
            "[old]\nmax-retries = \"a\"\n",
            "old",
            ": max-retries: invalid type",
        ),
        ("[old]\nendpoint = 5\n", "old", ": endpoint: invalid type"),
        (
            "[old]\nendpoint = \"a\"\nrequest-timeout = \"soon\"\n",
            "old",
            ": request-timeout: ",
        ),
        ("[old]\ndatastore = \"oracle\"\n", "old", ": datastore: "),
        ("[old]\n", "o\u{1b}ld", "control characters"),
    ] {
        let failure = context(text, name).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let output = format!("{} {}", failure.message(), failure.hint_text());
        assert!(output.contains(part), "{output}");
        if text.contains("token") || text.starts_with("old") {
            assert!(!output.contains(secret), "{output}");
        }
    }
    assert!(
        read_from(None, "old")
            .unwrap_err()
            .hint_text()
            .contains("SPICE_CONTEXTS")
    );
    let nowhere = read_from(Some("/nowhere/contexts.toml".into()), "old");
    assert!(nowhere.unwrap_err().message().contains("/nowhere"));
}

#[test]
fn contexts_file_that_others_can_write_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contexts.toml");
    fs::write(&path, "[old]\n").unwrap();
    let read = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        read_from(Some(path.clone()), "old")
    };
    assert!(read(0o644).is_ok());
    let failure = read(0o646).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.hint_text().contains("chmod go-w"), "{failure:?}");
}

#[test]
fn token_is_read_from_its_source_and_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "  key\n").unwrap();
    let of = |settings: Settings| {
        token(&settings, &Source::Flags).map(|found| found.map(|t| t.expose_secret().to_owned()))
    };
    let from_file = Settings {
        token_file: Some(path.clone()),
        ..Settings::default()
    };
    assert_eq!(of(from_file).unwrap().as_deref(), Some("key"));
    let from_command = Settings {
        token_command: Some("echo other".to_owned()),
        ..Settings::default()
    };
    assert_eq!(of(from_command).unwrap().as_deref(), Some("other"));
    assert_eq!(of(Settings::default()).unwrap(), None);
}

#[test]
fn token_that_is_none_is_refused_by_its_source() {
    let key = |text: &str| Settings {
        token: Some(text.to_owned().into()),
        ..Settings::default()
    };
    let command = |text: &str| Settings {
        token_command: Some(text.to_owned()),
        ..Settings::default()
    };
    let file = Settings {
        token_file: Some("/nowhere/token".into()),
        ..Settings::default()
    };
    for (settings, part) in [
        (key(""), "empty"),
        (key("two words"), "one word"),
        (key("schlüssel"), "one word"),
        (command("true"), "--token-command: empty"),
        (command("exit 3"), "--token-command"),
        (file, "--token-file /nowhere/token"),
    ] {
        let failure = token(&settings, &Source::Flags).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message().contains(part), "{failure:?}");
    }
}

#[test]
fn the_working_directory_is_never_searched_for_contexts() {
    let find = |set: &[(&str, &str)]| {
        find_file(|name| {
            let found = set.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    let place = |path: &str| Some(PathBuf::from(path));
    let below = "/home/u/.config/spice-pipes/contexts.toml";
    assert_eq!(find(&[("HOME", "/home/u")]), place(below));
    let both = [("HOME", "/home/u"), ("XDG_CONFIG_HOME", "/etc/u")];
    assert_eq!(find(&both), place("/etc/u/spice-pipes/contexts.toml"));
    let relative = [("HOME", "/home/u"), ("XDG_CONFIG_HOME", "config")];
    assert_eq!(find(&relative), place(below));
    for nowhere in [&[][..], &[("HOME", ".")], &[("XDG_CONFIG_HOME", "x")]] {
        assert_eq!(find(nowhere), None);
    }
    // A given value is used as it is.
    assert_eq!(find(&[("SPICE_CONTEXTS", "c.toml")]), place("c.toml"));
}
