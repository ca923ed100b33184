//! A change stream on disk: one program appends, another follows, and neither must outlive the other.
//!
//! | file | is |
//! |---|---|
//! | `FILE`, `FILE.000001`, ... | the segments; each begins with a header, and no revision spans two |
//! | `FILE.lock` | locked by the writer as long as it lives; its content changes with each writer |
//! | `FILE.lost` | the writer's last word when the source had lost its history |
//!
//! A writer that opens a spool cuts off what a predecessor left torn. A follower may have read a part
//! of that, so it looks at the content of the lock file after each read: where it has changed, what
//! was read of an unfinished revision counts for nothing, and it is read again.

mod append;
mod follow;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spice_record::record::Place;

use crate::exit::{Exit, Failure};

pub use self::append::{Appender, Left};
pub use self::follow::{Followed, Follower};

/// The files of one spool.
#[derive(Clone, Debug)]
pub struct Spool(PathBuf);

impl Spool {
    /// A spool that need not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// For messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file of a segment.
    #[must_use]
    pub fn segment(&self, number: u64) -> PathBuf {
        match number {
            0 => self.0.clone(),
            _ => self.beside(&format!(".{number:06}")),
        }
    }

    /// The numbers of the segments that there are, rising.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn segments(&self) -> io::Result<Vec<u64>> {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy();
        let entries = match fs::read_dir(self.folder()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let entry = entry?.file_name();
            let entry = entry.to_string_lossy();
            match entry.strip_prefix(name.as_ref()) {
                Some("") => numbers.push(0),
                Some(rest) => {
                    let digits = rest.strip_prefix('.').filter(|digits| digits.len() >= 6);
                    numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
                }
                None => {}
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The file of the newest segment, if that is not the first.
    #[must_use]
    pub fn newest_segment(&self) -> Option<PathBuf> {
        let newest = *self.segments().ok()?.last()?;
        (newest > 0).then(|| self.segment(newest))
    }

    /// Where it ends now.
    #[must_use]
    pub fn end(&self) -> Option<Place> {
        let segment = *self.segments().ok()?.last()?;
        let offset = fs::metadata(self.segment(segment)).ok()?.len();
        Some(Place { segment, offset })
    }

    /// Whether a writer is at work.
    #[must_use]
    pub fn writer_lives(&self) -> bool {
        File::open(self.lock_file())
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// What a writer said that ended because history was lost.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        fs::read_to_string(self.lost_file()).ok()
    }

    /// Leaves that word.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn set_lost(&self, word: &str) -> io::Result<()> {
        let mut file = private()
            .create(true)
            .truncate(true)
            .open(self.lost_file())?;
        writeln!(file, "{word}")?;
        file.sync_all()
    }

    /// Takes that word back: a later writer found the history whole.
    pub fn clear_lost(&self) {
        let _ = fs::remove_file(self.lost_file());
    }

    /// What tells one writer from the next.
    fn generation(&self) -> String {
        fs::read_to_string(self.lock_file()).unwrap_or_default()
    }

    /// Locks the spool for a writer, which is a new generation from now on.
    fn lock(&self) -> Result<File, Failure> {
        /// A follower that looks for the writer holds the lock for a moment.
        const PATIENCE: Duration = Duration::from_secs(1);
        let path = self.lock_file();
        let failed = |error: io::Error| {
            let path = path.display();
            Failure::new(
                Exit::Failed,
                format!("cannot lock the spool: {path}: {error}"),
            )
        };
        let mut file = private()
            .read(true)
            .create(true)
            .open(&path)
            .map_err(failed)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut owner = String::new();
                    let _ = file.read_to_string(&mut owner);
                    let owner = owner.split_whitespace().next().unwrap_or("?").to_owned();
                    return Err(Failure::usage(format!(
                        "another spice-watch (process {owner}) appends to {}",
                        self.0.display()
                    ))
                    .hint("one spool has one writer: stop that one, or give another --spool"));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let now = jiff::Timestamp::now();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{} {now}", std::process::id()))
            .map_err(failed)?;
        Ok(file)
    }

    fn lock_file(&self) -> PathBuf {
        self.beside(".lock")
    }

    fn lost_file(&self) -> PathBuf {
        self.beside(".lost")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    fn folder(&self) -> &Path {
        match self.0.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.folder())?.sync_all()
    }

    fn failed(&self, what: &str, error: &io::Error) -> Failure {
        Failure::new(
            Exit::Failed,
            format!("cannot {what} the spool {}: {error}", self.0.display()),
        )
    }
}

/// Changes are everybody's permissions.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::fs;

