//! Real SpiceDB servers, each under a name, port, token and database of its own. They are started
//! by `tests/servers/spicedb`; one PostgreSQL and one MariaDB serve them all, until `tests/servers/spicedb stop
//! --all`.

use super::{output_of, spicedb_script, state_folder};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datastore {
    Memory,
    Postgres,
    MySql,
    /// On Google's emulator, where [`lacks_spanner`] does not say that it is missing.
    Spanner,
}

/// Whether Google's Spanner emulator is missing, which is printed: a test that needs it is skipped then.
pub fn lacks_spanner() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let package = Path::new("/usr/lib/google-cloud-sdk/bin/cloud_spanner_emulator");
    let mut folders = std::env::split_paths(&path).chain([package.to_owned()]);
    let is_there = |folder: PathBuf| {
        let programs = ["gateway_main", "emulator_main"];
        programs.iter().all(|name| folder.join(name).exists())
    };
    let is_missing = !folders.any(is_there);
    if is_missing {
        eprintln!(
            "skipped, Google's Spanner emulator (gateway_main, emulator_main) is not on PATH: on Debian it \
             is google-cloud-cli-spanner-emulator"
        );
    }
    is_missing
}

/// What a server is started with.
pub struct Builder {
    arguments: Vec<String>,
    flags: Vec<String>,
}

impl Builder {
    /// A flag for `spicedb serve`, such as `--datastore-gc-window=6s`.
    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// TLS with a certificate of the server's own CA.
    pub fn tls(mut self) -> Self {
        self.arguments.push("--tls".to_owned());
        self
    }

    /// A PostgreSQL database whose collation is ICU's en-US instead of byte order.
    pub fn icu(mut self) -> Self {
        self.arguments.push("--database-locale=icu".to_owned());
        self
    }

    /// Another SpiceDB than the tests' own, such as `v1.45.4`; it is built once.
    pub fn version(mut self, version: &str) -> Self {
        self.arguments.push(format!("--version={version}"));
        self
    }

    pub fn start(self) -> Server {
        static SWEPT: Once = Once::new();
        static STARTED: AtomicU32 = AtomicU32::new(0);
        SWEPT.call_once(remove_leftovers);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        // From here on the server is removed when the test ends, however it ends.
        let mut server = Server {
            folder: state_folder().join(&name),
            name,
            endpoint: String::new(),
        };
        let context = output_of(
            spicedb_script()
                .arg("start")
                .arg(&server.name)
                .args(self.arguments)
                .arg("--")
                .args(self.flags),
        );
        let endpoint = context
            .lines()
            .find_map(|line| line.strip_prefix("endpoint = "))
            .expect("a context");
        endpoint.trim_matches('"').clone_into(&mut server.endpoint);
        server
    }
}

