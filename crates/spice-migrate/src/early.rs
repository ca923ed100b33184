//! Before the fence: what has not settled is brought over early, so that little of it is left behind the fence.
//!
//! Where revisions have to settle, follow is a settle time behind. While an operator stops the writes, a live
//! Watch of the source goes through a named pipe to the spice-apply of follow, which writes what comes at once
//! and remembers it. Behind the fence everything is read again, in its order, and only what differs is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::Signal;

use crate::capture::keep_start;
use crate::commands::{self, Since};
use crate::ends::Ends;
use crate::process::{Child, Ended, Output};
use crate::records;
use crate::session::Session;
use crate::status::settling;
use crate::suite::{CommandError, PositionFile, zedtoken};

/// How long the target may take to come close before the fence is asked for regardless.
const PATIENCE: Duration = Duration::from_secs(60);
/// A target through which a marker comes within this time is close.
const CLOSE: Duration = Duration::from_millis(700);
/// How long the Watch may take to end.
const ENDING: Duration = Duration::from_secs(1);
/// How often is looked whether it has.
const EVERY: Duration = Duration::from_millis(100);

/// A live Watch of the source, into the pipe.
pub(crate) struct Early {
    watch: Child,
}

/// The pipe of follow, where revisions of the source have to settle.
///
/// `None` where they do not, and where there can be no pipe: a cutover takes longer then, and nothing else.
pub(crate) fn pipe(session: &Session) -> Option<PathBuf> {
    let state = session.known()?;
    if !state.source.kind.needs_settling() || settling(&state).is_zero() {
        return None;
    }
    let path = session.early_file();
    let is_one = |path: &Path| {
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
    };
    let mode = Mode::RUSR | Mode::WUSR;
    if !is_one(&path)
        && let Err(error) = rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0)
    {
        let path = path.display();
        tracing::info!("cannot make the pipe {path}: {error}; nothing can be written early");
        return None;
    }
    Some(path)
}

impl Early {
    /// Begins to bring over what has not settled, and waits until the target is close. Where that cannot be done the
    /// rest takes longer behind the fence, and nothing else.
    pub(crate) async fn begin(session: &Session, ends: &Ends) -> Option<Self> {
        let path = pipe(session)?;
        let begun = match open(&path) {
            Ok(pipe) => Self::close_in(session, ends, pipe).await,
            Err(error) => Err(format!("follow does not read {}: {error}", path.display())),
        };
        match begun {
            Ok(early) => Some(early),
            Err(why) => {
                tracing::info!(
                    "what has not settled is applied behind the fence, and not early: {why}"
                );
                None
            }
        }
    }

    async fn close_in(session: &Session, ends: &Ends, pipe: File) -> Result<Self, String> {
        let text = |failure: CommandError| failure.message().to_owned();
        let source = &ends.source.context;
        let position = PositionFile::new(&session.position_file());
        let position = position
            .load()
            .map_err(text)?
            .ok_or("there is no position")?;
        let state = session.state().map_err(text)?;
        let (skip, file) = (state.skip(), session.file("early.ndjson"));
        let since = match &skip {
            Some(skip) => {
                keep_start(session, &file, &position.source_revision).map_err(text)?;
                Since::Back(&file, skip)
            }
            None => Since::Revision(&position.source_revision),
        };
        let command = commands::watch_live(source, since, ends.filter.as_ref());
        let began = Instant::now();
        let watch = session.runner.spawn_silent(&command, Output::File(pipe));
        let early = Self {
            watch: watch.map_err(text)?,
        };
        tracing::info!(
            "bringing over what was written to {source} in the last {} s, before it has settled",
            settling(&state).as_secs()
        );
        while !early.is_close(session, source, began).await? {
            if began.elapsed() > PATIENCE {
                tracing::info!(
                    "{} is not close after {} s; what is left is applied behind the fence",
                    ends.target.context,
                    PATIENCE.as_secs()
                );
                break;
            }
        }
        Ok(early)
    }

    /// Writes a marker, and waits until it has come through; whether that took no longer than an operator notices.
    async fn is_close(
        &self,
        session: &Session,
        source: &str,
        began: Instant,
    ) -> Result<bool, String> {
        let text = |failure: CommandError| failure.message().to_owned();
        let command = commands::mark(source).quiet();
        let marker = session.runner.spawn_silent(&command, Output::Kept);
        let (ended, marker) = marker.map_err(text)?.finish().await;
        if ended != Ended::Code(0) {
            return Err(format!("{source} takes no marker"));
        }
        let marker = String::from_utf8_lossy(&marker).trim().to_owned();
        let marked = Instant::now();
        while !reached(session, &marker) {
            if self.watch.has_ended() {
                return Err(format!(
                    "the live Watch has ended: see {}",
                    session.file("cutover.log").display()
                ));
            }
            if began.elapsed() > PATIENCE {
                return Ok(false);
            }
            tokio::time::sleep(EVERY).await;
        }
        Ok(marked.elapsed() <= CLOSE)
    }

    /// Ends the Watch, so that another one can begin.
    pub(crate) async fn end(mut self) {
        let _ = tokio::time::timeout(ENDING, self.watch.terminate()).await;
    }
}

impl Drop for Early {
    /// Asks the Watch to end, and does not wait for it.
    fn drop(&mut self) {
        self.watch.signal(Signal::TERM);
    }
}

/// Whether follow has written everything through a revision early.
fn reached(session: &Session, marker: &str) -> bool {
    let through = records::last_early(&session.applied_file());
    through.is_some_and(|through| zedtoken::includes(&through, marker))
}

/// Opens the pipe for writing; an error where nobody reads it.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    // The Watch waits for a slow reader.
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    Ok(file.into())
}
