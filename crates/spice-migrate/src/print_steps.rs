//! Each step for bash. State that a run keeps in `state.json` is in small files here: `revision`, `captured`,
//! `pair.ndjson`.

use std::path::{Path, PathBuf};

use spice_record::record::Filter;

use crate::cli::{self, OnConflict, OnSchema, Steps};
use crate::commands::{self, Apply, At, Import, Preflight, Since, Watch};
use crate::part;
use crate::phase::Procedure;
use crate::plan;
use crate::print::{command, path, variable};
use crate::print_live::newest_sync_point;
use crate::session::Session;
use crate::state::{End, Kind, State};
use crate::suite::{Outcome, quoted};
use crate::time::Span;

/// A step of a migration, in bash.
pub(crate) struct Script {
    pub(crate) folder: PathBuf,
    pub(crate) state: State,
    pub(crate) settle: Option<String>,
}

/// Counts and digest of an end, as one line.
const TOTAL: &str = "tail -n 1";

impl Script {
    /// Of what is planned, or is to be.
    pub(crate) fn new(session: &Session, steps: &Steps) -> Outcome<Self> {
        let state = match steps {
            Steps::Plan(flags) => planned(session, flags)?,
            Steps::Reverse(_) => {
                let state = session.state()?;
                reversed(&state)
            }
            _ => session.state()?,
        };
        if let Steps::Verify(flags) = steps {
            let filter = state.filter.as_ref();
            part::refuse_sample(filter, flags.check_sample, &session.words.step("verify"))?;
        }
        let folder = match steps {
            Steps::Reverse(_) => crate::folder::reverse(session.store.folder()),
            _ => session.store.folder().to_owned(),
        };
        let settle = session.settle_flag.clone().or_else(|| state.settle.clone());
        Ok(Self {
            folder,
            state,
            settle: settle.map(|settle| settle.text().to_owned()),
        })
    }

    /// The text, to be pasted: one subshell, so that a failure ends no terminal.
    pub(crate) fn text(&self, steps: &Steps) -> String {
        let lines = match steps {
            Steps::Plan(flags) => self.plan(flags),
            Steps::Copy(flags) => self.copy(flags),
            Steps::Check(_) => self.check(),
            Steps::Follow(flags) | Steps::Reverse(flags) => self.follow(flags),
            Steps::Status(_) => self.status(),
            Steps::Verify(flags) => self.verify(flags),
            Steps::Resync(flags) => self.resync(flags),
            Steps::Cutover(flags) => self.cutover(flags),
            Steps::Abort(_) => vec![self.stop_follow()],
        };
        let folder = path(&self.folder);
        format!(
            "# {}: {} -> {}\n(\nset -euo pipefail\numask 077\nmkdir -p {folder}\n{}\n)\n",
            steps.step().name(),
            self.source(),
            self.target(),
            lines.join("\n")
        )
    }

    pub(crate) fn source(&self) -> &str {
        &self.state.source.context
    }

    pub(crate) fn target(&self) -> &str {
        &self.state.target.context
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn shown(&self, name: &str) -> String {
        path(&self.file(name))
    }

    pub(crate) fn precision(&self) -> &'static str {
        match self.state.source.kind.is("mysql") || self.state.target.kind.is("mysql") {
            true => "s",
            false => "us",
        }
    }

    pub(crate) fn unnamed(&self) -> bool {
        self.state.source.datastore_id.is_none() && self.state.target.datastore_id.is_none()
    }

    pub(crate) fn settle(&self) -> Option<&str> {
        self.settle.as_deref()
    }

    pub(crate) fn filter(&self) -> Option<&Filter> {
        self.state.filter.as_ref()
    }

    /// What is done about a target that holds relationships: what is given, else what was planned.
    fn policy(&self, given: Option<OnConflict>) -> Option<&str> {
        let planned = self.state.on_conflict.as_deref();
        given.map(OnConflict::name).or(planned)
    }

    fn plan(&self, flags: &cli::Plan) -> Vec<String> {
        let gc_window = flags.gc_window.as_ref().or(self.state.gc_window.as_ref());
        let preflight = commands::preflight(&Preflight {
            source: self.source(),
            target: self.target(),
            procedure: plan::procedure(flags),
            policy: self.policy(flags.on_conflict),
            gc_window: gc_window.map(Span::text),
            settle: self.settle(),
            filter: self.filter(),
            relationships: flags.relationships,
            timeout: flags.timeout.as_ref().map(Span::text),
        });
        // 3: warnings.
        let mut lines = vec![format!("{} || [ $? = 3 ]", command(&preflight, 0))];
        let looks = [self.source(), self.target()];
        lines.extend(looks.map(|context| command(&commands::look(context), 0)));
        lines
    }

