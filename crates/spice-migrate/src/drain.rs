//! Behind the fence: the rest comes into the spool and onto the target, and a second marker shows whether the
//! fence holds.

use std::cell::{Cell, RefCell};

use rustix::process::Signal;

use crate::commands::{self, Apply, Command, Watch};
use crate::ends::Ends;
use crate::leaks;
use crate::phase::{Phase, SpoolEnd};
use crate::process::{Child, Ended, Input, Output};
use crate::session::Session;
use crate::status::settling;
use crate::suite::{CommandError, Exit, Outcome};

/// How the rest is brought over.
pub(crate) struct Drain<'a> {
    pub(crate) session: &'a Session,
    pub(crate) ends: &'a Ends,
    pub(crate) apply: Apply<'a>,
    pub(crate) segment: &'a str,
    pub(crate) until_quiet: &'a str,
    settle: String,
    applying: RefCell<Option<Child>>,
    /// The target has refused updates.
    pub(crate) refused: Cell<bool>,
}

/// What a marker is.
pub(crate) enum Marker {
    /// A revision after everything that is committed.
    At(String),
    /// The source takes no writes, and its revisions do not show where it ends.
    ReadOnly,
}

impl<'a> Drain<'a> {
    pub(crate) fn new(
        session: &'a Session,
        ends: &'a Ends,
        apply: Apply<'a>,
        segment: &'a str,
        until_quiet: &'a str,
    ) -> Outcome<Self> {
        let settle = format!("{}ms", settling(&session.state()?).as_millis());
        Ok(Self {
            session,
            ends,
            apply,
            segment,
            until_quiet,
            settle,
            applying: RefCell::new(None),
            refused: Cell::new(false),
        })
    }

    fn source(&self) -> &str {
        &self.ends.source.context
    }

    /// A revision of the source after everything that is committed there. Where it takes no writes: its head,
    /// which is exact where revisions are numbers.
    pub(crate) async fn marker(&self) -> Outcome<Marker> {
        const STOPPED: &str = "Nothing is switched; writes are still stopped";
        let (session, source) = (self.session, self.source());
        let (ended, output) = session.runner.run(&commands::mark(source)).await?;
        if ended.is_success() {
            return Ok(Marker::At(token(&output)));
        }
        if ended != Ended::Code(77) || !self.is_read_only().await? {
            let what = format!("no marker could be written to {source}. {STOPPED}");
            return Err(session.failed("spice-revision", ended, &what));
        }
        if self.ends.source.kind.is("postgres") {
            return Ok(Marker::ReadOnly);
        }
        let head = commands::head(source, Some("0s"));
        let (ended, output) = session.runner.run(&head).await?;
        match ended.is_success() {
            true => Ok(Marker::At(token(&output))),
            false => {
                let what = format!("no end could be found. {STOPPED}");
                Err(session.failed("spice-revision", ended, &what))
            }
        }
    }

    /// Whether a marker was refused because the source takes no writes: spice-revision prints a record of that.
    async fn is_read_only(&self) -> Outcome<bool> {
        let command = commands::mark(self.source()).arg("--json").quiet();
        let child = self.session.runner.spawn_silent(&command, Output::Kept)?;
        let (_, output) = child.finish().await;
        let value: serde_json::Value = serde_json::from_slice(&output).unwrap_or_default();
        Ok(value["refused"]["reason"] == "readOnly")
    }

    /// Begins to apply everything through a revision. One call at a time: a database makes calls at the same
    /// time begin again for each other, for seconds at worst: 4,500 updates drained in 3.5 to 4.5 s one by one,
    /// in 6.4 to 9.5 s by fours (measured on a busy machine, MariaDB 10.11; as on PostgreSQL 15). And where one
    /// has overtaken another, a memory datastore has no stable snapshot to compare (docs/reliability.md).
    fn begin_to_apply(&self, until: &str) -> Outcome {
        let session = self.session;
        let target = &self.ends.target.context;
        let command = commands::apply_spool(
            target,
            &self.apply,
            &session.spool_file(),
            &session.position_file(),
        )
        .flag("--until", until)
        .quiet();
        let applied = session.append(&session.applied_file())?;
        let child = session
            .runner
            .spawn(&command, Input::None, Output::File(applied))?;
        self.applying.replace(Some(child));
        Ok(())
    }

