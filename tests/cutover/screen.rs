//! `status --watch`: the live screen on a terminal of 80x24, and lines off one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};

use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Migration, PATIENCE};
use crate::support::spicedb::Datastore;
use crate::support::wait_until;

/// What a pseudo terminal shows, as it was written to it.
struct Terminal {
    keyboard: File,
    slave: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn new() -> Self {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, size).unwrap();
        let keyboard = File::from(master);
        let mut screen = keyboard.try_clone().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self {
            keyboard,
            slave,
            shown,
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        wait_until(&format!("the screen shows {text:?}"), PATIENCE, || {
            self.text().contains(text)
        });
    }
}

#[test]
fn screen_shows_the_status_and_q_leaves_it() {
    let migration = Migration::between(Datastore::Memory, Datastore::Memory).settling("0s");
    migration.plan_and_copy();
    let following = migration.follow();
    for no_color in [false, true] {
        let mut terminal = Terminal::new();
        let step = migration
            .step(&["status", "--watch", "--skip-verify", "--max-lag", "60s"])
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", if no_color { "1" } else { "" })
            .stdin_from(terminal.slave.try_clone().unwrap())
            .stdout_to(terminal.slave.try_clone().unwrap());
        let running = step.spawn();
        terminal.wait_for("SAFE TO CUT OVER");
        // A blank cell is skipped, not written, so only single words are found.
        for expected in ["headroom", "captured", "process", "cutover", "quit"] {
            terminal.wait_for(expected);
        }
        let is_colored = terminal.text().contains("\u{1b}[38;5;");
        assert_eq!(is_colored, !no_color, "{}", terminal.text());
        terminal.keyboard.write_all(b"q").unwrap();
        let finished = running.wait();
        assert_eq!(finished.code(), Some(0), "{}", finished.stderr);
        // Back from the alternate screen.
        terminal.wait_for("\u{1b}[?1049l");
    }
    following.signal("TERM");
    following.wait();
}

#[test]
fn a_signal_leaves_the_screen_and_restores_the_terminal() {
    let migration = Migration::between(Datastore::Memory, Datastore::Memory).settling("0s");
    migration.plan();
    let terminal = Terminal::new();
    let step = migration
        .step(&["status", "--watch"])
        .env("TERM", "xterm")
        .stdin_from(terminal.slave.try_clone().unwrap())
        .stdout_to(terminal.slave.try_clone().unwrap());
    let running = step.spawn();
    terminal.wait_for("NOT SAFE");
    running.signal("TERM");
    assert_eq!(running.wait().signal(), Some(15));
    terminal.wait_for("\u{1b}[?1049l");
}

#[test]
fn off_a_terminal_a_line_is_printed_every_ten_seconds() {
    let migration = Migration::between(Datastore::Memory, Datastore::Memory).settling("0s");
    migration.plan();
    let running = migration.step(&["status", "--watch"]).spawn();
    let lines = || {
        let text = String::from_utf8(running.stdout_so_far()).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    wait_until("two lines", PATIENCE, || lines().len() >= 2);
    let printed = lines();
    assert!(printed[0].contains("not safe"), "{printed:?}");
    let at = |line: &str| line[..20].parse::<jiff::Timestamp>().unwrap();
    let between = at(&printed[1]).duration_since(at(&printed[0])).as_secs();
    assert!((9..30).contains(&between), "{printed:?}");
    running.signal("TERM");
    assert_eq!(running.wait().signal(), Some(15));
}
