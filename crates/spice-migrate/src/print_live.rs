//! The steps for bash that compare both ends, repair one, and switch.

use std::path::Path;

use crate::cli::{self, OnSchema};
use crate::commands::{self, Apply, At, Watch};
use crate::part;
use crate::print::{command, path, variable};
use crate::print_steps::Script;
use crate::records::SYNC_POINT;
use crate::status::settling;
use crate::suite::quoted;

/// The last sync point of the records of an apply, as a file. `applied`: quoted.
pub(crate) fn newest_sync_point(applied: &str, into: &Path) -> String {
    format!(
        "{{ grep -h '{SYNC_POINT}' {applied} || :; }} |\n  tail -n 1 >{}",
        path(into)
    )
}

impl Script {
    /// The newest revisions that belong together.
    fn pair(&self) -> Vec<String> {
        let revision = |command_: commands::Command| command(&command_, 2);
        let pair = self.file("pair.ndjson");
        vec![
            newest_sync_point(&self.shown("applied.ndjson"), &pair),
            format!(
                "[ -s {} ] || {{ echo 'no sync point yet: write to the source, then again' >&2; exit 75; }}",
                path(&pair)
            ),
            format!("source=$({})", revision(commands::revision_of(&pair))),
            format!(
                "target=$({})",
                revision(commands::target_revision_of(&pair))
            ),
        ]
    }

    pub(crate) fn verify(&self, flags: &cli::Verify) -> Vec<String> {
        let mut lines = self.pair();
        let schema = self.file("schema.ndjson");
        let (source, target) = (variable("source"), variable("target"));
        let ask = commands::check(self.source(), &source)
            .flag("--sample", "0")
            .quiet();
        let compare = commands::check(self.target(), &target).quiet().arg(&schema);
        lines.push(format!("{} >{}", command(&ask, 0), path(&schema)));
        lines.push(format!("{} >/dev/null", command(&compare, 0)));
        let deferred = self.file("aside.ndjson");
        lines.push(format!("rm -f {}", path(&deferred)));
        lines.push("as_of=$(date -u -d '+90 sec' +%Y-%m-%dT%H:%M:%SZ)".to_owned());
        let spool = self.file("changes.ndjson");
        let diff = commands::diff_live(&variable("as_of"), &spool, &deferred, &[]);
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
            path(&deferred)
        ));
        if flags.check_sample > 0 {
            lines.extend(self.answers(flags));
        }
        lines
    }

    /// Both ends as files of a comparison.
    fn both(&self, target: At<'_>, source: At<'_>, jobs: Option<u64>) -> String {
        let export = |context: &str, at: At<'_>| {
            let export =
                commands::export_relationships(context, at, self.precision(), jobs, self.filter());
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
        let export = commands::export_relationships(
            self.source(),
            at,
            self.precision(),
            jobs,
            self.filter(),
        );
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

    pub(crate) fn resync(&self, flags: &cli::Resync) -> Vec<String> {
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
        let schema =
            commands::import_schema(self.target(), self.unnamed(), self.filter().is_some());
        // Of a target that is shared it must be equal.
        let unless = match self.filter() {
            None => " || [ $? -eq 1 ]",
            Some(_) => "",
        };
        lines.push(format!(
            "{} >/dev/null{unless}",
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

    pub(crate) fn cutover(&self, flags: &cli::Cutover) -> Vec<String> {
        let (source, target) = (self.source(), self.target());
        let fence = match &flags.fence_command {
            Some(fence) => format!("bash -c {}", quoted(fence)),
            None => format!(
                "read -r -p {} fenced\n[ \"$fenced\" = fenced ]",
                quoted(format!(
                    "Stop all writes to {source}, then type fenced (only with a verdict equal): "
                ))
            ),
        };
        let spool = self.file("changes.ndjson");
        let settle = format!("{}ms", settling(&self.state).as_millis());
        let watch = Watch {
            settle: Some(&settle),
            ..self.watch(&spool, &flags.spool_segment)
        };
        let (marker, second) = (variable("marker"), variable("second"));
        let skip = self.state.skip();
        let apply = Apply {
            unnamed: self.unnamed(),
            jobs: Some(flags.jobs),
            max_rps: None,
            rejects: flags.rejects.as_deref(),
            schema: part::schema_mode(self.filter(), flags.schema.map(OnSchema::name)),
        };
        let apply = commands::apply_spool(target, &apply, &spool, &self.file("position"))
            .flag("--until", &marker)
            .quiet();
        let mark = command(&commands::mark(source), 2);
        let between = commands::watch_between(source, &marker, &second, self.filter());
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
            command(&watch.until(&marker, skip.as_ref()), 0),
            format!("second=$({mark})"),
            command(&watch.until(&second, skip.as_ref()), 0),
            "# Whoever wrote after the fence is shown here: then do not switch.".to_owned(),
            format!("{} >{}", command(&between, 0), self.shown("between.ndjson")),
            format!(
                "if grep -v '\"contended\":true' {} |\n  \
                 grep -e '^{{\"transaction\"' -e '^{{\"schema\"'; then exit 1; fi",
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