    fn watch<'w>(&'w self, spool: &'w std::path::Path, settle: &'w str) -> Watch<'w> {
        Watch {
            context: self.source(),
            spool,
            segment: self.segment,
            settle: Some(settle),
            filter: self.ends.filter.as_ref(),
        }
    }

    async fn run_watch(&self, command: &Command) -> Outcome {
        let (ended, _) = self.session.runner.run(command).await?;
        match ended.is_success() {
            true => Ok(()),
            false => Err(self.failed("spice-watch", ended).await),
        }
    }

    /// Brings everything through a marker into the spool. Behind the fence nothing has to settle: here the settle
    /// time only sets for how long relationships that change twice are taken to have collided.
    async fn capture_until(&self, marker: &str) -> Outcome {
        let spool = self.session.spool_file();
        let skip = self.session.state()?.skip();
        let command = self
            .watch(&spool, &self.settle)
            .until(marker, skip.as_ref());
        self.run_watch(&command).await
    }

    async fn capture_until_quiet(&self) -> Outcome {
        let spool = self.session.spool_file();
        let skip = self.session.state()?.skip();
        let watch = self.watch(&spool, "0s");
        self.run_watch(&watch.until_quiet(self.until_quiet, skip.as_ref()))
            .await
    }

    /// Waits for what is applied.
    pub(crate) async fn applied_everything(&self) -> Outcome {
        let applying = self.applying.borrow_mut().take();
        let Some(mut applying) = applying else {
            return Ok(());
        };
        match applying.wait().await {
            Ended::Code(0) => Ok(()),
            Ended::Code(3) => {
                self.refused.set(true);
                Ok(())
            }
            ended => Err(self.failed("spice-apply", ended).await),
        }
    }

    async fn stop_applying(&self) {
        let applying = self.applying.borrow_mut().take();
        if let Some(mut applying) = applying {
            applying.signal(Signal::TERM);
            applying.wait().await;
        }
    }

    async fn failed(&self, program: &str, ended: Ended) -> CommandError {
        self.stop_applying().await;
        let source = self.source();
        if ended == Ended::Code(4) {
            if let Err(failure) = self.session.unfence() {
                return failure;
            }
            return CommandError::new(Exit::HistoryLost, format!(
                    "the last changes of {source} are lost: they left its history. Nothing is switched"
                )).hint("lift the fence; what to do then: docs/cutover.md, \"History lost\"");
        }
        let target = &self.ends.target.context;
        let what = format!(
            "nothing is switched; writes are still stopped, and {target} lacks the last of them"
        );
        self.session.failed(program, ended, &what)
    }

    /// Everything through the marker into the spool and, at the same time, onto the target; then a second
    /// marker. Returns that, and where everything through the first one ends.
    pub(crate) async fn behind_the_fence(&self, marker: &str) -> Outcome<(String, SpoolEnd)> {
        self.begin_to_apply(marker)?;
        self.capture_until(marker).await?;
        // The state is written while the second marker is.
        let (second, drained) = tokio::join!(self.marker(), async { self.note_drained(marker) });
        let (second, drained) = (second?, drained?);
        let second = match second {
            Marker::At(second) => second,
            Marker::ReadOnly => marker.to_owned(),
        };
        let leaked = match second == marker {
            true => leaks::count(self.session, drained, &[marker])?,
            false => self.leaked_between(marker, &second).await?,
        };
        match leaked {
            0 => Ok((second, drained)),
            leaked => Err(self.leak(leaked).await?),
        }
    }

    /// How many changes others have written between two markers. They stay out of the spool: what it holds of the
    /// time before the first one would be read at the source once more, which took 0.4 s (56,000 updates).
    async fn leaked_between(&self, marker: &str, second: &str) -> Outcome<usize> {
        let command =
            commands::watch_between(self.source(), marker, second, self.ends.filter.as_ref());
        let (ended, changes) = self.session.runner.run(&command).await?;
        if !ended.is_success() {
            return Err(self.failed("spice-watch", ended).await);
        }
        leaks::count_in(self.session, &changes, &[marker, second])
    }

    /// Where everything through the marker ends: as an earlier run noted it, else here.
    fn note_drained(&self, marker: &str) -> Outcome<SpoolEnd> {
        let session = self.session;
        let (ready, at) = match session.state()?.phase {
            Phase::Drained { drained, .. } => return Ok(drained),
            phase => match (phase.ready(), phase.fenced_at()) {
                (Some(ready), Some(at)) => (ready, at),
                _ => return leaks::end(session),
            },
        };
        let drained = leaks::end(session)?;
        session.set_phase(Phase::Drained {
            ready,
            at,
            marker: marker.to_owned(),
            drained,
        })?;
        Ok(drained)
    }

    /// The fence does not hold: it is forgotten, nothing is switched.
    pub(crate) async fn leak(&self, leaked: usize) -> Outcome<CommandError> {
        self.stop_applying().await;
        let (session, source) = (self.session, self.source());
        session.unfence()?;
        Ok(CommandError::new(
            Exit::Failed,
            format!(
                "the fence does not hold: {leaked} transactions were written to {source} after it \
                 was confirmed. Do NOT switch"
            ),
        )
        .hint(format!(
            "lift the fence, or what there is of it, and continue to follow: {}",
            session.words.step("follow")
        ))
        .also(format!(
            "find out who wrote (the lines above), close that way; then run: {}",
            session.words.same()
        )))
    }

    /// The end of a PostgreSQL that takes no writes. Silence is no proof, so both ends are compared.
    pub(crate) async fn quiet_source(&self) -> Outcome<(String, SpoolEnd)> {
        let (session, source) = (self.session, self.source());
        tracing::info!(
            "{source} takes no writes, so nothing marks the end: waiting until it is quiet for {}, \
             which proves nothing; both ends are compared before the switch",
            self.until_quiet
        );
        self.capture_until_quiet().await?;
        let command = commands::revision_of(session.spool_file());
        let (ended, output) = session.runner.run(&command).await?;
        if !ended.is_success() {
            return Err(self.failed("spice-revision", ended).await);
        }
        let drained = leaks::end(session)?;
        self.begin_to_apply(&token(&output))?;
        self.capture_until_quiet().await?;
        let leaked = leaks::count(session, drained, &[])?;
        if leaked > 0 {
            return Err(self.leak(leaked).await?);
        }
        let (ended, output) = session
            .runner
            .run(&commands::head(source, Some("0s")))
            .await?;
        match ended.is_success() {
            true => Ok((token(&output), drained)),
            false => Err(self.failed("spice-revision", ended).await),
        }
    }

    /// With applications at the target and both ends compared: how many changes came to the source after the
    /// fence. Whoever has switched may have ended the source: then nothing can be asked.
    pub(crate) async fn late_writes(&self, markers: &[&str], drained: SpoolEnd) -> Outcome<usize> {
        let session = self.session;
        let command = commands::mark(self.source()).quiet();
        let child = session.runner.spawn_silent(&command, Output::Kept)?;
        let (ended, output) = child.finish().await;
        if !ended.is_success() {
            return Ok(0);
        }
        let third = token(&output);
        let spool = session.spool_file();
        let skip = session.state()?.skip();
        let watch = self
            .watch(&spool, &self.settle)
            .until(&third, skip.as_ref())
            .quiet();
        let (ended, _) = session.runner.run(&watch).await?;
        if !ended.is_success() {
            return Ok(0);
        }
        leaks::count(session, drained, &[markers, &[&third]].concat())
    }
}

fn token(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim().to_owned()
}
