use std::sync::{Arc, Mutex};
use std::time::Duration;

use authzed::Code;
use testserver::{EXPORT, Reply, Server, page, token};
use tokio::sync::mpsc::Receiver;

use super::*;

mod resumed;

/// Reads a scripted server to the end; gives the ids that were written.
async fn export(server: &Server, jobs: u16) -> (Result<(), CommandError>, Vec<String>) {
    export_with(server, jobs, None, "").await
}

async fn export_with(
    server: &Server,
    jobs: u16,
    page_size: Option<u32>,
    prefix: &str,
) -> (Result<(), CommandError>, Vec<String>) {
    let (writer, steps) = Writer::to_test();
    let client = server.client();
    let revision = token(7);
    let reader = Reader {
        client: &client,
        revision: &revision,
        page_size,
        max_retries: 3,
        writer: &writer,
        filter: (!prefix.is_empty()).then(|| Filter {
            types: Vec::new(),
            resource_prefix: Some(prefix.to_owned()),
        }),
    };
    let definitions = ["document".to_owned(), "folder".to_owned()];
    let definitions = (jobs > 1).then(|| definitions.to_vec());
    let plan = Plan::new(definitions, Some(prefix));
    let outcome = reader.read(plan, &Shards::default(), jobs).await;
    (outcome, written(steps))
}

fn written(mut steps: Receiver<Step>) -> Vec<String> {
    let mut ids = Vec::new();
    while let Ok(step) = steps.try_recv() {
        if let Step::Page { relationships, .. } = step {
            let resources = relationships.into_iter().filter_map(|r| r.resource);
            ids.extend(resources.map(|resource| resource.object_id));
        }
    }
    ids
}

/// The requests that the server got, in short: `document:a*` for a prefix, `@cursor`, `#limit`.
type Asked = Arc<Mutex<Vec<ExportBulkRelationshipsRequest>>>;

fn record(
    server: &Server,
    mut answer: impl FnMut(&ExportBulkRelationshipsRequest) -> Reply + Send + 'static,
) -> Asked {
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    server.on(EXPORT, move |request: ExportBulkRelationshipsRequest| {
        let reply = answer(&request);
        seen.lock().unwrap().push(request);
        reply
    });
    asked
}

fn cursors(asked: &Asked) -> Vec<Option<String>> {
    let asked = asked.lock().unwrap();
    let cursors = asked.iter().map(|request| request.optional_cursor.clone());
    cursors
        .map(|cursor| cursor.map(|cursor| cursor.token))
        .collect()
}

fn at(cursor: &str) -> Option<String> {
    Some(cursor.to_owned())
}

