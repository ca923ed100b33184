//! Through which proxy a connection leads: `--proxy`, else the variables that other programs also read.

use std::net::IpAddr;

use authzed::{Proxy, Socket};
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use crate::error::CommandError;

/// In this order; an empty one counts as unset. Plaintext connections also use them: gRPC's clients
/// treat every server as if it had `https://`.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Chooses the proxy of a connection. A setting always counts; the environment counts only for a server
/// that is not on this machine and that no exception names. Messages call the setting `name`.
///
/// # Errors
///
/// Exit 2 where the proxy that was chosen cannot be used.
pub(crate) fn choose(
    setting: Option<&SecretString>,
    name: &str,
    server: &Socket,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, CommandError> {
    let Socket::Tcp { host, port } = server else {
        return Ok(None);
    };
    let (url, source) = match setting.map(ExposeSecret::expose_secret) {
        Some("none") => return Ok(None),
        Some(url) => (url.to_owned(), name),
        None => {
            let set = |name| Some((variable(name)?, name));
            let Some((url, name)) = VARIABLES.into_iter().find_map(set) else {
                return Ok(None);
            };
            let exceptions = EXCEPTIONS.into_iter().find_map(&variable);
            if server.is_local() || is_excepted(host, *port, &exceptions.unwrap_or_default()) {
                return Ok(None);
            }
            (url, name)
        }
    };
    let proxy = Proxy::parse(&url).map_err(|problem| {
        CommandError::usage(format!("{source}: {problem}")).hint(
            "--proxy http://HOST:PORT names another one, --proxy none (or NO_PROXY with the server's name) \
             connects without",
        )
    })?;
    Ok(Some(proxy))
}

/// Whether `NO_PROXY` names a server. The rules are those of Go's net/http, which SpiceDB's other
/// clients follow: `*`; an IP address; a network such as `10.0.0.0/8`; `example.com`, which includes
/// all names below it; `.example.com`, only those. An address or a name may have a port.
fn is_excepted(host: &str, port: u16, exceptions: &str) -> bool {
    let address = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let host = host.to_ascii_lowercase();
    let entries = exceptions.split(|c: char| c == ',' || c.is_whitespace());
    entries.filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Ok(network) = entry.parse::<IpNet>() {
            return address.is_some_and(|address| network.contains(&address));
        }
        let (name, of_port) = name_and_port(entry);
        if of_port.is_some_and(|of_port| of_port != port) {
            return false;
        }
        match name.parse::<IpAddr>() {
            Ok(ip) => address == Some(ip.to_canonical()),
            Err(_) => is_below(&host, name),
        }
    })
}

/// The parts of `host`, `host:port`, `[v6 address]:port` and a bare address.
fn name_and_port(entry: &str) -> (&str, Option<u16>) {
    let bare = |name: &str| !name.contains(':') || name.ends_with(']');
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if bare(name) => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    };
    let unbracketed = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    (unbracketed.unwrap_or(name), port)
}

