//! How every call is made.

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use crate::endpoint::Auth;
use crate::error::{Fault, was_not_sent};
use crate::grpc_only::GrpcOnly;
use crate::offers::Place;
use crate::wire::{Answer, AnswerCodec, Limits, UnknownFields};

/// A connection with the token added to each request.
pub(crate) type Transport = InterceptedService<GrpcOnly, Auth>;

/// How often a call is made again that its connection gave back unsent.
const RESENDS: usize = 3;

/// Asks a server for its version, and where the answer has it: among its headers (v1.45.4), or its
/// trailers (v1.56.0).
const ASKS_VERSION: &str = "io.spicedb.requestversion";
const VERSION: &str = "io.spicedb.debug.version";

/// A call of the API, and how large an answer it may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rpc {
    path: &'static str,
    pub(crate) limits: Limits,
    asks_version: bool,
}

impl Rpc {
    pub(crate) const READ_SCHEMA: Self = Self::unary("/authzed.api.v1.SchemaService/ReadSchema");
    pub(crate) const WRITE_SCHEMA: Self = Self::unary("/authzed.api.v1.SchemaService/WriteSchema");
    pub(crate) const CHECK_BULK: Self =
        Self::unary("/authzed.api.v1.PermissionsService/CheckBulkPermissions");
    pub(crate) const WRITE: Self =
        Self::unary("/authzed.api.v1.PermissionsService/WriteRelationships").asking_version();
    pub(crate) const HEALTH: Self = Self::unary("/grpc.health.v1.Health/Check");
    pub(crate) const READ: Self = Self {
        path: "/authzed.api.v1.PermissionsService/ReadRelationships",
        limits: Limits::PAGE,
        asks_version: false,
    };

    /// ReflectSchema.
    pub(crate) const fn reflect_schema(place: Place) -> Self {
        Self::unary(match place {
            Place::Experimental => "/authzed.api.v1.ExperimentalService/ExperimentalReflectSchema",
            Place::Stable | Place::Nowhere => "/authzed.api.v1.SchemaService/ReflectSchema",
        })
    }

    /// DiffSchema.
    pub(crate) const fn diff_schema(place: Place) -> Self {
        Self::unary(match place {
            Place::Experimental => "/authzed.api.v1.ExperimentalService/ExperimentalDiffSchema",
            Place::Stable | Place::Nowhere => "/authzed.api.v1.SchemaService/DiffSchema",
        })
    }

    /// ImportBulkRelationships.
    pub(crate) const fn import(place: Place) -> Self {
        Self::unary(match place {
            Place::Experimental => "/authzed.api.v1.ExperimentalService/BulkImportRelationships",
            Place::Stable | Place::Nowhere => {
                "/authzed.api.v1.PermissionsService/ImportBulkRelationships"
            }
        })
    }

    /// ExportBulkRelationships.
    pub(crate) const fn export(place: Place) -> Self {
        Self {
            path: match place {
                Place::Experimental => {
                    "/authzed.api.v1.ExperimentalService/BulkExportRelationships"
                }
                Place::Stable | Place::Nowhere => {
                    "/authzed.api.v1.PermissionsService/ExportBulkRelationships"
                }
            },
            limits: Limits::PAGE,
            asks_version: false,
        }
    }

    pub(crate) const fn watch(memory: usize) -> Self {
        Self {
            path: "/authzed.api.v1.WatchService/Watch",
            limits: Limits::transaction(memory),
            asks_version: false,
        }
    }

    const fn unary(path: &'static str) -> Self {
        Self {
            path,
            limits: Limits::UNARY,
            asks_version: false,
        }
    }

    /// The same call, which also asks for the version of the server.
    pub(crate) const fn asking_version(self) -> Self {
        Self {
            asks_version: true,
            ..self
        }
    }

    /// Its name in the API.
    pub(crate) fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }

    pub(crate) fn path(&self) -> PathAndQuery {
        PathAndQuery::from_static(self.path)
    }
}

/// Makes a call, and makes it again where its connection came of age just then. With a limit the
/// server gets a deadline for its answer.
pub(crate) async fn open<Q, A>(
    transport: Transport,
    rpc: Rpc,
    message: Q,
    limit: Option<Duration>,
    unknown: UnknownFields,
) -> Result<Response<Streaming<A>>, Status>
where
    Q: Message + Clone + Send + Sync + 'static,
    A: Answer,
{
    let mut resends = RESENDS;
    loop {
        let mut request = Request::new(message.clone());
        if let Some(limit) = limit {
            request.set_timeout(limit);
        }
        if rpc.asks_version {
            let metadata = request.metadata_mut();
            metadata.insert(ASKS_VERSION, MetadataValue::from_static("1"));
        }
        let mut grpc = grpc(transport.clone(), rpc);
        let opened = async {
            ready(&mut grpc).await?;
            let codec = AnswerCodec::<Q, A>::new(rpc.limits, unknown.clone());
            grpc.server_streaming(request, rpc.path(), codec).await
        };
        match opened.await {
            Err(status) if resends > 0 && was_not_sent(&status) => resends -= 1,
            result => return result,
        }
    }
}

pub(crate) fn grpc(transport: Transport, rpc: Rpc) -> Grpc<Transport> {
    Grpc::new(transport)
        .max_decoding_message_size(rpc.limits.wire)
        .max_encoding_message_size(usize::MAX)
}

pub(crate) async fn ready(grpc: &mut Grpc<Transport>) -> Result<(), Status> {
    grpc.ready().await.map_err(Status::from_error)
}

/// The one message of an answer, and the version of the server that gave it, such as `v1.56.0`, where it
/// sends it.
pub(crate) async fn only_with_version<A>(
    answer: Response<Streaming<A>>,
) -> Result<(A, Option<String>), Status> {
    let in_headers = version_in(answer.metadata());
    let mut stream = answer.into_inner();
    let message = only(&mut stream).await?;
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok((message, version_in(&trailers).or(in_headers)))
}

/// The version of the server in headers, in trailers, or with an error.
pub(crate) fn version_in(metadata: &MetadataMap) -> Option<String> {
    let value = metadata.get(VERSION)?;
    value.to_str().ok().map(str::to_owned)
}

/// The one message of an answer, which must have no other.
pub(crate) async fn only<A>(stream: &mut Streaming<A>) -> Result<A, Status> {
    let malformed = |what: &str| Status::from_error(Box::new(Fault::malformed(what)));
    let Some(message) = stream.message().await? else {
        return Err(malformed("no message in the answer"));
    };
    match stream.message().await? {
        None => Ok(message),
        Some(_) => Err(malformed("more than one message in the answer")),
    }
}
