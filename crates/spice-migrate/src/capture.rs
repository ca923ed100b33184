//! Where copy and capture begin, and the capture beside a copy.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use spice_record::Record;
use spice_record::record::Applied;

use crate::cli;
use crate::commands::{self, Since, Watch};
use crate::part;
use crate::process::Ended;
use crate::restart::Kept;
use crate::session::Session;
use crate::state::Start;
use crate::suite::{CommandError, Exit, Outcome, files};

/// How long a capture may take to begin.
const BEGIN: Duration = Duration::from_secs(60);

/// Takes the revision where copy and capture begin.
///
/// In memory a snapshot can lack a transaction with a lower number that came late, for ever
/// (docs/reliability.md), and a Watch from there does not report it. So there the capture begins a settle
/// time earlier, at another head: it reports what had not come then.
pub(crate) async fn begin_at_head(session: &Session) -> Outcome<Start> {
    let captured_since = settled_head(session).await?;
    let revision = match session.state()?.source.kind.0.as_str() {
        "memory" | "memory-or-spanner" => settled_head(session).await?,
        _ => captured_since.clone(),
    };
    let start = Start {
        revision,
        captured_since,
    };
    session.update(|state| state.start = Some(start.clone()))?;
    Ok(start)
}

async fn settled_head(session: &Session) -> Outcome<String> {
    let source = session.state()?.source.context;
    let settle = session.settle()?;
    let command = commands::head(&source, settle.as_ref().map(crate::time::Span::text));
    let (ended, output) = session.runner.run(&command).await?;
    let token = String::from_utf8(output)
        .unwrap_or_default()
        .trim()
        .to_owned();
    match ended.is_success() && !token.is_empty() {
        true => Ok(token),
        false => {
            let what = format!("no revision of {source} to begin at");
            Err(session.failed("spice-revision", ended, &what))
        }
    }
}

/// All changes after a revision, into the spool, until this is stopped.
pub(crate) fn capture<'a>(
    session: &'a Session,
    since: &str,
    flags: &cli::Capture,
) -> Outcome<Kept<'a>> {
    let state = session.state()?;
    let (settle, spool) = (session.settle()?, session.spool_file());
    let watch = Watch {
        context: &state.source.context,
        spool: &spool,
        segment: &flags.spool_segment,
        settle: settle.as_ref().map(crate::time::Span::text),
        filter: state.filter.as_ref(),
    };
    let file = session.file("start.ndjson");
    let skip = state.skip();
    let since = match &skip {
        Some(skip) => {
            keep_start(session, &file, since)?;
            Since::Back(&file, skip)
        }
        None => Since::Revision(since),
    };
    let command = watch.capture(since, &flags.heartbeat);
    Ok(Kept::new(&session.runner, command, None))
}

/// Leaves the start where spice-watch looks for one after which nothing of its own comes.
pub(crate) fn keep_start(session: &Session, file: &Path, since: &str) -> Outcome {
    let applied = Applied {
        source_revision: Some(since.to_owned()),
        target_revision: Some(since.to_owned()),
        sync_point: true,
        ..Applied::default()
    };
    let line = serde_json::to_string(&Record::Applied(Box::new(applied)));
    let written = line.map_err(std::io::Error::other).and_then(|line| {
        let mut options = files::private();
        let mut file = options.create(true).truncate(true).open(file)?;
        writeln!(file, "{line}")
    });
    written.map_err(|error| session.cannot_write(file, &error))
}

/// Runs work while a capture runs that has begun: the history was found complete, and the spool has its
/// header. The capture is stopped afterwards, so that everything it has seen is in the spool.
pub(crate) async fn beside<T>(
    session: &Session,
    since: &str,
    flags: &cli::Capture,
    work: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let mut capture = capture(session, since, flags)?;
    let done = {
        let work = async {
            begun(session).await?;
            work.await
        };
        tokio::select! {
            ended = capture.run() => Err(ended),
            done = work => Ok(done),
        }
    };
    match done {
        Err(ended) => {
            // What was running beside it ends as well.
            session.runner.signal_all(rustix::process::Signal::TERM);
            session.runner.all_ended().await;
            Err(capture_ended(session, ended?)?)
        }
        Ok(done) => {
            let ended = capture.terminate().await;
            match (done, ended) {
                (Err(failure), _) => Err(failure),
                (Ok(_), Some(ended)) if !ended.is_success() => Err(capture_ended(session, ended)?),
                (Ok(done), _) => Ok(done),
            }
        }
    }
}

async fn begun(session: &Session) -> Outcome {
    let began = std::time::Instant::now();
    let spool = session.spool_file();
    while std::fs::metadata(&spool).map_or(0, |metadata| metadata.len()) == 0 {
        if began.elapsed() > BEGIN {
            return Err(
                CommandError::new(Exit::TryAgain, "spice-watch does not begin").hint(format!(
                    "see what it prints above; then run: {}",
                    session.words.same()
                )),
            );
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn capture_ended(session: &Session, ended: Ended) -> Outcome<CommandError> {
    let state = session.state()?;
    let source = &state.source.context;
    Ok(match ended {
        Ended::Code(0) => CommandError::new(
            Exit::Failed,
            "the capture of changes was stopped by somebody",
        )
        .hint(format!("run: {}", session.words.same())),
        Ended::Code(4) => {
            let empty = part::empty(&state.target.context, state.filter.as_ref());
            lost_history(session, source, &state.target.context, &empty)
        }
        ended => {
            let what = format!("the changes of {source} cannot be captured");
            session.failed("spice-watch", ended, &what)
        }
    })
}

fn lost_history(session: &Session, source: &str, target: &str, empty: &str) -> CommandError {
    let (same, raise) = (
        session.words.same(),
        format!("raise --datastore-gc-window on {source}"),
    );
    match session.step {
        crate::phase::Step::Resync => CommandError::new(Exit::HistoryLost, format!(
                "changes of {source} are lost already: they left its history while the resync began"
            )).hint(format!("{raise}; then run: {same}")),
        _ => CommandError::new(Exit::HistoryLost, format!(
                "changes of {source} are lost: they left its history before they were captured. {target} cannot \
                 become equal by following"
            )).hint(format!(
                "{raise}, {empty}, and begin again: {}",
                session.words.step("copy --restart")
            )),
    }
}
