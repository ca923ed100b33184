//! Each step for bash. State that a run keeps in `state.json` is in small files here: `revision`, `captured`,
//! `pair.ndjson`.

use std::path::{Path, PathBuf};

use crate::cli::{self, OnConflict, OnSchema, Steps};
use crate::commands::{self, Apply, At, Import, Since, Watch};
use crate::phase::Procedure;
use crate::plan;
use crate::print::{command, path, variable};
use crate::quote::quoted;
use crate::records::SYNC_POINT;
use crate::session::Session;
use crate::state::{End, Kind, State};
use crate::status::settling;
use crate::stop::Outcome;
use crate::time::Span;

/// A step of a migration, in bash.
pub(crate) struct Script {
    folder: PathBuf,
    state: State,
    settle: Option<String>,
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

    fn source(&self) -> &str {
        &self.state.source.context
    }

    fn target(&self) -> &str {
        &self.state.target.context
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn shown(&self, name: &str) -> String {
        path(&self.file(name))
    }

    fn precision(&self) -> &'static str {
        match self.state.source.kind.is("mysql") || self.state.target.kind.is("mysql") {
            true => "s",
            false => "us",
        }
    }

    fn unnamed(&self) -> bool {
        self.state.source.datastore_id.is_none() && self.state.target.datastore_id.is_none()
    }

    fn settle(&self) -> Option<&str> {
        self.settle.as_deref()
    }

    fn plan(&self, flags: &cli::Plan) -> Vec<String> {
        let mut lines: Vec<String> = [self.source(), self.target()]
            .map(|context| command(&commands::look(context), 0))
            .into();
        if !flags.fenced {
            let head = command(&commands::head(self.source(), Some("0s")), 2);
            let probe = commands::watch_probe(self.source(), &variable("head"));
            lines.push(format!("head=$({head})"));
            lines.push(format!("{} >/dev/null", command(&probe, 0)));
        }
        lines.push(self.header(At::Settled(Some("0s"))));
        let policy = flags.on_conflict.map(OnConflict::name);
        let import = commands::import_dry_run(self.target(), self.unnamed(), policy);
        lines.push(command(&import.arg(self.file("header")), 0));
        lines
    }

    /// The header of an export: its first line is enough.
    fn header(&self, at: At<'_>) -> String {
        let export = commands::export(self.source(), at, "us", None).quiet();
        format!(
            "{{ {} || :; }} |\n  head -n 1 >{}",
            command(&export, 2),
            self.shown("header")
        )
    }