    use spice_record::record::{Checkpoint, SchemaChange, StreamKind, Transaction};
    use spice_record::{FORMAT, Header, Record};

    use super::{Appender, Followed, Follower, Left, Spool};

    /// In memory where that is possible: every reopening syncs.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap()
    }

    fn header(revision: &str) -> Header {
        Header {
            format: FORMAT.to_owned(),
            stream: StreamKind::Changes,
            revision: Some(revision.to_owned()),
            schema: Some("definition user {}".to_owned()),
            filter: None,
            producer: "test".to_owned(),
            created_at: "2026-11-24T00:00:00Z".to_owned(),
        }
    }

    fn line(record: &Record) -> Vec<u8> {
        let mut line = serde_json::to_vec(record).unwrap();
        line.push(b'\n');
        line
    }

    fn transaction(revision: &str, part: Option<u64>, last: bool) -> Record {
        Record::Transaction(Box::new(Transaction {
            revision: revision.to_owned(),
            part,
            last_part: (part.is_some() && last).then_some(true),
            ..Transaction::default()
        }))
    }

    /// Lines after the header, and the revision that is whole with each.
    fn lines() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let checkpoint = Record::Checkpoint(Box::new(Checkpoint {
            revision: "d".to_owned(),
            at: None,
            lag: None,
        }));
        let schema = Record::Schema(Box::new(SchemaChange {
            revision: "c".to_owned(),
            text: "definition other {}".to_owned(),
        }));
        vec![
            (line(&transaction("a", None, true)), Some("a")),
            (line(&transaction("b", Some(1), false)), None),
            (line(&transaction("b", Some(2), false)), None),
            (line(&transaction("b", Some(3), true)), Some("b")),
            (line(&schema), Some("c")),
            (line(&checkpoint), Some("d")),
            (line(&transaction("e", Some(1), false)), None),
            (line(&transaction("e", Some(2), true)), Some("e")),
        ]
    }

    fn open(spool: &Spool) -> (Appender, Option<Left>) {
        Appender::open(spool, None).unwrap()
    }

    /// All records that are there.
    fn follow(follower: &mut Follower) -> Vec<Record> {
        let mut all = Vec::new();
        while let Followed::Record(record, ..) = follower.next().unwrap() {
            all.push(*record);
        }
        all
    }

    /// Applies what a follower gets as a program does that keeps whole revisions only.
    fn whole_of(records: &[Record]) -> Vec<String> {
        let (mut whole, mut parts) = (Vec::new(), 0);
        for record in records {
            match record {
                Record::Transaction(change) => {
                    if let Some(part) = change.part {
                        // From the first part again, if its writer died.
                        parts = if part == 1 { 1 } else { parts + 1 };
                        assert_eq!(part, parts, "no part is skipped");
                    }
                    if change.completes_revision() {
                        whole.push(change.revision.clone());
                        parts = 0;
                    }
                }
                Record::Schema(change) => whole.push(change.revision.clone()),
                Record::Checkpoint(checkpoint) => whole.push(checkpoint.revision.clone()),
                other => panic!("a {}", other.kind()),
            }
        }
        whole
    }

    #[test]
    fn spool_cut_at_every_byte_reopens_at_its_last_whole_revision_and_followers_agree() {
        let folder = folder();
        let path = folder.path().join("spool");
        let spool = Spool::new(&path);
        let mut bytes = line(&Record::Header(Box::new(header("start"))));
        // After how many bytes which revision is whole.
        let mut ends = vec![(bytes.len(), "start")];
        for (text, revision) in lines() {
            bytes.extend(text);
            ends.extend(revision.map(|revision| (bytes.len(), revision)));
        }
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let end = ends.iter().rev().find(|(end, _)| *end <= cut);
            // Reads what is there of an unfinished revision, before it is cut back.
            let mut early = Follower::open(&spool).unwrap();
            assert_eq!(early.is_some(), end.is_some(), "at {cut}");
            let mut seen = early.as_mut().map(follow).unwrap_or_default();
            let (mut appender, left) = open(&spool);
            let left = left.map(|left| (left.revision, left.schema));
            let schema = match end {
                Some((_, "c" | "d" | "e")) => "definition other {}",
                _ => "definition user {}",
            };
            let expected = end.map(|(_, name)| ((*name).to_owned(), Some(schema.to_owned())));
            assert_eq!(left, expected, "at {cut}");
            let length = end.map_or(0, |(end, _)| *end);
            assert_eq!(fs::read(&path).unwrap(), &bytes[..length], "at {cut}");
            if end.is_none() {
                appender.header(header("start")).unwrap();
            }
            // Another writer says other things.
            let other = [
                ("x", Some(1), false),
                ("x", Some(2), true),
                ("y", None, true),
            ];
            for (revision, part, last) in other {
                appender
                    .write(&line(&transaction(revision, part, last)))
                    .unwrap();
            }
            appender.sync().unwrap();
            let mut expected: Vec<String> = ends[1..]
                .iter()
                .filter(|(end, _)| *end <= cut)
                .map(|(_, revision)| (*revision).to_owned())
                .collect();
            expected.extend(["x".to_owned(), "y".to_owned()]);
            let mut late = Follower::open(&spool).unwrap().unwrap();
            assert_eq!(whole_of(&follow(&mut late)), expected, "at {cut}");
            let early = early.as_mut().unwrap_or(&mut late);
            seen.extend(follow(early));
            if end.is_some() {
                assert_eq!(whole_of(&seen), expected, "at {cut}");
            }
        }
    }

    #[test]
    fn segments_chain_and_one_whose_header_is_torn_counts_for_nothing() {
        let folder = folder();
        let spool = Spool::new(&folder.path().join("spool"));
        let (mut appender, left) = Appender::open(&spool, Some(1)).unwrap();
        assert!(left.is_none());
        appender.header(header("start")).unwrap();
        for (text, revision) in lines() {
            appender.write(&text).unwrap();
            if let Some(revision) = revision {
                appender.rotate(revision, Some("text")).unwrap();
            }
        }
        drop(appender);
        assert_eq!(spool.segments().unwrap(), [0, 1, 2, 3, 4, 5]);
        let mut follower = Follower::open(&spool).unwrap().unwrap();
        let found = whole_of(&follow(&mut follower));
        assert_eq!(found, ["a", "b", "c", "d", "e"]);
        assert_eq!(follower.segment(), 5);
        let newest = spool.segment(5);
        let whole = fs::read(&newest).unwrap();
        for cut in [0, 1, whole.len() - 1] {
            fs::write(&newest, &whole[..cut]).unwrap();
            let mut follower = Follower::open(&spool).unwrap().unwrap();
            assert_eq!(whole_of(&follow(&mut follower)).len(), 5, "cut at {cut}");
            let (appender, left) = open(&spool);
            assert_eq!(left.unwrap().revision, "e");
            assert_eq!(spool.segments().unwrap(), [0, 1, 2, 3, 4]);
            drop(appender);
            fs::write(&newest, &whole).unwrap();
        }
        // A segment that is missing in the middle is no end.
        fs::remove_file(spool.segment(2)).unwrap();
        let mut follower = Follower::open(&spool).unwrap().unwrap();
        let found = std::iter::from_fn(|| match follower.next() {
            Ok(Followed::Record(..)) => Some(Ok(())),
            Ok(Followed::CaughtUp) => None,
            Err(failure) => Some(Err(failure)),
        });
        let failures: Vec<_> = found.take(20).filter_map(Result::err).collect();
        assert!(!failures.is_empty(), "it must not look like the end");
    }

    #[test]
    fn writer_is_known_by_its_lock_and_a_second_one_is_refused() {
        let folder = folder();
        let spool = Spool::new(&folder.path().join("spool"));
        assert!(!spool.writer_lives());
        let (appender, _) = open(&spool);
        assert!(spool.writer_lives());
        let refused = Appender::open(&spool, None).err().unwrap();
        assert_eq!(refused.exit, crate::Exit::Usage);
        drop(appender);
        assert!(!spool.writer_lives());
        assert!(spool.lost().is_none());
        spool.set_lost("gone").unwrap();
        assert_eq!(spool.lost().unwrap().trim(), "gone");
        spool.clear_lost();
        assert!(spool.lost().is_none());
    }
}
