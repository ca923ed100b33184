//! The packages of a release, as docs/install.md describes them, each in a root that holds nothing else: no
//! shell, no libraries, no compiler.
//! `make dist-test` names their folder in `SPICE_DIST`; `chroot` needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use testdata::Sample;

use super::{PROGRAMS, SLOW, VERSION, dist, files, lacks, output_of};
use crate::copy::holding;
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, root};

/// Unpacks the tarball; returns the one folder in it.
pub(super) fn unpack(dist: &Path, to: &Path) -> PathBuf {
    let name = format!("spice-pipes-{VERSION}-x86_64-linux-musl");
    let tar = Program::at("tar".as_ref()).arg("-xzf");
    let tarball = dist.join(format!("{name}.tar.gz"));
    tar.arg(tarball).arg("-C").arg(to).run().expect_success();
    assert_eq!(fs::read_dir(to).unwrap().count(), 1);
    to.join(name)
}

/// A root folder in which programs are run as on a machine that has nothing else.
struct Root {
    folder: tempfile::TempDir,
    /// `USER:GROUP`, as numbers: nothing in the root has names for them.
    user: Option<String>,
}

impl Root {
    fn new() -> Self {
        let folder = folder();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(folder.path().join("dev")).unwrap();
        let null = folder.path().join("dev/null");
        let made = Command::new("mknod")
            .args(["-m", "666"])
            .arg(null)
            .args(["c", "1", "3"])
            .status();
        assert!(
            made.unwrap().success(),
            "this test needs root, for mknod and chroot"
        );
        Self { folder, user: None }
    }