    /// Where copy and capture begin.
    fn start(&self) -> Vec<String> {
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

    fn watch<'a>(&'a self, spool: &'a Path, segment: &'a str) -> Watch<'a> {
        Watch {
            context: self.source(),
            spool,
            segment,
            settle: self.settle(),
        }
    }

    /// Begins a capture in the background.
    fn capture(&self, flags: &cli::Capture) -> Vec<String> {
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
        let export = commands::export(self.source(), at, self.precision(), flags.jobs.jobs);
        let import = commands::import(
            self.target(),
            &Import {
                unnamed: self.unnamed(),
                policy: flags.on_conflict.map(OnConflict::name),
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
    fn equal(&self, source: &str, target: &str) -> Vec<String> {
        self.equal_at(
            At::Revision(&variable(source)),
            At::Revision(&variable(target)),
        )
    }

    fn equal_at(&self, source: At<'_>, target: At<'_>) -> Vec<String> {
        let total = |context: &str, at: At<'_>| {
            let export = commands::export_relationships(context, at, self.precision(), None);
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
        let since = match (self.state.is_reverse, &self.state.start) {
            (true, _) => Since::Back(&pair),
            (false, Some(start)) => {
                lines.push(format!("captured={}", quoted(&start.captured_since)));
                Since::Revision(&captured)
            }
            (false, None) => {
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
            schema: flags.schema.map(OnSchema::name),
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
        lines.push("trap 'kill -TERM \"$watch\" \"$apply\" 2>/dev/null || :' EXIT".to_owned());
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

    /// The newest revisions that belong together.
    fn pair(&self) -> Vec<String> {
        let revision = |command_: commands::Command| command(&command_, 2);
        let pair = self.file("pair.ndjson");
        vec![
            format!(
                "grep -h '{SYNC_POINT}' {} |\n  tail -n 1 >{}",
                self.shown("applied.ndjson"),
                path(&pair)
            ),
            format!("source=$({})", revision(commands::revision_of(&pair))),
            format!(
                "target=$({})",
                revision(commands::target_revision_of(&pair))
            ),
        ]
    }

    fn verify(&self, flags: &cli::Verify) -> Vec<String> {
        let mut lines = self.pair();
        let schema = self.file("schema.ndjson");
        let (source, target) = (variable("source"), variable("target"));
        let ask = commands::check(self.source(), &source)
            .flag("--sample", "0")
            .quiet();
        let compare = commands::check(self.target(), &target).quiet().arg(&schema);
        lines.push(format!("{} >{}", command(&ask, 0), path(&schema)));
        lines.push(format!("{} >/dev/null", command(&compare, 0)));
        let aside = self.file("aside.ndjson");
        lines.push(format!("rm -f {}", path(&aside)));
        lines.push("as_of=$(date -u -d '+90 sec' +%Y-%m-%dT%H:%M:%SZ)".to_owned());
        let spool = self.file("changes.ndjson");
        let diff = commands::diff_live(&variable("as_of"), &spool, &aside, None);
        lines.push(format!(
            "{} \\\n{} >{}",
            command(&diff, 0),
            self.both(
                At::Revision(&target),
                At::Revision(&source),
                flags.jobs.jobs
            ),
            self.shown("differences.ndjson")
        ));
        lines.push(format!(
            "# What is in it is compared at a later sync point, with {}.\n[ ! -s {} ]",
            commands::ONLY,
            path(&aside)
        ));
        if flags.check_sample > 0 {
            lines.extend(self.answers(flags));
        }
        lines
    }

    /// Both ends as files of a comparison.
    fn both(&self, target: At<'_>, source: At<'_>, jobs: Option<u64>) -> String {
        let export = |context: &str, at: At<'_>| {
            let export = commands::export_relationships(context, at, self.precision(), jobs);
            format!("  <({})", command(&export, 4))
        };
        format!(
            "{} \\\n{}",
            export(self.target(), target),
            export(self.source(), source)
        )
    }

    fn answers(&self, flags: &cli::Verify) -> Vec<String> {
        let (source, target) = (variable("source"), variable("target"));
        let at = At::Revision(&source);
        let jobs = flags.jobs.jobs;
        let export = commands::export_relationships(self.source(), at, self.precision(), jobs);
        let ask = commands::check(self.source(), &source)
            .flag("--sample", flags.check_sample.to_string());
        let asked = self.file("asked.ndjson");
        let compare = commands::check(self.target(), &target).arg(&asked);
        vec![
            format!(
                "{} |\n  {} >{}",
                command(&export, 0),
                command(&ask, 2),
                path(&asked)
            ),
            format!("{} >{}", command(&compare, 0), self.shown("checks.ndjson")),
        ]
    }

    fn resync(&self, flags: &cli::Resync) -> Vec<String> {
        let mut fresh = Self {
            folder: self.folder.clone(),
            state: self.state.clone(),
            settle: self.settle.clone(),
        };
        fresh.state.start = None;
        let revision = variable("revision");
        let at = At::Revision(&revision);
        let mut lines = vec![
            self.stop_follow(),
            format!(
                "before={}/before-$(date -u +%Y%m%dT%H%M%SZ)",
                path(&self.folder)
            ),
            "mkdir \"$before\"".to_owned(),
            format!(
                "for file in {} {} {}*; do\n  [ ! -e \"$file\" ] || mv \"$file\" \"$before\"/\ndone",
                self.shown("position"),
                self.shown("applied.ndjson"),
                self.shown("changes.ndjson"),
            ),
        ];
        lines.extend(fresh.start());
        lines.extend(self.capture(&flags.capture));
        lines.push(self.header(at));
        let schema = commands::import_schema(self.target(), self.unnamed());
        lines.push(format!(
            "{} >/dev/null || [ $? -eq 1 ]",
            command(&schema.arg(self.file("header")), 0)
        ));
        let apply = Apply {
            unnamed: self.unnamed(),
            max_rps: flags.max_rps,
            rejects: flags.rejects.as_deref(),
            ..Apply::default()
        };
        lines.push(format!(
            "spice-diff --exit-zero \\\n{} |\n  {} >>{}",
            self.both(At::Settled(Some("0s")), at, flags.jobs.jobs),
            command(&commands::apply_updates(self.target(), &apply), 2),
            self.shown("applied.ndjson")
        ));
        lines.push("kill -TERM \"$watch\"; wait \"$watch\"".to_owned());
        lines
    }

    /// Stops what follow has started, and waits for its end.
    fn stop_follow(&self) -> String {
        format!(
            "for pid in $(cat {} {} 2>/dev/null || :); do\n  \
             kill -USR1 \"$pid\" 2>/dev/null || continue\n  \
             while kill -0 \"$pid\" 2>/dev/null; do sleep 0.02; done\ndone",
            self.shown("follow.pids"),
            self.shown("follow.lock")
        )
    }

    fn cutover(&self, flags: &cli::Cutover) -> Vec<String> {
        let (source, target) = (self.source(), self.target());
        let fence = match &flags.fence_command {
            Some(fence) => format!("bash -c {}", quoted(fence)),
            None => format!(
                "read -r -p {}",
                quoted(format!("Stop all writes to {source}, then press Enter: "))
            ),
        };
        let spool = self.file("changes.ndjson");
        let settle = format!("{}ms", settling(&self.state).as_millis());
        let watch = Watch {
            settle: Some(&settle),
            ..self.watch(&spool, &flags.spool_segment)
        };
        let (marker, second) = (variable("marker"), variable("second"));
        let is_reverse = self.state.is_reverse;
        let apply = Apply {
            unnamed: self.unnamed(),
            jobs: Some(flags.jobs),
            max_rps: None,
            rejects: flags.rejects.as_deref(),
            schema: flags.schema.map(OnSchema::name),
        };
        let apply = commands::apply_spool(target, &apply, &spool, &self.file("position"))
            .flag("--until", &marker)
            .quiet();
        let mark = command(&commands::mark(source), 2);
        let between = commands::watch_between(source, &marker, &second);
        let mut lines = vec![
            fence,
            self.stop_follow(),
            format!("marker=$({mark})"),
            format!(
                "{} >>{} &",
                command(&apply, 0),
                self.shown("applied.ndjson")
            ),
            "apply=$!".to_owned(),
            command(&watch.until(&marker, is_reverse), 0),
            format!("second=$({mark})"),
            command(&watch.until(&second, is_reverse), 0),
            "# Whoever wrote after the fence is shown here: then do not switch.".to_owned(),
            format!("{} >{}", command(&between, 0), self.shown("between.ndjson")),
            format!(
                "if grep -v '\"contended\":true' {} |\n  grep -e '^{{\"transaction\"' -e '^{{\"schema\"'; then exit 1; fi",
                self.shown("between.ndjson")
            ),
            "wait \"$apply\"".to_owned(),
        ];
        lines.extend(self.pair());
        let order = quoted(format!("SWITCH READS AND WRITES TO {target} NOW"));
        lines.push(format!("echo {order}"));
        lines.extend(self.equal("second", "target"));
        lines
    }
}

/// What a plan would be, as far as its flags tell.
fn planned(session: &Session, flags: &cli::Plan) -> Outcome<State> {
    let between = plan::between(session, flags)?;
    Ok(session.known().unwrap_or_else(|| {
        let end = |context: String| End {
            context,
            datastore_id: Some(String::new()),
            kind: Kind("unknown".to_owned()),
        };
        State {
            settle: flags.settle.settle.as_ref().map(Span::clone),
            ..State::planned(between.procedure, end(between.source), end(between.target))
        }
    }))
}

/// The way back, also of a migration whose switch was not ordered by this program.
fn reversed(state: &State) -> State {
    state.reversed().unwrap_or_else(|| {
        let mut reversed =
            State::planned(state.procedure, state.target.clone(), state.source.clone());
        reversed.is_reverse = true;
        reversed
    })
}
