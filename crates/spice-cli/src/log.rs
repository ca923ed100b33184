//! stderr: one line an event, for people or, with `--log-format json`, for machines.
//!
//! The libraries emit events through `tracing`; nothing but this module prints.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::sync::OnceLock;

use indicatif::ProgressBar;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::display::{self, HINT_BYTES, MESSAGE_BYTES, escape_lines};

/// `--log-format`, `--quiet`, `--verbose`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Messages")]
pub struct LogArgs {
    /// How messages are written to stderr.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Only warnings and errors on stderr.
    #[arg(long, short, conflicts_with = "verbose")]
    pub quiet: bool,
    /// More messages on stderr.
    #[arg(long, short)]
    pub verbose: bool,
}

impl LogArgs {
    /// The form of messages, where a command line names it that is invalid otherwise.
    #[must_use]
    pub(crate) fn of_command_line() -> Self {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        let json = arguments
            .iter()
            .any(|argument| argument == "--log-format=json")
            || arguments
                .windows(2)
                .any(|pair| pair[0] == "--log-format" && pair[1] == "json");
        Self {
            log_format: if json {
                LogFormat::Json
            } else {
                LogFormat::Text
            },
            quiet: false,
            verbose: false,
        }
    }
}

/// The forms of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `program: message`.
    Text,
    /// One JSON object a line: time, level, program, message; causes and hints where there are any.
    Json,
}

/// The bar that lines must not be written into.
pub(crate) static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// A file that also gets the lines.
static COPY: OnceLock<File> = OnceLock::new();

/// From now on each line is also appended to this file. A second call changes nothing.
pub fn also_to(file: File) {
    let _ = COPY.set(file);
}

/// Sends the events of this process to stderr. A second call changes nothing.
pub fn init(program: &'static str, args: &LogArgs) {
    let level = match (args.quiet, args.verbose) {
        (true, _) => Level::WARN,
        (_, true) => Level::DEBUG,
        _ => Level::INFO,
    };
    let layer = Stderr {
        program,
        format: args.log_format,
        level,
    };
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

struct Stderr {
    program: &'static str,
    format: LogFormat,
    level: Level,
}

impl<S: Subscriber> Layer<S> for Stderr {
    /// Asked once for each place in the code. The transport's crates log what their errors will say
    /// again, and open a span for every frame: left enabled, these are a tenth of a program's work.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let ours = metadata.target().starts_with("spice") || metadata.target() == "authzed";
        if metadata.is_event() && ours && *metadata.level() <= self.level {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.into())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = match self.format {
            LogFormat::Text => self.text(*metadata.level(), &fields),
            LogFormat::Json => self.json(*metadata.level(), &fields),
        };
        let write = || {
            // Nothing can be done about a stderr that is gone.
            let _ = std::io::stderr().lock().write_all(line.as_bytes());
            if let Some(mut copy) = COPY.get() {
                let _ = copy.write_all(line.as_bytes());
            }
        };
        match BAR.get() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Stderr {
    fn text(&self, level: Level, fields: &Fields) -> String {
        let program = self.program;
        let mark = match level {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        };
        let mut line = format!("{program}: {mark}{}\n", escape_lines(&fields.message));
        for cause in fields.causes.lines() {
            let _ = writeln!(line, "{program}: caused by: {}", escape_lines(cause));
        }
        for hint in fields.hints.lines() {
            let _ = writeln!(line, "{program}: hint: {}", escape_lines(hint));
        }
        if !fields.help.is_empty() {
            let _ = writeln!(line, "\n{}", fields.help.trim_end());
        }
        line
    }

    fn json(&self, level: Level, fields: &Fields) -> String {
        let mut line = serde_json::json!({
            "time": jiff::Timestamp::now().to_string(),
            "level": level.as_str().to_ascii_lowercase(),
            "program": self.program,
            "message": fields.message,
        });
        if !fields.causes.is_empty() {
            line["causes"] = fields.causes.lines().collect::<Vec<_>>().into();
        }
        if !fields.hints.is_empty() {
            line["hints"] = fields.hints.lines().collect::<Vec<_>>().into();
        }
        format!("{}\n", display::escape_json(&line.to_string()))
    }
}

/// The fields of an event. Message and hints are bounded while they are formatted: they can quote a line of
/// 60 MiB.
#[derive(Default)]
struct Fields {
    message: String,
    /// One a line.
    hints: String,
    /// One a line, from the nearest to the root.
    causes: String,
    /// A program's own help.
    help: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "help" => value.clone_into(&mut self.help),
            "hints" => self.hints = display::bounded(HINT_BYTES, format_args!("{value}")),
            "causes" => self.causes = display::bounded(HINT_BYTES, format_args!("{value}")),
            _ => self.message = display::bounded(MESSAGE_BYTES, format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "help" => self.help = format!("{value:?}"),
            "hints" => self.hints = display::bounded(HINT_BYTES, format_args!("{value:?}")),
            "causes" => self.causes = display::bounded(HINT_BYTES, format_args!("{value:?}")),
            _ => self.message = display::bounded(MESSAGE_BYTES, format_args!("{value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::{Fields, HINT_BYTES, LogFormat, MESSAGE_BYTES, Stderr};
    use crate::display::{bounded, is_hostile};

    #[test]
    fn line_is_below_3_kib_and_harmless_whatever_it_contains() {
        for hostile in [
            "A",
            "\u{1b}[2J\r",
            "\u{202e}\u{2028}",
            "\"\\",
            "\n",
            "é",
            "\u{e0041}",
        ] {
            let long = hostile.repeat(100_000);
            let fields = Fields {
                message: bounded(MESSAGE_BYTES, format_args!("start {long}")),
                // Each hint is a line: CommandError makes it one.
                hints: bounded(HINT_BYTES, format_args!("hint {}", long.replace('\n', " "))),
                causes: String::new(),
                help: String::new(),
            };
            let stderr = Stderr {
                program: "spice-revision",
                format: LogFormat::Text,
                level: Level::INFO,
            };
            for line in [
                stderr.text(Level::WARN, &fields),
                stderr.json(Level::WARN, &fields),
            ] {
                assert!(line.len() <= 3 << 10, "{hostile:?}: {}", line.len());
                let hostile = |c: char| is_hostile(c) && c != '\n';
                assert!(!line.chars().any(hostile), "{line:?}");
                assert!(line.contains("start ") && line.contains("hint "), "{line}");
                assert!(line.contains("bytes left out"), "{line}");
            }
        }
    }
}
