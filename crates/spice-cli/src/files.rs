//! Files on a machine that others also use: which links are followed, what others may read or write.
//!
//! A state file (position, spool, lock, rejects) is everybody's permissions: it is made with mode 0600.
//! Links are followed only where nobody else can have planted them.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::error::CommandError;
use crate::exit::Exit;
use crate::quote::quoted;
use crate::stdio;

/// Options to write a state file: mode 0600 if it is made, no link followed, and no waiting for the
/// reader of a named pipe.
#[must_use]
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .mode(0o600)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK));
    options
}

/// Opens a state file for reading: no link is followed that others planted, and a named pipe or a device
/// is refused instead of waited for.
///
/// # Errors
///
/// The operating system's; `InvalidData` where it is no regular file.
pub fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let links = follow(path)?;
    options
        .read(true)
        .custom_flags(flags(links | OFlags::NONBLOCK));
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(invalid("not a regular file"));
    }
    Ok(file)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The largest state file: a line, and far below it.
const MAX_STATE_BYTES: u64 = 1 << 20;

/// Reads a state file as [`open_private`] opens it.
///
/// # Errors
///
/// As [`open_private`]; `InvalidData` where it is larger than any state file.
pub fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_private(path)?;
    file.take(MAX_STATE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_STATE_BYTES {
        return Err(invalid("larger than any state file"));
    }
    Ok(bytes)
}

/// Reads a file that holds a secret, opened as [`open_private`] does.
///
/// # Errors
///
/// As [`open_private`]; `PermissionDenied` where others can read or write it, or it belongs to another user
/// than us and root; `InvalidData` where it is larger than any secret.
pub fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_private(path)?;
    let found = file.metadata()?;
    let denied = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, why);
    if !is_ours(found.uid(), own_uid()) {
        return Err(denied("it belongs to another user"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(denied("others can read or write it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_STATE_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_STATE_BYTES {
        true => Err(invalid("larger than any secret")),
        false => Ok(bytes),
    }
}

/// What makes a file readable that [`read_secret`] denies, where that is known.
#[must_use]
pub fn secret_remedy(path: &Path) -> Option<String> {
    if trusted_path(path).is_err() {
        return Some("name the file itself: the link to it belongs to another user".to_owned());
    }
    // Not that of a folder which cannot be searched.
    let found = fs::metadata(path).ok()?;
    Some(remedy(&quoted(path), found.uid(), own_uid()))
}

/// Only its owner, or root, can change a mode.
fn remedy(path: &str, uid: u32, own: u32) -> String {
    match uid == own {
        true => format!("chmod 600 {path}"),
        false => format!(
            "its owner, user {uid}, or root can give it to you: chown {own} {path} && chmod 600 {path}"
        ),
    }
}

/// Locks a file; `false` where another process holds the lock for longer than this.
///
/// # Errors
///
/// The operating system's.
pub fn lock_within(file: &File, limit: Duration) -> io::Result<bool> {
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if began.elapsed() > limit => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The path of a file that belongs to another one: its name with a suffix.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.to_owned().into_os_string();
    path.push(suffix);
    path.into()
}

/// Opens the file of a flag for appending: what is refused, or set aside. It must not be one of the
/// inputs. May wait for the reader of a named pipe.
///
/// # Errors
///
/// Exit 2 where it is an input, 1 where it cannot be opened.
pub fn append(flag: &str, path: &Path, inputs: &[&Path]) -> Result<File, CommandError> {
    let shown = path.display();
    let failed =
        |error: io::Error| CommandError::new(Exit::Failed, format!("{flag} {shown}: {error}"));
    let links = follow(path).map_err(failed)?;
    let existed = fs::metadata(path);
    if let Ok(file) = &existed
        && inputs.iter().any(|input| is_same(file, input))
    {
        return Err(CommandError::usage(format!(
            "{flag} {shown} is the file that is read"
        )));
    }
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(flags(links))
        .open(path)
        .map_err(failed)?;
    if existed.is_ok() {
        warn_if_readable(
            &file,
            &format!("{flag} {shown} will hold permissions"),
            path,
        );
    }
    Ok(file)
}

fn is_same(file: &Metadata, input: &Path) -> bool {
    stdio::metadata(input).is_ok_and(|input| {
        !input.file_type().is_char_device()
            && (input.dev(), input.ino()) == (file.dev(), file.ino())
    })
}

/// Warns where others can read a regular file that they should not.
pub(crate) fn warn_if_readable(file: &File, what: &str, path: &Path) {
    let open = |metadata: &Metadata| metadata.is_file() && metadata.mode() & 0o077 != 0;
    if file.metadata().as_ref().is_ok_and(open) {
        tracing::warn!("{what} and others can read it: chmod 600 {}", quoted(path));
    }
}

/// What a file may be reached through: nothing, or a link that nobody else can have made.
fn follow(path: &Path) -> io::Result<OFlags> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => trusted_path(path).map(|()| OFlags::empty()),
        _ => Ok(OFlags::NOFOLLOW),
    }
}

/// Refuses a link, a pipe or a device that a stranger has put in the place of a file, and links that lead
/// to one.
///
/// # Errors
///
/// Names its owner.
pub(crate) fn trusted_path(path: &Path) -> io::Result<()> {
    /// As many as Linux follows.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(found) = fs::symlink_metadata(&path) else {
            return Ok(());
        };
        if !found.is_file() && !is_ours(found.uid(), own_uid()) {
            let (path, uid) = (path.display(), found.uid());
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{path} belongs to another user ({uid}) and may lead anywhere"),
            ));
        }
        if !found.is_symlink() {
            return Ok(());
        }
        let to = fs::read_link(&path)?;
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    Err(io::Error::other("too many links"))
}

