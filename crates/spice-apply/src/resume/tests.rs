//! Where a stream may begin, what is saved, and how long late writes are awaited.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use spice_cli::{CommandError, Exit, lock};
use spice_client::scripted::{token, token_of};
use spice_record::Header;
use spice_record::record::{Filter, Position, SpoolOffset, StreamKind};
use spice_spool::Spool;
use spice_spool::position::PositionFile;

use super::{
    PositionSink, PositionStore, ambiguous_for, check_source, check_start, check_target, from_now,
    prune,
};

fn at(revision: u64) -> Position {
    Position {
        source: Some("scripted".to_owned()),
        target: Some("scripted".to_owned()),
        source_revision: token(revision),
        ..Position::default()
    }
}

fn stream() -> Header {
    Header::new(StreamKind::Changes, "test", "2026-11-26T05:00:00Z")
}

fn stream_from(revision: &str) -> Header {
    Header {
        revision: Some(revision.to_owned()),
        ..stream()
    }
}

#[test]
fn a_stream_may_begin_at_the_position_or_before() {
    for (start, position, may) in [(7, 7, true), (6, 7, true), (8, 7, false), (1, 7, true)] {
        let checked = check_start(Some(&at(position)), &stream_from(&token(start)));
        assert_eq!(checked.is_ok(), may, "{start} {position}");
    }
    let gap = check_start(Some(&at(7)), &stream_from(&token(8))).expect_err("a gap");
    assert!(
        gap.starts_with("gap: the stream begins after revision"),
        "{gap}"
    );
}

#[test]
fn without_a_position_any_stream_may_begin() {
    assert!(check_start(None, &stream_from(&token(9))).is_ok());
    assert!(check_start(Some(&at(1)), &stream()).is_ok());
}

#[test]
fn the_very_first_start_stays_good() {
    // On PostgreSQL neither may see the other.
    let mut position = at(1);
    position.start = Some("no zedtoken".to_owned());
    assert!(check_start(Some(&position), &stream_from("no zedtoken")).is_ok());
    assert!(check_start(Some(&position), &stream_from("another")).is_err());
}

#[test]
fn a_start_of_another_form_is_a_gap() {
    let decimal = token_of("scripted", "1795415107142502127.0000000001");
    assert!(check_start(Some(&at(7)), &stream_from(&decimal)).is_err());
}

#[test]
fn a_late_write_is_awaited_for_as_long_as_it_may_come() {
    let now: jiff::Timestamp = "2026-11-26T05:00:00Z".parse().expect("a time");
    let left = |until: Option<&str>| {
        let position = Position {
            ambiguous_until: until.map(str::to_owned),
            ..Position::default()
        };
        ambiguous_for(&position, now).as_secs()
    };
    assert_eq!(left(None), 0);
    assert_eq!(left(Some("2026-11-26T05:00:12Z")), 12);
    assert_eq!(left(Some("2026-11-26T04:59:59Z")), 0, "over");
    assert_eq!(left(Some("not a time")), 0);
    // The clock was set back by a day: no more than the window.
    assert_eq!(left(Some("2026-11-27T05:00:00Z")), 30);
}

#[test]
fn the_end_of_the_window_is_in_the_future() {
    let before = jiff::Timestamp::now();
    let position = Position {
        ambiguous_until: Some(from_now(Duration::from_secs(20))),
        ..Position::default()
    };
    let left = ambiguous_for(&position, before);
    assert!(left >= Duration::from_secs(20), "{left:?}");
}

#[derive(Clone, Default)]
struct Saved(Arc<Mutex<Vec<Position>>>, bool);

impl PositionSink for Saved {
    fn save(&self, position: &Position) -> Result<(), CommandError> {
        if self.1 {
            return Err(CommandError::new(Exit::Failed, "no room"));
        }
        lock(&self.0).push(position.clone());
        Ok(())
    }
}

#[test]
fn an_ambiguous_write_is_noted_beside_what_was_saved_last() {
    let saved = Saved::default();
    let store = PositionStore::new(saved.clone(), None);
    store
        .note_ambiguous(Duration::from_secs(30))
        .expect("nothing to note it beside");
    assert!(lock(&saved.0).is_empty());
    store.save(at(5)).expect("saved");
    store
        .note_ambiguous(Duration::from_secs(30))
        .expect("noted");
    let [first, noted] = lock(&saved.0).clone().try_into().expect("two");
    assert_eq!(first, at(5));
    assert_eq!(noted.source_revision, token(5));
    assert!(noted.ambiguous_until.is_some());
}

#[test]
fn what_could_not_be_saved_is_not_taken_for_saved() {
    let store = PositionStore::new(Saved(Arc::default(), true), Some(at(5)));
    assert_eq!(store.save(at(6)).expect_err("no room").exit, Exit::Failed);
    let saved = lock(&store.saved).clone();
    assert_eq!(saved, Some(at(5)));
}

#[test]
fn a_position_of_another_server_filter_or_mapping_is_refused() {
    let file = PositionFile::new(std::path::Path::new("apply.position"));
    let other = token_of("elsewher", "7");
    let exit = |checked: Result<(), CommandError>| checked.err().map(|failure| failure.exit);
    assert_eq!(exit(check_target(&file, &at(1), &token(9))), None);
    assert_eq!(exit(check_target(&file, &at(1), &other)), Some(Exit::Usage));
    assert_eq!(
        exit(check_source(&file, &at(1), &stream_from(&token(9)))),
        None
    );
    assert_eq!(
        exit(check_source(&file, &at(1), &stream_from(&other))),
        Some(Exit::Usage)
    );
    let filtered = Header {
        filter: Some(Filter {
            types: vec!["document".to_owned()],
            resource_prefix: None,
        }),
        ..stream_from(&token(9))
    };
    let filter = check_source(&file, &at(1), &filtered).expect_err("another filter");
    assert_eq!(filter.exit, Exit::Usage);
    let message = "the position apply.position was reached with the changes of all resources, and not of \
                   resources of type document as in this stream";
    assert_eq!(filter.message(), message);
    assert!(
        filter.hint_text().contains("another --position"),
        "{filter:?}"
    );
    let mapped = Header {
        mapping: vec!["rename crm/=sales/".to_owned()],
        ..stream_from(&token(9))
    };
    assert_eq!(
        exit(check_source(&file, &at(1), &mapped)),
        Some(Exit::Usage)
    );
    let mut reached = at(1);
    reached.mapping.clone_from(&mapped.mapping);
    assert_eq!(exit(check_source(&file, &reached, &mapped)), None);
    // Servers up to v1.45 do not name their datastore: that cannot be checked.
    let mut unnamed = at(1);
    unnamed.target = None;
    assert_eq!(exit(check_target(&file, &unnamed, &other)), None);
}

#[test]
fn only_segments_before_the_position_are_pruned() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Spool::new(&folder.path().join("spool"));
    for number in 0..5 {
        std::fs::write(spool.segment(number), "x").expect("written");
    }
    prune(
        &spool,
        SpoolOffset {
            segment: 3,
            offset: 1,
        },
    );
    assert_eq!(spool.segments().expect("listed"), [3, 4]);
}
