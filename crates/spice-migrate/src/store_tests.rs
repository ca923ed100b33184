use spice_record::record::Filter;

use super::Store;
use crate::phase::{Phase, Procedure, SpoolEnd, Switch, SyncPoint};
use crate::state::{End, Kind, State};
use crate::suite::Exit;
use crate::time::Instant;

fn planned() -> State {
    let end = |context: &str| End {
        context: context.to_owned(),
        datastore_id: Some(format!("id of {context}")),
        kind: Kind("postgres".to_owned()),
    };
    State {
        settle: Some("1m30s".parse().unwrap()),
        ..State::planned(Procedure::Live, end("old"), end("new"))
    }
}

fn switch() -> Switch {
    Switch {
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
        downtime_ms: 250,
        marker: None,
        second: "n".to_owned(),
        sync_point: SyncPoint {
            source_revision: "s".to_owned(),
            target_revision: "t".to_owned(),
        },
        drained: SpoolEnd {
            segment: 0,
            offset: 100,
        },
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    store.save(planned()).unwrap();
    (folder, store)
}

#[test]
fn state_is_read_as_it_was_written_and_nothing_else_is_left() {
    let (folder, store) = store();
    let since = Instant::now();
    store
        .update(|state| state.phase = Phase::Copying { since })
        .unwrap();
    let state = store.load().unwrap().unwrap();
    assert_eq!(state.phase, Phase::Copying { since });
    assert_eq!(state.settle.unwrap().duration().as_secs(), 90);
    let names = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["history.ndjson", "state.json", "state.lock"]);
    assert!(
        Store::new(&folder.path().join("gone"))
            .load()
            .unwrap()
            .is_none()
    );
}

#[test]
fn every_changed_byte_is_refused_and_the_file_stays() {
    let (_folder, store) = store();
    let file = store.file("state.json");
    let written = std::fs::read(&file).unwrap();
    for at in 0..written.len() {
        let mut changed = written.clone();
        changed[at] ^= 1;
        std::fs::write(&file, &changed).unwrap();
        // White space between fields means nothing.
        match store.load() {
            Ok(state) => assert_eq!(state.unwrap().phase, Phase::Planned {}, "byte {at}"),
            Err(failure) => assert!(
                matches!(failure.exit, Exit::BadData | Exit::Usage),
                "byte {at}"
            ),
        }
        assert!(store.update(|state| state.sample = Some(1)).is_err() || written[at] <= b' ');
        if written[at] > b' ' {
            assert_eq!(std::fs::read(&file).unwrap(), changed, "byte {at}");
        }
    }
    for length in 0..written.len() - 1 {
        std::fs::write(&file, &written[..length]).unwrap();
        assert_eq!(
            store.load().unwrap_err().exit,
            Exit::BadData,
            "{length} bytes"
        );
    }
}

#[test]
fn newer_version_and_state_of_the_script_are_refused_by_name() {
    let (folder, store) = store();
    let file = store.file("state.json");
    let newer = std::fs::read_to_string(&file).unwrap();
    let newer = newer.replace("\"version\": 1", "\"version\": 2");
    std::fs::write(&file, newer).unwrap();
    let failure = store.load().unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message().contains("newer spice-migrate"));
    std::fs::remove_file(&file).unwrap();
    std::fs::write(folder.path().join("ends"), "from=old\n").unwrap();
    let failure = store.load().unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message().contains("scripts/migrate"));
}

/// As after a loss of power that left an older `state.json`: each earlier one counts as switched.
#[test]
fn no_earlier_state_undoes_a_recorded_switch() {
    let (_folder, store) = store();
    let since = Instant::now();
    let mut earlier = vec![std::fs::read(store.file("state.json")).unwrap()];
    for phase in [Phase::Copying { since }, Phase::Proven { since }] {
        store.update(|state| state.phase = phase).unwrap();
        earlier.push(std::fs::read(store.file("state.json")).unwrap());
    }
    let order = store.record_switch(&planned(), switch()).unwrap();
    assert_eq!(order.get(), &switch());
    for bytes in earlier {
        std::fs::write(store.file("state.json"), bytes).unwrap();
        let state = store.load().unwrap().unwrap();
        assert_eq!(state.phase.switch(), Some(&switch()));
        // What is written from then on knows of it as well.
        let updated = store.update(|state| state.sample = Some(1)).unwrap();
        assert_eq!(updated.phase.switch(), Some(&switch()));
    }
    std::fs::remove_file(store.file("state.json")).unwrap();
    assert_eq!(store.load().unwrap_err().exit, Exit::BadData);
    // A damaged record is no absent one.
    store.save(planned()).unwrap();
    let text = std::fs::read_to_string(store.file("switch.json")).unwrap();
    std::fs::write(store.file("switch.json"), text.replace("250", "251")).unwrap();
    assert_eq!(store.load().unwrap_err().exit, Exit::BadData);
}

