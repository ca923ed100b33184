//! The two servers: who is there, and does it fit?

use serde_json::Value;
use spice_record::record::Filter;

use crate::commands::{self, At};
use crate::part;
use crate::phase::{Phase, Procedure, Step};
use crate::process::{Ended, Input, Output, pipe};
use crate::session::Session;
use crate::state::{End, Kind};
use crate::suite::{CommandError, Exit, Outcome, quoted};

/// What was found behind both contexts.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    pub(crate) source: End,
    pub(crate) target: End,
    /// Whether the source's revisions have to settle.
    pub(crate) settles: bool,
    /// How much of an expiry both keep.
    pub(crate) precision: &'static str,
    /// What is moved, if that is not everything.
    pub(crate) filter: Option<Filter>,
    /// Neither names its datastore: nothing would notice that both are one.
    pub(crate) unnamed: bool,
}

struct Looked {
    end: End,
    value: Value,
}

/// What a migration is between, before and after it was planned.
pub(crate) struct Between {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) procedure: Procedure,
    pub(crate) filter: Option<Filter>,
}

/// Refuses ends that are the same, or others than those that were planned.
pub(crate) async fn look(session: &Session, between: &Between) -> Outcome<Ends> {
    let (source, target) = tokio::join!(
        look_at(session, "source", &between.source),
        look_at(session, "target", &between.target)
    );
    let (source, target) = (source?, target?);
    let ids = [&source.end.datastore_id, &target.end.datastore_id];
    if let [Some(id), Some(other)] = ids
        && id == other
    {
        let message = format!(
            "source and target are the same datastore: {id} is behind {} and behind {}",
            between.source, between.target
        );
        return Err(CommandError::usage(message).hint(
            "correct the endpoints in the contexts file. (A database restored from a backup of the \
             source has its id: use an empty one)",
        ));
    }
    followable(session, between, &source.end.kind)?;
    let micros = |looked: &Looked| looked.value["expiryPrecision"] == "us";
    let ends = Ends {
        settles: source.value["settles"] == true,
        precision: match micros(&source) && micros(&target) {
            true => "us",
            false => "s",
        },
        filter: between.filter.clone(),
        unnamed: ids == [&None, &None],
        source: source.end,
        target: target.end,
    };
    as_planned(session, &ends)?;
    Ok(ends)
}

/// Looks at the ends of a planned migration.
pub(crate) async fn look_again(session: &Session) -> Outcome<Ends> {
    let state = session.state()?;
    let between = Between {
        source: state.source.context,
        target: state.target.context,
        procedure: state.procedure,
        filter: state.filter,
    };
    look(session, &between).await
}

async fn look_at(session: &Session, end: &str, context: &str) -> Outcome<Looked> {
    let (ended, output) = session.runner.run(&commands::look(context)).await?;
    if !ended.is_success() {
        let what = format!("cannot look at the {end}, {context}");
        return Err(session.failed("spice-revision", ended, &what));
    }
    let mut value: Value = serde_json::from_slice(&output).unwrap_or_default();
    let value = value["revision"].take();
    Ok(Looked {
        end: End {
            context: context.to_owned(),
            datastore_id: value["datastoreId"].as_str().map(str::to_owned),
            kind: Kind(value["datastore"].as_str().unwrap_or("unknown").to_owned()),
        },
        value,
    })
}

fn as_planned(session: &Session, ends: &Ends) -> Outcome {
    let Some(state) = session.known() else {
        return Ok(());
    };
    let same = state.source.datastore_id == ends.source.datastore_id
        && state.target.datastore_id == ends.target.datastore_id;
    if same || (session.step == Step::Plan && state.phase == Phase::Planned {}) {
        return Ok(());
    }
    Err(CommandError::usage(format!(
        "not the planned ends: {} is datastore {} (planned: {}), {} is {} (planned: {})",
        ends.source.context,
        ends.source.id(),
        state.source.id(),
        ends.target.context,
        ends.target.id(),
        state.target.id(),
    ))
    .hint(
        "correct the contexts file; or, if a server was replaced on purpose, plan again, with \
         another --state once a copy has begun. (A restart empties an in-memory datastore)",
    ))
}

/// The command that plans the other procedure.
pub(crate) fn fenced_plan(
    session: &Session,
    source: &str,
    target: &str,
    filter: Option<&Filter>,
) -> String {
    let ends = format!(
        "plan --fenced --from {} --to {}{}",
        quoted(source),
        quoted(target),
        part::flags(filter)
    );
    session.words.step(&ends)
}

