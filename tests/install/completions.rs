//! Completions, in real shells on a terminal: what TAB makes of a line is run, and the arguments are noted.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::{Installed, PROGRAMS, lacks};
use crate::support::program::Program;
use crate::support::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const PROMPT: &str = "ready> ";

/// What is typed before TAB, and what the program gets then.
const LINES: [(&str, &str); 6] = [
    ("spice-export --conte", "--context"),
    ("spice-watch --log-format js", "--log-format json"),
    ("spice-import --on-conflict sk", "--on-conflict skip"),
    ("spice-migrate cut", "cutover"),
    ("spice-migrate status --wat", "status --watch"),
    ("spice-import seal", "sealed.ndjson"),
];

/// A shell: how it is started, and what is typed first. `PREFIX` is where the suite is installed, `NAMES` are the
/// programs. Each program is a function that notes its arguments.
struct Shell {
    name: &'static str,
    command: &'static str,
    setup: &'static str,
}

const BASH: Shell = Shell {
    name: "bash",
    command: "bash --noprofile --norc -i",
    setup: r#"
        for name in NAMES; do
            . "PREFIX/share/bash-completion/completions/$name"
            eval "$name() { echo \"\$*\" >>noted; }"
        done
        PS1='rea''dy> '
    "#,
};

const ZSH: Shell = Shell {
    name: "zsh",
    command: "zsh -f -i",
    setup: r#"
        fpath=(PREFIX/share/zsh/site-functions $fpath)
        autoload -Uz compinit && compinit -u -D
        for name in NAMES; do eval "$name() { echo \"\$*\" >>noted; }"; done
        PS1='rea''dy> '
    "#,
};

const FISH: Shell = Shell {
    name: "fish",
    command: "fish --no-config -i",
    setup: r#"
        set fish_complete_path PREFIX/share/fish/vendor_completions.d
        for name in NAMES; eval "function $name; echo \"\$argv\" >>noted; end"; end
        function fish_prompt; echo -n 'rea''dy> '; end
    "#,
};

impl Shell {
    fn completes(&self) {
        if lacks(self.name) || lacks("script") {
            return;
        }
        let installed = Installed::new();
        let home = crate::support::folder();
        std::fs::write(home.path().join("sealed.ndjson"), "").unwrap();
        let setup = self
            .setup
            .replace("PREFIX", installed.prefix().to_str().unwrap())
            .replace("NAMES", &PROGRAMS.join(" "));
        std::fs::write(home.path().join("setup"), setup).unwrap();
        let mut running = Program::at("script".as_ref())
            .args(["-qefc", self.command, "/dev/null"])
            .env("TERM", "dumb")
            .env("LC_ALL", "C.UTF-8")
            .current_folder(home.path())
            .input_later()
            .spawn();
        let mut keyboard = running.take_stdin();
        let mut type_in = |text: &str| {
            keyboard.write_all(text.as_bytes()).unwrap();
            keyboard.flush().unwrap();
        };
        type_in(". ./setup\n");
        wait_until("the shell is ready", PATIENCE, || {
            String::from_utf8_lossy(&running.stdout_so_far()).contains(PROMPT)
        });
        let every = PROGRAMS.map(|name| (format!("{name} --log-f"), "--log-format".to_owned()));
        let lines = LINES.map(|(typed, expected)| (typed.to_owned(), expected.to_owned()));
        for (typed, expected) in every.into_iter().chain(lines) {
            let noted = complete(&typed, home.path(), &mut type_in);
            assert_eq!(noted, expected, "{}: {typed}<TAB>", self.name);
        }
        type_in("exit\n");
        running.wait().expect_success();
    }
}

/// Types a line, TAB and Enter; returns what the program's function has noted.
fn complete(line: &str, home: &Path, type_in: &mut impl FnMut(&str)) -> String {
    let file = home.join("noted");
    type_in(&format!("{line}\t\n"));
    let mut noted = String::new();
    wait_until(&format!("{line}<TAB> runs"), PATIENCE, || {
        noted = std::fs::read_to_string(&file).unwrap_or_default();
        noted.ends_with('\n')
    });
    std::fs::remove_file(&file).unwrap();
    noted.trim_end().to_owned()
}

#[test]
fn options_values_steps_and_files_complete_in_bash() {
    BASH.completes();
}

#[test]
fn options_values_steps_and_files_complete_in_zsh() {
    ZSH.completes();
}

#[test]
fn options_values_steps_and_files_complete_in_fish() {
    FISH.completes();
}
