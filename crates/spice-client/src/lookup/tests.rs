use std::sync::{Arc, Mutex};

use authzed::Code;
use testserver::{EXPORT, Reply, Server, page, relationship, token};

use super::*;

type Filters = Arc<Mutex<Vec<(RelationshipFilter, u32)>>>;

/// A server that holds `document:ID#viewer@user:anna` for these ids, in pages of the size asked for.
fn holding(ids: &[&str]) -> (Server, Filters) {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let filters = Filters::default();
    let seen = Arc::clone(&filters);
    let server = Server::new();
    server.on(EXPORT, move |request: ExportBulkRelationshipsRequest| {
        let filter = request.optional_relationship_filter.unwrap();
        let found = ids.iter().map(String::as_str).filter(|id| {
            id.starts_with(&filter.optional_resource_id_prefix)
                && (filter.optional_resource_id.is_empty() || *id == filter.optional_resource_id)
        });
        let found: Vec<&str> = found.collect();
        let size = match request.optional_limit {
            0 => 10_000,
            limit => limit as usize,
        };
        seen.lock().unwrap().push((filter, request.optional_limit));
        Reply::messages(found.chunks(size).map(|ids| page(ids, "c")))
    });
    (server, filters)
}

fn rows(ids: &[&str]) -> Vec<Relationship> {
    ids.iter().map(|id| relationship(id, "anna")).collect()
}

async fn found(server: &Server, ids: &[&str]) -> Vec<String> {
    let rows = rows(ids);
    let rows: Vec<&Relationship> = rows.iter().collect();
    names(read(&server.client(), &rows, 2).await.unwrap().unwrap())
}

