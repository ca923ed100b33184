//! A write that was given up, and lands after its repetition and after what followed it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::{
    PATIENCE, SCHEMA, delete, header, position, sealed, token, touch, trailer, transaction,
};
use crate::support::program::Program;
use crate::support::seal::Lines;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, oracle, wait_until};

/// A proxy that can keep what a program has sent, let the program's connection break, and deliver the
/// bytes to the server when nobody expects them any more.
pub(super) struct Holding {
    port: u16,
    connections: Arc<Mutex<Vec<Arc<Connection>>>>,
    trigger: Arc<Mutex<Option<Trigger>>>,
}

/// From the bytes on that have this text for the last of so many times, a connection is held.
struct Trigger {
    text: &'static str,
    times: usize,
}

struct Connection {
    trigger: Arc<Mutex<Option<Trigger>>>,
    program: TcpStream,
    server: TcpStream,
    holds: AtomicBool,
    held: Mutex<Vec<u8>>,
}

impl Holding {
    pub(super) fn to(upstream: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections: Arc<Mutex<Vec<Arc<Connection>>>> = Arc::default();
        let (all, upstream) = (Arc::clone(&connections), upstream.to_owned());
        let trigger: Arc<Mutex<Option<Trigger>>> = Arc::default();
        let triggers = Arc::clone(&trigger);
        // Ends with the process.
        std::thread::spawn(move || {
            for program in listener.incoming() {
                let (Ok(program), Ok(server)) = (program, TcpStream::connect(&upstream)) else {
                    continue;
                };
                let connection = Arc::new(Connection {
                    trigger: Arc::clone(&triggers),
                    program,
                    server,
                    holds: AtomicBool::new(false),
                    held: Mutex::default(),
                });
                all.lock().unwrap().push(Arc::clone(&connection));
                let other = Arc::clone(&connection);
                std::thread::spawn(move || connection.forth());
                std::thread::spawn(move || other.back());
            }
        });
        Self {
            port,
            connections,
            trigger,
        }
    }

    pub(super) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What comes on the connections that there are is kept from now on.
    pub(super) fn hold(&self) {
        for connection in self.connections.lock().unwrap().iter() {
            connection.holds.store(true, Ordering::SeqCst);
        }
    }

    fn hold_from(&self, text: &'static str, times: usize) {
        *self.trigger.lock().unwrap() = Some(Trigger { text, times });
    }

    pub(super) fn held(&self) -> usize {
        let connections = self.connections.lock().unwrap();
        connections
            .iter()
            .map(|connection| connection.held.lock().unwrap().len())
            .sum()
    }

    /// The program sees its held connections broken; the server sees nothing.
    fn break_held(&self) {
        for connection in self.connections.lock().unwrap().iter() {
            if connection.holds.load(Ordering::SeqCst) {
                drop(connection.program.shutdown(Shutdown::Both));
            }
        }
    }

    /// The server gets what was kept.
    fn release(&self) {
        for connection in self.connections.lock().unwrap().iter() {
            let held = std::mem::take(&mut *connection.held.lock().unwrap());
            (&connection.server).write_all(&held).unwrap();
        }
    }
}

impl Connection {
    fn forth(&self) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = (&self.program).read(&mut bytes) {
            self.look(&bytes[..count]);
            if self.holds.load(Ordering::SeqCst) {
                self.held.lock().unwrap().extend(&bytes[..count]);
            } else if (&self.server).write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        if !self.holds.load(Ordering::SeqCst) {
            drop(self.server.shutdown(Shutdown::Both));
        }
    }

    fn look(&self, bytes: &[u8]) {
        let mut trigger = self.trigger.lock().unwrap();
        let Some(Trigger { text, times }) = trigger.as_mut() else {
            return;
        };
        if String::from_utf8_lossy(bytes).contains(*text) {
            *times -= 1;
        }
        if *times == 0 {
            *trigger = None;
            self.holds.store(true, Ordering::SeqCst);
        }
    }

