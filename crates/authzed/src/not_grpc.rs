//! Answers that are no gRPC: what a proxy says in the server's place.
//!
//! Load balancers and gateways answer with an HTTP status and a page of HTML. tonic looks at the body
//! first and calls that a broken message ("invalid compression flag: 60", which is `<`), so that nobody
//! learns whether it is worth waiting. The statuses are read as gRPC's own table reads them
//! (grpc.github.io, "HTTP to gRPC Status Code Mapping"), and with 408, 425 and 5xx (but 501
//! and 505) as transient, too.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response, StatusCode};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{BoxError, Service};

use crate::error::Kind;
use crate::tls::NOT_GRPC_HINT;

/// A content type is somebody else's words: so much of it is shown.
const TYPE_CHARACTERS: usize = 60;

/// A connection of which only gRPC is passed on.
#[derive(Clone)]
pub(crate) struct GrpcOnly(pub(crate) Channel);

impl Service<Request<Body>> for GrpcOnly {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            match NotGrpc::find(answer.status(), answer.headers()) {
                Some(found) => Err(found.into()),
                None => Ok(answer),
            }
        })
    }
}

/// An HTTP answer without gRPC in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotGrpc {
    status: StatusCode,
    content_type: Option<String>,
}

impl NotGrpc {
    fn find(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        // A proxy that speaks gRPC says so itself; but with no HTTP error it says that all is well.
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

    pub(crate) fn hint(&self) -> &'static str {
        match self.kind() {
            Kind::Unauthenticated | Kind::Denied => {
                "something between here and SpiceDB refuses the call, whatever the preshared key is: ask \
                 whoever runs that proxy, gateway or firewall"
            }
            Kind::Other => NOT_GRPC_HINT,
            _ => {
                "a proxy answers in SpiceDB's place: is SpiceDB behind it running? Run the same command \
                 again when it does"
            }
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
        // A proxy that speaks gRPC says so itself.
        let headers = [("content-type", "text/plain"), ("grpc-status", "14")];
        assert_eq!(find(503, &headers), None);
        let well = [("content-type", "text/html"), ("grpc-status", "0")];
        assert_eq!(find(503, &well).unwrap().kind(), Kind::Unavailable);
    }

    #[test]
    fn status_tells_what_can_be_done() {
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
