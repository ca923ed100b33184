//! `spice-convert`: relationships between the stream and zed's backups, validation files and text.
//!
//! | module | holds |
//! |---|---|
//! | [`input`] | the formats that are read, and the header of a stream of what they hold |
//! | [`output`] | the formats that are written, complete or not at all |
//! | [`duplicates`] | relationships that an input holds twice |
//! | [`schema`] | the schema of an input that names a file with it |
//!
//! The formats themselves are in [`spice_foreign`].

#![forbid(unsafe_code)]

mod duplicates;
mod input;
mod output;
mod schema;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, ValueEnum};
use spice_cli::compression::CompressionArgs;
use spice_cli::log::LogArgs;
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Exit, Program, Shutdown, Stdout, stdio};
use spice_foreign::Codec;
use spice_foreign::text::check_names;
use spice_foreign::validation::MAX_BYTES;
use spice_record::relationship::DisplayRelationship;
use spice_record::{ExpiryPrecision, Header};

use crate::duplicates::Duplicates;
use crate::input::{Options, Source};
use crate::output::{Sink, Target};

/// Convert zed's backups, validation files and text to a snapshot stream, or a stream to them.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "spice-convert",
    version = spice_cli::VERSION,
    before_help = EXAMPLES,
    after_long_help = spice_cli::EXIT_CODES
)]
pub struct Convert {
    /// What to convert, plain, zstd or gzip.
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// The format of the input [default: recognized by its beginning].
    #[arg(long, value_name = "FORMAT")]
    from: Option<Format>,
    /// The format of the output.
    #[arg(long, value_name = "FORMAT", default_value = "stream")]
    to: Format,
    /// Write to a file, which gets its name only when it is complete.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    compression: CompressionArgs,
    /// How to pack the blocks of a backup for zed [default: snappy, as zed does].
    #[arg(long, value_name = "CODEC")]
    codec: Option<CodecName>,
    /// The schema of an input that has none.
    #[arg(long, value_name = "FILE")]
    schema_file: Option<PathBuf>,
    /// Accept a stream without header and trailer, such as relationships from another database, one JSON
    /// object a line. Completeness is not checked.
    #[arg(long)]
    no_trailer: bool,
    /// Convert a backup that zed has not finished, or that may be cut: what is there of it. Also a part of a
    /// server to a format that has no place for that.
    #[arg(long)]
    allow_incomplete: bool,
    /// Skip metadata of a backup that this version does not know. Otherwise they are refused.
    #[arg(long)]
    ignore_unknown_fields: bool,
    /// End with 3 where the output lacks something: a part of an expiry, assertions.
    #[arg(long)]
    strict: bool,
    /// How much of an expiry the digest covers: us, or s to compare with a MySQL datastore.
    #[arg(long, value_name = "us|s", default_value_t)]
    expiry_precision: ExpiryPrecision,
    /// Where temporary files are made [default: $TMPDIR, else /tmp]. They have no names: nothing of them is
    /// left, however this ends.
    #[arg(long, value_name = "FOLDER")]
    temp_dir: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  spice-convert old.zedbackup | spice-import --context new
  spice-export --context old | spice-convert --to zedbackup -o old.zedbackup
  # What the playground and zed validate take.
  spice-export --context dev | spice-convert --to yaml -o dev.yaml
  # Compare the relationships of an application's own database.
  spice-convert --no-trailer rows.ndjson | spice-diff --summary new.ndjson -
";

/// `--from` and `--to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A snapshot stream.
    Stream,
    /// A backup of zed: an Avro container file.
    Zedbackup,
    /// A validation file.
    Yaml,
    /// A relationship a line, in SpiceDB's notation.
    Text,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Zedbackup => "zedbackup",
            Self::Yaml => "yaml",
            Self::Text => "text",
        })
    }
}

/// `--codec`: those that zed reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CodecName {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

impl From<CodecName> for Codec {
    fn from(name: CodecName) -> Self {
        match name {
            CodecName::Null => Self::Null,
            CodecName::Deflate => Self::Deflate,
            CodecName::Snappy => Self::Snappy,
            CodecName::Zstandard => Self::Zstandard,
        }
    }
}

impl Program for Convert {
    const NAME: &'static str = "spice-convert";

    fn log_args(&self) -> &LogArgs {
        &self.log
    }

    fn stdout(&self) -> Stdout {
        match self.output.as_deref() {
            Some(path) if path != Path::new("-") => Stdout::Unused,
            _ => Stdout::Data,
        }
    }

    async fn run(self, shutdown: Shutdown) -> Result<Exit, CommandError> {
        if self.file == Path::new("-") && stdio::stdin_is_terminal() {
            let help = Self::command().render_long_help();
            return Err(CommandError::terminal(help));
        }
        self.check()?;
        let progress = Progress::start("relationships converted", self.log.quiet);
        let converting = tokio::task::spawn_blocking({
            let progress = progress.clone();
            move || self.convert(&progress)
        });
        let exit = tokio::select! {
            exit = converting => exit.map_err(|e| CommandError::new(Exit::Failed, e.to_string()))?,
            number = shutdown.requested() => Ok(Exit::Signal(number)),
        };
        progress.clear();
        exit
    }
}

