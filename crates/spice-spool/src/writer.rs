//! The writing end of a spool.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;

use spice_record::read::check_line;
use spice_record::{
    Change, ChangeCheck, ChangeSealer, Digest, Header, Integrity, ReadError, Record, RecordReader,
};

use super::Spool;
use spice_cli::files::{open_private, private};
use spice_cli::quote::quoted;
use spice_cli::{CommandError, Exit};

const BUFFER_BYTES: usize = 1 << 20;

/// What an earlier writer left in a spool.
#[derive(Clone, Debug)]
pub struct SpoolTail {
    /// The header of the newest segment.
    pub header: Header,
    /// The last complete revision.
    pub revision: String,
    /// The newest schema.
    pub schema: Option<String>,
    /// The checksum of the last line that is good.
    checksum: Digest,
}

/// Appends to a spool, which is locked as long as this lives.
pub struct SpoolWriter {
    spool: Spool,
    file: BufWriter<File>,
    number: u64,
    size: u64,
    limit: Option<u64>,
    header: Option<Header>,
    sealer: Option<ChangeSealer>,
    line: Vec<u8>,
    dirty: bool,
    _lock: File,
}

impl SpoolWriter {
    /// Opens a spool for appending: truncates it to the end of the last complete revision, and returns what
    /// is there; `None` for a new one. A segment is ended when it has reached `limit` bytes.
    ///
    /// # Errors
    ///
    /// Exit 2 where another writer is at work, 65 where the file is not a spool or is damaged before
    /// its end, 1 where the operating system reports an error.
    pub fn open(
        spool: &Spool,
        limit: Option<u64>,
    ) -> Result<(Self, Option<SpoolTail>), CommandError> {
        let lock = spool.lock()?;
        let failed = |error: io::Error| spool.failed("open", &error);
        let mut left = None;
        let mut numbers = spool.segments().map_err(failed)?;
        let mut end = 0;
        while let Some(&newest) = numbers.last() {
            let (found, complete) = scan(spool, newest)?;
            left = found;
            end = complete;
            if left.is_some() || numbers.len() == 1 {
                break;
            }
            // Its writer died before the header was complete: nothing is in it.
            fs::remove_file(spool.segment(newest)).map_err(failed)?;
            numbers.pop();
        }
        let number = numbers.last().copied().unwrap_or_default();
        let mut options = private();
        let file = options
            .create(true)
            .truncate(false)
            .open(spool.segment(number))
            .map_err(failed)?;
        let before = file.metadata().map_err(failed)?.len();
        if left.is_none()
            && before > 0
            && !begins_a_header(&spool.segment(number)).map_err(failed)?
        {
            let path = spool.path().display();
            return Err(
                CommandError::usage(format!("{path} is a file, but not a spool"))
                    .hint("nothing was changed; give another --spool"),
            );
        }
        if before > end {
            tracing::info!(
                "{}: truncated {} bytes of an incomplete revision",
                spool.segment(number).display(),
                before - end
            );
        }
        file.set_len(end).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        spool.sync_folder().map_err(failed)?;
        let mut writer = Self {
            spool: spool.clone(),
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            number,
            size: end,
            limit,
            header: left.as_ref().map(|left| left.header.clone()),
            sealer: left
                .as_ref()
                .map(|left| ChangeSealer::resume(left.checksum)),
            line: Vec::new(),
            dirty: false,
            _lock: lock,
        };
        writer.seek_to_end().map_err(failed)?;
        Ok((writer, left))
    }

    fn seek_to_end(&mut self) -> io::Result<()> {
        use std::io::Seek as _;
        self.file.seek(io::SeekFrom::Start(self.size)).map(|_| ())
    }

    /// Writes the header of a new spool.
    ///
    /// # Errors
    ///
    /// Exit 1, as for all writing.
    pub fn header(&mut self, header: Header) -> Result<(), CommandError> {
        let header = match &mut self.sealer {
            Some(sealer) => sealer.next_segment(header),
            None => {
                let (sealer, header) = ChangeSealer::begin(header);
                self.sealer = Some(sealer);
                header
            }
        };
        self.header = Some(header.clone());
        self.line(&Record::Header(Box::new(header)))?;
        self.sync()
    }

    /// Appends a line, sealed.
    ///
    /// # Errors
    ///
    /// Exit 1; what was synced before stays good.
    pub fn write(&mut self, change: Change) -> Result<(), CommandError> {
        let Some(sealer) = &mut self.sealer else {
            return Err(CommandError::new(
                Exit::Failed,
                "a spool begins with a header",
            ));
        };
        let record = sealer.seal(change);
        self.line(&record)
    }

