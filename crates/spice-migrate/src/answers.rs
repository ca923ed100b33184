//! `verify --check-sample`: do both ends give the same answers?

use rustix::process::Signal;
use spice_record::Record;
use spice_record::checks::{Answer, Check};

use crate::commands::{self, At};
use crate::phase::SyncPoint;
use crate::process::{Ended, Input, Output, pipe};
use crate::records;
use crate::session::Session;
use crate::state::Found;
use crate::store::remove;
use crate::suite::{CommandError, Exit, Outcome, escape};
use crate::time::Instant;
use crate::verify::Verification;

/// So often both are asked about what they disagree on.
const TRIES: u32 = 4;

/// Asks both ends. A disagreement is asked again at later pairs, on both: servers judge expiry and the like
/// by their clocks, keep what they have answered once at a revision, and a PostgreSQL revision does not show
/// transactions that overlap it. Returns what to say of it.
pub(crate) async fn ask_both(
    verification: &Verification<'_>,
    at: SyncPoint,
    sample: u64,
) -> Outcome<String> {
    let session = verification.session;
    let (source, target) = names(verification);
    tracing::info!("asking {source} about {sample} relationships, and {target} the same");
    let first = ask_source(verification, &at, sample).await?;
    let asked = Asked::of(&first);
    may_count(verification, &at, &asked)?;
    let file = session.temporary("asked")?;
    let (mut at, mut checks, mut tries) = (at, first, 1);
    loop {
        std::fs::write(&file, &checks).map_err(|error| session.cannot_write(&file, &error))?;
        let command = commands::check(target, &at.target_revision).arg(&file);
        let (ended, output) = session.runner.run(&command).await?;
        let inconclusive = Checks(&output)
            .each()
            .filter(|check| check.inconclusive)
            .count();
        let path = session.file("checks.ndjson");
        let keep =
            || std::fs::write(&path, &output).map_err(|error| session.cannot_write(&path, &error));
        match ended {
            Ended::Code(0) => {
                keep()?;
                return agreed(session, &asked, inconclusive, [source, target]);
            }
            Ended::Code(3) => keep()?,
            Ended::Code(1) if is_complete(&output) => {
                keep()?;
                let what = format!("{inconclusive} of {} answers are inconclusive", asked.all);
                verification.undecided(&what, &at)?;
                return Err(too_little(session, &what, [source, target]));
            }
            ended => {
                let what = format!("{target} could not be asked");
                return Err(session.failed("spice-check", ended, &what));
            }
        }
        let disagree = Checks(&output).each().count() - inconclusive;
        if disagree > 0 {
            session.update(|state| state.sample = Some(sample))?;
            let what = format!("{disagree} of {} answers", asked.all);
            verification.undecided(&what, &at)?;
        } else {
            verification.undecided("the schemas differ, or have just been changed", &at)?;
        }
        if tries >= TRIES {
            return Err(disagreed(verification, &at, disagree, asked.all, sample)?);
        }
        tries += 1;
        tracing::info!("asking both about these again, at a later pair");
        at = verification.next_pair().await?.sync_point;
        let command = commands::check(source, &at.source_revision)
            .arg("--record")
            .quiet()
            .arg(&path);
        let (ended, output) = session.runner.run(&command).await?;
        if !ended.is_success() {
            let what = format!("{source} could not be asked");
            return Err(session.failed("spice-check", ended, &what));
        }
        checks = output;
    }
}

fn names<'a>(verification: &Verification<'a>) -> (&'a str, &'a str) {
    let ends = verification.ends;
    (&ends.source.context, &ends.target.context)
}

/// The answers of the source.
async fn ask_source(
    verification: &Verification<'_>,
    at: &SyncPoint,
    sample: u64,
) -> Outcome<Vec<u8>> {
    let session = verification.session;
    let (source, _) = names(verification);
    let (reader, writer) = pipe()?;
    let revision = At::Revision(&at.source_revision);
    let (precision, jobs) = (verification.ends.precision, verification.jobs);
    let filter = verification.ends.filter.as_ref();
    let export = commands::export_relationships(source, revision, precision, jobs, filter).quiet();
    let check = commands::check(source, &at.source_revision).flag("--sample", sample.to_string());
    let mut export = session
        .runner
        .spawn(&export, Input::None, Output::Pipe(writer))?;
    let check = session
        .runner
        .spawn(&check, Input::Pipe(reader), Output::Kept)?;
    let (asked, output) = check.finish().await;
    if !asked.is_success() {
        export.signal(Signal::TERM);
    }
    let exported = export.wait().await;
    let what = format!("{source} could not be asked");
    match asked {
        Ended::Code(0) => Ok(output),
        Ended::Code(65) if !exported.is_success() => {
            Err(session.failed("spice-export", exported, &what))
        }
        ended => Err(session.failed("spice-check", ended, &what)),
    }
}