fn names(found: ByKey<Relationship>) -> Vec<String> {
    let resources = found.into_values().filter_map(|row| row.resource);
    let mut names: Vec<String> = resources.map(|resource| resource.object_id).collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_chunk_are_found_with_one_read_by_their_prefix() {
    let (server, filters) = holding(&["a1", "a2", "a3", "b1"]);
    assert_eq!(found(&server, &["a1", "a3", "a4"]).await, ["a1", "a3"]);
    let filters = filters.lock().unwrap();
    assert_eq!(filters.len(), 1);
    assert_eq!(filters[0].0.optional_resource_id_prefix, "a");
    assert_eq!(filters[0].0.resource_type, "document");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_for_no_rows() {
    let (server, _) = holding(&[]);
    assert!(found(&server, &[]).await.is_empty());
    assert_eq!(server.calls(EXPORT), 0);
}

#[tokio::test(start_paused = true)]
async fn read_that_turns_up_too_much_is_split_by_the_next_character() {
    let others: Vec<String> = (0..2_000).map(|n| format!("ax{n}")).collect();
    let mut ids: Vec<&str> = others.iter().map(String::as_str).collect();
    ids.extend(["ab1", "ac1"]);
    ids.sort_unstable();
    let (server, filters) = holding(&ids);
    assert_eq!(found(&server, &["ab1", "ac1"]).await, ["ab1", "ac1"]);
    let filters = filters.lock().unwrap();
    let prefixes: Vec<String> = filters
        .iter()
        .map(|(f, _)| {
            format!(
                "{}{}",
                f.optional_resource_id_prefix, f.optional_resource_id
            )
        })
        .collect();
    assert_eq!(prefixes[0], "a");
    assert_eq!(filters.len(), 3, "{prefixes:?}");
}

#[tokio::test(start_paused = true)]
async fn few_scattered_rows_are_read_one_by_one_with_their_subject() {
    let (server, filters) = holding(&["a1", "z9"]);
    let rows = rows(&["a1", "z9"]);
    let rows: Vec<&Relationship> = rows.iter().collect();
    let at = Consistency::at_exact(token(7));
    let read = read_few(&server.client(), &rows, at, 2).await;
    assert_eq!(names(read.unwrap().unwrap()), ["a1", "z9"]);
    let filters = filters.lock().unwrap();
    assert_eq!(filters.len(), 2);
    for (filter, _) in filters.iter() {
        let subject = filter.optional_subject_filter.as_ref().unwrap();
        assert_eq!(subject.optional_subject_id, "anna");
        assert_eq!(filter.optional_relation, "viewer");
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_answers_one_row_with_many_is_not_believed() {
    let server = Server::new();
    let many: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    server.on(EXPORT, move |_: ExportBulkRelationshipsRequest| {
        let ids: Vec<&str> = many.iter().map(String::as_str).collect();
        Reply::message(&page(&ids, "c"))
    });
    let rows = rows(&["a1", "z9"]);
    let rows: Vec<&Relationship> = rows.iter().collect();
    let failure = read_scattered(&server.client(), &rows, 2)
        .await
        .err()
        .unwrap();
    assert!(
        failure.message().contains("where one was asked for"),
        "{failure:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn limit_that_the_server_names_holds_for_all_later_reads() {
    let server = Server::new();
    let limits = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&limits);
    server.on(EXPORT, move |request: ExportBulkRelationshipsRequest| {
        seen.lock().unwrap().push(request.optional_limit);
        match request.optional_limit {
            1..=100 => Reply::empty(),
            _ => Reply::refusal(
                Code::InvalidArgument,
                "EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT",
                "too many",
                &[("maximum_limit_allowed", "100")],
            ),
        }
    });
    assert!(found(&server, &["a1", "a2"]).await.is_empty());
    assert_eq!(*limits.lock().unwrap(), [1_000, 100]);
}

#[tokio::test(start_paused = true)]
async fn transient_errors_repeat_the_read_and_are_bounded() {
    let server = Server::new();
    let away = || Reply::error(Code::Unavailable, "down");
    let cut = Reply::message(&page(&["a1"], "c")).reset();
    server.script(
        EXPORT,
        [away(), cut, Reply::message(&page(&["a1", "a2"], "c"))],
    );
    assert_eq!(found(&server, &["a1", "a2"]).await, ["a1", "a2"]);
    server.script(EXPORT, [away()]);
    let rows = rows(&["a1"]);
    let rows: Vec<&Relationship> = rows.iter().collect();
    let failure = read(&server.client(), &rows, 2).await.err().unwrap();
    assert_eq!(failure.exit, Exit::TryAgain);
}

#[tokio::test(start_paused = true)]
async fn refused_id_is_given_back_and_is_no_failure() {
    let server = Server::new();
    let refusal = Reply::refusal(Code::InvalidArgument, "INVALID_FILTER", "bad id", &[]);
    server.script(EXPORT, [refusal]);
    let rows = rows(&["a1"]);
    let rows: Vec<&Relationship> = rows.iter().collect();
    let error = read(&server.client(), &rows, 2)
        .await
        .unwrap()
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::Refused);
}

#[tokio::test(start_paused = true)]
async fn row_with_another_subject_is_not_found() {
    let (server, _) = holding(&["a1"]);
    let bob = relationship("a1", "bob");
    let read = read(&server.client(), &[&bob], 2).await.unwrap().unwrap();
    assert!(read.is_empty());
}

#[test]
fn prefix_ends_at_a_character() {
    let rows = rows(&["ä1", "ö1"]);
    let range = Range {
        rows: rows.iter().collect(),
        one_by_one: false,
    };
    assert_eq!(range.prefix(), ("", false), "the two share a first byte");
    let parts = range.split();
    assert_eq!(parts.len(), 2);
    assert!(parts.iter().all(|part| part.prefix().1));
}

#[test]
fn identity_leaves_caveat_and_expiry_out() {
    let plain = relationship("a", "anna");
    let limited = Relationship {
        optional_expires_at: Some(authzed::Timestamp {
            seconds: 1,
            nanos: 0,
        }),
        optional_caveat: Some(authzed::v1::ContextualizedCaveat::default()),
        ..plain.clone()
    };
    assert_eq!(key(&plain), key(&limited));
    assert_eq!(bare(limited), plain);
    assert_ne!(key(&plain), key(&relationship("a", "bob")));
}
