use authzed::Code;
use authzed::v1::{ReflectSchemaResponse, ReflectionDefinition};
use clap::Parser as _;
use spice_cli::connection::ConnectionArgs;
use spice_cli::settings::Settings;
use spice_record::ChangeSealer;
use spice_record::Record;
use spice_record::record::Position;
use testserver::{
    EXPORT, READ_SCHEMA, REFLECT_SCHEMA, Reply, Server, schema_response, token, token_of,
};

use super::*;

/// A revision of the server's, and one of another datastore.
fn head() -> String {
    token(100)
}

fn foreign(revision: u64) -> String {
    token_of(&revision.to_string(), "bbbbbbbb")
}

fn watch(flags: &[&str]) -> Watch {
    Watch::parse_from(["spice-watch"].iter().chain(flags))
}

async fn start(flags: &[&str]) -> Result<String, CommandError> {
    let (watch, head) = (watch(flags), head());
    watch.start(&head, "localhost:1", None).await
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, records: &[Record]) -> String {
        let path = self.path(name);
        let lines = records
            .iter()
            .map(|r| serde_json::to_string(r).unwrap() + "\n");
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        path
    }

    fn summary(&self, source: &str, target: Option<&str>) -> String {
        let mut imported = serde_json::json!({
            "relationships": 0, "loaded": 0, "present": 0, "touched": 0, "skipped": 0,
            "rejected": 0, "sourceRevision": source, "digest": "0".repeat(32),
            "expiryPrecision": "us", "verified": true, "seconds": 1.0,
        });
        if let Some(target) = target {
            imported["targetRevision"] = target.into();
        }
        let path = self.path("summary");
        let line = serde_json::json!({ "imported": imported });
        std::fs::write(&path, format!("{line}\n")).unwrap();
        path
    }

    fn spool(&self, name: &str, revision: &str) -> String {
        let (_, header) = ChangeSealer::begin(Header {
            revision: Some(revision.to_owned()),
            ..Header::new(StreamKind::Changes, "test", "2026-11-24T00:00:00Z")
        });
        self.write(name, &[Record::Header(Box::new(header))])
    }
}

#[tokio::test]
async fn flag_names_the_revision() {
    assert_eq!(start(&["--since", &token(7)]).await.unwrap(), token(7));
}

#[tokio::test]
async fn file_wins_over_the_flag_once_it_exists() {
    let folder = Folder::new();
    let (flag, file) = (token(7), folder.path("summary"));
    let flags = ["--since", &flag, "--since-file", &file];
    assert_eq!(start(&flags).await.unwrap(), flag);
    folder.summary(&token(9), None);
    assert_eq!(start(&flags).await.unwrap(), token(9));
}

#[tokio::test]
async fn file_of_a_part_is_continued_by_that_part_only() {
    let folder = Folder::new();
    let part = |prefix: &str| Filter {
        types: vec!["document".to_owned()],
        resource_prefix: Some(prefix.to_owned()),
    };
    let header = Header {
        revision: Some(token(9)),
        filter: Some(part("acme-")),
        ..Header::new(StreamKind::Snapshot, "test", "2026-11-24T00:00:00Z")
    };
    let mapped = Header {
        mapping: vec!["rename crm/=sales/".to_owned()],
        ..header.clone()
    };
    let position = Position {
        source_revision: token(9),
        filter: Some(part("acme-")),
        ..Position::default()
    };
    let position = Position {
        checksum: Some(position.compute_checksum().unwrap()),
        ..position
    };
    let snapshot = folder.write("a snapshot", &[Record::Header(Box::new(header.sealed()))]);
    let mapped = folder.write("mapped", &[Record::Header(Box::new(mapped.sealed()))]);
    let position = folder.write("position", &[Record::Position(Box::new(position))]);
    let same = ["--type", "document", "--resource-prefix", "acme-"];
    for file in [&snapshot, &position] {
        let file = ["--since-file", file];
        let flags = [&file[..], &same].concat();
        assert_eq!(start(&flags).await.unwrap(), token(9));
        for flags in [&[][..], &same[..2], &["--resource-prefix", "initech-"]] {
            let failure = start(&[&file[..], flags].concat()).await.unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message().contains("\"acme-\""), "{failure:?}");
            assert!(failure.hint_text().contains("--type"), "{failure:?}");
        }
    }
    // What follows is mapped as well, there the part is chosen again.
    let flags = ["--since-file", &mapped];
    assert_eq!(start(&flags).await.unwrap(), token(9));
}

