//! What is read: a stream or a format of others, and what is known of it before its relationships.

use std::fs;
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

use authzed::v1::Relationship;
use spice_cli::compare::now;
use spice_cli::{CommandError, stdio};
use spice_foreign::backup::ZED_BLOCK_OBJECTS;
use spice_foreign::text::parse_line;
use spice_foreign::validation::MAX_BYTES;
use spice_foreign::{BackupReader, TextReader, ValidationFile, read_error};
use spice_record::foreign::{self, recognize};
use spice_record::record::StreamKind;
use spice_record::{Header, Integrity, ReadError, RecordReader, SnapshotReader};

use crate::Format;
use crate::schema::{check_schema, read_schema, schema_beside};

type Input = Box<dyn BufRead + Send>;

/// What is looked at to recognize a format.
const BEGINNING: u64 = 4 << 10;

/// How strictly to read.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) path: PathBuf,
    pub(crate) from: Option<Format>,
    pub(crate) no_trailer: bool,
    pub(crate) allow_incomplete: bool,
    pub(crate) ignore_unknown_fields: bool,
    pub(crate) schema_file: Option<PathBuf>,
}

/// Gives relationships.
pub(crate) struct Source {
    name: String,
    /// Where zed keeps a lock, for one of its backups that has to be complete.
    locks: Vec<PathBuf>,
    allow_incomplete: bool,
    /// What the input lacks, or what is skipped in it.
    pub(crate) losses: Vec<String>,
    reader: Reader,
}

#[expect(clippy::large_enum_variant, reason = "there is only one")]
enum Reader {
    Stream(SnapshotReader<Input>, Integrity),
    Backup(Box<BackupReader<Input>>),
    Text(TextReader<Input>),
    Yaml(Lines),
}

/// The lines of a text in memory.
struct Lines {
    text: String,
    at: usize,
    line: u64,
}

/// What is known before the first relationship.
struct Opened {
    reader: Reader,
    header: Header,
    locks: Vec<PathBuf>,
    losses: Vec<String>,
}

impl Opened {
    fn new(reader: Reader, header: Header) -> Self {
        Self {
            reader,
            header,
            locks: Vec::new(),
            losses: Vec::new(),
        }
    }
}

impl Source {
    /// Reads what comes before the relationships; also returns the header of a stream of them.
    ///
    /// # Errors
    ///
    /// Exit 65 for an input that is damaged or of another format, 2 for flags that do not go with it, 1 where it
    /// cannot be read.
    pub(crate) fn open(options: &Options) -> Result<(Self, Header), CommandError> {
        let (mut input, name) = stdio::open(&options.path)?;
        let mut start = Vec::new();
        let read = input.by_ref().take(BEGINNING).read_to_end(&mut start);
        read.map_err(|error| read_error(&name, error))?;
        if start.is_empty() {
            return Err(fault(&name, "empty input: the producer wrote nothing").into());
        }
        let format = match options.from {
            Some(format) => format,
            None => format_of(&start).ok_or_else(|| none_of_these(&name, &start))?,
        };
        let input: Input = Box::new(io::Cursor::new(start).chain(input));
        if options.no_trailer && format != Format::Stream {
            return Err(CommandError::usage(format!(
                "--no-trailer is for a stream; {name} is taken for {format}"
            )));
        }
        let opened = match format {
            Format::Stream => open_stream(input, &name, options.no_trailer)?,
            Format::Zedbackup => open_backup(input, &name, options)?,
            Format::Text => {
                let lines = TextReader::new(input, name.as_str());
                Opened::new(Reader::Text(lines), new_header())
            }
            Format::Yaml => open_yaml(input, &name, options)?,
        };
        let mut header = opened.header;
        if let Some(path) = &options.schema_file {
            if header.schema.is_some() {
                return Err(CommandError::usage(format!(
                    "--schema-file: {name} has a schema of its own"
                )));
            }
            header.schema = Some(read_schema(path)?);
        }
        let source = Self {
            name,
            locks: opened.locks,
            allow_incomplete: options.allow_incomplete,
            losses: opened.losses,
            reader: opened.reader,
        };
        Ok((source, header))
    }

    /// Whether a trailer proves that no relationship is missing or repeated.
    pub(crate) fn is_sealed(&self) -> bool {
        match &self.reader {
            Reader::Stream(_, integrity) => *integrity == Integrity::Verified,
            Reader::Backup(backup) => backup.header().is_some(),
            Reader::Text(_) | Reader::Yaml(_) => false,
        }
    }

