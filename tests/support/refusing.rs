//! A gateway in front of a server that does not let a token make every call (`tests/oracle/refusing.py`).

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::root;
use super::spicedb::Server;

/// Refuses some methods with PERMISSION_DENIED, for as long as this lives.
pub struct Refusing {
    child: Child,
    stdin: Option<ChildStdin>,
    port: String,
}

impl Refusing {
    pub fn to(server: &Server, methods: &[&str]) -> Self {
        let mut child = Command::new(root().join("tests/oracle/run"))
            .args(["--refusing", server.endpoint()])
            .args(methods)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the gateway can be started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the gateway prints its port");
        let port = line.trim().strip_prefix("ready ").expect("it is ready");
        Self {
            stdin: child.stdin.take(),
            port: port.to_owned(),
            child,
        }
    }

    /// What a program connects to instead of the server.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.child.wait());
    }
}
