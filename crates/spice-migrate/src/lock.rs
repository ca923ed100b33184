//! One process of each step at a time: locks that end with their processes, however these end.
//!
//! `STEP.lock` is locked by the step itself and holds its process id. `STEP.busy` is locked by the step
//! and by each program that it starts, which inherit it as their stdin: it is free only when all of them
//! have ended.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::phase::Step;
use crate::suite::files;

/// Somebody else looks at a lock for a moment only.
const MOMENT: Duration = Duration::from_secs(1);
/// How long programs may take to end whose step was killed.
const ORPHANS: Duration = Duration::from_secs(30);

/// A step that is held by this process.
#[derive(Debug)]
pub(crate) struct Held {
    lock: File,
    busy: File,
}

/// Who has a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtWork {
    /// This process.
    Step(Option<i32>),
    /// Programs of a step that was killed. They are ending.
    Orphans,
}

/// Why a step cannot be taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    AtWork(AtWork),
    Failed(io::Error),
}

impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

fn path(folder: &Path, step: Step, what: &str) -> PathBuf {
    folder.join(format!("{}.{what}", step.name()))
}

fn open(path: &Path) -> io::Result<File> {
    files::private().read(true).create(true).open(path)
}

/// Takes a step, and writes this process's id into its lock.
pub(crate) fn take(folder: &Path, step: Step) -> Result<Held, NotTaken> {
    let mut lock = open(&path(folder, step, "lock"))?;
    if !files::lock_within(&lock, MOMENT)? {
        return Err(NotTaken::AtWork(AtWork::Step(pid_in(&mut lock))));
    }
    let busy = open(&path(folder, step, "busy"))?;
    if !files::lock_within(&busy, ORPHANS)? {
        return Err(NotTaken::AtWork(AtWork::Orphans));
    }
    let mut held = Held { lock, busy };
    held.write(&format!("{}\n", std::process::id()))?;
    Ok(held)
}

impl Held {
    fn write(&mut self, text: &str) -> io::Result<()> {
        self.lock.set_len(0)?;
        self.lock.rewind()?;
        self.lock.write_all(text.as_bytes())
    }

    /// The lock that programs inherit.
    pub(crate) fn for_program(&self) -> io::Result<File> {
        self.busy.try_clone()
    }
}

/// An empty lock file means that its step ended by itself.
impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.write("");
    }
}

fn pid_in(lock: &mut File) -> Option<i32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn is_locked(path: &Path) -> bool {
    files::open_private(path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Who is at work at a step.
pub(crate) fn at_work(folder: &Path, step: Step) -> Option<AtWork> {
    let lock = path(folder, step, "lock");
    if is_locked(&lock) {
        let pid = files::open_private(&lock).ok().as_mut().and_then(pid_in);
        return Some(AtWork::Step(pid));
    }
    is_locked(&path(folder, step, "busy")).then_some(AtWork::Orphans)
}

/// The process of a step that is at work itself.
pub(crate) fn leader(folder: &Path, step: Step) -> Option<i32> {
    match at_work(folder, step) {
        Some(AtWork::Step(pid)) => Some(pid.unwrap_or(0)),
        _ => None,
    }
}

/// Whether a step was killed, or ended at once by a second signal, and was not begun again.
pub(crate) fn was_killed(folder: &Path, step: Step) -> bool {
    let lock = path(folder, step, "lock");
    at_work(folder, step).is_none()
        && std::fs::metadata(lock).is_ok_and(|metadata| metadata.len() > 0)
}

/// Forgets that a step was killed.
pub(crate) fn forget(folder: &Path, step: Step) {
    if let Ok(held) = take(folder, step) {
        drop(held);
    }
}

/// Asks a step politely to end, once for each of its processes, and waits for all of them.
///
/// `Err` has the process that does not end.
pub(crate) async fn stop(folder: &Path, step: Step, limit: Duration) -> Result<bool, Option<i32>> {
    let began = Instant::now();
    let mut asked = None;
    let mut was_at_work = false;
    while let Some(at_work) = at_work(folder, step) {
        was_at_work = true;
        if let AtWork::Step(pid) = at_work
            && pid.is_some()
            && asked != pid
        {
            asked = pid;
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::USR1);
            }
        }
        if began.elapsed() > limit {
            return Err(asked);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(was_at_work)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AtWork, NotTaken, at_work, leader, stop, take, was_killed};
    use crate::phase::Step;

    #[tokio::test]
    async fn step_is_taken_once_and_again_when_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(at_work(folder, Step::Follow), None);
        let held = take(folder, Step::Follow).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(leader(folder, Step::Follow), Some(own));
        assert!(matches!(
            take(folder, Step::Follow),
            Err(NotTaken::AtWork(AtWork::Step(Some(pid)))) if pid == own
        ));
        assert_eq!(at_work(folder, Step::Verify), None);
        drop(held);
        assert_eq!(at_work(folder, Step::Follow), None);
        assert!(!was_killed(folder, Step::Follow));
        let stopped = stop(folder, Step::Follow, Duration::ZERO).await;
        assert_eq!(stopped, Ok(false));
        // As SIGKILL leaves it.
        std::fs::write(folder.join("follow.lock"), "1\n").unwrap();
        assert!(was_killed(folder, Step::Follow));
        super::forget(folder, Step::Follow);
        assert!(!was_killed(folder, Step::Follow));
    }

    #[test]
    fn programs_of_a_step_that_was_killed_keep_it_until_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let held = take(folder, Step::Resync).unwrap();
        let program = held.for_program().unwrap();
        drop(held);
        assert_eq!(at_work(folder, Step::Resync), Some(AtWork::Orphans));
        assert_eq!(leader(folder, Step::Resync), None);
        drop(program);
        assert_eq!(at_work(folder, Step::Resync), None);
    }
}
