//! `--token-command`: a command of the user's that prints the preshared key, bounded in time and output.

use std::io::{self, IsTerminal as _, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::cleanup;

/// A password manager may ask somebody; nobody is asked for longer.
const LIMIT: Duration = Duration::from_secs(30);
/// A key is a word.
const MOST_BYTES: u64 = 64 << 10;

/// Runs a shell command and gives its output. It is killed when it takes too long, prints too much, or when
/// this process ends.
pub(crate) fn run(command: &str) -> Result<Vec<u8>, String> {
    run_within(command, LIMIT)
}

fn run_within(command: &str, limit: Duration) -> Result<Vec<u8>, String> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    // With a group of its own it cannot ask at a terminal; without a terminal it asks nobody.
    let group = !io::stderr().is_terminal();
    if group {
        shell.process_group(0);
    }
    let (mut child, running) =
        cleanup::spawn(&mut shell, group).map_err(|error| format!("cannot run sh: {error}"))?;
    let outcome = output_of(&mut child, limit);
    if outcome.is_err() {
        running.kill();
        let _ = child.wait();
    }
    outcome
}

fn output_of(child: &mut Child, limit: Duration) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + limit;
    let too_slow = || format!("took longer than {} s", limit.as_secs_f64());
    let Some(stdout) = child.stdout.take() else {
        return Err("has no stdout".to_owned());
    };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let read = stdout.take(MOST_BYTES + 1).read_to_end(&mut output);
        let _ = sender.send(read.map(|_| output));
    });
    let output = receiver
        .recv_timeout(limit)
        .map_err(|_| too_slow())?
        .map_err(|error| format!("cannot be read: {error}"))?;
    if output.len() as u64 > MOST_BYTES {
        return Err("printed more than 64 KiB, and a preshared key is one word".to_owned());
    }
    // It may continue without its stdout.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(None) => return Err(too_slow()),
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    };
    match status.success() {
        true => Ok(output),
        false => Err(format!("failed: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::run_within;

    #[test]
    fn output_is_taken_and_what_is_too_slow_or_too_long_is_killed() {
        let limit = Duration::from_millis(300);
        assert_eq!(
            run_within("echo key", Duration::from_secs(20)).unwrap(),
            b"key\n"
        );
        let failed = run_within("exit 3", Duration::from_secs(20)).unwrap_err();
        assert!(failed.contains("failed: exit status: 3"), "{failed}");
        let began = Instant::now();
        for command in [
            "sleep 600",
            "echo key; exec >&-; sleep 600",
            "sleep 600 | cat",
        ] {
            let slow = run_within(command, limit).unwrap_err();
            assert!(slow.contains("took longer than 0.3 s"), "{command}: {slow}");
        }
        let long = run_within("cat /dev/zero", Duration::from_secs(20)).unwrap_err();
        assert!(long.contains("more than 64 KiB"), "{long}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}