    /// What the tarball's `bin` and `share` are copied into.
    fn of_tarball(dist: &Path) -> Self {
        let root = Self::new();
        let unpacked = folder();
        copy_tree(&unpack(dist, unpacked.path()), root.path());
        root
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A program in the root; `bin` is its folder there.
    fn run(&self, bin: &str, name: &str) -> Program {
        let chroot = Program::at("chroot".as_ref())
            .env("HOME", "/")
            .env("SPICE_CONTEXTS", "");
        let chroot = match &self.user {
            Some(user) => chroot.arg(format!("--userspec={user}")),
            None => chroot,
        };
        chroot.arg(self.path()).arg(format!("{bin}/{name}"))
    }

    /// A copy of a server's token in the root, for the user who runs programs there.
    fn token(&self, server: &Server) -> String {
        let name = format!("/{}.token", server.context());
        let file = self.path().join(&name[1..]);
        fs::copy(server.token_file(), &file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some(user) = &self.user {
            output_of(Command::new("chown").arg(user).arg(&file));
        }
        name
    }

    fn on(&self, bin: &str, name: &str, server: &Server) -> Program {
        let token = self.token(server);
        let endpoint = server.endpoint();
        self.run(bin, name)
            .args(["--endpoint", endpoint, "--token-file", &token])
    }

    /// Every program runs and names the commit; a copy between two servers is complete.
    fn works(&self, bin: &str) {
        for name in PROGRAMS {
            let printed = self.run(bin, name).arg("--version").run().expect_success();
            assert_eq!(printed.text(), format!("{name} {VERSION} ({})\n", commit()));
        }
        let (from, to) = (
            holding(Sample::rich(5_000), Datastore::Memory),
            Server::start(Datastore::Memory),
        );
        let export = self
            .on(bin, "spice-export", &from)
            .args(["--insecure", "--settle", "0s"]);
        let import = self.on(bin, "spice-import", &to).arg("--insecure");
        let imported = Pipe::from(export).to(import).expect_success();
        assert!(
            imported.text().contains(r#""verified":true"#),
            "{}",
            imported.text()
        );
        let same = oracle::assert_same_relationships(&from, &to, Precision::Microseconds);
        assert_eq!(same, 5_000);
    }
}

/// The commit of the checkout, as `--version` shows it.
fn commit() -> String {
    let head = output_of(
        Command::new("git")
            .current_dir(root())
            .args(["rev-parse", "HEAD"]),
    );
    head[..9].to_owned()
}

fn copy_tree(from: &Path, to: &Path) {
    output_of(Command::new("cp").arg("-a").arg(from.join(".")).arg(to));
}

#[test]
fn tarball_works_in_an_empty_root() {
    let Some(dist) = dist() else { return };
    let root = Root::of_tarball(&dist);
    root.works("/bin");
    for file in [
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "Containerfile",
        "docs/cutover.md",
        "share/man/man1/spice-export.1",
        "share/man/man1/spice-migrate-cutover.1",
        "share/bash-completion/completions/spice-export",
        "share/zsh/site-functions/_spice-export",
        "share/fish/vendor_completions.d/spice-export.fish",
    ] {
        assert!(root.path().join(file).exists(), "no {file} in the tarball");
    }
}

/// `spice-migrate` finds the other programs where there is no /proc that shows its own path.
#[test]
fn migration_runs_in_an_empty_root() {
    let Some(dist) = dist() else { return };
    let root = Root::of_tarball(&dist);
    let from = holding(Sample::portable(2_000), Datastore::Postgres);
    let to = Server::start(Datastore::Postgres);
    let context = |name: &str, server: &Server| {
        let (endpoint, token) = (server.endpoint(), root.token(server));
        format!("[{name}]\nendpoint = \"{endpoint}\"\ntoken-file = \"{token}\"\ninsecure = true\n")
    };
    let text = context("old", &from) + &context("new", &to);
    fs::write(root.path().join("contexts.toml"), text).unwrap();
    let migrate = |arguments: &[&str]| {
        root.run("/bin", "spice-migrate")
            .env("SPICE_CONTEXTS", "/contexts.toml")
            // The first is that of the root; chroot itself is in another.
            .env("PATH", "/bin:/usr/sbin:/sbin:/usr/bin")
            .args(["--state", "/migration"])
            .args(arguments)
            .timeout(SLOW)
    };
    migrate(&["plan", "--from", "old", "--to", "new"])
        .run()
        .expect_success();
    migrate(&["copy"]).run().expect_success();
    let following = migrate(&["follow"]).spawn();
    following.wait_until_blocked();
    // verify and cutover hand streams over by /dev/fd, which this root does not have.
    following.signal("TERM");
    following.wait();
    oracle::assert_same_relationships(&from, &to, Precision::Microseconds);
}

/// Nothing is trusted that the root does not hold, and what it holds is.
#[test]
fn tls_is_verified_in_an_empty_root() {
    let Some(dist) = dist() else { return };
    let root = Root::of_tarball(&dist);
    let server = Server::builder(Datastore::Memory).tls().start();
    let head = || {
        root.on("/bin", "spice-revision", &server)
            .args(["--head", "--settle", "0s"])
    };
    let refused = head().run().expect_code(2);
    for expected in ["no certificate authority is known", "ca-certificates"] {
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }
    let authority = server.certificate().unwrap();
    fs::copy(&authority, root.path().join("ca.pem")).unwrap();
    head()
        .env("SSL_CERT_FILE", "/ca.pem")
        .run()
        .expect_success();
    head()
        .args(["--certificate-path", "/ca.pem"])
        .run()
        .expect_success();
    // Where a host's own certificates are mounted.
    let mounted = root.path().join("etc/ssl/certs");
    fs::create_dir_all(&mounted).unwrap();
    fs::copy(&authority, mounted.join("ca-certificates.crt")).unwrap();
    head().run().expect_success();
    let other = Server::builder(Datastore::Memory).tls().start();
    fs::copy(
        other.certificate().unwrap(),
        mounted.join("ca-certificates.crt"),
    )
    .unwrap();
    head().run().expect_code(77);
}

#[test]
fn deb_is_installed_verified_and_removed_without_a_trace() {
    let Some(dist) = dist() else { return };
    if lacks("dpkg") {
        return;
    }
    let root = Root::new();
    let database = root.path().join("var/lib/dpkg");
    fs::create_dir_all(database.join("info")).unwrap();
    fs::create_dir_all(database.join("updates")).unwrap();
    fs::write(database.join("status"), "").unwrap();
    let dpkg = |arguments: &[&str]| {
        let dpkg = Program::at("dpkg".as_ref()).args(["--log=/dev/null"]);
        dpkg.arg(format!("--root={}", root.path().display()))
            .args(arguments)
            .run()
            .expect_success()
    };
    let package = dist.join(format!("spice-pipes_{VERSION}_amd64.deb"));
    let before = outside_of(&root, "var/lib/dpkg");
    dpkg(&["-i", package.to_str().unwrap()]);
    assert_eq!(dpkg(&["-V", "spice-pipes"]).text(), "");
    root.works("/usr/bin");
    for file in [
        "usr/share/man/man1/spice-migrate-cutover.1.gz",
        "usr/share/bash-completion/completions/spice-export",
        "usr/share/zsh/vendor-completions/_spice-export",
        "usr/share/fish/vendor_completions.d/spice-export.fish",
        "usr/share/doc/spice-pipes/copyright",
        "usr/share/doc/spice-pipes/docs/cutover.md",
    ] {
        assert!(root.path().join(file).exists(), "no {file} in the package");
    }
    for token in fs::read_dir(root.path()).unwrap().flatten() {
        if token.file_name().to_string_lossy().ends_with(".token") {
            fs::remove_file(token.path()).unwrap();
        }
    }
    dpkg(&["-P", "spice-pipes"]);
    assert_eq!(outside_of(&root, "var/lib/dpkg"), before);
}

/// The files and folders of a root, except one folder of it.
fn outside_of(root: &Root, except: &str) -> String {
    let find = Command::new("find")
        .current_dir(root.path())
        .args(["-path", &format!("./{except}")])
        .args(["-prune", "-o", "-print"])
        .output()
        .unwrap();
    let mut lines: Vec<&str> = std::str::from_utf8(&find.stdout).unwrap().lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[test]
fn lintian_finds_no_error_in_the_deb() {
    let Some(dist) = dist() else { return };
    if lacks("lintian") {
        return;
    }
    // Static programs are the purpose of this package; it is in no distribution, so it closes no bug there.
    let accepted = "statically-linked-binary,initial-upload-closes-no-bugs,no-changelog";
    let package = dist.join(format!("spice-pipes_{VERSION}_amd64.deb"));
    let lintian = Program::at("lintian".as_ref()).args(["--fail-on", "error"]);
    let lintian = lintian
        .args(["--suppress-tags", accepted])
        .arg(package)
        .timeout(SLOW)
        .run();
    assert_eq!(lintian.code(), Some(0), "{}", lintian.text());
}

/// What COPY of the Containerfile puts into the image, run as its user: no engine is needed for it.
#[test]
fn image_holds_the_programs_alone_and_works() {
    let Some(dist) = dist() else { return };
    let unpacked = folder();
    let context = unpack(&dist, unpacked.path());
    let text = fs::read_to_string(context.join("Containerfile")).unwrap();
    let mut root = Root::new();
    let mut path = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match &words[..] {
            ["FROM", image] => assert_eq!(*image, "scratch"),
            ["COPY", from, to] => {
                let to = root.path().join(to.trim_matches('/'));
                fs::create_dir_all(&to).unwrap();
                copy_tree(&context.join(from), &to);
            }
            ["ENV", setting] => setting.strip_prefix("PATH=").unwrap().clone_into(&mut path),
            ["USER", user] => root.user = Some((*user).to_owned()),
            ["#", ..] | [] | ["LABEL", ..] => {}
            [label, ..] if label.starts_with("org.opencontainers.image.") => {}
            other => panic!("not known here: {other:?}"),
        }
    }
    let names = PROGRAMS.map(|name| PathBuf::from("bin").join(name));
    let mut expected = names.to_vec();
    expected.push("dev/null".into());
    assert_eq!(files(root.path()), expected);
    assert!(text.contains(&commit()), "no label with the commit");
    assert!(
        root.user
            .as_deref()
            .is_some_and(|user| !user.starts_with('0')),
        "{:?}",
        root.user
    );
    root.works(&path);
}