/// The checks of a stream.
struct Checks<'a>(&'a [u8]);

impl Checks<'_> {
    fn each(&self) -> impl Iterator<Item = Check> {
        let lines = self.0.split(|byte| *byte == b'\n');
        lines.filter_map(|line| match records::parse(line) {
            Some(Record::Check(check)) => Some(*check),
            _ => None,
        })
    }
}

/// Whether a stream has its trailer: it is complete where too much was inconclusive.
fn is_complete(output: &[u8]) -> bool {
    let mut lines = output.split(|byte| *byte == b'\n').rev();
    let last = lines.find(|line| !line.is_empty()).unwrap_or_default();
    matches!(records::parse(last), Some(Record::Trailer(_)))
}

/// How many questions there are, and how many errors among the answers.
struct Asked {
    all: usize,
    errors: usize,
    first_error: Option<String>,
}

impl Asked {
    fn of(output: &[u8]) -> Self {
        let mut asked = Self {
            all: 0,
            errors: 0,
            first_error: None,
        };
        for check in Checks(output).each() {
            asked.all += 1;
            if let Answer::Error(fault) = check.answer {
                asked.errors += 1;
                asked.first_error.get_or_insert(fault.message);
            }
        }
        asked
    }
}

fn may_count(verification: &Verification<'_>, at: &SyncPoint, asked: &Asked) -> Outcome {
    let (source, _) = names(verification);
    let all = asked.all;
    if all == 0 {
        return Err(
            CommandError::new(Exit::Failed, "there was nothing to ask about")
                .hint("run verify without --check-sample"),
        );
    }
    if asked.errors < all {
        return Ok(());
    }
    let what = format!("{source} answered each of {all} questions with an error");
    verification.undecided(&what, at)?;
    let first = asked.first_error.as_deref().unwrap_or_default();
    Err(CommandError::new(
        Exit::Failed,
        format!("{what}, which proves nothing. The first: {}", escape(first)),
    )
    .hint(format!(
        "see what these errors say of {source}; then run: {}",
        verification.session.words.same()
    )))
}

fn agreed(
    session: &Session,
    asked: &Asked,
    inconclusive: usize,
    [source, target]: [&str; 2],
) -> Outcome<String> {
    session.update(|state| state.sample = None)?;
    let mut answers = format!(", {} equal answers", asked.all - inconclusive);
    if asked.errors > 0 {
        answers += &format!(", {} of these errors", asked.errors);
    }
    let path = session.file("checks.ndjson");
    if inconclusive == 0 {
        remove(&path).map_err(|error| session.cannot_write(&path, &error))?;
    } else {
        answers += &format!(", {inconclusive} inconclusive");
        tracing::info!(
            "{inconclusive} of {} answers are inconclusive: {source} or {target} gave up at its maximum depth; all of \
             them: {}",
            asked.all,
            path.display()
        );
    }
    Ok(answers)
}

fn too_little(session: &Session, what: &str, [source, target]: [&str; 2]) -> CommandError {
    CommandError::new(Exit::Failed, format!(
            "{what}: {source} or {target} gave up at its maximum depth; all of them: {}",
            session.file("checks.ndjson").display()
        )).hint(format!(
            "compare --dispatch-max-depth of both SpiceDBs, and look for cycles in the data; then run: {}",
            session.words.same()
        ))
    .also(format!(
        "relationships and schema are equal; to go by these alone, run: {}",
        session.words.step("verify")
    ))
}

fn disagreed(
    verification: &Verification<'_>,
    at: &SyncPoint,
    disagree: usize,
    asked: usize,
    sample: u64,
) -> Outcome<CommandError> {
    let words = &verification.session.words;
    let (source, target) = names(verification);
    if disagree == 0 {
        return Ok(CommandError::new(
            Exit::TryAgain,
            "the schemas differ, or have just been changed",
        )
        .hint(format!("run: {}", words.same())));
    }
    let what = format!(
        "{disagree} of {asked} answers at {} and {}",
        at.source_revision, at.target_revision
    );
    verification.verdict(Found::Different, what, Instant::now())?;
    Ok(CommandError::new(
        Exit::Partial,
        format!(
            "{target} answers differently than {source} in {disagree} of {asked} cases, though \
             relationships and schema are equal; all of them: {}",
            verification.session.file("checks.ndjson").display()
        ),
    )
    .hint(format!(
        "look at versions and flags of the two SpiceDBs; then run: {} (as many are asked without \
             --check-sample, until they are equal)",
        words.step(&format!("verify --check-sample {sample}"))
    )))
}
