//! The fake server, the programs as they are used against it, and many cases side by side.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use testdata::Sample;

use crate::copy::stream_of;
use crate::support::program::Program;
use crate::support::running::Finished;
use crate::support::{figure, folder, root};

/// A case needs a second for each of two attempts of a few calls, and pauses in between. After this it hangs.
pub(super) const LIMIT: Duration = Duration::from_secs(100);
const MOST_KIB: u64 = 300 << 10;
/// What a program is given for a call.
#[derive(Clone, Copy)]
pub(super) struct Given {
    pub(super) request_timeout: &'static str,
    pub(super) max_retries: &'static str,
}

/// For what gets no answer: each case ends within seconds.
pub(super) const SHORT: Given = Given {
    request_timeout: "1s",
    max_retries: "1",
};
/// For what is answered at once by a server that is as busy as it likes.
const ANSWERED: Given = Given {
    request_timeout: "20s",
    ..SHORT
};
/// For what must succeed, on a machine that is as busy as it likes.
pub(super) const LONG: Given = Given {
    request_timeout: "60s",
    max_retries: "9",
};
/// What a message on stderr may have, in bytes.
const LONGEST_MESSAGE: usize = 2 << 10;
/// Cases side by side.
pub(super) const WORKERS: usize = 6;

/// The fake server, for as long as this lives.
pub(super) struct Hostile {
    child: Child,
    stdin: Option<ChildStdin>,
    port: String,
    since: String,
    pub(super) until: String,
}

impl Hostile {
    fn start() -> Self {
        let mut child = Command::new(root().join("tests/oracle/run"))
            .arg("--hostile")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some("ready"));
        let mut word = || words.next().unwrap();
        Self {
            stdin: child.stdin.take(),
            port: word(),
            since: word(),
            until: word(),
            child,
        }
    }

    /// A program that meets this treatment.
    pub(super) fn program(&self, name: &str, treatment: &str) -> Program {
        Program::new(name)
            .env("SPICE_ENDPOINT", format!("127.0.0.1:{}", self.port))
            .env("SPICE_INSECURE", "true")
            .env("SPICE_TOKEN", treatment)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}

/// The programs as they are used against the fake server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Export,
    ExportShards,
    Import,
    Watch,
    Apply,
    Check,
    Head,
    Mark,
}

pub(super) struct Bench {
    pub(super) server: Hostile,
    pub(super) folder: tempfile::TempDir,
    snapshot: PathBuf,
    changes: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let (server, folder) = (Hostile::start(), folder());
        let bench = Self {
            server,
            snapshot: folder.path().join("snapshot"),
            changes: folder.path().join("changes"),
            folder,
        };
        // What the others read, from the server while it behaves.
        for (who, path) in [
            (Who::Export, bench.snapshot.clone()),
            (Who::Watch, bench.changes.clone()),
        ] {
            let made = bench.run_within(who, "", LONG, LIMIT).expect_success();
            std::fs::write(path, made.stdout).unwrap();
        }
        bench
    }

    pub(super) fn run(&self, who: Who, treatment: &str) -> Finished {
        self.run_within(who, treatment, given_under(treatment), LIMIT)
    }

    pub(super) fn run_within(
        &self,
        who: Who,
        treatment: &str,
        given: Given,
        limit: Duration,
    ) -> Finished {
        // What is written to has to be another datastore than what was read.
        let target = format!("id=cafecafe;{treatment}");
        let treatment = match who {
            Who::Import | Who::Apply => &target,
            _ => treatment,
        };
        let named = |name: &str| {
            self.server
                .program(name, treatment)
                .args(["--request-timeout", given.request_timeout])
                .args(["--max-retries", given.max_retries])
                .timeout(limit)
        };
        let (since, until) = (&self.server.since, &self.server.until);
        let program = match who {
            Who::Export => named("spice-export"),
            Who::ExportShards => named("spice-export").args(["--jobs", "2"]),
            Who::Import => {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let rejects = self.folder.path().join(format!("rejects-{number}"));
                named("spice-import")
                    .args(["--on-conflict", "touch", "--rejects"])
                    .arg(rejects)
                    .input(stream_of(Sample::rich(12)))
            }
            Who::Watch => named("spice-watch").args(["--since", since, "--until", until]),
            Who::Apply => named("spice-apply").arg(&self.changes),
            Who::Check => named("spice-check")
                .args(["--seed", "1"])
                .arg(&self.snapshot),
            Who::Head => named("spice-revision").arg("--head"),
            Who::Mark => named("spice-revision").arg("--mark"),
        };
        program.run()
    }
}

/// For files of their own.
static NUMBER: AtomicU64 = AtomicU64::new(0);

pub(super) static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);

/// A program, what is done to it, and the exit codes that are right.
pub(super) type Case = (Who, String, Vec<i32>);

/// Runs cases side by side, and names all that went wrong.
pub(super) fn run(cases: Vec<Case>) {
    run_with(cases, WORKERS);
}

/// What is given to a program that is treated so.
pub(super) fn given_under(treatment: &str) -> Given {
    let is_silent = |part: &str| treatment.contains(part);
    match ["hang", "headers", "wire:", "blank"]
        .into_iter()
        .any(is_silent)
    {
        true => SHORT,
        false => ANSWERED,
    }
}

pub(super) fn run_with(cases: Vec<Case>, workers: usize) {
    // One at a time: the fake server is slower than the second that its clients are given.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bench = &*BENCH;
    let (count, waiting) = (cases.len(), Mutex::new(cases));
    let wrong = Mutex::new(Vec::new());
    let figures = Mutex::new(BTreeMap::<Who, (u64, Duration)>::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some((who, treatment, codes)) = next else {
                        return;
                    };
                    let given = given_under(&treatment);
                    let finished = bench.run_within(who, &treatment, given, LIMIT);
                    let mut figures = figures.lock().unwrap();
                    let most = figures.entry(who).or_default();
                    *most = (most.0.max(finished.peak_kib), most.1.max(finished.took));
                    if let Some(fault) = judge(&finished, &codes) {
                        let stderr: String = finished.stderr.chars().take(1_500).collect();
                        let text = format!("{who:?} {treatment}: {fault}\n{stderr}");
                        wrong.lock().unwrap().push(text);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    figure(&format!(
        "{count} cases: {:?}",
        figures.into_inner().unwrap()
    ));
    assert!(
        wrong.is_empty(),
        "{} of {count} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn judge(finished: &Finished, codes: &[i32]) -> Option<String> {
    let code = finished.code();
    if !code.is_some_and(|code| codes.contains(&code)) {
        return Some(format!("ended with {code:?}, not {codes:?}"));
    }
    if finished.peak_kib > MOST_KIB {
        return Some(format!("took {} MiB", finished.peak_kib >> 10));
    }
    let longest = finished.stderr.lines().map(str::len).max();
    if longest > Some(LONGEST_MESSAGE) {
        return Some(format!("a message of {longest:?} bytes"));
    }
    if code != Some(0) && finished.stderr.is_empty() {
        return Some("no message".to_owned());
    }
    let sealed = String::from_utf8_lossy(&finished.stdout).contains("{\"trailer\"");
    (code == Some(1) && sealed).then(|| "a trailer under a stream that failed".to_owned())
}
