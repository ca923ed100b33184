//! What is installed is complete, runs and is removed again: from the sources, and with `make dist-test` from the
//! packages of a release.

mod completions;
mod contents;
mod packages;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::program::Program;
use crate::support::{figure, folder, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const SLOW: Duration = Duration::from_secs(300);

/// Every program of the suite.
const PROGRAMS: [&str; 12] = [
    "spice-apply",
    "spice-check",
    "spice-convert",
    "spice-diff",
    "spice-digest",
    "spice-export",
    "spice-import",
    "spice-map",
    "spice-migrate",
    "spice-preflight",
    "spice-revision",
    "spice-watch",
];

/// The folder of the packages; none where they are not to be tested, which is printed.
fn dist() -> Option<PathBuf> {
    let dist = std::env::var_os("SPICE_DIST").map(|dist| root().join(dist));
    if dist.is_none() {
        figure("skipped: make dist-test builds and tries the packages");
    }
    dist
}

/// Whether a program of the machine is missing, which is printed: a test that needs it is skipped then.
fn lacks(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_missing = !std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if is_missing {
        figure(&format!("skipped: {program} is not installed"));
    }
    is_missing
}

/// A command of this machine, in the developer's own environment, for cargo.
fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// What `make install` installs, from the programs under test, below a folder of its own.
struct Installed {
    folder: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let installed = Self { folder: folder() };
        xtask::pages::write(&installed.pages()).unwrap();
        installed.script(&[]).run().expect_success();
        installed
    }

    fn pages(&self) -> PathBuf {
        self.folder.path().join("pages")
    }

    fn prefix(&self) -> PathBuf {
        self.folder.path().join("usr")
    }

    fn script(&self, flags: &[&str]) -> Program {
        let programs = Path::new(env!("CARGO_BIN_EXE_spice-export"))
            .parent()
            .unwrap();
        Program::script("scripts/install")
            .args(flags)
            .arg(programs)
            .arg(self.pages())
            .arg(self.prefix())
    }
}

/// All files below a folder, as paths in it, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let text = output_of(
        Command::new("find")
            .current_dir(folder)
            .args([".", "!", "-type", "d"]),
    );
    let mut files: Vec<PathBuf> = text.lines().map(|line| line[2..].into()).collect();
    files.sort();
    files
}

#[test]
fn every_program_is_installed_and_removed_again() {
    let installed = Installed::new();
    let prefix = installed.prefix();
    for name in PROGRAMS {
        let version = Program::at(&prefix.join("bin").join(name)).arg("--version");
        let printed = version.run().expect_success();
        assert!(
            printed.text().starts_with(&format!("{name} ")),
            "{}",
            printed.text()
        );
        for file in [
            format!("share/man/man1/{name}.1"),
            format!("share/bash-completion/completions/{name}"),
            format!("share/zsh/site-functions/_{name}"),
            format!("share/fish/vendor_completions.d/{name}.fish"),
        ] {
            assert!(prefix.join(&file).exists(), "no {file}");
        }
    }
    let programs = files(&prefix.join("bin"));
    assert_eq!(
        programs,
        PROGRAMS.map(PathBuf::from),
        "as many as are tested here"
    );
    installed.script(&["--remove"]).run().expect_success();
    assert_eq!(files(&prefix), Vec::<PathBuf>::new());
}

/// The commit is in a checkout's programs, and in what `git archive` makes of it.
#[test]
fn version_names_the_commit_of_a_checkout_and_of_an_archive() {
    if !root().join(".git").exists() {
        figure("skipped: not a checkout of git");
        return;
    }
    let git =
        |arguments: &[&str]| output_of(Command::new("git").current_dir(root()).args(arguments));
    let commit = git(&["rev-parse", "HEAD"]);
    for name in PROGRAMS {
        let printed = Program::new(name).arg("--version").run().expect_success();
        let expected = format!("{name} {} ({})\n", env!("CARGO_PKG_VERSION"), &commit[..9]);
        assert_eq!(printed.text(), expected);
    }
    let file = "crates/spice-cli/commit.txt";
    let archived = "git archive HEAD crates/spice-cli/commit.txt | tar -xO";
    let shell = Program::at("sh".as_ref())
        .args(["-c", archived])
        .current_folder(root());
    assert_eq!(shell.run().expect_success().text(), commit);
    let template = std::fs::read_to_string(root().join(file)).unwrap();
    assert_eq!(template, "$Format:%H$\n", "git replaces nothing else");
}

#[test]
fn man_pages_render_without_a_warning() {
    let installed = Installed::new();
    let folder = installed.prefix().join("share/man/man1");
    let pages = files(&folder);
    assert!(
        pages.contains(&"spice-migrate-cutover.1".into()),
        "{pages:?}"
    );
    if !lacks("man") {
        for page in &pages {
            let man = Program::at("man".as_ref())
                .args(["--warnings", "-E", "UTF-8", "-l"])
                .arg(folder.join(page))
                .env("MANWIDTH", "80")
                .env("LC_ALL", "C.UTF-8");
            let shown = man.run().expect_success();
            assert_eq!(shown.stderr, "", "{}", page.display());
            let name = page.file_stem().unwrap().to_str().unwrap();
            for expected in [name, "NAME", "SYNOPSIS", "EXIT STATUS", "SEE ALSO"] {
                assert!(shown.text().contains(expected), "{name}: no {expected}");
            }
            let is_step = !PROGRAMS.contains(&name);
            let example = format!("\n       {name} ");
            let has_examples = shown.text().contains("\nEXAMPLES\n");
            assert!(is_step || has_examples, "{name}: {}", shown.text());
            assert!(shown.text().contains(&example), "{name}: {}", shown.text());
        }
    }
    if !lacks("mandoc") {
        let mandoc = Program::at("mandoc".as_ref()).args(["-Tlint", "-W", "error"]);
        let checked = mandoc
            .args(pages.iter().map(|page| folder.join(page)))
            .run();
        assert_eq!(checked.expect_success().text(), "");
    }
}

/// Our own use of newer Rust is a lint of `make check` (clippy::incompatible_msrv); `make msrv` compiles with it.
#[test]
fn no_dependency_needs_a_newer_rust() {
    let platform = ["--filter-platform", "x86_64-unknown-linux-gnu"];
    let arguments = ["metadata", "--locked", "--offline", "--format-version", "1"];
    let arguments = arguments.into_iter().chain(platform);
    let metadata: serde_json::Value =
        serde_json::from_str(&output_of(cargo().args(arguments))).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let version = |text: &str| -> Vec<u32> {
        let mut parts: Vec<u32> = text.split('.').map(|part| part.parse().unwrap()).collect();
        parts.resize(3, 0);
        parts
    };
    let ours = version(env!("CARGO_PKG_RUST_VERSION"));
    let newer: Vec<String> = packages
        .iter()
        .filter_map(|package| {
            let needed = package["rust_version"].as_str()?;
            (version(needed) > ours).then(|| format!("{} needs {needed}", package["id"]))
        })
        .collect();
    assert!(packages.len() > 100, "{}", packages.len());
    assert_eq!(
        newer,
        Vec::<String>::new(),
        "rust-version of Cargo.toml: {ours:?}"
    );
}
