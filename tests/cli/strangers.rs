//! What a stranger can do who writes names, messages and links: nothing to a terminal, nothing to a file.

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;

use serde_json::Value;

use super::{assert_says, run, with_schema};
use crate::copy::export;
use crate::support::folder;
use crate::support::oracle;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::spicedb::Datastore;

/// An update that a server with the sample's schema takes.
const UPDATE: &str = r#"{"update":{"operation":"OPERATION_TOUCH","relationship":{"resource":{"objectType":"tenant/document","objectId":"a"},"relation":"viewer","subject":{"object":{"objectType":"user","objectId":"b"}}}}}"#;

/// Names with everything that rules a terminal.
const NAME: &str =
    "x\u{1b}]0;PWNED\u{7}\u{1b}[31m\n\rspice-digest: ok\u{9b}31m\u{202e}\u{2028}\u{7f}\ttab";

/// A sealed snapshot of one relationship with these names.
fn snapshot(object_type: &str, relation: &str) -> Vec<u8> {
    use authzed::v1::{ObjectReference, Relationship, SubjectReference};
    let object = |object_type: &str, object_id: &str| ObjectReference {
        object_type: object_type.to_owned(),
        object_id: object_id.to_owned(),
    };
    let relationship = Relationship {
        resource: Some(object(object_type, "a")),
        relation: relation.to_owned(),
        subject: Some(SubjectReference {
            object: Some(object("user", "b")),
            ..SubjectReference::default()
        }),
        ..Relationship::default()
    };
    let header = testdata::Sample::portable(1).header();
    let precision = spice_record::ExpiryPrecision::default();
    let mut stream = spice_record::SnapshotWriter::create(Vec::new(), header, precision).unwrap();
    stream.write(&relationship).unwrap();
    stream.finish().unwrap().1
}

/// Fails if anything hostile, but these, is in what a person sees.
#[track_caller]
fn assert_harmless(shown: &str, allowed: &[char], what: &str) {
    let hostile = |c: char| spice_cli::display::is_hostile(c) && !allowed.contains(&c);
    let found = shown.chars().find(|c| hostile(*c));
    assert_eq!(found, None, "{what}: {shown:?}");
}

#[test]
fn names_in_tables_are_escaped_and_a_row_stays_a_line() {
    let folder = folder();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    std::fs::write(&a, snapshot(NAME, "v\u{1b}[2Jview\nER")).unwrap();
    std::fs::write(&b, snapshot("document", "viewer")).unwrap();
    let table = |program: Program, code: i32| {
        let text = run(program).expect_code(code).text().to_owned();
        assert_harmless(&text, &['\n'], "a table");
        text
    };
    for text in [
        table(Program::new("spice-digest").arg(&a).arg(&b), 0),
        table(
            Program::new("spice-diff").arg("--summary").arg(&a).arg(&b),
            3,
        ),
    ] {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "a head, two relations, a total: {text}");
        assert!(
            text.contains("\\u{1b}]0;PWNED\\u{7}") && text.contains("\\u{202e}"),
            "{text}"
        );
        // Numbers are right-aligned: the first one ends where its head does.
        let end = |line: &str| {
            let name = line.find("  ").unwrap();
            let blanks = line[name..].find(|c| c != ' ').unwrap();
            let begin = name + blanks;
            begin + line[begin..].find(' ').unwrap()
        };
        for line in &lines[1..] {
            assert_eq!(end(line), end(lines[0]), "{text}");
        }
    }
}

#[test]
fn messages_are_escaped_in_both_formats_and_at_most_2_kib_long() {
    let folder = folder();
    let file = folder.path().join("file");
    let check = |finished: &Finished, what: &str| {
        assert_harmless(&finished.stderr, &['\n', '\t'], what);
        let longest = finished.stderr.split("\nspice-").map(str::len).max();
        assert!(longest.unwrap() <= 2_048, "{what}: {longest:?}");
        assert!(
            finished.stderr.len() <= 2_048,
            "{what}: {}",
            finished.stderr.len()
        );
    };
    let key = NAME.repeat(50_000);
    for name in [NAME, &key] {
        let line = serde_json::json!({ name: {} }).to_string();
        std::fs::write(&file, format!("{line}\n")).unwrap();
        for format in ["text", "json"] {
            let logged = ["--log-format", format];
            for program in ["spice-digest", "spice-revision"] {
                let finished = run(Program::new(program).args(logged).arg(&file));
                check(&finished, &format!("{program} {format}"));
                assert_eq!(finished.code(), Some(65));
                assert!(finished.stderr.contains("PWNED"), "it names what it found");
            }
            if name.len() < 1_000 {
                let finished = run(Program::new("spice-export")
                    .args(logged)
                    .arg(format!("--{name}")));
                check(&finished, "an unknown flag");
                assert_eq!(finished.code(), Some(2));
            }
        }
    }
    let finished = run(Program::new("spice-digest")
        .args(["--log-format", "json"])
        .arg(&file));
    let event: Value = serde_json::from_str(finished.stderr.trim()).unwrap();
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("bytes left out"), "{message}");
    // The value is what was found: JSON escapes it.
    assert!(message.contains('\u{1b}') && message.contains('\u{202e}'));
}