    fn line(&mut self, record: &Record) -> Result<(), CommandError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        check_line(&self.line).map_err(|message| CommandError::new(Exit::Failed, message))?;
        self.dirty = true;
        self.size += self.line.len() as u64;
        self.file
            .write_all(&self.line)
            .map_err(|error| self.no_room(&error))
    }

    /// Makes everything durable, and visible to followers.
    ///
    /// # Errors
    ///
    /// Exit 1.
    pub fn sync(&mut self) -> Result<(), CommandError> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        let synced = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().sync_data());
        synced.map_err(|error| self.no_room(&error))
    }

    /// To be called at the end of a revision: begins another segment if this one is large enough.
    ///
    /// # Errors
    ///
    /// Exit 1.
    pub fn rotate(&mut self, revision: &str, schema: Option<&str>) -> Result<(), CommandError> {
        if self.limit.is_none_or(|limit| self.size < limit) {
            return Ok(());
        }
        let Some(header) = self.header.clone() else {
            return Ok(());
        };
        self.sync()?;
        let failed = |spool: &Spool, error: io::Error| spool.failed("open a segment of", &error);
        let mut options = private();
        let file = options
            .create_new(true)
            .open(self.spool.segment(self.number + 1))
            .map_err(|error| failed(&self.spool, error))?;
        self.file = BufWriter::with_capacity(BUFFER_BYTES, file);
        self.number += 1;
        self.size = 0;
        self.header(Header {
            revision: Some(revision.to_owned()),
            schema: schema.map(str::to_owned),
            created_at: jiff::Timestamp::now().to_string(),
            ..header
        })?;
        self.spool
            .sync_folder()
            .map_err(|error| failed(&self.spool, error))
    }

    fn no_room(&self, error: &io::Error) -> CommandError {
        self.spool.failed("append to", error).hint(
            "complete revisions in it remain valid: free space and run the same command again, before the \
             source's history window ends",
        )
    }
}

/// Whether a file without a complete line may be what a writer left that died while writing its first one.
fn begins_a_header(path: &Path) -> io::Result<bool> {
    const HEADER: &[u8] = b"{\"header\":";
    let mut start = Vec::new();
    open_private(path)?
        .take(HEADER.len() as u64)
        .read_to_end(&mut start)?;
    Ok(HEADER.starts_with(&start))
}

/// What a segment holds in complete revisions, and where these end.
fn scan(spool: &Spool, number: u64) -> Result<(Option<SpoolTail>, u64), CommandError> {
    let path = spool.segment(number);
    let file = open_private(&path).map_err(|error| spool.failed("read", &error))?;
    let mut records = RecordReader::new(BufReader::new(file), path.display().to_string());
    let mut left: Option<(SpoolTail, ChangeCheck)> = None;
    let mut complete = 0;
    let scanned = loop {
        let record = match records.next_record() {
            Ok(Some(record)) => record,
            Ok(None) | Err(ReadError::Torn { .. }) => break Ok(()),
            Err(error) => break Err(error),
        };
        let checked = match (&mut left, record) {
            (None, Record::Header(header)) => begin(*header).map(|begun| {
                left = Some(begun);
                true
            }),
            (Some((left, check)), record) => take(left, check, record),
            (None, _) => Err("a spool begins with a header".to_owned()),
        };
        match checked {
            Ok(true) => complete = records.offset(),
            Ok(false) => {}
            Err(message) => break Err(records.fault(message)),
        }
    };
    scanned.map_err(|error| {
        CommandError::from(error).hint(format!(
            "the spool is damaged; `truncate -s {complete} {}` keeps what is good before that line, and \
             the source is asked for the rest",
            quoted(&path)
        ))
    })?;
    Ok((left.map(|(left, _)| left), complete))
}

fn begin(header: Header) -> Result<(SpoolTail, ChangeCheck), String> {
    let check = ChangeCheck::begin(&header, Integrity::Verified)?;
    let (Some(revision), Some(checksum)) = (header.revision.clone(), header.checksum) else {
        return Err("header without a revision".to_owned());
    };
    let left = SpoolTail {
        revision,
        schema: header.schema.clone(),
        header,
        checksum,
    };
    Ok((left, check))
}

/// Takes the next line; `true` where a revision is complete with it.
fn take(left: &mut SpoolTail, check: &mut ChangeCheck, record: Record) -> Result<bool, String> {
    let change = Change::try_from(record)
        .map_err(|other| format!("a spool holds no {} here", other.kind()))?;
    check.check(&change)?;
    let Some(revision) = change.completed_revision() else {
        return Ok(false);
    };
    revision.clone_into(&mut left.revision);
    left.checksum = check.last_checksum().unwrap_or(left.checksum);
    if let Change::Schema(change) = change {
        left.schema = Some(change.text);
    }
    Ok(true)
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        // An error that matters was reported by `sync`.
        let _ = self.file.flush();
    }
}
