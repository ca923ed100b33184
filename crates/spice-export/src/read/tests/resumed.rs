//! An export that continues where another one has come to.

use super::*;

/// What a writer remembers of the steps up to some moment.
fn recorded(steps: &[Step], mut plan: Plan) -> (Plan, Shards) {
    let mut shards = Shards::default();
    for step in steps {
        match step {
            Step::Page { shard, cursor, .. } => shards.advance(*shard, cursor.clone()),
            Step::End(shard) => shards.finish(*shard),
            Step::Split(shard) => {
                plan.split(*shard);
                shards.finish(*shard);
            }
            Step::Characters(characters) => plan.set_characters(characters.clone()),
            Step::Begin(_) | Step::Finish => {}
        }
    }
    (plan, shards)
}

fn ids_of(steps: &[Step]) -> Vec<String> {
    let pages = steps.iter().filter_map(|step| match step {
        Step::Page { relationships, .. } => Some(relationships),
        _ => None,
    });
    let resources = pages.flatten().filter_map(|r| r.resource.clone());
    resources.map(|resource| resource.object_id).collect()
}

/// A server with 9 documents, of which a page has 3, and 2 folders; the cursor is the last id.
fn documents() -> Server {
    let server = Server::new();
    record(&server, |request| {
        let filter = request.optional_relationship_filter.clone();
        let filter = filter.unwrap_or_default();
        let (resource_type, prefix) =
            (&*filter.resource_type, &*filter.optional_resource_id_prefix);
        if resource_type.is_empty() && prefix.len() == 1 {
            return match prefix {
                "~" => Reply::empty(),
                _ => Reply::refusal(Code::InvalidArgument, "INVALID_FILTER", "no", &[]),
            };
        }
        let all = [
            ("document", "a1 a2 a3 a4 a5 b1 b2 b3 b4"),
            ("folder", "f1 f2"),
        ];
        let ids = all
            .iter()
            .filter(|(name, _)| resource_type.is_empty() || *name == resource_type);
        let after = request.optional_cursor.as_ref().map_or("", |c| &*c.token);
        let ids: Vec<&str> = ids
            .flat_map(|(_, ids)| ids.split(' '))
            .filter(|id| id.starts_with(prefix) && *id > after)
            .collect();
        Reply::messages(ids.chunks(3).map(|ids| page(ids, ids.last().unwrap())))
    });
    server
}

async fn steps_of(server: &Server, plan: Plan, begun: &Shards, jobs: u16, rows: u32) -> Vec<Step> {
    let (writer, mut steps) = Writer::to_test();
    let (client, revision) = (server.client(), token(7));
    let reader = Reader {
        client: &client,
        revision: &revision,
        page_size: Some(rows),
        max_retries: 3,
        writer: &writer,
        filter: None,
    };
    reader.read(plan, begun, jobs).await.unwrap();
    drop(writer);
    std::iter::from_fn(|| steps.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn export_resumed_anywhere_with_any_jobs_reads_the_rest_and_nothing_twice() {
    let server = documents();
    let names = ["document", "folder"].map(str::to_owned).to_vec();
    for (plan, jobs) in [
        (Plan::new(None, None), 1),
        (Plan::new(Some(names.clone()), None), 1),
        (Plan::new(Some(names), None), 3),
    ] {
        let steps = steps_of(&server, plan.clone(), &Shards::default(), jobs, 3).await;
        let mut all = ids_of(&steps);
        all.sort();
        assert_eq!(all.len(), 11, "{plan:?}");
        for until in (0..=steps.len()).filter(|until| *until < 10 || until % 5 == 0) {
            let before = &steps[..until];
            // Other pages would find another definition large.
            for (jobs, rows) in [(1, 3), (3, 3), (3, 100), (2, 2)] {
                let (plan, shards) = recorded(before, plan.clone());
                let rest = steps_of(&server, plan, &shards, jobs, rows).await;
                let mut ids = [ids_of(before), ids_of(&rest)].concat();
                ids.sort();
                assert_eq!(ids, all, "{until} of {} steps, {jobs} jobs", steps.len());
            }
        }
    }
}