    /// The header of an export: its first line is enough.
    pub(crate) fn header(&self, at: At<'_>) -> String {
        let export = commands::export(self.source(), at, "us", None, self.filter()).quiet();
        format!(
            "{{ {} || :; }} |\n  head -n 1 >{}",
            command(&export, 2),
            self.shown("header")
        )
    }

    /// Where copy and capture begin.
    pub(crate) fn start(&self) -> Vec<String> {
        if let Some(start) = &self.state.start {
            return vec![
                format!("captured={}", quoted(&start.captured_since)),
                format!("revision={}", quoted(&start.revision)),
            ];
        }
        let head = format!(
            "$({})",
            command(&commands::head(self.source(), self.settle()), 2)
        );
        let kind = &self.state.source.kind;
        let revision = match kind.is("memory") || kind.is("memory-or-spanner") {
            true => head.clone(),
            false => "$captured".to_owned(),
        };
        vec![
            format!("captured={head}"),
            format!("revision={revision}"),
            format!("printf '%s\\n' \"$captured\" >{}", self.shown("captured")),
            format!("printf '%s\\n' \"$revision\" >{}", self.shown("revision")),
        ]
    }

    pub(crate) fn watch<'a>(&'a self, spool: &'a Path, segment: &'a str) -> Watch<'a> {
        Watch {
            context: self.source(),
            spool,
            segment,
            settle: self.settle(),
            filter: self.filter(),
        }
    }

    /// Begins a capture in the background.
    pub(crate) fn capture(&self, flags: &cli::Capture) -> Vec<String> {
        let spool = self.file("changes.ndjson");
        let captured = variable("captured");
        let watch = self
            .watch(&spool, &flags.spool_segment)
            .capture(Since::Revision(&captured), &flags.heartbeat);
        vec![
            format!("{} &", command(&watch, 0)),
            "watch=$!".to_owned(),
            format!(
                "until [ -s {} ]; do kill -0 \"$watch\"; sleep 0.1; done",
                path(&spool)
            ),
        ]
    }

    fn copy(&self, flags: &cli::Copy) -> Vec<String> {
        let is_live = self.state.procedure == Procedure::Live;
        let revision = variable("revision");
        let mut lines = Vec::new();
        let at = match is_live {
            true => {
                lines.extend(self.start());
                lines.extend(self.capture(&flags.capture));
                At::Revision(&revision)
            }
            false => At::Settled(self.settle()),
        };
        let export = commands::export(
            self.source(),
            at,
            self.precision(),
            flags.jobs.jobs,
            self.filter(),
        );
        let import = commands::import(
            self.target(),
            &Import {
                unnamed: self.unnamed(),
                policy: self.policy(flags.on_conflict),
                rejects: flags.rejects.as_deref(),
                jobs: flags.jobs.jobs,
            },
        );
        let imported = self.shown("imported.ndjson");
        lines.push(format!(
            "{} |\n  {} >{imported}",
            command(&export, 0),
            command(&import, 2)
        ));
        if is_live {
            lines.push("kill -TERM \"$watch\"; wait \"$watch\"".to_owned());
        } else {
            let source = commands::revision_of(self.file("imported.ndjson"));
            lines.push(format!("revision=$({})", command(&source, 2)));
        }
        let there = commands::target_revision_of(self.file("imported.ndjson"));
        lines.push(format!("target=$({})", command(&there, 2)));
        lines.extend(self.equal("revision", "target"));
        lines
    }

    /// Ends with a failure unless both ends have the same count and digest at these revisions.
    pub(crate) fn equal(&self, source: &str, target: &str) -> Vec<String> {
        self.equal_at(
            At::Revision(&variable(source)),
            At::Revision(&variable(target)),
        )
    }

    fn equal_at(&self, source: At<'_>, target: At<'_>) -> Vec<String> {
        let total = |context: &str, at: At<'_>| {
            let export =
                commands::export_relationships(context, at, self.precision(), None, self.filter());
            let digest = commands::digest_table(self.precision());
            format!(
                "$({} |\n  {} | {TOTAL})",
                command(&export, 2),
                command(&digest, 2)
            )
        };
        vec![
            format!("here={}", total(self.source(), source)),
            format!("there={}", total(self.target(), target)),
            "printf '%s\\n' \"$here\" \"$there\"".to_owned(),
            "[ \"$here\" = \"$there\" ]".to_owned(),
        ]
    }

    fn check(&self) -> Vec<String> {
        self.equal_at(At::Settled(self.settle()), At::Settled(Some("0s")))
    }

    fn follow(&self, flags: &cli::Follow) -> Vec<String> {
        let spool = self.file("changes.ndjson");
        let mut lines = Vec::new();
        let captured = variable("captured");
        let pair = self
            .folder
            .parent()
            .unwrap_or(Path::new("."))
            .join("pair.ndjson");
        let skip = self.state.skip();
        let since = match (&skip, &self.state.start) {
            (Some(skip), _) => {
                // A cutover that was run, not pasted, leaves no such file.
                let applied = pair.with_file_name("applied.ndjson");
                lines.push(format!(
                    "[ -s {} ] ||\n  {}",
                    path(&pair),
                    newest_sync_point(&path(&applied), &pair)
                ));
                Since::Back(&pair, skip)
            }
            (None, Some(start)) => {
                lines.push(format!("captured={}", quoted(&start.captured_since)));
                Since::Revision(&captured)
            }
            (None, None) => {
                lines.push(format!("captured=$(cat {})", self.shown("captured")));
                Since::Revision(&captured)
            }
        };
        let watch = self
            .watch(&spool, &flags.capture.spool_segment)
            .capture(since, &flags.capture.heartbeat);
        let apply = Apply {
            unnamed: self.unnamed(),
            jobs: flags.jobs,
            max_rps: flags.max_rps,
            rejects: flags.rejects.as_deref(),
            schema: part::schema_mode(self.filter(), flags.schema.map(OnSchema::name)),
        };
        let apply = commands::apply_spool(self.target(), &apply, &spool, &self.file("position"))
            .arg_if("--prune", flags.prune);
        lines.push("# Paste it again when one of these ends with 75: both resume.".to_owned());
        lines.push(format!("{} &", command(&watch, 0)));
        lines.push("watch=$!".to_owned());
        lines.push(format!(
            "{} >>{} &",
            command(&apply, 0),
            self.shown("applied.ndjson")
        ));
        lines.push("apply=$!".to_owned());
        lines.push(format!(
            "echo \"$watch $apply\" >{}",
            self.shown("follow.pids")
        ));
        lines.push(format!("pids={}", self.shown("follow.pids")));
        lines.push(
            "trap 'kill -TERM \"$watch\" \"$apply\" 2>/dev/null || :; rm -f \"$pids\"' EXIT"
                .to_owned(),
        );
        lines.push("wait -n".to_owned());
        lines
    }

    fn status(&self) -> Vec<String> {
        let revision = |name: &str| command(&commands::revision_of(self.file(name)), 2);
        vec![
            format!(
                "echo \"captured through $({})\"",
                revision("changes.ndjson")
            ),
            format!("echo \"applied through $({})\"", revision("position")),
        ]
    }

    /// Stops what the printed follow has started, and waits for its end.
    pub(crate) fn stop_follow(&self) -> String {
        format!(
            "for pid in $(cat {} 2>/dev/null || :); do\n  \
             kill -USR1 \"$pid\" 2>/dev/null || continue\n  \
             while kill -0 \"$pid\" 2>/dev/null; do sleep 0.02; done\ndone",
            self.shown("follow.pids")
        )
    }
}

/// What a plan would be, as far as its flags show.
fn planned(session: &Session, flags: &cli::Plan) -> Outcome<State> {
    let between = plan::between(session, flags)?;
    let filter = between.filter;
    let mut state = session.known().unwrap_or_else(|| {
        let end = |context: String| End {
            context,
            datastore_id: Some(String::new()),
            kind: Kind("unknown".to_owned()),
        };
        State {
            settle: flags.settle.settle.clone(),
            ..State::planned(between.procedure, end(between.source), end(between.target))
        }
    });
    state.filter = filter;
    Ok(state)
}

/// The way back, also of a migration whose switch was not ordered by this program.
fn reversed(state: &State) -> State {
    state.reversed().unwrap_or_else(|| {
        let mut reversed =
            State::planned(state.procedure, state.target.clone(), state.source.clone());
        reversed.is_reverse = true;
        reversed.filter.clone_from(&state.filter);
        reversed
    })
}
