use super::*;

fn filter(types: &[&str], prefix: Option<&str>) -> Option<Filter> {
    Some(Filter {
        types: types.iter().map(|name| (*name).to_owned()).collect(),
        resource_prefix: prefix.map(str::to_owned),
    })
}

#[tokio::test(start_paused = true)]
async fn types_alone_are_asked_for_as_object_types() {
    let mut rig = Rig::new([]);
    rig.watcher.filter = filter(&["document"], None);
    let request = rig.watcher.request();
    assert_eq!(request.optional_object_types, ["document"]);
    assert!(request.optional_relationship_filters.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_prefix_is_asked_for_with_each_type() {
    let mut rig = Rig::new([]);
    for (types, expected) in [
        (&[][..], &[("", "acme-")][..]),
        (&["a", "b"], &[("a", "acme-"), ("b", "acme-")]),
    ] {
        rig.watcher.filter = filter(types, Some("acme-"));
        let request = rig.watcher.request();
        assert!(
            request.optional_object_types.is_empty(),
            "a server refuses both"
        );
        let asked = request.optional_relationship_filters.iter().map(|one| {
            let prefix = one.optional_resource_id_prefix.as_str();
            (one.resource_type.as_str(), prefix)
        });
        assert_eq!(asked.collect::<Vec<_>>(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn server_that_ignores_the_filter_leaks_nothing() {
    let messages = [
        transaction(2, &["evil-1"]),
        checkpoint(2),
        transaction(3, &["evil-2", "acme-1", "acm"]),
        transaction(4, &["evil-3"]),
        checkpoint(4),
    ];
    let mut rig = Rig::new([Reply::messages(messages).silence()]);
    rig.watcher.filter = filter(&[], Some("acme-"));
    assert!(reached(&rig.until(4).await));
    assert_eq!(rig.emitted(), ["2.", "3+acme-1", "4."]);
}

#[tokio::test(start_paused = true)]
async fn quiet_is_silence_within_the_filter() {
    let mut reply = Reply::empty();
    for second in 2..60 {
        let busy = transaction(second, &["evil-1"]);
        reply = reply.then(&busy).pause(Duration::from_secs(1));
    }
    let mut rig = Rig::new([reply.silence()]);
    rig.watcher.filter = filter(&[], Some("acme-"));
    rig.watcher.quiet = Some(Duration::from_secs(5));
    let began = Instant::now();
    let ended = rig.watcher.follow(Until::None).await.unwrap();
    assert_eq!(ended, Ended::Quiet);
    assert!(began.elapsed() < Duration::from_secs(7));
    assert!(rig.emitted().is_empty());
}
