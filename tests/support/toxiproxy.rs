//! Toxiproxy in front of a server: latency, stalls, limits and cut connections, steered by its HTTP
//! API.

use super::{free_port, output_of, spicedb_script, wait_until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A proxy of its own to one upstream. Toxics act on what the server sends ([`Proxy::toxic`] takes
/// both ways); everything is gone when it is dropped.
pub struct Proxy {
    process: Child,
    api: u16,
    port: u16,
}

impl Proxy {
    /// Starts a proxy to `upstream`, a server's endpoint.
    pub fn to(upstream: &str) -> Self {
        let program = output_of(spicedb_script().arg("toxiproxy"));
        let (api, port) = (free_port(), free_port());
        let process = Command::new(program.trim())
            .args(["-host", "127.0.0.1", "-port", &api.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("toxiproxy can be started");
        let proxy = Self { process, api, port };
        let up = || TcpStream::connect(("127.0.0.1", api)).is_ok();
        wait_until("toxiproxy answers", Duration::from_secs(60), up);
        let listen = format!("127.0.0.1:{port}");
        proxy.call(
            "POST",
            "/proxies",
            &json!({"name": "p", "listen": listen, "upstream": upstream}),
        );
        proxy
    }

    /// What a program connects to instead of the server.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Delays everything by `delay` each way.
    pub fn latency(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("a short delay");
        self.toxic("latency", "downstream", &json!({"latency": delay}));
        self.toxic("latency", "upstream", &json!({"latency": delay}));
    }

    /// Nothing comes through any more, either way; connections stay open.
    pub fn stall(&self) {
        self.toxic("timeout", "downstream", &json!({"timeout": 0}));
        self.toxic("timeout", "upstream", &json!({"timeout": 0}));
    }

    /// Resets every connection after `delay`.
    pub fn reset_peer(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("a short delay");
        self.toxic("reset_peer", "downstream", &json!({"timeout": delay}));
    }

    /// Closes every connection after the server has sent so many bytes on it.
    pub fn close_after_received(&self, bytes: u64) {
        self.toxic("limit_data", "downstream", &json!({"bytes": bytes}));
    }

    /// Closes every connection after the program has sent so many bytes on it.
    pub fn close_after_sent(&self, bytes: u64) {
        self.toxic("limit_data", "upstream", &json!({"bytes": bytes}));
    }

    /// Lets through at most so many KB a second of what the server sends.
    pub fn bandwidth(&self, kilobytes: u64) {
        self.toxic("bandwidth", "downstream", &json!({"rate": kilobytes}));
    }

    /// Adds a toxic of this kind; one a kind and way, a later one replaces it.
    pub fn toxic(&self, kind: &str, way: &str, attributes: &Value) {
        let name = format!("{kind}-{way}");
        drop(self.request("DELETE", &format!("/proxies/p/toxics/{name}"), &Value::Null));
        let toxic = json!({"name": name, "type": kind, "stream": way, "attributes": attributes});
        self.call("POST", "/proxies/p/toxics", &toxic);
    }

    /// Removes all toxics.
    pub fn heal(&self) {
        let toxics: Value =
            serde_json::from_str(&self.call("GET", "/proxies/p/toxics", &Value::Null))
                .expect("a list of toxics");
        for name in toxics
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|toxic| toxic["name"].as_str())
        {
            self.call("DELETE", &format!("/proxies/p/toxics/{name}"), &Value::Null);
        }
    }

    /// Closes all connections and refuses new ones.
    pub fn disable(&self) {
        self.call("POST", "/proxies/p", &json!({"enabled": false}));
    }

    pub fn enable(&self) {
        self.call("POST", "/proxies/p", &json!({"enabled": true}));
    }

    /// Closes all connections; new ones are welcome at once.
    pub fn cut(&self) {
        self.disable();
        self.enable();
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> String {
        let (status, answer) = self.request(method, path, body).expect("toxiproxy answers");
        assert!(
            (200..300).contains(&status),
            "toxiproxy: {method} {path} {body}: {status} {answer}"
        );
        answer
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> std::io::Result<(u16, String)> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut stream = TcpStream::connect(("127.0.0.1", self.api))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        Ok((
            status,
            answer
                .split_once("\r\n\r\n")
                .map_or_else(String::new, |(_, body)| body.to_owned()),
        ))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
