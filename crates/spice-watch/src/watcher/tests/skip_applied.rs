use super::*;

/// A transaction of spice-apply's.
fn applied(revision: u64, ids: &[&str]) -> WatchResponse {
    let text = prost_types::value::Kind::StringValue("oldold01".to_owned());
    let text = prost_types::Value { kind: Some(text) };
    let source = prost_types::Struct {
        fields: [("source".to_owned(), text)].into(),
    };
    let value = prost_types::Value {
        kind: Some(prost_types::value::Kind::StructValue(source)),
    };
    let fields = [(APPLIED_KEY.to_owned(), value)].into();
    WatchResponse {
        full_revision_metadata: vec![JsonObject(prost_types::Struct { fields })],
        ..transaction(revision, ids)
    }
}

#[tokio::test(start_paused = true)]
async fn skipped_applied_transactions_become_checkpoints() {
    for (skips, emitted) in [
        (Some(""), ["2.", "3+b", "3."].as_slice()),
        (Some("oldold01"), &["2.", "3+b", "3."]),
        // What came from a third server travels.
        (Some("other002"), &["2+a", "3+b", "3."]),
        (None, &["2+a", "3+b", "3."]),
    ] {
        let messages = [applied(2, &["a"]), transaction(3, &["b"]), checkpoint(3)];
        let mut rig = Rig::new([Reply::messages(messages).silence()]);
        rig.watcher.skip_applied = skips.map(str::to_owned);
        assert!(reached(&rig.until(3).await));
        assert_eq!(rig.emitted(), emitted);
    }
}

#[tokio::test(start_paused = true)]
async fn revision_of_several_writers_is_not_skipped() {
    let mut mixed = applied(2, &["a"]);
    mixed.full_revision_metadata.push(JsonObject::default());
    let mut rig = Rig::new([Reply::messages([mixed, checkpoint(2)]).silence()]);
    rig.watcher.skip_applied = Some(String::new());
    assert!(reached(&rig.until(2).await));
    assert_eq!(rig.emitted(), ["2+a", "2."]);
}