/// Who runs this.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether a file of this owner can be relied on: ours, or root's.
fn is_ours(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

/// What others can do to a file that names what is run and connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Nobody else can write it.
    Private,
    /// Its group can.
    Group,
    /// Anybody, or an owner who is neither we nor root, can.
    Stranger,
}

/// Judges a file, or a folder where files can be replaced.
pub(crate) fn trust(mode: u32, uid: u32, own: u32, is_folder: bool) -> Trust {
    // In a sticky folder nobody can replace a file of another.
    let sticky = is_folder && mode & 0o1000 != 0;
    if !is_ours(uid, own) || (mode & 0o002 != 0 && !sticky) {
        return Trust::Stranger;
    }
    match mode & 0o020 != 0 && !sticky {
        true => Trust::Group,
        false => Trust::Private,
    }
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::{
        Trust, append, is_ours, open_private, own_uid, private, read_private, read_secret, remedy,
        secret_remedy, trust,
    };
    use crate::Exit;

    #[test]
    fn what_others_can_write_is_not_trusted() {
        let (own, other, root) = (1000, 1001, 0);
        for (mode, uid, is_folder, expected) in [
            (0o600, own, false, Trust::Private),
            (0o644, own, false, Trust::Private),
            (0o644, root, false, Trust::Private),
            (0o664, own, false, Trust::Group),
            (0o666, own, false, Trust::Stranger),
            (0o602, own, false, Trust::Stranger),
            (0o600, other, false, Trust::Stranger),
            (0o700, own, true, Trust::Private),
            (0o775, own, true, Trust::Group),
            (0o777, own, true, Trust::Stranger),
            (0o1777, root, true, Trust::Private),
            (0o755, other, true, Trust::Stranger),
            // Of a file the bit means nothing.
            (0o1666, own, false, Trust::Stranger),
        ] {
            let found = trust(mode, uid, own, is_folder);
            assert_eq!(found, expected, "{mode:o} {uid} {is_folder}");
        }
        assert!(is_ours(own, own) && is_ours(root, own) && !is_ours(other, own));
        assert!(!is_ours(own, root), "root trusts itself alone");
    }

    #[test]
    fn links_are_not_written_through_and_pipes_are_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, pipe] = ["file", "link", "pipe"].map(|name| folder.path().join(name));
        std::fs::write(&file, "kept").unwrap();
        symlink(&file, &link).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        assert!(private().truncate(true).open(&link).is_err());
        assert!(private().create(true).open(&pipe).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
        // A link of our own is followed for reading.
        assert!(open_private(&link).is_ok());
        assert_eq!(
            open_private(&pipe).unwrap_err().to_string(),
            "not a regular file"
        );
        let gone = open_private(&folder.path().join("gone")).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        // What is in the place of a state file is damage, not a failure to read.
        std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
        for path in [file.as_path(), folder.path(), &pipe] {
            let damaged = read_private(path).unwrap_err();
            assert_eq!(damaged.kind(), ErrorKind::InvalidData, "{path:?}");
        }
        let made = folder.path().join("made");
        private().create(true).open(&made).unwrap();
        let mode = std::fs::metadata(&made).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn remedy_for_a_secret_is_one_that_its_reader_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's mine");
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_secret(&path).is_err());
        let command = secret_remedy(&path).unwrap();
        assert!(command.starts_with("chmod 600 '"), "{command}");
        let changed = std::process::Command::new("sh")
            .args(["-c", &command])
            .status();
        assert!(changed.unwrap().success());
        assert_eq!(read_secret(&path).unwrap(), b"secret");
        for (uid, own) in [(1001, 1000), (0, 1000), (1000, 0)] {
            let text = remedy("key", uid, own);
            assert!(text.contains(&format!("chown {own} key")), "{text}");
        }
        assert_eq!(secret_remedy(&folder.path().join("gone")), None);
    }

    #[test]
    fn file_to_append_to_is_not_an_input() {
        let folder = tempfile::tempdir().unwrap();
        let [input, link, hard] = ["input", "link", "hard"].map(|name| folder.path().join(name));
        std::fs::write(&input, "{}").unwrap();
        symlink(&input, &link).unwrap();
        std::fs::hard_link(&input, &hard).unwrap();
        for path in [&input, &link, &hard] {
            let failure = append("--rejects", path, &[Path::new("/nosuch"), &input]);
            let failure = failure.unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message().contains("the file that is read"));
        }
        assert!(
            append(
                "--rejects",
                Path::new("/dev/null"),
                &[Path::new("/dev/null")]
            )
            .is_ok()
        );
        let fresh = folder.path().join("fresh");
        append("--rejects", &fresh, &[&input]).unwrap();
        let mode = std::fs::metadata(&fresh).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(own_uid(), rustix::process::geteuid().as_raw());
    }
}
