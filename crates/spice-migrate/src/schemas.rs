//! The schemas of both ends, compared at a sync point.

use std::time::{Duration, Instant as Clock};

use spice_record::Record;

use crate::commands;
use crate::phase::SyncPoint;
use crate::process::{Ended, Output};
use crate::records;
use crate::state::Found;
use crate::status::{Snapshot, settling};
use crate::suite::{CommandError, Exit, Outcome};
use crate::time::Instant;
use crate::verify::Verification;

/// How long a change of the schema may take beside the settle time.
const SCHEMA: Duration = Duration::from_secs(10);

impl Verification<'_> {
    /// Whether the schemas agree at a pair; `false` where that has to be looked at again, at a later one. A
    /// change on its way looks like a difference: spice-apply brings the newest text, which may be ahead of the
    /// pair. So it is one only when it is still there after the time that a change may take.
    pub(crate) async fn schemas_agree(&self, at: &SyncPoint) -> Outcome<bool> {
        let found = self.compare_schemas(at).await?;
        if matches!(found, Schemas::Agree) {
            self.unlike.set(None);
            return Ok(true);
        }
        let Some((since, may_take)) = self.unlike.get() else {
            let state = self.session.state()?;
            let snapshot = Snapshot::measure(&self.session.store, &state, Instant::now());
            let may_take = settling(&state) + snapshot.lag.behind + SCHEMA;
            self.unlike.set(Some((Clock::now(), may_take)));
            self.undecided("the schemas differ, or have just been changed", at)?;
            tracing::info!(
                "the schemas differ, or have just been changed: looking at a later pair as well"
            );
            return Ok(false);
        };
        if since.elapsed() < may_take {
            return Ok(false);
        }
        let (source, target) = (&self.ends.source.context, &self.ends.target.context);
        let words = &self.session.words;
        let Schemas::Differ(difference) = found else {
            return Err(CommandError::new(Exit::TryAgain, format!(
                    "the schema of {source} or {target} is being changed, so they cannot be compared"
                )).hint(format!("when nobody changes the schema, run: {}", words.same())));
        };
        let reason = format!("the schema of {target} differs: {difference}");
        let what = format!(
            "{reason}, at {} and {}",
            at.source_revision, at.target_revision
        );
        self.verdict(Found::Different, what, Instant::now())?;
        Err(CommandError::new(
            Exit::Partial,
            format!("{reason}. That is what {target} has otherwise than {source}"),
        )
        .hint(format!(
            "see whether follow could not bring it over ({}), or somebody else wrote the \
             schema of {target}",
            self.session.file("follow.log").display()
        ))
        .also(format!(
            "to make it that of {source}: {}; then {}; then run: {}",
            words.step("resync"),
            words.step("follow"),
            words.same()
        )))
    }

    async fn compare_schemas(&self, at: &SyncPoint) -> Outcome<Schemas> {
        let session = self.session;
        let (source, target) = (&self.ends.source.context, &self.ends.target.context);
        let command = commands::check(source, &at.source_revision)
            .flag("--sample", "0")
            .quiet();
        let child = session.runner.spawn_silent(&command, Output::Kept)?;
        let (ended, output, messages) = child.finish_silent().await;
        match ended {
            Ended::Code(0) => {}
            Ended::Code(75) => return Ok(Schemas::Unsettled),
            ended => return Err(self.schemas_failed(ended, &messages)),
        }
        let file = session.temporary("schema")?;
        std::fs::write(&file, output).map_err(|error| session.cannot_write(&file, &error))?;
        let command = commands::check(target, &at.target_revision)
            .quiet()
            .arg(&file);
        let child = session.runner.spawn_silent(&command, Output::Kept)?;
        let (ended, output, messages) = child.finish_silent().await;
        match ended {
            Ended::Code(0) => Ok(Schemas::Agree),
            Ended::Code(3) => Ok(Schemas::Differ(difference(&output))),
            Ended::Code(75) => Ok(Schemas::Unsettled),
            ended => Err(self.schemas_failed(ended, &messages)),
        }
    }

    fn schemas_failed(&self, ended: Ended, messages: &[u8]) -> CommandError {
        use std::io::Write as _;

        let _ = std::io::stderr().lock().write_all(messages);
        let what = "the schemas could not be compared";
        self.session.failed("spice-check", ended, what)
    }
}

/// What was found of the schemas.
enum Schemas {
    Agree,
    Differ(String),
    /// One was changed after its revision, so nobody can compare them.
    Unsettled,
}

/// The difference of the schemas in the header of a stream of checks.
fn difference(output: &[u8]) -> String {
    let line = output
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let found = match records::parse(line) {
        Some(Record::Header(header)) => header.schema_difference,
        _ => None,
    };
    found.unwrap_or_else(|| "see the log".to_owned())
}
