//! What must not outlive the process: unfinished files, and a command that it waits for.
//!
//! Destructors do this where a program ends by itself. A program that a signal ends while its main task
//! is blocked has none.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::lock;

static LEFT: Mutex<Vec<Item>> = Mutex::new(Vec::new());

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    File(PathBuf),
    Child { pid: Pid, group: bool },
}

/// Keeps something on the list as long as it lives.
#[derive(Debug)]
pub struct Registered(Item);

/// A file to be removed if the process ends before it is finished.
#[must_use]
pub fn file(path: &Path) -> Registered {
    register(&mut lock(&LEFT), Item::File(path.to_owned()))
}

/// Starts a child, which is killed if the process ends before it does, with the process group that it
/// leads. A signal that comes between its start and its place on the list waits for the list.
pub(crate) fn spawn(command: &mut Command, group: bool) -> io::Result<(Child, Registered)> {
    let mut left = lock(&LEFT);
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    let registered = register(&mut left, Item::Child { pid, group });
    Ok((child, registered))
}

fn register(left: &mut Vec<Item>, item: Item) -> Registered {
    left.push(item.clone());
    Registered(item)
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut left = lock(&LEFT);
        if let Some(index) = left.iter().position(|item| *item == self.0) {
            left.swap_remove(index);
        }
    }
}

impl Registered {
    /// Ends a child now, and those that it has started where it leads a group.
    pub(crate) fn kill(&self) {
        self.0.clear();
    }
}

impl Item {
    fn clear(&self) {
        let _ = match self {
            Self::File(path) => std::fs::remove_file(path).map_err(drop),
            Self::Child { pid, group: true } => {
                kill_process_group(*pid, Signal::KILL).map_err(drop)
            }
            Self::Child { pid, group: false } => kill_process(*pid, Signal::KILL).map_err(drop),
        };
    }
}

/// Clears up what is left.
pub(crate) fn clear() {
    for item in lock(&LEFT).drain(..) {
        item.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{LEFT, file, lock};

    // What is left is left to the process, which other tests share: it is not cleared here.
    #[test]
    fn unfinished_file_is_on_the_list_and_a_finished_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let [finished, unfinished] = ["a", "b"].map(|name| folder.path().join(name));
        std::fs::write(&unfinished, "").unwrap();
        drop(file(&finished));
        let left = file(&unfinished);
        let listed = |item| lock(&LEFT).contains(item);
        assert!(listed(&left.0));
        assert!(!listed(&super::Item::File(finished)));
        left.0.clear();
        assert!(!unfinished.exists());
    }
}
