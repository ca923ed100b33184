//! Incomplete input, and disks that are missing: named, and nothing is left behind.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use authzed::v1::Relationship;
use testdata::Sample;

use super::{diff, digest, plant, sealed};
use crate::support::disk::SmallDisk;
use crate::support::{folder, repeat, wait_until};

#[test]
fn incomplete_or_unlike_streams_are_bad_data() {
    let folder = folder();
    let sample = Sample::rich(1_000);
    let all: Vec<Relationship> = sample.iter().collect();
    let good = sealed(folder.path(), "good", sample, &all);
    let text = std::fs::read_to_string(&good).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let bad = [
        write("truncated", &lines[..500].concat()),
        write("unsealed", &lines[1..1_001].concat()),
        write(
            "other-format",
            &text.replacen("spice-stream/1", "spice-stream/2", 1),
        ),
        write(
            "altered",
            &text.replacen("objectId\":\"", "objectId\":\"x", 1),
        ),
        write(
            "twice",
            &[lines[0], lines[1], lines[1], lines[1_001]].concat(),
        ),
        write(
            "changes",
            &text.replacen(r#""stream":"snapshot""#, r#""stream":"changes""#, 1),
        ),
        write("empty", ""),
    ];
    for bad in &bad {
        let name = bad.file_name().unwrap().to_str().unwrap();
        for (a, b) in [(&good, bad), (bad, &good)] {
            let refused = diff(a, b).run().expect_code(65);
            assert!(refused.stderr.contains(name), "{name}: {}", refused.stderr);
            assert!(refused.stdout.is_empty(), "{name}");
        }
        let refused = digest(&[bad]).run().expect_code(65);
        assert!(refused.stderr.contains(name), "{name}: {}", refused.stderr);
        assert!(refused.stdout.is_empty(), "{name}");
    }
    let filtered = write(
        "filtered",
        &text.replacen(
            r#""producer""#,
            r#""filter":{"types":["document"]},"producer""#,
            1,
        ),
    );
    diff(&good, &filtered).run().expect_code(65);
}

#[test]
fn unusable_temporary_folder_is_named_and_left_empty() {
    let folder = folder();
    let sample = Sample::rich(100_000);
    let (a, b, _) = plant(sample, 10);
    let a = sealed(folder.path(), "a", sample, &a);
    let b = sealed(folder.path(), "b", sample, &b);
    let missing = folder.path().join("missing");
    let small = SmallDisk::mount();
    // Nobody can make a file in /proc, not even root.
    let folders = [
        Some(missing.as_path()),
        Some(a.as_path()),
        Some(Path::new("/proc")),
        small.as_ref().map(SmallDisk::path),
    ];
    for temp in folders.into_iter().flatten() {
        let failed = diff(&a, &b)
            .args(["--max-memory", "1MiB", "--temp-dir"])
            .arg(temp)
            .run()
            .expect_code(1);
        assert!(
            failed.stderr.contains(temp.to_str().unwrap()),
            "{}",
            failed.stderr
        );
        assert!(failed.stdout.is_empty());
    }
    if let Some(small) = small {
        assert_eq!(std::fs::read_dir(small.path()).unwrap().count(), 0);
    }
}

/// A pipe with a name, into which a test writes or does not.
fn fifo(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

/// Holds a pipe open: its reader waits for more.
fn stalled(pipe: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(pipe)
        .unwrap()
}

#[test]
fn broken_stream_is_told_while_the_other_one_stalls() {
    let folder = folder();
    let all: Vec<Relationship> = Sample::rich(100).iter().collect();
    let whole = sealed(folder.path(), "whole", Sample::rich(100), &all);
    let text = std::fs::read_to_string(&whole).unwrap();
    let cut = folder.path().join("cut");
    std::fs::write(&cut, &text[..text.len() / 2]).unwrap();
    let pipe = fifo(folder.path(), "pipe");
    let limit = Duration::from_secs(20);
    let told = |a: &Path, b: &Path| {
        let refused = diff(a, b).timeout(limit).run().expect_code(65);
        assert!(refused.stderr.contains("/cut"), "{}", refused.stderr);
        assert!(refused.stdout.is_empty());
    };
    // Nobody has opened the pipe yet, then somebody who writes nothing.
    told(&cut, &pipe);
    told(&pipe, &cut);
    let _open = stalled(&pipe);
    told(&cut, &pipe);
    told(&pipe, &cut);
    let missing = folder.path().join("missing");
    let refused = diff(&missing, &pipe).timeout(limit).run().expect_code(1);
    assert!(refused.stderr.contains("/missing"), "{}", refused.stderr);
}

/// How many files without a name a process has open in a folder.
fn unnamed_files(process: u32, folder: &Path) -> usize {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let targets = open.filter_map(|one| std::fs::read_link(one.ok()?.path()).ok());
    targets
        .filter(|target| target.starts_with(folder) && target.to_string_lossy().contains("deleted"))
        .count()
}

/// Under nohup this process and all that it starts ignore SIGHUP, as they are meant to.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap() & 1 == 1
}

#[test]
fn stopped_or_killed_diff_leaves_no_temporary_file() {
    let folder = folder();
    let sample = Sample::rich(100_000);
    let all: Vec<Relationship> = sample.iter().collect();
    let a = sealed(folder.path(), "a", sample, &all);
    let pipe = fifo(folder.path(), "pipe");
    let _open = stalled(&pipe);
    let temp = folder.path().join("temp");
    std::fs::create_dir(&temp).unwrap();
    for _ in 0..repeat(1, 20) {
        for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("KILL", 9)] {
            if name == "HUP" && ignores_hangups() {
                continue;
            }
            let running = diff(&a, &pipe)
                .args(["--max-memory", "1MiB", "--temp-dir"])
                .arg(&temp)
                .spawn();
            wait_until("it needs temporary files", Duration::from_secs(60), || {
                unnamed_files(running.pid(), &temp) > 0
            });
            running.signal(name);
            let ended = running.wait();
            assert_eq!(ended.signal(), Some(number), "SIG{name}: {}", ended.stderr);
            assert!(ended.stdout.is_empty());
            assert_eq!(std::fs::read_dir(&temp).unwrap().count(), 0, "SIG{name}");
        }
    }
}
