//! A disk that is full at once.

use super::folder;
use std::path::Path;
use std::process::Command;

/// A file system of 512 KiB in memory; unmounted when dropped.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one; prints why and returns `None` where that is not allowed.
    pub fn mount() -> Option<Self> {
        let folder = folder();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(folder.path())
            .output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped, a small disk cannot be mounted: {mounted:?}");
        None
    }

    /// Gives it another size, such as `64m`.
    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let resized = Command::new("mount")
            .args(["-o", &options])
            .arg(self.path())
            .status();
        assert!(resized.is_ok_and(|status| status.success()), "resized");
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.path()).output());
    }
}
