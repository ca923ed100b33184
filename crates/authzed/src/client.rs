//! The calls.

mod learn_offers;
mod reflection;
mod schema;
pub(crate) mod shared_channel;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::Stream;
use prost::Message;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

use self::shared_channel::SharedChannel;
use crate::call::{self, Rpc, Transport};
use crate::config::Config;
use crate::diagnose;
use crate::endpoint::Target;
use crate::error::{Error, Kind};
use crate::generated::health::health_check_response::ServingStatus;
use crate::generated::health::{HealthCheckRequest, HealthCheckResponse};
use crate::grpc_only::GrpcOnly;
use crate::import::{self, EncodedRelationships};
use crate::offers::{self, Offers};
use crate::stream::ResponseStream;
use crate::v1::{self, Consistency, ZedToken};
use crate::wire::{self, Answer, UnknownFields};
use crate::zedtoken;

pub use self::reflection::{Difference, compare_descriptors};
pub use self::schema::Schema;

/// A connection to one server, shared by all clones.
///
/// It is opened by the first call, and again when it was lost or has come of age (servers end each
/// connection after `--grpc-max-conn-age`, 30 seconds, when its streams have ended). A call that was
/// not sent because of that is made again; nothing else is retried here. After a call without an answer in time the
/// next ones take another connection.
#[derive(Clone)]
pub struct Client {
    target: Arc<Target>,
    channel: SharedChannel,
    unknown: UnknownFields,
    transaction: usize,
    offers: Offers,
}

/// The answer of a server to a transaction that it has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The zedtoken of the revision that includes it.
    pub token: String,
    /// The version of the server, such as `v1.56.0`; `None` where it keeps that to itself
    /// (`--disable-version-response`).
    pub server_version: Option<String>,
}

/// The largest transaction that a Watch takes by default: what its response may hold in
/// memory, encoded and decoded. Half a million relationships of average size.
const TRANSACTION: usize = 256 << 20;