#[test]
fn revision_that_is_no_token_is_refused_and_not_printed() {
    let folder = folder();
    let file = folder.path().join("file");
    let line = |revision: &str| crate::support::seal::position(revision, "b");
    std::fs::write(&file, format!("{}\n", line("Gh\u{1b}[2J"))).unwrap();
    let finished = run(Program::new("spice-revision").arg(&file));
    assert_says(&finished, 65, &["not a zedtoken", "\\u{1b}"], "a revision");
    assert!(finished.stdout.is_empty());
    assert_harmless(&finished.stderr, &['\n'], "a revision");
    std::fs::write(&file, format!("{}\n", line("GhUKEzE3"))).unwrap();
    let finished = run(Program::new("spice-revision").arg(&file)).expect_success();
    assert_eq!(finished.text(), "GhUKEzE3\n");
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn contexts_that_strangers_can_write_are_not_used() {
    let folder = folder();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let contexts = inner.join("contexts.toml");
    let ran = folder.path().join("ran");
    let text = format!(
        "[a]\nendpoint = \"127.0.0.1:1\"\ninsecure = true\ntoken-command = \"touch {}; echo key\"\n",
        ran.display()
    );
    std::fs::write(&contexts, text).unwrap();
    let head = || {
        let program = Program::new("spice-revision").args(["--head", "--context", "a"]);
        run(program.env("SPICE_CONTEXTS", &contexts))
    };
    mode(&contexts, 0o600);
    mode(&inner, 0o700);
    assert_says(&head(), 75, &["Connection refused"], "our own");
    assert!(ran.exists());
    std::fs::remove_file(&ran).unwrap();
    for (file, folder) in [
        (0o602, 0o700),
        (0o666, 0o700),
        (0o600, 0o777),
        (0o600, 0o703),
    ] {
        mode(&contexts, file);
        mode(&inner, folder);
        let what = format!("{file:o} in {folder:o}");
        assert_says(&head(), 2, &["others can write", "hint: chmod go-w"], &what);
        assert!(!ran.exists(), "{what}");
    }
    mode(&inner, 0o1777);
    assert_says(&head(), 75, &["Connection refused"], "a sticky folder");
    mode(&inner, 0o700);
    mode(&contexts, 0o660);
    assert_says(
        &head(),
        75,
        &["warning: others of its group can write"],
        "a group",
    );
    let name = run(Program::new("spice-revision")
        .args(["--head", "--context", "a\u{1b}b"])
        .env("SPICE_CONTEXTS", &contexts));
    assert_says(&name, 2, &["no control characters"], "a name");
    if chown(&contexts, Some(4711), None).is_ok() {
        std::fs::remove_file(&ran).unwrap();
        mode(&contexts, 0o600);
        assert_says(&head(), 2, &["others can write"], "another owner");
        assert!(!ran.exists());
    }
}

#[test]
fn what_can_be_overheard_or_forged_is_warned_of() {
    let folder = folder();
    let token = folder.path().join("token");
    std::fs::write(&token, "key\n").unwrap();
    mode(&token, 0o644);
    let head = |flags: &[&str]| {
        let program = Program::new("spice-revision").arg("--head").args(flags);
        run(program.arg("--token-file").arg(&token))
    };
    let finished = head(&["--endpoint", "127.0.0.1:1", "--insecure"]);
    assert_says(
        &finished,
        75,
        &["warning: --token-file", "others can read it: chmod 600"],
        "token",
    );
    mode(&token, 0o600);
    let finished = head(&["--endpoint", "127.0.0.1:1", "--insecure"]);
    assert!(!finished.stderr.contains("warning"), "{}", finished.stderr);
    // A name that is not known here is on no loopback.
    let finished = head(&["--endpoint", "nosuch.invalid:1", "--insecure"]);
    assert!(
        finished.stderr.contains("without TLS"),
        "{}",
        finished.stderr
    );
    let finished = head(&["--endpoint", "127.0.0.1:1", "--no-verify-ca"]);
    assert!(
        finished.stderr.contains("warning: --no-verify-ca"),
        "{}",
        finished.stderr
    );
    let both = [
        "--endpoint",
        "127.0.0.1:1",
        "--no-verify-ca",
        "--certificate-path",
        "x",
    ];
    assert_says(
        &head(&both),
        2,
        &["--no-verify-ca", "--certificate-path", "drop one"],
        "both",
    );
}

#[test]
fn token_command_is_bounded_in_time_and_output() {
    let head = |command: &str| {
        let program = Program::new("spice-revision").args(["--head", "--endpoint", "127.0.0.1:1"]);
        run(program.args(["--insecure", "--token-command", command]))
    };
    let words = ["--token-command", "more than 64 KiB"];
    assert_says(&head("yes"), 2, &words, "output without end");
    let finished = head("sleep 600");
    assert_says(
        &finished,
        2,
        &["--token-command", "took longer than 30 s"],
        "time",
    );
}

#[test]
fn links_that_others_planted_are_not_followed() {
    let server = with_schema(Datastore::Memory);
    let since = oracle::head(&server);
    let folder = folder();
    let (victim, link) = (folder.path().join("victim"), folder.path().join("planted"));
    std::fs::write(&victim, "kept").unwrap();
    let kept = || assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
    // The lock of a spool, whoever made the link.
    symlink(&victim, folder.path().join("spool.lock")).unwrap();
    let program =
        Program::new("spice-watch").args(["--context", server.context(), "--since", &since]);
    let finished = run(program.arg("--spool").arg(folder.path().join("spool")));
    assert_says(&finished, 1, &["cannot lock the spool"], "lock");
    kept();
    symlink(&victim, &link).unwrap();
    if std::os::unix::fs::lchown(&link, Some(4711), None).is_err() {
        return; // Not root: there is no other user to be.
    }
    let finished = run(export(&server).arg("--output").arg(&link));
    assert_says(&finished, 1, &["belongs to another user (4711)"], "output");
    kept();
    let stream = format!("{UPDATE}\n");
    let apply = |flag: &str| {
        let program = Program::new("spice-apply").args(["--context", server.context()]);
        run(program.arg(flag).arg(&link).input(stream.clone()))
    };
    assert_says(&apply("--position"), 1, &["another user"], "position");
    let program = Program::new("spice-apply").args(["--context", server.context(), "--no-trailer"]);
    let finished = run(program.arg("--rejects").arg(&link).input(stream));
    assert_says(&finished, 1, &["another user"], "rejects");
    kept();
}

#[test]
fn rejects_file_is_not_the_input_and_its_mode_is_checked() {
    let server = with_schema(Datastore::Memory);
    let folder = folder();
    let [input, link, open] = ["input", "link", "open"].map(|name| folder.path().join(name));
    std::fs::write(&input, format!("{UPDATE}\n")).unwrap();
    symlink(&input, &link).unwrap();
    let apply =
        || Program::new("spice-apply").args(["--context", server.context(), "--no-trailer"]);
    for rejects in [&input, &link] {
        let by_name = run(apply().arg(&input).arg("--rejects").arg(rejects));
        assert_says(&by_name, 2, &["is the file that is read"], "by name");
        let by_stdin = run(apply().input_file(&input).arg("--rejects").arg(rejects));
        assert_says(&by_stdin, 2, &["is the file that is read"], "stdin");
    }
    std::fs::write(&open, "").unwrap();
    mode(&open, 0o644);
    let finished = run(apply().arg(&input).arg("--rejects").arg(&open)).expect_success();
    assert!(
        finished.stderr.contains("others can read it"),
        "{}",
        finished.stderr
    );
    let private = folder.path().join("private");
    run(apply().arg(&input).arg("--rejects").arg(&private)).expect_success();
    let made = std::fs::metadata(&private).unwrap().permissions().mode();
    assert_eq!(made & 0o777, 0o600);
}
