//! The calls.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::connect::{Auth, Config, Target};
use crate::contact;
use crate::error::{Error, Kind, was_not_sent};
use crate::generated::health::HealthCheckRequest;
use crate::generated::health::health_check_response::ServingStatus;
use crate::generated::health::health_client::HealthClient;
use crate::import::{self, EncodedRelationships};
use crate::stream::Responses;
use crate::v1::permissions_service_client::PermissionsServiceClient;
use crate::v1::schema_service_client::SchemaServiceClient;
use crate::v1::watch_service_client::WatchServiceClient;
use crate::v1::{self, Consistency, ZedToken};
use crate::zedtoken;

/// A connection to one server, shared by all clones.
///
/// It is opened by the first call, and again when it was lost or has come of age (servers end each
/// connection after `--grpc-max-conn-age`, 30 seconds, when its streams have ended). A call that was
/// not sent because of that is made again; nothing else is retried here.
#[derive(Clone)]
pub struct Client {
    target: Arc<Target>,
    channel: Channel,
}

/// A server's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Its text, as the server has normalised it: definitions by name, comments within them kept.
    pub text: String,
    /// The zedtoken of the head revision at which it was read.
    pub read_at: String,
}

/// How often a call is made again that its connection gave back unsent.
const RESENDS: usize = 3;

/// Makes a call, and makes it again where its connection came of age just then. The size of messages
/// is not limited either way: a response of Watch is one transaction, however large.
macro_rules! call {
    ($self:ident, $client:ident.$method:ident($message:expr), $limit:expr) => {{
        let service = $client::new($self.transport())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        let (message, limit): (_, Option<Duration>) = ($message, $limit);
        async move {
            let mut resends = RESENDS;
            loop {
                let mut request = Request::new(message.clone());
                if let Some(limit) = limit {
                    request.set_timeout(limit);
                }
                match service.clone().$method(request).await {
                    Err(status) if resends > 0 && was_not_sent(&status) => resends -= 1,
                    result => break result,
                }
            }
        }
    }};
}

/// A call with one answer, which has to come in time.
macro_rules! unary {
    ($self:ident, $rpc:literal, $client:ident.$method:ident($message:expr), $limit:expr) => {{
        let limit = $limit;
        let call = call!($self, $client.$method($message), Some(limit));
        $self.unary($rpc, limit, call).await
    }};
}

/// A call with a stream of answers, which may take as long as it takes.
macro_rules! stream {
    ($self:ident, $rpc:literal, $client:ident.$method:ident($message:expr)) => {
        $self.responses($rpc, call!($self, $client.$method($message), None))
    };
}

impl Client {
    /// The least time that a write waits for its answer. One that was given up too early may still
    /// be applied, and then after later writes.
    pub const MIN_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

    /// How long an import waits for its end: far longer than the 30 seconds in which PostgreSQL and
    /// MySQL end it themselves. In memory it waits for as long as another import is open.
    pub const IMPORT_TIMEOUT: Duration = Duration::from_secs(180);