/// For the connection, the first call and, where that fails, a diagnosis.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

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
    /// Names what is wrong and, in [`Error::cause`], what can be changed: [`Kind::Config`],
    /// [`Kind::Unreachable`], [`Kind::Tls`], [`Kind::Unauthenticated`], [`Kind::Denied`].
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        let mut client = Self::new(config)?;
        let schema = client.first_contact().await?;
        // Tokens have named the datastore for longer than anything else that is missing.
        let names_datastore = |schema: Schema| {
            zedtoken::decode(&schema.read_at).is_ok_and(|token| token.datastore_id.is_some())
        };
        if !schema.is_some_and(names_datastore) {
            client.offers = learn_offers::learn(&client).await?;
        }
        Ok(client)
    }

    /// Makes one cheap call that needs the token: reads the schema.
    async fn first_contact(&self) -> Result<Option<Schema>, Error> {
        let deadline = Instant::now() + FIRST_CONTACT;
        let error = match timeout_at(deadline, self.read_schema()).await {
            Ok(Ok(schema)) => return Ok(schema),
            // Whoever answered speaks what we speak.
            Ok(Err(error)) if error.http_status().is_some() => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => {
                let message = format!("no answer within {} seconds", FIRST_CONTACT.as_secs());
                let error = Error::new(Kind::Unreachable, "connect", &self.name(), message);
                return Err(self.target.with_proxy(error));
            }
        };
        Err(diagnose::explain(error, &self.target, deadline).await)
    }

    /// Checks the configuration; the connection is opened by the first call.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`].
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self::on(Target::new(config)?))
    }

    #[cfg(feature = "testing")]
    pub(crate) fn with_streams(
        config: &Config,
        open: crate::testing::OpenStream,
    ) -> Result<Self, Error> {
        let mut target = Target::new(config)?;
        target.connector.in_memory = Some(open);
        Ok(Self::on(target))
    }

    fn on(target: Target) -> Self {
        let target = Arc::new(target);
        Self {
            channel: SharedChannel::open(&target),
            target,
            unknown: UnknownFields::default(),
            transaction: TRANSACTION,
            offers: Offers::ALL,
        }
    }

    /// A client with a connection of its own, configured as this one.
    ///
    /// Calls in flight here are not disturbed.
    #[must_use]
    pub fn reconnect(&self) -> Self {
        Self {
            channel: SharedChannel::open(&self.target),
            ..self.clone()
        }
    }

    /// The same client, which drops fields that it does not know from relationships and updates, and
    /// counts them, where otherwise such a message is an error: [`Kind::UnknownField`].
    #[must_use]
    pub fn ignore_unknown_fields(mut self) -> Self {
        self.unknown.ignored = true;
        self
    }

    /// How many unknown fields this client and its clones have dropped.
    #[must_use]
    pub fn unknown_fields(&self) -> u64 {
        self.unknown.count.load(Ordering::Relaxed)
    }

    /// The same client, whose Watch takes a transaction of up to this many bytes of memory, encoded and
    /// decoded together. A larger one is an error: [`Kind::AnswerTooLarge`].
    #[must_use]
    pub fn max_transaction(mut self, bytes: usize) -> Self {
        self.transaction = bytes;
        self
    }

    /// What the server offers, as [`connect`](Self::connect) has found it; without that, everything.
    #[must_use]
    pub fn offers(&self) -> Offers {
        self.offers
    }

    /// The endpoint as it was configured.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.target.name
    }

    /// Makes sure that the server still has the revision, by reading at exactly that.
    ///
    /// # Errors
    ///
    /// [`Kind::HistoryLost`] where the revision has expired or never was, and
    /// [`Kind::ForeignDatastore`] where it is another datastore's.
    pub async fn check_revision_exists(&self, token: &str) -> Result<(), Error> {
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
    /// open, the stream ends early and without an error. [Check](Self::check_revision_exists) it afterwards.
    pub fn export(
        &self,
        request: v1::ExportBulkRelationshipsRequest,
    ) -> ResponseStream<v1::ExportBulkRelationshipsResponse> {
        self.responses(Rpc::export(self.offers.bulk), request)
            .with_idle_timeout(self.timeout(), Answer::is_progress)
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
        let rpc = Rpc::import(self.offers.bulk);
        let call = import::call(self.transport(), rpc, requests);
        let response = self.in_time(rpc.name(), Self::IMPORT_TIMEOUT, call);
        Ok(response.await?.num_loaded)
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
        self.unary(Rpc::CHECK_BULK, request, self.timeout()).await
    }

    /// Reads relationships, one a response.
    pub fn read_relationships(
        &self,
        request: v1::ReadRelationshipsRequest,
    ) -> ResponseStream<v1::ReadRelationshipsResponse> {
        self.responses(Rpc::READ, request)
            .with_idle_timeout(self.timeout(), Answer::is_progress)
    }

    /// Writes in one transaction.
    ///
    /// A server before v1.49.0 acknowledges some TOUCHes that change nothing but an expiry without doing
    /// them.
    ///
    /// # Errors
    ///
    /// [`Kind::LimitExceeded`] (1,000 updates by default), [`Kind::Refused`], [`Kind::AlreadyExists`]
    /// and others; see [`Error::is_ambiguous_for_writes`].
    pub async fn write(&self, request: v1::WriteRelationshipsRequest) -> Result<Written, Error> {
        if !self.offers.expiry && request.updates.iter().any(offers::expires) {
            return Err(self.drops_expiry());
        }
        let (rpc, limit) = (Rpc::WRITE, self.write_timeout());
        let (transport, unknown) = (self.transport(), self.unknown.clone());
        let call = async {
            let opened = call::open(transport, rpc, request, Some(limit), unknown).await?;
            call::only_with_version::<v1::WriteRelationshipsResponse>(opened).await
        };
        let (response, server_version) = self.in_time(rpc.name(), limit, call).await?;
        Ok(Written {
            token: self.token(rpc.name(), response.written_at)?,
            server_version,
        })
    }

    /// Writes in one transaction and returns the zedtoken of the revision that includes it.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub async fn write_relationships(
        &self,
        request: v1::WriteRelationshipsRequest,
    ) -> Result<String, Error> {
        self.write(request).await.map(|written| written.token)
    }

    /// Writes an empty transaction and returns its zedtoken.
    ///
    /// It changes nothing, and what was committed before it comes before it: a Watch that has seen
    /// this revision has seen all of that.
    ///
    /// # Errors
    ///
    /// [`Kind::ReadOnly`] and others.
    pub async fn write_marker(&self) -> Result<String, Error> {
        self.write_relationships(v1::WriteRelationshipsRequest::default())
            .await
    }

    /// Follows the changes after a revision.
    ///
    /// A history that has been lost shows as no error here: [check](Self::check_revision_exists) the revision.
    pub fn watch(&self, request: v1::WatchRequest) -> ResponseStream<v1::WatchResponse> {
        self.responses(Rpc::watch(self.transaction), request)
            .unending()
    }

    /// Whether the server reports that it is serving. Needs no token.
    ///
    /// # Errors
    ///
    /// Where it does not answer that.
    pub async fn health(&self) -> Result<bool, Error> {
        let request = HealthCheckRequest::default();
        let response: HealthCheckResponse =
            self.unary(Rpc::HEALTH, request, self.timeout()).await?;
        Ok(response.status() == ServingStatus::Serving)
    }

    /// The connection with the token added to each request.
    pub(crate) fn transport(&self) -> Transport {
        let channel = GrpcOnly(self.channel.get());
        Transport::new(channel, self.target.auth.clone())
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.target.request_timeout
    }

    fn write_timeout(&self) -> Duration {
        self.target.request_timeout.max(Self::MIN_WRITE_TIMEOUT)
    }

    /// A call with one answer, which has to arrive completely within the limit.
    async fn unary<Q, A>(&self, rpc: Rpc, message: Q, limit: Duration) -> Result<A, Error>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Answer,
    {
        let (transport, unknown) = (self.transport(), self.unknown.clone());
        let call = async {
            let opened = call::open(transport, rpc, message, Some(limit), unknown).await?;
            call::only(&mut opened.into_inner()).await
        };
        self.in_time(rpc.name(), limit, call).await
    }

    async fn in_time<T>(
        &self,
        rpc: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let result = match timeout(limit, call).await {
            Ok(result) => result.map_err(|status| self.error(rpc, status)),
            Err(_) => Err(self.deadline(rpc)),
        };
        if result
            .as_ref()
            .is_err_and(|error| error.kind() == Kind::Deadline)
        {
            self.channel.gave_no_answer(began);
        }
        result
    }

    /// A call with a stream of answers.
    fn responses<Q, A>(&self, rpc: Rpc, message: Q) -> ResponseStream<A>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Answer,
    {
        let call = call::open(self.transport(), rpc, message, None, self.unknown.clone());
        ResponseStream::new(rpc.name(), self.name(), call).on(self.channel.clone())
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.target.name)
    }

    fn token(&self, rpc: &'static str, token: Option<ZedToken>) -> Result<String, Error> {
        let Some(token) = token.filter(|token| !token.token.is_empty()) else {
            return Err(self.malformed(rpc, "no zedtoken in the answer"));
        };
        match wire::check_token(&token) {
            Ok(()) => Ok(token.token),
            Err(fault) => Err(Error::from_fault(rpc, &self.target.name, &fault)),
        }
    }

    fn error(&self, rpc: &'static str, status: Status) -> Error {
        self.target.error(rpc, status)
    }

    pub(crate) fn deadline(&self, rpc: &'static str) -> Error {
        self.target.deadline(rpc)
    }

    pub(crate) fn malformed(&self, rpc: &'static str, what: &str) -> Error {
        Error::new(Kind::Malformed, rpc, &self.target.name, what.to_owned())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.target.name)
            .finish_non_exhaustive()
    }
}
