//! Passes on gRPC answers only.
//!
//! Load balancers and gateways answer with an HTTP status and a page of HTML. tonic looks at the body
//! first and calls that a broken message ("invalid compression flag: 60", which is `<`), so that nobody
//! learns whether it is worth waiting. The statuses are read as gRPC's own table reads them
//! (grpc.github.io, "HTTP to gRPC Status Code Mapping"); 408, 425 and 5xx (but 501 and 505) count as
//! transient as well.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{BoxError, Service};

use crate::error::NotGrpc;

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