#[tokio::test(start_paused = true)]
async fn pages_are_written_in_order_at_exactly_the_revision() {
    let server = Server::new();
    let asked = record(&server, |_| {
        Reply::messages([page(&["a", "b"], "1"), page(&["c"], "2")])
    });
    let (outcome, ids) = export(&server, 1).await;
    outcome.unwrap();
    assert_eq!(ids, ["a", "b", "c"]);
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0].consistency, Some(Consistency::at_exact(token(7))));
    assert_eq!(asked[0].optional_limit, FIRST_PAGE);
    assert_eq!(asked.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn cut_stream_resumes_at_the_cursor_of_the_last_page() {
    let cuts: [fn(Reply) -> Reply; 4] = [
        Reply::reset,
        Reply::disconnect,
        |reply| reply.fail(Code::Unavailable, "gone"),
        Reply::silence,
    ];
    for (number, cut) in cuts.into_iter().enumerate() {
        let server = Server::new();
        let asked = record(&server, move |request| match &request.optional_cursor {
            _ if request.optional_limit == 1 => Reply::message(&page(&["x"], "x")),
            None => cut(Reply::messages([page(&["a"], "1"), page(&["b"], "2")])),
            Some(_) => Reply::message(&page(&["c"], "3")),
        });
        let (outcome, ids) = export(&server, 1).await;
        outcome.unwrap();
        assert_eq!(ids, ["a", "b", "c"], "cut {number}");
        assert_eq!(cursors(&asked), [None, None, at("2")], "cut {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn revision_that_expired_meanwhile_is_not_resumed() {
    let server = Server::new();
    record(&server, |request| match request.optional_limit {
        1 => Reply::error(Code::OutOfRange, "the specified zedtoken has expired"),
        _ => Reply::message(&page(&["a"], "1")).reset(),
    });
    let (outcome, ids) = export(&server, 1).await;
    assert_eq!(outcome.unwrap_err().exit, Exit::HistoryLost);
    assert_eq!(ids, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn retries_without_progress_are_bounded() {
    let server = Server::new();
    let asked = record(&server, |request| match request.optional_limit {
        1 => Reply::empty(),
        _ => Reply::error(Code::Unavailable, "down"),
    });
    let (outcome, _) = export(&server, 1).await;
    assert_eq!(outcome.unwrap_err().exit, Exit::TryAgain);
    let reads = asked.lock().unwrap();
    let reads = reads.iter().filter(|request| request.optional_limit > 1);
    assert_eq!(reads.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn each_page_resets_the_retries() {
    let server = Server::new();
    let mut number = 0;
    record(&server, move |request| {
        number += 1;
        match request.optional_limit {
            1 => Reply::empty(),
            _ if number > 20 => Reply::message(&page(&["last"], "end")),
            _ => Reply::message(&page(&["a"], &number.to_string())).reset(),
        }
    });
    let (outcome, ids) = export(&server, 1).await;
    outcome.unwrap();
    assert_eq!(ids.len(), 11);
    assert_eq!(ids.last().unwrap(), "last");
}

#[tokio::test(start_paused = true)]
async fn limit_that_the_server_names_is_used_without_a_retry() {
    let server = Server::new();
    let asked = record(&server, |request| match request.optional_limit {
        ..=100 => Reply::message(&page(&["a"], "1")),
        _ => Reply::refusal(
            Code::InvalidArgument,
            "EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT",
            "too many",
            &[("maximum_limit_allowed", "100")],
        ),
    });
    let (outcome, ids) = export(&server, 1).await;
    outcome.unwrap();
    assert_eq!(ids, ["a"]);
    let limits: Vec<u32> = asked
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.optional_limit)
        .collect();
    assert_eq!(limits, [1_000, 100]);
}

#[tokio::test(start_paused = true)]
async fn page_above_the_memory_limit_is_asked_for_in_smaller_ones() {
    let server = Server::new();
    let large: Vec<String> = (0..400).map(|n| format!("{n:0>60000}")).collect();
    let asked = record(&server, move |request| {
        let from = request.optional_cursor.as_ref();
        let from: usize = from.map_or(0, |cursor| cursor.token.parse().unwrap());
        let until = large.len().min(from + request.optional_limit as usize);
        let ids: Vec<&str> = large[from..until].iter().map(String::as_str).collect();
        match ids.is_empty() {
            true => Reply::empty(),
            false => Reply::message(&page(&ids, &until.to_string())),
        }
    });
    let (outcome, ids) = export_with(&server, 1, None, "").await;
    // The script gives one page a call, so it ends after the first that fits.
    outcome.unwrap();
    assert!(!ids.is_empty() && ids.len() < 300, "{}", ids.len());
    let limits: Vec<u32> = asked
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.optional_limit)
        .collect();
    assert_eq!(limits[..2], [1_000, 250]);
}

#[tokio::test(start_paused = true)]
async fn cursor_that_repeats_fails() {
    let server = Server::new();
    record(&server, |_| {
        Reply::messages([page(&["a"], "1"), page(&["b"], "1")])
    });
    let (outcome, _) = export(&server, 1).await;
    let failure = outcome.unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.message().contains("a cursor came twice"));
}

#[tokio::test(start_paused = true)]
async fn empty_pages_do_not_extend_the_timeout() {
    let server = Server::new();
    let empty = page(&[], "1");
    let slow = (0..20).fold(Reply::empty(), |reply, _| {
        reply.then(&empty).pause(Duration::from_secs(10))
    });
    let asked = record(&server, move |request| match request.optional_limit {
        1 => Reply::empty(),
        _ => slow.clone(),
    });
    let (outcome, _) = export(&server, 1).await;
    assert_eq!(outcome.unwrap_err().exit, Exit::TryAgain);
    assert!(asked.lock().unwrap().len() >= 4);
}

#[tokio::test(start_paused = true)]
async fn server_that_takes_a_prefix_for_less_leaks_nothing() {
    let server = Server::new();
    let asked = record(&server, |_| {
        Reply::message(&page(&["a_1", "ab1", "A_1", "a_2"], "1"))
    });
    let (outcome, ids) = export_with(&server, 1, None, "a_").await;
    outcome.unwrap();
    assert_eq!(ids, ["a_1", "a_2"]);
    let asked = asked.lock().unwrap();
    let filter = asked[0].optional_relationship_filter.as_ref().unwrap();
    assert_eq!(filter.optional_resource_id_prefix, "a_");
}

#[tokio::test(start_paused = true)]
async fn small_definitions_are_one_shard_each() {
    let server = Server::new();
    let asked = record(&server, |request| {
        let filter = request.optional_relationship_filter.clone().unwrap();
        Reply::message(&page(&[&filter.resource_type], "1"))
    });
    let (outcome, ids) = export(&server, 4).await;
    outcome.unwrap();
    assert_eq!(ids, ["document", "folder"]);
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn large_definition_is_sharded_and_its_first_page_read_once() {
    let server = Server::new();
    let asked = record(&server, |request| {
        let filter = request.optional_relationship_filter.clone().unwrap();
        let prefix = filter.optional_resource_id_prefix;
        match (filter.resource_type.as_str(), prefix.as_str()) {
            // The characters of ids.
            ("", "~") => Reply::empty(),
            ("", _) => Reply::refusal(Code::InvalidArgument, "INVALID_FILTER", "no", &[]),
            ("folder", _) => Reply::empty(),
            (_, "") => Reply::message(&page(&["a1", "a2", "~1"], "1")),
            (_, "a") => Reply::message(&page(&["a1", "a2"], "1")),
            (_, "~") => Reply::message(&page(&["~1"], "1")),
            _ => Reply::empty(),
        }
    });
    let (outcome, mut ids) = export_with(&server, 4, Some(3), "").await;
    outcome.unwrap();
    ids.sort();
    assert_eq!(
        ids,
        ["a1", "a2", "~1"],
        "nothing twice, and the new character as well"
    );
    let asked = asked.lock().unwrap();
    let shards = asked.iter().filter(|request| {
        let filter = request.optional_relationship_filter.as_ref().unwrap();
        filter.resource_type == "document" && !filter.optional_resource_id_prefix.is_empty()
    });
    assert_eq!(shards.count(), ID_CHARACTERS.len() + 1);
}

#[tokio::test(start_paused = true)]
async fn prefix_is_part_of_the_filter() {
    let server = Server::new();
    let asked = record(&server, |_| Reply::empty());
    export_with(&server, 1, None, "ab").await.0.unwrap();
    let asked = asked.lock().unwrap();
    let filter = asked[0].optional_relationship_filter.as_ref().unwrap();
    assert_eq!(filter.optional_resource_id_prefix, "ab");
    assert_eq!(filter.resource_type, "");
}

fn cursor(number: u32) -> Option<Cursor> {
    Some(Cursor {
        token: number.to_string(),
    })
}

#[test]
fn cursors_that_repeat_are_found() {
    let mut cursors = Cursors::default();
    assert!((0..10_000).all(|number| cursors.advance(cursor(number)).is_ok()));
    assert!(cursors.advance(cursor(9_999)).is_err(), "the same again");
    for length in [1, 2, 3, 7, 1_000] {
        let mut cursors = Cursors::default();
        let stuck = (0..10 * length).position(|page| {
            let number = if page < 5 {
                5_000 + page
            } else {
                page % length
            };
            cursors.advance(cursor(number)).is_err()
        });
        assert!(stuck.is_some(), "a circle of {length}");
    }
}

#[test]
fn pages_without_a_cursor_cannot_be_resumed() {
    assert!(Cursors::default().advance(None).is_err());
    let empty = Cursor {
        token: String::new(),
    };
    assert!(Cursors::default().advance(Some(empty)).is_err());
}

#[test]
fn page_that_is_too_large_shrinks_until_it_holds_one() {
    let mut page = Page::new(Some(1_000));
    let sizes: Vec<u32> = std::iter::from_fn(|| page.shrink().then_some(page.rows)).collect();
    assert_eq!(sizes, [250, 62, 15, 3, 1]);
}

#[test]
fn limits_that_make_no_sense_change_nothing_for_ever() {
    for limit in [0, u64::MAX] {
        let mut page = Page::new(None);
        let changes = (0..100).filter(|_| page.bound(limit)).count();
        assert!(changes <= 1, "{limit}");
    }
}

#[test]
fn page_grows_once_and_then_only_shrinks() {
    let mut page = Page::new(None);
    assert!(
        page.adapt(1_000, 60_000),
        "small relationships: larger pages"
    );
    assert_eq!(page.rows, 8_738);
    assert!(!page.adapt(8_738, 524_280));
    assert!(
        page.adapt(8_738, 218_450_000),
        "25 kB contexts: smaller pages"
    );
    assert_eq!(page.rows, 20);
    assert!(!page.adapt(20, 4_100), "it does not swing");
}

#[test]
fn page_asked_for_only_shrinks() {
    let mut page = Page::new(Some(500));
    assert!(!page.adapt(500, 30_000));
    assert!(page.adapt(500, 12_500_000));
    assert_eq!(page.rows, 20);
}

#[test]
fn partial_page_does_not_adapt_the_limit() {
    let mut page = Page::new(None);
    assert!(!page.adapt(3, 180), "the end of a definition");
    assert!(page.adapt(1_000, 60_000));
}