#[test]
fn switch_is_not_ordered_where_it_cannot_be_recorded() {
    let (folder, store) = store();
    // A folder in the place of the file.
    std::fs::create_dir(folder.path().join("switch.json")).unwrap();
    std::fs::write(folder.path().join("switch.json/full"), "").unwrap();
    assert!(store.record_switch(&planned(), switch()).is_err());
}

#[test]
fn filter_is_read_as_it_was_written_and_an_older_state_has_none() {
    let (_folder, store) = store();
    assert_eq!(store.load().unwrap().unwrap().filter, None);
    let acme = Filter {
        types: vec!["document".to_owned()],
        resource_prefix: Some("a_".to_owned()),
    };
    let change = acme.clone();
    store.update(|state| state.filter = Some(change)).unwrap();
    assert_eq!(store.load().unwrap().unwrap().filter, Some(acme));
    let file = store.file("state.json");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"a_\"", "\"b_\"")).unwrap();
    let altered = store.load().unwrap_err();
    assert_eq!(altered.exit, Exit::BadData, "it is in the checksum");
}

#[test]
fn way_back_begins_at_the_target_of_the_switch() {
    let mut state = planned();
    assert_eq!(state.reversed(), None);
    state.phase = Phase::Switched { switch: switch() };
    let acme = Filter {
        types: Vec::new(),
        resource_prefix: Some("acme-".to_owned()),
    };
    state.filter = Some(acme.clone());
    let back = state.reversed().unwrap();
    assert!(back.is_reverse);
    assert_eq!(back.filter, Some(acme), "nothing of others goes back");
    assert_eq!((back.source, back.target), (state.target, state.source));
    assert_eq!(back.start.unwrap().captured_since, "t");
    assert_eq!(back.settle, None);
}

#[test]
fn switch_of_another_migration_is_refused_by_name() {
    let (_folder, ordered) = store();
    ordered.record_switch(&planned(), switch()).unwrap();
    let (_other, other) = store();
    let mut state = planned();
    state.target.datastore_id = Some("another id".to_owned());
    other.save(state).unwrap();
    std::fs::copy(ordered.file("switch.json"), other.file("switch.json")).unwrap();
    let refused = other.load().unwrap_err();
    assert_eq!(refused.exit, Exit::Usage);
    let message = refused.message();
    assert!(
        message.contains("switch.json records the switch of another"),
        "{message}"
    );
    assert!(message.contains("id of new"), "{message}");
    // The same ends, and another part of the source.
    let part = |prefix: &str| Filter {
        types: Vec::new(),
        resource_prefix: Some(prefix.to_owned()),
    };
    let mut tenant = planned();
    tenant.filter = Some(part("acme-"));
    other.save(tenant.clone()).unwrap();
    assert_eq!(other.load().unwrap_err().exit, Exit::Usage);
    let (_folder, of_tenant) = store();
    of_tenant.save(tenant.clone()).unwrap();
    of_tenant.record_switch(&tenant, switch()).unwrap();
    assert!(of_tenant.load().unwrap().unwrap().phase.switch().is_some());
    tenant.filter = Some(part("initech-"));
    of_tenant.save(tenant).unwrap();
    let refused = of_tenant.load().unwrap_err();
    assert!(refused.message().contains("acme-"), "{refused:?}");
    // The same with its checksum, and other ends written into it.
    let text = std::fs::read_to_string(ordered.file("switch.json")).unwrap();
    let forged = text.replace("id of new", "another id");
    std::fs::write(other.file("switch.json"), forged).unwrap();
    assert_eq!(other.load().unwrap_err().exit, Exit::BadData);
}
