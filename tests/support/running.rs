//! A program that runs, and how it ended.

use super::wait_until;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Bytes = Arc<Mutex<Vec<u8>>>;

fn collect(mut from: impl Read + Send + 'static, to: Bytes) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            to.lock().unwrap().extend_from_slice(&chunk[..count]);
        }
    })
}

const BLOCKS_WITHIN: Duration = Duration::from_secs(60);

/// The processor time that a process has used, in ticks; none while one of its threads runs.
fn idle_at(pid: u32) -> Option<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        if ["R", "D"].contains(&fields[0]) {
            return None;
        }
        for ticks in &fields[11..13] {
            sum += ticks.parse::<u64>().ok()?;
        }
    }
    Some(sum)
}

/// A program that runs; killed when dropped.
pub struct Running {
    name: String,
    child: Child,
    stdout: Bytes,
    stderr: Bytes,
    threads: Vec<JoinHandle<()>>,
    began: Instant,
    limit: Duration,
    peak_kib: u64,
    _home: tempfile::TempDir,
}

impl Running {
    /// `input` is the thread that writes to stdin, `home` the folder that has to outlive the
    /// program.
    pub(super) fn new(
        name: String,
        mut child: Child,
        input: Option<JoinHandle<()>>,
        limit: Duration,
        home: tempfile::TempDir,
    ) -> Self {
        let (stdout, stderr) = (Bytes::default(), Bytes::default());
        let mut threads: Vec<_> = input.into_iter().collect();
        threads.extend(
            child
                .stdout
                .take()
                .map(|from| collect(from, Arc::clone(&stdout))),
        );
        threads.extend(
            child
                .stderr
                .take()
                .map(|from| collect(from, Arc::clone(&stderr))),
        );
        let began = Instant::now();
        Self {
            name,
            child,
            stdout,
            stderr,
            threads,
            began,
            limit,
            peak_kib: 0,
            _home: home,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.note_memory();
        self.child
            .try_wait()
            .expect("a child can be asked")
            .is_none()
    }

    /// Sends a signal by its name, such as `TERM`, `STOP` or `CONT`, to the program and to those it
    /// has started.
    pub fn signal(&self, name: &str) {
        signal_group(self.pid(), name);
    }

    pub fn kill9(&self) {
        self.signal("KILL");
    }

    /// The open end of stdin, after [`Program::input_later`]; dropping it ends the input.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child
            .stdin
            .take()
            .expect("stdin was left open by input_later")
    }

    pub fn stdout_so_far(&self) -> Vec<u8> {
        self.stdout.lock().unwrap().clone()
    }

    pub fn stderr_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Waits for a text on stderr while the program runs.
    pub fn wait_for_stderr(&self, text: &str, limit: Duration) {
        wait_until(&format!("{} prints {text:?}", self.name), limit, || {
            self.stderr_so_far().contains(text)
        });
    }

    /// Waits until all threads of the program sleep, and have used no processor time for a tenth of a second:
    /// it has come to where it blocks, or polls.
    pub fn wait_until_blocked(&self) {
        let mut before = None;
        wait_until(&format!("{} blocks", self.name), BLOCKS_WITHIN, || {
            let now = idle_at(self.pid());
            let is_blocked = now.is_some() && now == before;
            before = now;
            std::thread::sleep(Duration::from_millis(100));
            is_blocked
        });
    }

    /// Waits until so many bytes came to stdout.
    pub fn wait_for_output(&self, bytes: usize) {
        wait_until(&format!("{} writes", self.name), BLOCKS_WITHIN, || {
            self.stdout.lock().unwrap().len() >= bytes
        });
    }

    /// How often a text is on stderr by now.
    pub fn count_on_stderr(&self, text: &str) -> usize {
        self.stderr_so_far().matches(text).count()
    }

    /// Waits until a text is on stderr more often than that.
    pub fn wait_for_more(&self, text: &str, than: usize, limit: Duration) {
        wait_until(
            &format!("{} prints {text:?} again", self.name),
            limit,
            || self.count_on_stderr(text) > than,
        );
    }

    /// Ends it by SIGTERM, and returns what it wrote in complete lines. A machine may be too busy for the last words
    /// of a stream within the second that there is for them: then it warns, and the stream is cut.
    pub fn terminate(self) -> Finished {
        self.signal("TERM");
        let mut finished = self.wait();
        let is_stopped = finished.code() == Some(0) || finished.signal() == Some(15);
        assert!(is_stopped, "{}: {}", finished.status, finished.stderr);
        let end = finished.stdout.iter().rposition(|byte| *byte == b'\n');
        finished.stdout.truncate(end.map_or(0, |end| end + 1));
        finished
    }

    /// Waits for the end; kills the program and panics with its stderr if that takes longer than
    /// its timeout from here on.
    pub fn wait(mut self) -> Finished {
        let waiting = Instant::now();
        while self.is_running() {
            if waiting.elapsed() > self.limit {
                self.kill9();
                panic!(
                    "{} did not end within {:?}; its stderr:\n{}",
                    self.name,
                    self.limit,
                    self.stderr_so_far()
                );
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        let status = self.child.wait().expect("the program has ended");
        let took = self.began.elapsed();
        // Whatever it has started and left behind may still hold its output open.
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if waiting.elapsed() > self.limit {
                self.kill9();
                panic!(
                    "{} ended, but something it had started did not; its stderr:\n{}",
                    self.name,
                    self.stderr_so_far()
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Finished {
            name: self.name.clone(),
            status,
            stdout: std::mem::take(&mut self.stdout.lock().unwrap()),
            stderr: self.stderr_so_far(),
            peak_kib: self.peak_kib,
            took,
        }
    }

    /// The kernel keeps the peak itself, so that looking every few milliseconds misses only what
    /// comes right before the end.
    fn note_memory(&mut self) {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        self.peak_kib = self.peak_kib.max(peak);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill9();
            drop(self.child.wait());
        }
    }
}

/// Signals a process group by way of the shell's own `kill`; a group that is gone already is fine.
fn signal_group(pid: u32, name: &str) {
    let kill = format!("kill -s {name} -- -{pid} 2>/dev/null || :");
    let status = Command::new("sh")
        .args(["-c", &kill])
        .status()
        .expect("sh can be started");
    assert!(status.success(), "kill -s {name} failed");
}

/// How a program ended, and its output.
pub struct Finished {
    pub name: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// The most memory that was resident, in KiB.
    pub peak_kib: u64,
    pub took: Duration,
}

impl Finished {
    /// The exit code; none if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Panics with stderr unless the exit code is this one.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "{} ended with {}; its stderr:\n{}",
            self.name,
            self.status,
            self.stderr
        );
        self
    }

    #[track_caller]
    pub fn expect_success(self) -> Self {
        self.expect_code(0)
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout is UTF-8")
    }

    /// stdout as JSON, a value a line.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    }
}