thread_local! {
    /// Whether a server of this thread died of the fault that SpiceDB v1.56.0 has on MySQL
    /// (docs/reliability.md).
    static DIED_OF_WATCH: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test again, twice at most, where it failed because a server died of that fault: it is not ours.
pub fn but_for_dead_mysql_servers(test: impl Fn() + std::panic::RefUnwindSafe) {
    for _ in 0..2 {
        DIED_OF_WATCH.set(false);
        let Err(panic) = std::panic::catch_unwind(&test) else {
            return;
        };
        if !DIED_OF_WATCH.get() {
            std::panic::resume_unwind(panic);
        }
        eprintln!("once more: SpiceDB died of a nil pointer in its Watch of MySQL");
    }
    test();
}

/// A running server; it and its database are removed when it is dropped.
pub struct Server {
    name: String,
    endpoint: String,
    folder: PathBuf,
}

impl Server {
    /// A new, empty server with the flags of `tests/servers/spicedb`.
    pub fn start(datastore: Datastore) -> Self {
        Self::builder(datastore).start()
    }

    pub fn builder(datastore: Datastore) -> Builder {
        let datastore = match datastore {
            Datastore::Memory => "memory",
            Datastore::Postgres => "postgres",
            Datastore::MySql => "mysql",
            Datastore::Spanner => "spanner",
        };
        Builder {
            arguments: vec![format!("--datastore={datastore}")],
            flags: Vec::new(),
        }
    }

    /// The server's name in the contexts file, for `--context`.
    pub fn context(&self) -> &str {
        &self.name
    }

    /// `127.0.0.1:PORT`, the same after a restart.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn port(&self) -> u16 {
        self.endpoint
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("an endpoint has a port")
    }

    pub fn token_file(&self) -> PathBuf {
        self.folder.join("token")
    }

    pub fn token(&self) -> String {
        std::fs::read_to_string(self.token_file()).expect("the server has a token")
    }

    /// The CA's certificate, of a server with TLS.
    pub fn certificate(&self) -> Option<PathBuf> {
        Some(self.folder.join("ca.pem")).filter(|path| path.exists())
    }

    /// The flags that connect a program to this server by way of `endpoint`, a proxy's for example.
    pub fn flags_by(&self, endpoint: &str) -> Vec<String> {
        let path = |path: &Path| path.to_str().expect("the path is UTF-8").to_owned();
        let mut flags = vec!["--endpoint".to_owned(), endpoint.to_owned()];
        flags.extend(["--token-file".to_owned(), path(&self.token_file())]);
        match self.certificate() {
            Some(certificate) => {
                flags.extend(["--certificate-path".to_owned(), path(&certificate)]);
            }
            None => flags.push("--insecure".to_owned()),
        }
        flags
    }

    /// The flags that connect a program to this server.
    pub fn flags(&self) -> Vec<String> {
        self.flags_by(&self.endpoint)
    }

    /// Another server, on a copy of this one's PostgreSQL database. Both are restarted for it.
    pub fn clone_database(&self) -> Self {
        let clone = Self::start(Datastore::Postgres);
        let database = |server: &Self| {
            let name = std::fs::read_to_string(server.folder.join("database"));
            name.expect("the server has a database").trim().to_owned()
        };
        for server in [self, &clone] {
            server.stop();
        }
        let (original, copy) = (database(self), database(&clone));
        self.sql(&format!("DROP DATABASE \"{copy}\""));
        self.sql(&format!(
            "CREATE DATABASE \"{copy}\" TEMPLATE \"{original}\""
        ));
        for server in [self, &clone] {
            server.restart();
        }
        clone
    }

    /// Ends the server if it runs and starts it again: same port, token, flags and database. Memory
    /// starts empty.
    pub fn restart(&self) {
        output_of(spicedb_script().args(["restart", &self.name]));
    }

    /// Restarts with other `spicedb serve` flags in place of those it had.
    pub fn restart_with(&self, flags: &[&str]) {
        output_of(
            spicedb_script()
                .args(["restart", &self.name, "--"])
                .args(flags),
        );
    }

    /// SIGTERM; returns when the server is gone, which takes 5 s while a stream is open.
    pub fn stop(&self) {
        output_of(spicedb_script().args(["stop", &self.name]));
    }

    /// SIGKILL.
    pub fn kill9(&self) {
        output_of(spicedb_script().args(["stop", &self.name, "--kill"]));
    }

    /// The server's log, a JSON object a line, requests included.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Runs a statement in the server's database; rows come back as lines.
    pub fn sql(&self, statement: &str) -> String {
        output_of(spicedb_script().args(["sql", &self.name, statement]))
    }
}

/// How many relationships of a PostgreSQL server are not deleted, counted without disturbing SpiceDB.
pub fn rows(server: &Server) -> u64 {
    let alive = "deleted_xid = '9223372036854775807'::xid8";
    let count = server.sql(&format!(
        "SELECT count(*) FROM relation_tuple WHERE {alive}"
    ));
    count.trim().parse().expect("a count")
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            if log.contains("panic: runtime error") && log.contains("(*mysqlDatastore).Watch") {
                DIED_OF_WATCH.set(true);
            }
            let telling = |line: &&str| {
                !line.contains(r#""level":"info""#) || line.contains(r#""grpc.code":"#)
            };
            let lines: Vec<&str> = log.lines().filter(telling).collect();
            eprintln!(
                "---- the last requests and warnings of {} ({}):",
                self.name, self.endpoint
            );
            for line in lines.iter().rev().take(20).rev() {
                eprintln!("{}", line.chars().take(400).collect::<String>());
            }
        }
        let removed = spicedb_script().args(["remove", &self.name]).output();
        if !removed.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("{} could not be removed: {removed:?}", self.name);
        }
    }
}

/// Removes the servers of test runs that were killed before they could do so.
fn remove_leftovers() {
    let names = std::fs::read_dir(state_folder())
        .into_iter()
        .flatten()
        .flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(process) = name
            .strip_prefix("test-")
            .and_then(|rest| rest.split('-').next())
        else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            // Another test may be removing it at the same time.
            drop(spicedb_script().args(["remove", &name]).output());
        }
    }
}