    fn back(&self) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = (&self.server).read(&mut bytes) {
            // Nobody may be there any more.
            drop((&self.program).write_all(&bytes[..count]));
        }
        if !self.holds.load(Ordering::SeqCst) {
            drop(self.program.shutdown(Shutdown::Both));
        }
    }
}

const GHOST: &str = "document:ghost#viewer@user:eve";

fn apply_by(proxy: &Holding, target: &Server) -> Program {
    Program::through(&proxy.endpoint(), "spice-apply", target).timeout(PATIENCE)
}

fn stands_behind_the_first(file: &Path) {
    wait_until("the position is behind the first", PATIENCE, || {
        file.exists() && position(file)["sourceRevision"] == token(2)
    });
}

fn stalled_touch_that_lands_after_its_delete_is_taken_back(datastore: Datastore) {
    let (server, folder) = (Server::start(datastore), folder());
    let proxy = Holding::to(server.endpoint());
    let file = folder.path().join("position");
    let end = token(9);
    let program = apply_by(&proxy, &server).arg("--position").arg(&file);
    let mut program = program.args(["--until", &end]).input_later().spawn();
    let mut stdin = program.take_stdin();
    let mut lines = Lines::default();
    let first = [header(1), transaction(2, &[touch("first")])];
    stdin.write_all(lines.add(&first).as_bytes()).unwrap();
    stands_behind_the_first(&file);
    proxy.hold();
    let mut said = [transaction(3, &[touch("ghost"), touch("real")])];
    stdin.write_all(lines.add(&said).as_bytes()).unwrap();
    wait_until("the touch is under way", PATIENCE, || proxy.held() > 100);
    program.wait_until_blocked();
    assert!(
        oracle::lookup(&server, GHOST).is_none(),
        "it has not arrived"
    );
    proxy.break_held();
    wait_until("it was repeated", PATIENCE, || {
        oracle::lookup(&server, GHOST).is_some()
    });
    said = [transaction(4, &[delete("ghost")])];
    stdin.write_all(lines.add(&said).as_bytes()).unwrap();
    wait_until("it was deleted", PATIENCE, || {
        oracle::lookup(&server, GHOST).is_none()
    });
    proxy.release();
    wait_until("the late write has arrived", PATIENCE, || {
        oracle::lookup(&server, GHOST).is_some()
    });
    // An apply that resumes after a crash finds it, and does not resume behind it.
    assert!(
        position(&file)["ambiguousUntil"].is_string(),
        "{}",
        position(&file)
    );
    assert_eq!(position(&file)["sourceRevision"], token(2));
    let ends = [super::checkpoint(9), trailer(9)];
    stdin.write_all(lines.add(&ends).as_bytes()).unwrap();
    drop(stdin);
    let finished = program.wait().expect_success();
    assert!(
        finished.stderr.contains("was applied late"),
        "{}",
        finished.stderr
    );
    assert!(
        oracle::lookup(&server, GHOST).is_none(),
        "{}",
        finished.stderr
    );
    assert_eq!(super::ids(&server), ["first", "real"]);
    assert_eq!(position(&file)["sourceRevision"], end);
    assert!(position(&file)["ambiguousUntil"].is_null());
    // No pair was claimed in between.
    let printed = super::applied(&finished.stdout);
    let paired = |revision| {
        let of = |one: &&serde_json::Value| one["sourceRevision"] == token(revision);
        printed.iter().find(of).map(|one| one["syncPoint"].clone())
    };
    assert_eq!(paired(4), Some(serde_json::Value::Null));
    assert_eq!(paired(9), Some(true.into()));
}

#[test]
fn touch_landing_late_on_postgres_is_taken_back() {
    stalled_touch_that_lands_after_its_delete_is_taken_back(Datastore::Postgres);
}

#[test]
fn touch_landing_late_in_memory_is_taken_back() {
    stalled_touch_that_lands_after_its_delete_is_taken_back(Datastore::Memory);
}