    /// The next relationship; `None` once the input has ended and was verified.
    pub(crate) fn next(&mut self) -> Result<Option<Relationship>, CommandError> {
        let next = match &mut self.reader {
            Reader::Stream(stream, _) => stream.next_relationship(),
            Reader::Backup(backup) => backup.next_relationship(),
            Reader::Text(lines) => lines.next_relationship(),
            Reader::Yaml(lines) => lines.next().map_err(|message| fault(&self.name, message)),
        };
        let is_text = matches!(self.reader, Reader::Text(_));
        match next {
            Ok(Some(relationship)) => Ok(Some(relationship)),
            Ok(None) => self.check_end().map(|()| None),
            Err(torn @ ReadError::Torn { .. }) if is_text => Err(torn_is_cut(torn)),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks for what shows that a backup of zed is not complete. A format of others has no more than this.
    fn check_end(&mut self) -> Result<(), CommandError> {
        // zed may have begun to write again.
        check_locks(&self.name, &self.locks)?;
        let Reader::Backup(backup) = &self.reader else {
            return Ok(());
        };
        if backup.header().is_some() {
            return Ok(());
        }
        if let Some(block) = backup.ended_early() {
            self.losses.push(format!(
                "block {block} of {} holds fewer than {ZED_BLOCK_OBJECTS} objects: zed was interrupted there and \
                 resumed, or another tool wrote it; relationships may be missing",
                self.name
            ));
        }
        if !backup.ends_with_a_full_block() {
            return Ok(());
        }
        let message = format!(
            "it ends with a full block of {ZED_BLOCK_OBJECTS} objects, as a file does that was cut between two blocks"
        );
        if self.allow_incomplete {
            self.losses.push(format!("{}: {message}", self.name));
            return Ok(());
        }
        let failure = CommandError::from(fault(&self.name, message));
        Err(failure.hint(
            "take the backup again, or compare it with its source: one of 100 complete backups also ends so; \
             --allow-incomplete converts it",
        ))
    }

    /// The number of the relationship read last, or of its line.
    pub(crate) fn place(&self) -> u64 {
        match &self.reader {
            Reader::Stream(stream, _) => stream.line(),
            Reader::Backup(backup) => backup.sum().relationships(),
            Reader::Text(lines) => lines.line(),
            Reader::Yaml(lines) => lines.line,
        }
    }

    /// A place, for messages.
    pub(crate) fn place_name(&self, place: u64) -> String {
        match &self.reader {
            Reader::Stream(..) | Reader::Text(_) => format!("line {place}"),
            Reader::Backup(_) => format!("relationship {place}"),
            Reader::Yaml(_) => format!("line {place} of its relationships"),
        }
    }

    /// What the input is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

fn open_stream(input: Input, name: &str, no_trailer: bool) -> Result<Opened, CommandError> {
    let integrity = Integrity::of_flags(false, no_trailer);
    let stream = SnapshotReader::open(RecordReader::new(input, name), integrity)?;
    let header = match (stream.header(), integrity) {
        (Some(header), Integrity::Verified) => converted(header),
        // Whoever changed the relationships made another snapshot than that of the revision.
        (header, _) => Header {
            schema: header.and_then(|header| header.schema.clone()),
            mapping: header.map_or_else(Vec::new, |header| header.mapping.clone()),
            filter: header.and_then(|header| header.filter.clone()),
            ..new_header()
        },
    };
    Ok(Opened::new(Reader::Stream(stream, integrity), header))
}

fn open_backup(input: Input, name: &str, options: &Options) -> Result<Opened, CommandError> {
    let backup = BackupReader::open(input, name)?;
    let unknown = backup.unknown_metadata().join(", ");
    if !unknown.is_empty() && !options.ignore_unknown_fields {
        let message = format!("unknown metadata, which may mean something: {unknown}");
        let failure = CommandError::from(backup.fault(message));
        return Err(failure.hint("--ignore-unknown-fields skips them"));
    }
    let (mut locks, mut losses) = (Vec::new(), Vec::new());
    let header = match backup.header() {
        Some(header) => converted(header),
        None => {
            if options.path != Path::new("-") && !options.allow_incomplete {
                locks = locks_of(&options.path);
            }
            check_locks(name, &locks)?;
            tracing::warn!(
                "{name} cannot be proven to be complete: zed's format has no end marker, count or digest; compare \
                 it with its source"
            );
            if !backup.codec().has_checksum() {
                let codec = backup.codec().name();
                tracing::warn!("{codec} needs no checksum: altered bytes may go unnoticed");
            }
            let schema = backup.schema();
            Header {
                revision: backup.revision().map(str::to_owned),
                schema: (!schema.is_empty()).then(|| schema.to_owned()),
                ..new_header()
            }
        }
    };
    if !backup.has_expirations() {
        losses.push(format!(
            "{name} holds no expiries: a zed before December 2025 left them out, so what would expire is \
             permanent in it"
        ));
    }
    Ok(Opened {
        locks,
        losses,
        ..Opened::new(Reader::Backup(Box::new(backup)), header)
    })
}

fn open_yaml(mut input: Input, name: &str, options: &Options) -> Result<Opened, CommandError> {
    let mut yaml = String::new();
    let read = input
        .by_ref()
        .take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut yaml);
    read.map_err(|error| read_error(name, error))?;
    if yaml.len() > MAX_BYTES {
        let most = MAX_BYTES >> 20;
        let failure = CommandError::from(fault(name, format!("more than {most} MiB of YAML")));
        return Err(
            failure.hint("write the relationships as text, one a line, and give --schema-file")
        );
    }
    if !yaml.ends_with('\n') {
        return Err(torn_is_cut(ReadError::Torn {
            name: name.to_owned(),
            line: yaml.lines().count() as u64,
            bytes: yaml.lines().last().map_or(0, str::len),
        }));
    }
    let file = ValidationFile::read(&yaml).map_err(|message| fault(name, message))?;
    drop(yaml);
    check_schema(name, file.schema.as_deref().unwrap_or_default())?;
    let mut losses = Vec::new();
    if !file.skipped.is_empty() {
        let skipped = file.skipped.join(" and ");
        losses.push(format!(
            "{skipped} of {name} skipped: only schema and relationships are converted"
        ));
    }
    let schema = match (file.schema, file.schema_file) {
        (None, Some(named)) if options.schema_file.is_none() => {
            Some(schema_beside(&options.path, name, &named)?)
        }
        (schema, _) => schema,
    };
    let header = Header {
        schema,
        ..new_header()
    };
    Ok(Opened {
        losses,
        ..Opened::new(Reader::Yaml(Lines::new(file.relationships)), header)
    })
}

fn fault(name: &str, message: impl Into<String>) -> ReadError {
    ReadError::Stream {
        name: name.to_owned(),
        message: message.into(),
    }
}

/// zed removes its lock when a backup is finished.
fn check_locks(name: &str, locks: &[PathBuf]) -> Result<(), CommandError> {
    let Some(lock) = locks.iter().find(|lock| lock.exists()) else {
        return Ok(());
    };
    let message = format!("zed has not finished it: {} is there", lock.display());
    let failure = CommandError::from(fault(name, message));
    Err(failure.hint("take the backup again; --allow-incomplete converts what is there"))
}

impl Lines {
    fn new(text: String) -> Self {
        Self {
            text,
            at: 0,
            line: 0,
        }
    }

    fn next(&mut self) -> Result<Option<Relationship>, String> {
        while let Some(line) = self.text[self.at..].split_inclusive('\n').next() {
            self.at += line.len();
            self.line += 1;
            let number = self.line;
            let parsed = parse_line(line);
            let parsed =
                parsed.map_err(|message| format!("line {number} of its relationships: {message}"));
            if let Some(relationship) = parsed? {
                return Ok(Some(relationship));
            }
        }
        Ok(None)
    }
}

/// `None` for what looks like none of them.
fn format_of(start: &[u8]) -> Option<Format> {
    Some(match recognize(start).map(|found| found.format) {
        Some(foreign::Format::Avro) => Format::Zedbackup,
        Some(foreign::Format::Yaml) => Format::Yaml,
        Some(foreign::Format::Text) => Format::Text,
        // The reader of a stream names what it is otherwise.
        Some(foreign::Format::Other) => Format::Stream,
        None if start.trim_ascii_start().starts_with(b"{") => Format::Stream,
        None => return None,
    })
}

fn none_of_these(name: &str, start: &[u8]) -> CommandError {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or(start);
    let line: String = String::from_utf8_lossy(line).chars().take(60).collect();
    let message = format!("neither a stream, a backup, YAML nor text: it begins with {line:?}");
    let failure = CommandError::from(fault(name, message));
    failure.hint("--from text, or yaml, names the line that is not understood as that")
}

fn new_header() -> Header {
    let producer = format!("spice-convert {}", spice_cli::VERSION);
    Header::new(StreamKind::Snapshot, producer, now())
}

/// The header of a snapshot that only changes its form.
fn converted(header: &Header) -> Header {
    Header {
        revision: header.revision.clone(),
        schema: header.schema.clone(),
        filter: header.filter.clone(),
        mapping: header.mapping.clone(),
        created_at: header.created_at.clone(),
        ..new_header()
    }
}

/// Where zed stores how far it came until a backup is finished: beside the name that it was given, which may be
/// that of a link.
fn locks_of(path: &Path) -> Vec<PathBuf> {
    let lock_of = |path: &Path| {
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        PathBuf::from(lock)
    };
    let real = fs::canonicalize(path).ok();
    [Some(lock_of(path)), real.as_deref().map(lock_of)]
        .into_iter()
        .flatten()
        .collect()
}

fn torn_is_cut(error: ReadError) -> CommandError {
    CommandError::from(error)
        .hint("the file may be cut; if it is complete, end its last line: echo >>FILE")
}