impl Convert {
    /// Flags that contradict each other.
    fn check(&self) -> Result<(), CommandError> {
        if self.to == Format::Zedbackup && self.compression.chosen().is_some() {
            return Err(CommandError::usage(
                "--zstd, --gzip: zed does not unpack a backup before it reads it",
            )
            .hint("--codec zstandard packs its blocks"));
        }
        if self.to != Format::Zedbackup && self.codec.is_some() {
            return Err(CommandError::usage("--codec is for --to zedbackup"));
        }
        Ok(())
    }

    fn convert(&self, progress: &Progress) -> Result<Exit, CommandError> {
        let (mut source, header) = Source::open(&Options {
            path: self.file.clone(),
            from: self.from,
            no_trailer: self.no_trailer,
            allow_incomplete: self.allow_incomplete,
            ignore_unknown_fields: self.ignore_unknown_fields,
            schema_file: self.schema_file.clone(),
        })?;
        self.check_header(&source, &header)?;
        let lost_of_header = self.lost_of_header(&header);
        let temp = self.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
        let mut duplicates = (!source.is_sealed()).then(|| Duplicates::new(&temp));
        let target = Target {
            format: self.to,
            path: self.output.clone(),
            compression: self.compression.chosen(),
            codec: self.codec.map_or(Codec::default(), Codec::from),
            precision: self.expiry_precision,
            temp,
        };
        let mut sink = Sink::create(target, header)?;
        let mut count = 0_u64;
        while let Some(relationship) = source.next()? {
            let place = source.place();
            if let Some(duplicates) = &mut duplicates {
                // What no server has written can hold anything.
                check_names(&relationship).map_err(|message| {
                    let (name, place) = (source.name(), source.place_name(place));
                    CommandError::new(Exit::BadData, format!("{name}: {place}: {message}"))
                })?;
                duplicates.add(&relationship, place)?;
            }
            if let Err(message) = sink.write(&relationship)? {
                let (name, place) = (source.name(), source.place_name(place));
                let shown = DisplayRelationship(&relationship);
                let to = self.to;
                return Err(CommandError::new(
                    Exit::BadData,
                    format!("{name}: {place}: {shown} cannot be written as {to}: {message}"),
                ));
            }
            count += 1;
            progress.add(1);
        }
        // Nothing before this point makes an output that is complete.
        if let Some(repeated) = duplicates.map(Duplicates::first).transpose()?.flatten() {
            return Err(repeats(&source, repeated));
        }
        let written = sink.finish()?;
        progress.clear();
        let mut losses = source.losses;
        losses.extend(lost_of_header);
        if written.truncated > 0 {
            losses.push(format!(
                "{} expiries were cut to milliseconds: zed's format holds no more",
                written.truncated
            ));
        }
        if written.is_too_long {
            let most = MAX_BYTES >> 20;
            tracing::warn!(
                "a validation file of more than {most} MiB, which spice-convert does not read: use --to text"
            );
        }
        for loss in &losses {
            tracing::warn!("{loss}");
        }
        let to = self.to;
        match written.trailer {
            Some(trailer) => tracing::info!(
                "converted {count} relationships to {to}, digest {} ({})",
                trailer.digest.unwrap_or_default(),
                self.expiry_precision
            ),
            None => tracing::info!("converted {count} relationships to {to}"),
        }
        Ok(match self.strict && !losses.is_empty() {
            true => Exit::Partial,
            false => Exit::Done,
        })
    }

    /// What the output has to have.
    fn check_header(&self, source: &Source, header: &Header) -> Result<(), CommandError> {
        let has_schema = header
            .schema
            .as_ref()
            .is_some_and(|schema| !schema.is_empty());
        if self.to == Format::Zedbackup && !has_schema {
            let name = source.name();
            let message = format!("{name} has no schema, with which a backup of zed begins");
            return Err(CommandError::usage(message).hint("give it with --schema-file FILE"));
        }
        let is_text = matches!(self.to, Format::Yaml | Format::Text);
        if let Some(revision) = header.revision.as_deref().filter(|_| is_text) {
            tracing::info!("{} has no place for the revision, {revision}", self.to);
        }
        if let Some(filter) = header
            .filter
            .as_ref()
            .filter(|_| is_text && !self.allow_incomplete)
        {
            let (name, to) = (source.name(), self.to);
            return Err(CommandError::usage(format!(
                "{name} holds only {filter}, and {to} has no place for that: what it becomes would be taken for \
                 all of a server"
            ))
            .hint("--allow-incomplete converts it; --to zedbackup keeps what it is a part of"));
        }
        Ok(())
    }

    /// What the format has no place for.
    fn lost_of_header(&self, header: &Header) -> Option<String> {
        let to = self.to;
        let lost = match to {
            Format::Yaml | Format::Text => [
                header
                    .filter
                    .as_ref()
                    .map(|filter| format!("that these are only {filter}")),
                (!header.mapping.is_empty()).then(|| "how spice-map has changed it".to_owned()),
            ],
            Format::Stream | Format::Zedbackup => return None,
        };
        let lost: Vec<String> = lost.into_iter().flatten().collect();
        (!lost.is_empty()).then(|| format!("{to} has no place for: {}", lost.join("; ")))
    }
}

fn repeats(source: &Source, (first, second): (u64, u64)) -> CommandError {
    let (name, first, second) = (
        source.name(),
        source.place_name(first),
        source.place_name(second),
    );
    let message = format!("{name}: {second} repeats the relationship of {first}");
    CommandError::new(Exit::BadData, message)
        .hint("no snapshot holds a relationship twice: remove one of them")
}