#[test]
fn resumed_apply_waits_for_an_ambiguous_write() {
    let (server, folder) = (Server::start(Datastore::Postgres), folder());
    oracle::write_schema(&server, SCHEMA);
    let proxy = Holding::to(server.endpoint());
    let file = folder.path().join("position");
    let program = || apply_by(&proxy, &server).arg("--position").arg(&file);
    let mut killed = program().input_later().spawn();
    let mut stdin = killed.take_stdin();
    let mut lines = Lines::default();
    let first = [header(1), transaction(2, &[touch("first")])];
    stdin.write_all(lines.add(&first).as_bytes()).unwrap();
    stands_behind_the_first(&file);
    proxy.hold();
    let ghost = transaction(3, &[touch("ghost")]);
    stdin.write_all(lines.add([&ghost]).as_bytes()).unwrap();
    wait_until("the touch is under way", PATIENCE, || proxy.held() > 100);
    killed.wait_until_blocked();
    proxy.break_held();
    wait_until("it was repeated", PATIENCE, || {
        oracle::lookup(&server, GHOST).is_some()
    });
    killed.kill9();
    assert_eq!(killed.wait().signal(), Some(9));
    let changes = [
        transaction(2, &[touch("first")]),
        ghost,
        transaction(4, &[delete("ghost")]),
        super::checkpoint(4),
    ];
    let again = program()
        .input(sealed(&changes, 4))
        .args(["--until", &token(4)])
        .spawn();
    again.wait_for_stderr("may still be applied late", PATIENCE);
    oracle::write(&server, "delete", "document:ghost#viewer@user:eve");
    proxy.release();
    wait_until("the late write has arrived", PATIENCE, || {
        oracle::lookup(&server, GHOST).is_some()
    });
    again.wait().expect_success();
    assert_eq!(super::ids(&server), ["first"]);
    assert!(position(&file)["ambiguousUntil"].is_null());
}

#[test]
fn schema_that_is_written_late_over_a_newer_one_is_taken_back() {
    const WITH_EDITOR: &str = "definition user {}\n\ndefinition document {\n\
                               \trelation viewer: user\n\trelation editor: user\n}";
    let (server, folder) = (Server::start(Datastore::Postgres), folder());
    let proxy = Holding::to(server.endpoint());
    let file = folder.path().join("position");
    let end = token(9);
    let program = apply_by(&proxy, &server).arg("--position").arg(&file);
    let mut program = program.args(["--until", &end]).input_later().spawn();
    let mut stdin = program.take_stdin();
    let mut lines = Lines::default();
    let mut say = |records: &[&serde_json::Value]| {
        let text = lines.add(records.iter().copied());
        stdin.write_all(text.as_bytes()).unwrap();
    };
    say(&[&header(1), &transaction(2, &[touch("first")])]);
    stands_behind_the_first(&file);
    // The first time it is asked how that schema differs; the second time it is written.
    proxy.hold_from("editor", 2);
    say(&[&super::schema(3, WITH_EDITOR)]);
    wait_until("the schema is under way", PATIENCE, || proxy.held() > 50);
    program.wait_until_blocked();
    let has_editor = || oracle::read_schema(&server).contains("editor");
    assert!(!has_editor(), "it has not arrived");
    proxy.break_held();
    wait_until("it was repeated", PATIENCE, has_editor);
    say(&[&super::schema(4, SCHEMA)]);
    wait_until("the newer one is there", PATIENCE, || !has_editor());
    proxy.release();
    wait_until("the late one has arrived", PATIENCE, has_editor);
    assert!(position(&file)["ambiguousUntil"].is_string());
    say(&[&super::checkpoint(9), &trailer(9)]);
    drop(stdin);
    program.wait().expect_success();
    assert!(!has_editor(), "{}", oracle::read_schema(&server));
    assert!(position(&file)["ambiguousUntil"].is_null());
    assert_eq!(position(&file)["sourceRevision"], end);
}