#[tokio::test]
async fn target_revision_of_a_summary_begins_the_way_back() {
    let folder = Folder::new();
    let summary = folder.summary(&foreign(3), Some(&token(12)));
    assert_eq!(start(&["--since-file", &summary]).await.unwrap(), token(12));
}

#[tokio::test]
async fn file_of_another_datastore_is_refused() {
    let folder = Folder::new();
    let file = folder.summary(&foreign(3), Some(&token_of("4", "cccccccc")));
    let failure = start(&["--since-file", &file]).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.message().contains("bbbbbbbb"), "{failure:?}");
}

#[tokio::test]
async fn skip_applied_needs_a_start_after_the_load() {
    let folder = Folder::new();
    let source = folder.summary(&token(3), None);
    for flags in [
        &["--skip-applied", "--since", &token(7)][..],
        &["--skip-applied", "--since-file", &source],
    ] {
        let failure = start(flags).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message().contains("--skip-applied"), "{failure:?}");
    }
    let target = folder.summary(&foreign(3), Some(&token(12)));
    let flags = ["--skip-applied", "--since-file", &target];
    assert_eq!(start(&flags).await.unwrap(), token(12));
}

#[tokio::test]
async fn tokens_that_name_no_datastore_are_ambiguous_in_a_summary() {
    let folder = Folder::new();
    let (source, target) = (token_of("3", ""), token_of("4", ""));
    let file = folder.summary(&source, Some(&target));
    let watch = watch(&["--since-file", &file]);
    let old = token_of("9", "");
    let failure = watch.start(&old, "localhost:1", None).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.hint_text().contains("--target"), "{failure:?}");
}

fn tail(spool: &Spool) -> SpoolTail {
    SpoolWriter::open(spool, None).unwrap().1.unwrap()
}

#[tokio::test]
async fn continued_spool_wins_over_flag_and_file() {
    let folder = Folder::new();
    let spool = folder.spool("spool", &token(20));
    let tail = tail(&Spool::new(spool.as_ref()));
    let flags = ["--spool", &spool, "--since", &token(7)];
    let watch = watch(&flags);
    let begins = watch.start(&head(), "localhost:1", Some(&tail)).await;
    assert_eq!(begins.unwrap(), token(20));
}

#[tokio::test]
async fn spool_of_another_datastore_or_filter_is_refused() {
    let folder = Folder::new();
    let spool = folder.spool("spool", &foreign(20));
    let found = tail(&Spool::new(spool.as_ref()));
    let other = watch(&["--spool", &spool]);
    let failure = other.start(&head(), "localhost:1", Some(&found)).await;
    assert_eq!(failure.unwrap_err().exit, Exit::Failed);
    let spool = folder.spool("own", &token(20));
    let found = tail(&Spool::new(spool.as_ref()));
    let other = watch(&["--spool", &spool, "--type", "document"]);
    let failure = other.start(&head(), "localhost:1", Some(&found)).await;
    let failure = failure.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    let resources = "all resources, and not of resources of type document";
    assert!(failure.message().contains(resources), "{failure:?}");
    assert!(failure.hint_text().contains("--type"), "{failure:?}");
}

#[test]
fn spool_is_continued_with_its_own_filter_only() {
    let filter = |prefix: &str| Filter {
        types: vec!["document".to_owned()],
        resource_prefix: Some(prefix.to_owned()),
    };
    let (acme, evil) = (filter("acme-"), filter("evil-"));
    check_filter(None, None).unwrap();
    check_filter(Some(&acme), Some(&acme)).unwrap();
    for (spool, asked) in [
        (Some(&acme), Some(&evil)),
        (Some(&acme), None),
        (None, Some(&acme)),
    ] {
        let failure = check_filter(spool, asked).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message().contains("acme-"), "{failure:?}");
    }
}

#[tokio::test]
async fn new_spool_needs_a_revision() {
    let folder = Folder::new();
    let failure = start(&["--spool", &folder.path("new")]).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message().contains("--since"), "{failure:?}");
}

#[test]
fn until_of_another_datastore_is_refused() {
    let check = |token: &str| watch(&["--until", token]).check_until(&head());
    check(&token(200)).unwrap();
    assert_eq!(check(&foreign(200)).unwrap_err().exit, Exit::Usage);
    watch(&[]).check_until(&head()).unwrap();
}

