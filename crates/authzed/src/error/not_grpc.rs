//! HTTP answers of proxies and web servers in SpiceDB's place.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use super::{Cause, Kind};

/// A content type is the other side's text: this many characters of it are shown.
const TYPE_CHARACTERS: usize = 60;

/// An HTTP answer without gRPC in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotGrpc {
    status: StatusCode,
    content_type: Option<String>,
}

impl NotGrpc {
    pub(crate) fn find(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        // A proxy that speaks gRPC sends its own status; 0 with an HTTP error is not one.
        if headers.get("grpc-status").is_some_and(|code| code != "0") {
            return None;
        }
        let content_type = headers
            .get(CONTENT_TYPE)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let is_grpc = content_type.as_deref().is_some_and(is_grpc);
        (status != StatusCode::OK || !is_grpc).then_some(Self {
            status,
            content_type,
        })
    }

    pub(crate) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.status() {
            401 => Kind::Unauthenticated,
            403 => Kind::Denied,
            429 => Kind::Overloaded,
            501 | 505 => Kind::Other,
            408 | 425 | 500.. => Kind::Unavailable,
            _ => Kind::Other,
        }
    }

    pub(crate) fn cause(&self) -> Cause {
        match self.kind() {
            Kind::Unauthenticated | Kind::Denied => Cause::RefusedByProxy,
            Kind::Other => Cause::NotGrpc,
            _ => Cause::ProxyWithoutServer,
        }
    }
}

/// `application/grpc`, with a codec and parameters or not. `application/grpc-web` is another protocol.
fn is_grpc(content_type: &str) -> bool {
    const GRPC: &str = "application/grpc";
    content_type
        .split_at_checked(GRPC.len())
        .is_some_and(|(kind, rest)| {
            kind.eq_ignore_ascii_case(GRPC)
                && (rest.is_empty() || rest.starts_with(['+', ';', ' ']))
        })
}

impl fmt::Display for NotGrpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {}", self.status.as_u16())?;
        if let Some(reason) = self.status.canonical_reason() {
            write!(f, " {reason}")?;
        }
        match &self.content_type {
            Some(content_type) => {
                let one_line = content_type
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ");
                let shown: String = one_line.chars().take(TYPE_CHARACTERS).collect();
                write!(f, ", with {shown}")?;
            }
            None => f.write_str(", with no content type")?,
        }
        f.write_str(": the answer of a proxy or web server, not of SpiceDB")
    }
}

impl std::error::Error for NotGrpc {}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::NotGrpc;
    use crate::error::Kind;

    fn find(status: u16, headers: &[(&'static str, &str)]) -> Option<NotGrpc> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value).unwrap();
                (http::HeaderName::from_static(name), value)
            })
            .collect();
        NotGrpc::find(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn grpc_passes_in_all_its_forms() {
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC; charset=utf-8",
        ] {
            assert_eq!(find(200, &[("content-type", content_type)]), None);
        }
        for content_type in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "text/html",
        ] {
            assert!(find(200, &[("content-type", content_type)]).is_some());
        }
        assert!(find(200, &[]).is_some());
        // A proxy that speaks gRPC sends its own status.
        let headers = [("content-type", "text/plain"), ("grpc-status", "14")];
        assert_eq!(find(503, &headers), None);
        let well = [("content-type", "text/html"), ("grpc-status", "0")];
        assert_eq!(find(503, &well).unwrap().kind(), Kind::Unavailable);
    }

    #[test]
    fn each_http_status_has_its_kind() {
        for (status, kind) in [
            (200, Kind::Other),
            (302, Kind::Other),
            (400, Kind::Other),
            (401, Kind::Unauthenticated),
            (403, Kind::Denied),
            (404, Kind::Other),
            (408, Kind::Unavailable),
            (415, Kind::Other),
            (429, Kind::Overloaded),
            (500, Kind::Unavailable),
            (501, Kind::Other),
            (502, Kind::Unavailable),
            (503, Kind::Unavailable),
            (504, Kind::Unavailable),
            (522, Kind::Unavailable),
            (599, Kind::Unavailable),
        ] {
            let found = find(status, &[("content-type", "text/html")]).unwrap();
            assert_eq!(found.kind(), kind, "{status}");
        }
        let found = find(503, &[("content-type", "application/grpc")]).unwrap();
        assert_eq!(
            found.to_string(),
            "HTTP 503 Service Unavailable, with application/grpc: the answer of a proxy or web server, \
             not of SpiceDB"
        );
        let long = "x".repeat(5_000);
        assert!(
            find(200, &[("content-type", &long)])
                .unwrap()
                .to_string()
                .len()
                < 200
        );
    }
}
