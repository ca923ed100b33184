use clap::Parser as _;

use super::*;

fn content(flags: &[&str]) -> Content {
    Content::of(&Export::parse_from(["spice-export"].iter().chain(flags)))
}

fn journal() -> Journal {
    let mut plan = Plan::new(Some(vec!["document".to_owned()]), Some("a"));
    plan.split(0);
    plan.set_characters("xyz".to_owned());
    let mut shards = Shards::default();
    shards.advance(1, "cursor".to_owned());
    Journal {
        begun_at: "2026-11-27T01:00:00Z".to_owned(),
        endpoint: "old:50051".to_owned(),
        plan,
        shards,
        bytes: 1_000,
        ..Journal::new(
            "revision".to_owned(),
            Digest(7),
            content(&["--type", "document"]),
        )
    }
}

fn file() -> (tempfile::TempDir, JournalFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = JournalFile::of(&folder.path().join("out.partial"));
    (folder, file)
}

#[test]
fn journal_is_read_as_it_was_saved_and_leaves_one_file() {
    let (folder, file) = file();
    assert_eq!(file.load().unwrap(), None);
    for bytes in [1, 2] {
        // As a process that was killed leaves it.
        fs::write(file.new_file(), "torn").unwrap();
        let journal = Journal { bytes, ..journal() };
        file.save(&journal).unwrap();
        let loaded = file.load().unwrap().unwrap();
        let bare = Journal {
            checksum: None,
            ..loaded
        };
        assert_eq!(bare, journal);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
    file.remove().unwrap();
    file.remove().unwrap();
    assert_eq!(file.load().unwrap(), None);
}

#[test]
fn journal_cut_or_changed_at_any_byte_is_refused() {
    let (_folder, file) = file();
    file.save(&journal()).unwrap();
    let bytes = fs::read(&file.0).unwrap();
    for at in 0..bytes.len() - 1 {
        fs::write(&file.0, &bytes[..at]).unwrap();
        assert_eq!(file.load().unwrap_err().exit, Exit::BadData, "cut at {at}");
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&file.0, &changed).unwrap();
        assert_eq!(file.load().unwrap_err().exit, Exit::BadData, "byte {at}");
    }
}

#[test]
fn journal_of_another_version_is_refused() {
    let (_folder, file) = file();
    file.save(&Journal {
        format: "spice-export-journal/2".to_owned(),
        ..journal()
    })
    .unwrap();
    let failure = file.load().unwrap_err();
    assert_eq!(failure.exit, Exit::BadData);
    assert!(failure.message().contains("journal/2"), "{failure:?}");
}

#[test]
fn flags_that_change_the_content_are_refused_and_others_are_not() {
    let began = ["--type", "b", "--type", "a", "--zstd"];
    let journal = Journal {
        content: content(&began),
        ..journal()
    };
    let partial = Path::new("out.partial");
    let check = |flags: &[&str], at| journal.check_flags(&content(flags), at, partial);
    for same in [
        &["--type", "b", "--type", "a", "--zstd"][..],
        &["--type", "a", "--type", "b", "--zstd=19"],
        &[
            "--type",
            "a",
            "--type",
            "b",
            "--zstd",
            "--jobs",
            "8",
            "--page-size",
            "5",
        ],
        &[
            "--type",
            "a",
            "--type",
            "b",
            "--zstd",
            "--settle",
            "0s",
            "--expiry-precision",
            "us",
        ],
    ] {
        check(same, None).unwrap();
        check(same, Some("revision")).unwrap();
        let failure = check(same, Some("other")).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message().contains("--at other"), "{failure:?}");
    }
    let cases: [(&[&str], &str); 8] = [
        (&["--type", "a", "--zstd"], "--type b"),
        (&[], "--zstd"),
        (&["--type", "a", "--type", "b"], "--zstd"),
        (&["--type", "a", "--type", "b", "--gzip"], "--gzip"),
        (
            &["--type", "a", "--type", "b", "--zstd", "--no-schema"],
            "--no-schema",
        ),
        (
            &[
                "--type",
                "a",
                "--type",
                "b",
                "--zstd",
                "--resource-prefix",
                "x",
            ],
            "--resource-prefix x",
        ),
        (
            &[
                "--type",
                "a",
                "--type",
                "b",
                "--zstd",
                "--expiry-precision",
                "s",
            ],
            "--expiry-precision s",
        ),
        (
            &[
                "--type",
                "a",
                "--type",
                "b",
                "--zstd",
                "--ignore-unknown-fields",
            ],
            "--ignore-unknown-fields",
        ),
    ];
    for (other, named) in cases {
        let failure = check(other, None).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message().contains(named), "{failure:?}");
        let remove = "rm out.partial out.partial.journal";
        assert!(failure.hint_text().contains(remove), "{failure:?}");
    }
}