#[test]
fn until_of_a_postgres_head_cannot_be_awaited() {
    let bare = token_of("CNgJEAUaAgAB", "aaaaaaaa");
    let failure = watch(&["--until", &bare]).check_until(&head());
    if let Err(failure) = failure {
        assert!(failure.hint_text().contains("spice-revision --mark"));
    } else {
        panic!("it names no transaction");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_types_are_refused_and_the_known_ones_are_named() {
    let server = Server::new();
    let definition = |name: &str| ReflectionDefinition {
        name: name.to_owned(),
        ..ReflectionDefinition::default()
    };
    let reflected = ReflectSchemaResponse {
        definitions: vec![definition("user"), definition("document")],
        ..ReflectSchemaResponse::default()
    };
    server.script(REFLECT_SCHEMA, [Reply::message(&reflected)]);
    let client = server.client();
    let checked = watch(&["--type", "document", "--type", "file"]);
    let failure = checked.check_types(&client).await.unwrap_err();
    assert!(failure.message().contains("--type file"), "{failure:?}");
    assert!(
        failure.hint_text().contains("document, user"),
        "{failure:?}"
    );
    let checked = watch(&["--type", "document"]);
    checked.check_types(&client).await.unwrap();
    watch(&[]).check_types(&client).await.unwrap();
    assert_eq!(
        server.calls(REFLECT_SCHEMA),
        2,
        "without --type nothing is asked"
    );
}

/// Checks revision 7 with two retries.
async fn check_start(watch: &Watch, server: &Server) -> Result<Option<String>, CommandError> {
    let settings = Settings {
        endpoint: Some("test.invalid:50051".to_owned()),
        insecure: true,
        max_retries: Some(2),
        ..Settings::default()
    };
    let args = ConnectionArgs {
        context: None,
        settings,
    };
    let connection = args.resolve().await?;
    let since = token(7);
    watch
        .check_start(&mut server.client(), &connection, &since)
        .await
}

#[tokio::test(start_paused = true)]
async fn history_lost_before_the_start_is_recorded_beside_the_spool() {
    let folder = Folder::new();
    let server = Server::new();
    server.script(EXPORT, [Reply::error(Code::OutOfRange, "expired")]);
    let path = folder.path("spool");
    let started = watch(&["--spool", &path]);
    let checked = check_start(&started, &server).await;
    assert_eq!(checked.unwrap_err().exit, Exit::HistoryLost);
    let lost = Spool::new(path.as_ref()).lost().unwrap();
    assert!(lost.contains(&token(7)), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn check_of_the_start_is_repeated_on_a_new_connection() {
    let server = Server::new();
    let away = || Reply::error(Code::Unavailable, "down");
    server.script(EXPORT, [away(), Reply::empty()]);
    let schema = Reply::message(&schema_response("one", 8));
    server.script(READ_SCHEMA, [away(), schema]);
    let found = check_start(&watch(&[]), &server).await;
    assert_eq!(found.unwrap().as_deref(), Some("one"));
    assert_eq!(server.connections(), 3);
    server.script(EXPORT, [away()]);
    let failure = check_start(&watch(&[]), &server).await.unwrap_err();
    assert_eq!(failure.exit, Exit::TryAgain);
}

#[test]
fn only_datastores_that_can_be_followed_are() {
    let refused = |kind| refuse_unless_followable(kind, "e").map_err(|failure| failure.exit);
    assert_eq!(refused(DatastoreKind::Postgres), Ok(()));
    assert_eq!(refused(DatastoreKind::Spanner), Err(Exit::Failed));
    assert_eq!(refused(DatastoreKind::MemoryOrSpanner), Err(Exit::Usage));
}

#[tokio::test(start_paused = true)]
async fn contended_reads_are_on_where_revisions_must_settle() {
    let settle = Duration::from_secs(5);
    let of = |flags: &[&str], kind, settle| watch(flags).contended(kind, settle).is_some();
    assert!(of(&[], DatastoreKind::MySql, settle));
    assert!(!of(&[], DatastoreKind::Postgres, settle));
    assert!(!of(&[], DatastoreKind::MySql, Duration::ZERO));
    assert!(of(
        &["--until", &token(9)],
        DatastoreKind::MySql,
        Duration::ZERO
    ));
}