/// Refuses a source that the live procedure cannot follow, before anything is stopped.
fn followable(session: &Session, between: &Between, kind: &Kind) -> Outcome {
    if between.procedure != Procedure::Live {
        return Ok(());
    }
    let (source, target) = (&between.source, &between.target);
    let is_begun = session
        .known()
        .is_some_and(|state| state.phase != Phase::Planned {});
    if kind.is("spanner") {
        let way_out = match is_begun {
            true => format!(
                "{}, and plan with --fenced and another --state: writes are stopped from copy to switch then",
                part::empty(target, between.filter.as_ref())
            ),
            false => format!(
                "plan the other procedure, with writes stopped from copy to switch: {}",
                fenced_plan(session, source, target, between.filter.as_ref())
            ),
        };
        return Err(CommandError::new(Exit::Failed, format!(
                "{source} is on Spanner, which cannot be followed: its Watch leaves the expiry of relationships \
                 out. Nothing was stopped"
            )).hint(way_out));
    }
    if kind.is("memory-or-spanner") {
        return Err(CommandError::usage(format!(
                "{source} is in memory or on Spanner, and its answers do not show which. Spanner cannot be \
                 followed. Nothing was stopped"
            )).hint(format!(
                "write datastore = \"memory\" or datastore = \"spanner\" into [{source}] of the contexts file; then \
                 run: {}",
                session.words.same()
            )));
    }
    Ok(())
}

/// The header of an export of the source: its first line.
pub(crate) async fn header_of(
    session: &Session,
    context: &str,
    at: At<'_>,
    filter: Option<&Filter>,
) -> Outcome<Vec<u8>> {
    use std::io::{BufRead as _, BufReader};

    let (reader, writer) = pipe()?;
    let command = commands::export(context, at, "us", None, filter).quiet();
    let mut export = session
        .runner
        .spawn(&command, Input::None, Output::Pipe(writer))?;
    let (sender, header) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = Vec::new();
        let read = BufReader::new(reader).read_until(b'\n', &mut line);
        let _ = sender.send(read.map_or_else(|_| Vec::new(), |_| line));
    });
    let header = header.await.unwrap_or_default();
    // The header is enough.
    let ended = export.terminate().await;
    match header.ends_with(b"\n") {
        true => Ok(header),
        false => Err(session.failed(
            "spice-export",
            ended,
            &format!("{context} cannot be exported"),
        )),
    }
}

/// Can the source be exported, and does the target take it? Writes nothing.
pub(crate) async fn fit(session: &Session, ends: &Ends, policy: Option<&str>) -> Outcome {
    let (source, target) = (&ends.source.context, &ends.target.context);
    let filter = ends.filter.as_ref();
    let header = header_of(session, source, At::Settled(Some("0s")), filter).await?;
    let file = session.temporary("header")?;
    std::fs::write(&file, header).map_err(|error| session.cannot_write(&file, &error))?;
    let command = commands::import_dry_run(target, ends.unnamed, policy).arg(&file);
    let child = session.runner.spawn(&command, Input::None, Output::Null)?;
    let same = session.words.same();
    match child.finish().await.0 {
        Ended::Code(0) => Ok(()),
        Ended::Code(1) => Err(CommandError::new(
            Exit::Failed,
            format!("{target} cannot be loaded from {source}: see what spice-import prints above"),
        )
        .hint(match filter {
            None => format!(
                "if it refuses the schema: empty {target}, its schema as well, or make the schema equal; then \
                 run: {same}"
            ),
            Some(_) => format!(
                "if it refuses the schema: make both schemas equal, for others share that of {target}; then \
                 run: {same}"
            ),
        })),
        Ended::Code(2) => Err(CommandError::usage(format!(
            "{target} is refused as a target: see what spice-import prints above"
        ))
        .hint(format!(
            "if it holds relationships{} that are not from this migration: {}, or plan for another target; only \
             if they are meant to be there: --on-conflict fail|skip|touch",
            filter.map_or_else(String::new, |filter| format!(" of {filter}")),
            part::empty(target, filter)
        ))),
        ended => Err(session.failed("spice-import", ended, &format!("{target} cannot be loaded"))),
    }
}