/// Whether a host is the named domain or below it; with `.` or `*.` in front, only below it.
fn is_below(host: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let name = name
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.'))
        .unwrap_or(&name);
    let (domain, may_be_it) = match name.strip_prefix('.') {
        Some(domain) => (domain, false),
        None => (name, true),
    };
    match host.strip_suffix(domain) {
        _ if domain.is_empty() => false,
        Some("") => may_be_it,
        Some(rest) => rest.ends_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use authzed::ServerAddress;

    use super::*;
    use crate::Exit;

    fn chosen(
        setting: Option<&str>,
        server: &str,
        set: &[(&str, &str)],
    ) -> Result<Option<String>, CommandError> {
        let setting = setting.map(SecretString::from);
        let server = ServerAddress::parse(server).unwrap().socket;
        let variable = |name: &str| {
            let found = set.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let proxy = choose(setting.as_ref(), "--proxy", &server, variable)?;
        Ok(proxy.map(|proxy| proxy.to_string()))
    }

    #[test]
    fn first_variable_that_is_set_counts() {
        let all = [
            ("HTTPS_PROXY", "http://a:1"),
            ("https_proxy", "http://b:1"),
            ("ALL_PROXY", "http://c:1"),
            ("all_proxy", "http://d:1"),
        ];
        for (first, expected) in ["a:1", "b:1", "c:1", "d:1"].into_iter().enumerate() {
            for server in ["db.example:1", "http://db.example", "https://db.example"] {
                let found = chosen(None, server, &all[first..]).unwrap();
                assert_eq!(found.as_deref(), Some(expected));
            }
        }
        let other = [("HTTP_PROXY", "http://a:1"), ("grpc_proxy", "http://b:1")];
        assert_eq!(chosen(None, "db.example:1", &other).unwrap(), None);
    }

    #[test]
    fn this_machine_and_sockets_are_not_proxied_by_the_environment() {
        let set = [("HTTPS_PROXY", "http://a:1")];
        for server in [
            "localhost:1",
            "LOCALHOST:1",
            "127.0.0.1:1",
            "127.1.2.3:1",
            "[::1]:1",
            "unix:/run/db.sock",
        ] {
            assert_eq!(chosen(None, server, &set).unwrap(), None, "{server}");
        }
        assert!(chosen(None, "10.0.0.1:1", &set).unwrap().is_some());
    }

    #[test]
    fn setting_replaces_the_environment() {
        let set = [("HTTPS_PROXY", "socks5://a:1"), ("NO_PROXY", "*")];
        let of = |setting, server| chosen(Some(setting), server, &set).unwrap();
        for server in ["db.example:1", "127.0.0.1:1"] {
            assert_eq!(of("http://b:1", server).as_deref(), Some("b:1"));
            assert_eq!(of("none", server), None);
        }
        assert_eq!(of("http://b:1", "unix:/run/db.sock"), None);
    }

    #[test]
    fn proxy_that_cannot_be_used_is_refused_by_its_source() {
        for (setting, set, source) in [
            (Some("https://me:hunter2@b:1"), &[][..], "--proxy: "),
            (
                None,
                &[("https_proxy", "socks5://me:hunter2@b:1")],
                "https_proxy: ",
            ),
            (None, &[("ALL_PROXY", "me:hunter2")], "ALL_PROXY: "),
        ] {
            let failure = chosen(setting, "db.example:1", set).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message().starts_with(source), "{failure:?}");
            assert!(failure.hint_text().contains("--proxy none"), "{failure:?}");
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
        // Where none is needed it is not looked at.
        let set = [("HTTPS_PROXY", "socks5://b:1"), ("NO_PROXY", "example")];
        assert_eq!(chosen(None, "db.example:1", &set).unwrap(), None);
    }

    #[test]
    fn exceptions_are_those_of_go() {
        for (exceptions, hosts) in [
            ("*", &["db.example", "10.0.0.1", "::2"][..]),
            ("db.example", &["db.example", "DB.Example", "a.db.example"]),
            (".example", &["db.example", "a.db.example"]),
            ("*.example", &["db.example"]),
            ("other, DB.EXAMPLE", &["db.example"]),
            ("other db.example", &["db.example"]),
            ("db.example:50051", &["db.example"]),
            ("10.0.0.1", &["10.0.0.1", "::ffff:10.0.0.1"]),
            ("10.0.0.1:50051,[fd00::1]:50051", &["10.0.0.1", "fd00::1"]),
            ("10.1.2.3/8,fd00::/8", &["10.9.9.9", "fd00::1"]),
            ("fd00::1,[fd00::2]", &["fd00::1", "fd00:0::1", "fd00::2"]),
        ] {
            for host in hosts {
                assert!(is_excepted(host, 50051, exceptions), "{host} {exceptions}");
            }
        }
        for (exceptions, hosts) in [
            ("", &["db.example"][..]),
            (" , ", &["db.example"]),
            (".db.example", &["db.example"]),
            ("b.example", &["db.example"]),
            ("example.com", &["example", "com", "example.com.evil"]),
            ("db.example:443", &["db.example"]),
            ("10.0.0.1:443", &["10.0.0.1"]),
            ("10.0.0.0/8", &["11.0.0.1", "::1", "10.0.0.example"]),
            ("10.0.0.0/33", &["10.0.0.1"]),
            (".", &["db.example"]),
            (":50051", &["db.example"]),
        ] {
            for host in hosts {
                assert!(!is_excepted(host, 50051, exceptions), "{host} {exceptions}");
            }
        }
    }
}