    /// Connects and makes sure, within five seconds, that the server can be used: it answers, in
    /// the way that is configured, and accepts the token.
    ///
    /// # Errors
    ///
    /// Says what is wrong and, in [`Error::hint`], what to change: [`Kind::Config`],
    /// [`Kind::Unreachable`], [`Kind::Tls`], [`Kind::Unauthenticated`], [`Kind::Denied`].
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let client = Self::new(config)?;
        contact::first(&client, &client.target).await?;
        Ok(client)
    }

    /// Checks the configuration; the connection is opened by the first call.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`].
    pub fn new(config: &Config) -> Result<Self, Error> {
        let target = Arc::new(Target::new(config)?);
        Ok(Self {
            channel: target.open(),
            target,
        })
    }

    /// A client with a connection of its own, configured as this one.
    ///
    /// Calls in flight here are not disturbed.
    #[must_use]
    pub fn reconnect(&self) -> Self {
        Self {
            target: Arc::clone(&self.target),
            channel: self.target.open(),
        }
    }

    /// The endpoint as it was configured.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.target.name
    }

    /// The server's version, such as `v1.56.0`; `None` where it does not tell.
    ///
    /// # Errors
    ///
    /// Those of reading the schema.
    pub async fn server_version(&self) -> Result<Option<String>, Error> {
        let mut request = Request::new(v1::ReflectSchemaRequest::default());
        request
            .metadata_mut()
            .insert("io.spicedb.requestversion", MetadataValue::from_static("1"));
        let mut service = SchemaServiceClient::new(self.transport());
        let call = service.reflect_schema(request);
        let response = self.unary("ReflectSchema", self.timeout(), call).await?;
        let version = response.metadata().get("io.spicedb.debug.version");
        Ok(version
            .and_then(|version| version.to_str().ok())
            .map(str::to_owned))
    }

    /// The newest schema; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Any, but not [`Kind::NoSchema`].
    pub async fn read_schema(&self) -> Result<Option<Schema>, Error> {
        let request = v1::ReadSchemaRequest {};
        match unary!(
            self,
            "ReadSchema",
            SchemaServiceClient.read_schema(request),
            self.timeout()
        ) {
            Ok(response) => {
                let response = response.into_inner();
                Ok(Some(Schema {
                    text: response.schema_text,
                    read_at: self.token("ReadSchema", response.read_at)?,
                }))
            }
            Err(error) if error.kind() == Kind::NoSchema => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the schema and returns the zedtoken of the revision that has the new one.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`] where it does not parse, or existing relationships would not fit it.
    pub async fn write_schema(&self, text: impl Into<String>) -> Result<String, Error> {
        let request = v1::WriteSchemaRequest {
            schema: text.into(),
        };
        let response = unary!(
            self,
            "WriteSchema",
            SchemaServiceClient.write_schema(request),
            self.write_timeout()
        )?;
        self.token("WriteSchema", response.into_inner().written_at)
    }

    /// The schema's definitions and caveats at a revision; none where there is no schema.
    ///
    /// # Errors
    ///
    /// [`Kind::HistoryLost`] and [`Kind::ForeignDatastore`] with an exact revision.
    pub async fn reflect_schema(
        &self,
        consistency: Consistency,
    ) -> Result<v1::ReflectSchemaResponse, Error> {
        let request = v1::ReflectSchemaRequest {
            consistency: Some(consistency),
            optional_filters: Vec::new(),
        };
        unary!(
            self,
            "ReflectSchema",
            SchemaServiceClient.reflect_schema(request),
            self.timeout()
        )
        .map(Response::into_inner)
    }

    /// How the schema at a revision differs from `text`; no differences: it is the same.
    ///
    /// # Errors
    ///
    /// [`Kind::HistoryLost`] and [`Kind::ForeignDatastore`] with an exact revision;
    /// [`Kind::Refused`] where the text does not parse.
    pub async fn diff_schema(
        &self,
        consistency: Consistency,
        text: impl Into<String>,
    ) -> Result<v1::DiffSchemaResponse, Error> {
        let request = v1::DiffSchemaRequest {
            consistency: Some(consistency),
            comparison_schema: text.into(),
        };
        unary!(
            self,
            "DiffSchema",
            SchemaServiceClient.diff_schema(request),
            self.timeout()
        )
        .map(Response::into_inner)
    }

    /// The zedtoken of the newest revision.
    ///
    /// On PostgreSQL it names no transaction, so a Watch can start from it but not wait for it.
    ///
    /// # Errors
    ///
    /// Those of reading the schema.
    pub async fn head(&self) -> Result<String, Error> {
        if let Some(schema) = self.read_schema().await? {
            return Ok(schema.read_at);
        }
        let response = self.reflect_schema(Consistency::fully_consistent()).await?;
        self.token("ReflectSchema", response.read_at)
    }

    /// Makes sure that the server still has the revision, by reading at exactly that.
    ///
    /// # Errors
    ///
    /// [`Kind::HistoryLost`] where the revision has expired or never was, and
    /// [`Kind::ForeignDatastore`] where it is another datastore's.
    pub async fn probe(&self, token: &str) -> Result<(), Error> {
        let request = v1::ExportBulkRelationshipsRequest {
            consistency: Some(Consistency::at_exact(token)),
            optional_limit: 1,
            ..Default::default()
        };
        let mut responses = self.export(request);
        match responses.message().await {
            Ok(_) => Ok(()),
            // A server cannot read the revision of another kind of datastore.
            Err(error)
                if error.message().contains("invalid revision requested")
                    && zedtoken::decode(token).is_ok() =>
            {
                Err(error.with_kind(Kind::ForeignDatastore))
            }
            Err(error) => Err(error),
        }
    }

    /// Exports relationships in pages, in the server's order, at one revision.
    ///
    /// PostgreSQL checks the revision only when the call starts: if it expires while the stream is
    /// open, the stream ends early and without an error. [`probe`](Self::probe) it afterwards.
    pub fn export(
        &self,
        request: v1::ExportBulkRelationshipsRequest,
    ) -> Responses<v1::ExportBulkRelationshipsResponse> {
        stream!(
            self,
            "ExportBulkRelationships",
            PermissionsServiceClient.export_bulk_relationships(request)
        )
        .within(self.timeout())
    }

    /// Imports relationships in one transaction and returns how many the server loaded.
    ///
    /// Everything is rolled back when one is refused, when the stream of requests is dropped before
    /// its end, and on PostgreSQL and MySQL when it takes longer than 30 seconds in all.
    ///
    /// # Errors
    ///
    /// [`Kind::AlreadyExists`], [`Kind::Refused`], [`Kind::StreamTimeout`], [`Kind::MessageTooLarge`]
    /// and others.
    pub async fn import(
        &self,
        requests: impl Stream<Item = EncodedRelationships> + Send + 'static,
    ) -> Result<u64, Error> {
        timeout(
            Self::IMPORT_TIMEOUT,
            import::call(self.transport(), requests),
        )
        .await
        .map_err(|_| self.deadline("ImportBulkRelationships"))?
        .map(|response| response.into_inner().num_loaded)
        .map_err(|status| self.error("ImportBulkRelationships", status))
    }

    /// Asks many questions at one revision; the answers come in the order of the questions, and a
    /// question that cannot be answered has an error of its own.
    ///
    /// # Errors
    ///
    /// [`Kind::HistoryLost`] and [`Kind::ForeignDatastore`] with an exact revision; [`Kind::Refused`]
    /// for more questions than the server takes in one call.
    pub async fn check_bulk(
        &self,
        request: v1::CheckBulkPermissionsRequest,
    ) -> Result<v1::CheckBulkPermissionsResponse, Error> {
        unary!(
            self,
            "CheckBulkPermissions",
            PermissionsServiceClient.check_bulk_permissions(request),
            self.timeout()
        )
        .map(Response::into_inner)
    }

    /// Reads relationships, one a response.
    pub fn read_relationships(
        &self,
        request: v1::ReadRelationshipsRequest,
    ) -> Responses<v1::ReadRelationshipsResponse> {
        stream!(
            self,
            "ReadRelationships",
            PermissionsServiceClient.read_relationships(request)
        )
    }

    /// Writes in one transaction and returns the zedtoken of the revision that includes it.
    ///
    /// # Errors
    ///
    /// [`Kind::LimitExceeded`] (1,000 updates by default), [`Kind::Refused`], [`Kind::AlreadyExists`]
    /// and others; see [`Error::is_ambiguous_for_writes`].
    pub async fn write_relationships(
        &self,
        request: v1::WriteRelationshipsRequest,
    ) -> Result<String, Error> {
        let response = unary!(
            self,
            "WriteRelationships",
            PermissionsServiceClient.write_relationships(request),
            self.write_timeout()
        )?;
        self.token("WriteRelationships", response.into_inner().written_at)
    }

    /// Writes an empty transaction and returns its zedtoken.
    ///
    /// It changes nothing, and what was committed before it comes before it: a Watch that has seen
    /// this revision has seen all of that.
    ///
    /// # Errors
    ///
    /// [`Kind::ReadOnly`] and others.
    pub async fn mark(&self) -> Result<String, Error> {
        self.write_relationships(v1::WriteRelationshipsRequest::default())
            .await
    }

    /// Follows the changes after a revision.
    ///
    /// A history that has been lost shows as no error here: [`probe`](Self::probe) the revision.
    pub fn watch(&self, request: v1::WatchRequest) -> Responses<v1::WatchResponse> {
        stream!(self, "Watch", WatchServiceClient.watch(request))
    }

    /// Whether the server says that it is serving. Needs no token.
    ///
    /// # Errors
    ///
    /// Where it does not answer that.
    pub async fn health(&self) -> Result<bool, Error> {
        let request = HealthCheckRequest::default();
        let response = unary!(self, "Check", HealthClient.check(request), self.timeout())?;
        Ok(response.into_inner().status() == ServingStatus::Serving)
    }

    /// The connection with the token added to each request.
    pub(crate) fn transport(&self) -> InterceptedService<Channel, Auth> {
        InterceptedService::new(self.channel.clone(), self.target.auth.clone())
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.target.request_timeout
    }

    fn write_timeout(&self) -> Duration {
        self.target.request_timeout.max(Self::MIN_WRITE_TIMEOUT)
    }

    async fn unary<T>(
        &self,
        rpc: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Response<T>, Error> {
        match timeout(limit, call).await {
            Ok(result) => result.map_err(|status| self.error(rpc, status)),
            Err(_) => Err(self.deadline(rpc)),
        }
    }

    pub(crate) fn responses<T>(
        &self,
        rpc: &'static str,
        call: impl Future<Output = Result<Response<tonic::Streaming<T>>, Status>> + Send + 'static,
    ) -> Responses<T> {
        Responses::new(rpc, Arc::clone(&self.target.name), call)
    }

    fn token(&self, rpc: &'static str, token: Option<ZedToken>) -> Result<String, Error> {
        match token {
            Some(token) if !token.token.is_empty() => Ok(token.token),
            _ => Err(self.malformed(rpc, "no zedtoken in the answer")),
        }
    }

    fn error(&self, rpc: &'static str, status: Status) -> Error {
        Error::from_status(rpc, &self.target.name, status)
    }

    pub(crate) fn deadline(&self, rpc: &'static str) -> Error {
        Error::deadline(rpc, &self.target.name)
    }

    pub(crate) fn malformed(&self, rpc: &'static str, what: &str) -> Error {
        Error::new(Kind::Other, rpc, &self.target.name, what.to_owned())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.target.name)
            .finish_non_exhaustive()
    }
}
