//! A server without a network, for tests: it holds relationships in memory, and ends its calls as a
//! script requires.
//!
//! Its time is tokio's, so a test that pauses the clock waits for nothing.

mod errors;
mod state;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use authzed::v1::{ObjectReference, Relationship, RelationshipUpdate, SubjectReference};
use authzed::v1::{WriteRelationshipsRequest, relationship_update::Operation};
use authzed::{EncodedRelationships, Error, Kind, Written};
use futures::{Stream, StreamExt as _};
use spice_cli::{CommandError, lock};
use tokio::time::{Instant, sleep};

pub use self::errors::{
    already_exists, deadline, internal, message_too_large, refused, schema_refused,
    too_many_updates, unavailable, unreachable,
};
use self::state::State;
use crate::lookup::{ByKey, key};
use crate::server::{Layout, Server};

/// How a call ends.
#[derive(Clone, Debug)]
pub enum End {
    /// As the relationships and the rules require.
    Normal,
    /// With an error, and without an effect.
    Fails(Error),
    /// The same, so much later.
    FailsAfter(Duration, Error),
    /// With an error, though it is applied so much later: at once for zero.
    AppliedAfter(Duration, Error),
    /// Normally, after so long.
    After(Duration),
    /// Never.
    Hangs,
}

/// A call that was made, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// WriteRelationships, with its updates as [`text`] writes them.
    Write(Vec<String>),
    /// The empty write.
    Marker,
    /// A bulk import of so many relationships.
    Import(usize),
    /// A look-up of so many relationships.
    Lookup(usize),
    /// The head was read.
    Head,
    /// A schema was written.
    WriteSchema(String),
    /// Another connection was taken.
    Reconnect,
}

type Rule = Box<dyn Fn(&RelationshipUpdate) -> Option<Error> + Send>;

/// The server. Clones share everything.
#[derive(Clone)]
pub struct Scripted(Arc<Mutex<State>>);

impl Default for Scripted {
    fn default() -> Self {
        Self::new()
    }
}

impl Scripted {
    /// An empty server: its datastore keeps numbers as revisions, as MySQL does, and it skips no TOUCH.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State::default())))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        let mut state = lock(&self.0);
        state.apply_late(Instant::now());
        state
    }

    /// How the next calls of WriteRelationships end, in order; then all end normally.
    pub fn writes(&self, ends: impl IntoIterator<Item = End>) {
        self.state().writes.extend(ends);
    }

    /// How the next imports end.
    pub fn imports(&self, ends: impl IntoIterator<Item = End>) {
        self.state().imports.extend(ends);
    }

    /// How the next markers end.
    pub fn markers(&self, ends: impl IntoIterator<Item = Result<(), Error>>) {
        self.state().markers.extend(ends);
    }

    /// How the next writes of a schema end.
    pub fn schema_writes(&self, ends: impl IntoIterator<Item = End>) {
        self.state().schema_writes.extend(ends);
    }

    /// Refuses every call with an update for which this returns an error.
    pub fn refuses(&self, rule: impl Fn(&RelationshipUpdate) -> Option<Error> + Send + 'static) {
        self.state().rule = Some(Box::new(rule));
    }

    /// Takes no more updates in a call.
    pub fn max_updates(&self, limit: usize) {
        self.state().max_updates = limit;
    }

    /// Each write and import takes so long.
    pub fn latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// An import takes so long to receive each of its messages.
    pub fn message_time(&self, time: Duration) {
        self.state().message_time = time;
    }

    /// Acknowledges TOUCHes that change only an expiry, and skips them, as an old server does.
    pub fn skips_touches(&self, skips: bool) {
        self.state().skips_touches = skips;
    }

    /// Keeps no expiry.
    pub fn drops_expiries(&self) {
        self.state().keeps_expiry = false;
    }

    /// What an import claims to have loaded.
    pub fn import_counts(&self, counts: impl IntoIterator<Item = u64>) {
        self.state().import_counts.extend(counts);
    }

    /// Its schema, as somebody else writes it.
    pub fn set_schema(&self, text: &str) {
        self.state().schema = Some(text.to_owned());
    }

    /// Its schema.
    #[must_use]
    pub fn schema(&self) -> Option<String> {
        self.state().schema.clone()
    }

    /// Puts relationships there, as somebody else does.
    pub fn put(&self, relationships: impl IntoIterator<Item = Relationship>) {
        let mut state = self.state();
        for relationship in relationships {
            state.relationships.insert(key(&relationship), relationship);
        }
    }

    /// Removes everything, as somebody else does.
    pub fn clear(&self) {
        self.state().relationships.clear();
    }

    /// What it holds, in the order of the keys, expired or not.
    #[must_use]
    pub fn relationships(&self) -> Vec<Relationship> {
        self.state().relationships.values().cloned().collect()
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many updates or relationships each write and import had so far.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        let size = |call: &Call| match call {
            Call::Write(updates) => Some(updates.len()),
            Call::Import(count) => Some(*count),
            _ => None,
        };
        self.state().calls.iter().filter_map(size).collect()
    }

    /// How many writes and imports were in flight at the same time at most.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.state().max_in_flight
    }

    async fn end<T>(
        &self,
        end: End,
        run: impl FnOnce(&mut State) -> Result<T, Error>,
        late: impl FnOnce() -> Vec<RelationshipUpdate>,
    ) -> Result<T, Error> {
        let latency = self.state().latency;
        if !latency.is_zero() {
            sleep(latency).await;
        }
        match end {
            End::Normal => run(&mut self.state()),
            End::After(time) => {
                sleep(time).await;
                run(&mut self.state())
            }
            End::Fails(error) => Err(error),
            End::FailsAfter(time, error) => {
                sleep(time).await;
                Err(error)
            }
            End::AppliedAfter(time, error) if time.is_zero() => {
                let _ = run(&mut self.state());
                Err(error)
            }
            End::AppliedAfter(time, error) => {
                let due = Instant::now() + time;
                self.state().late.push((due, late()));
                Err(error)
            }
            End::Hangs => std::future::pending().await,
        }
    }
}

/// A call that is in flight for as long as this lives.
struct InFlight(Scripted);

impl InFlight {
    fn new(server: &Scripted) -> Self {
        let mut state = server.state();
        state.in_flight += 1;
        state.max_in_flight = state.max_in_flight.max(state.in_flight);
        Self(server.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        lock(&self.0.0).in_flight -= 1;
    }
}

impl Server for Scripted {
    fn keeps_expiry(&self) -> bool {
        self.state().keeps_expiry
    }

    fn drops_expiry(&self) -> Error {
        Error::simulated_kind(Kind::Refused, "the server knows no expiry")
    }

    fn reconnect(&self) -> Self {
        self.state().calls.push(Call::Reconnect);
        self.clone()
    }

    async fn write(&self, request: WriteRelationshipsRequest) -> Result<Written, Error> {
        let updates = request.updates;
        let end = {
            let mut state = self.state();
            state
                .calls
                .push(Call::Write(updates.iter().map(text).collect()));
            state.writes.pop_front().unwrap_or(End::Normal)
        };
        let _in_flight = InFlight::new(self);
        let late = updates.clone();
        self.end(end, |state| state.write(&updates), || late).await
    }

    async fn write_marker(&self) -> Result<String, Error> {
        let mut state = self.state();
        state.calls.push(Call::Marker);
        state.markers.pop_front().unwrap_or(Ok(()))?;
        Ok(state.next_token())
    }

    async fn import(
        &self,
        messages: impl Stream<Item = EncodedRelationships> + Send + 'static,
    ) -> Result<u64, Error> {
        let message_time = self.state().message_time;
        let mut messages = std::pin::pin!(messages);
        let mut relationships = Vec::new();
        while let Some(message) = messages.next().await {
            if !message_time.is_zero() {
                sleep(message_time).await;
            }
            let decoded = message.decode();
            relationships.extend(decoded.map_err(|error| refused(&error.to_string()))?);
        }
        let end = {
            let mut state = self.state();
            state.calls.push(Call::Import(relationships.len()));
            state.imports.pop_front().unwrap_or(End::Normal)
        };
        let _in_flight = InFlight::new(self);
        let creates: Vec<RelationshipUpdate> = relationships
            .into_iter()
            .map(|relationship| update(Operation::Create, relationship))
            .collect();
        let late = creates.clone();
        let run = |state: &mut State| {
            let counts = state.import_counts.pop_front();
            state.check_and_write(&creates)?;
            Ok(counts.unwrap_or(creates.len() as u64))
        };
        self.end(end, run, || late).await
    }

    async fn head(&self) -> Result<String, Error> {
        let mut state = self.state();
        state.calls.push(Call::Head);
        Ok(token(state.revision))
    }

    async fn read_schema(&self) -> Result<Option<String>, Error> {
        Ok(self.schema())
    }

    async fn write_schema(&self, text: &str) -> Result<String, Error> {
        let end = {
            let mut state = self.state();
            state.calls.push(Call::WriteSchema(text.to_owned()));
            state.schema_writes.pop_front().unwrap_or(End::Normal)
        };
        let run = |state: &mut State| {
            state.schema = Some(text.to_owned());
            Ok(state.next_token())
        };
        self.end(end, run, Vec::new).await
    }

    async fn schema_difference(
        &self,
        there: Option<&str>,
        text: &str,
    ) -> Result<Option<String>, CommandError> {
        Ok((there != Some(text)).then(|| "its text differs".to_owned()))
    }

    async fn lookup(
        &self,
        rows: &[&Relationship],
        _layout: Layout,
        _max_retries: usize,
    ) -> Result<Result<ByKey<Relationship>, Error>, CommandError> {
        let mut state = self.state();
        state.calls.push(Call::Lookup(rows.len()));
        Ok(state.lookup(rows))
    }
}

/// A relationship: `item:ID#viewer@user:u`.
#[must_use]
pub fn relationship(id: &str) -> Relationship {
    let object = |object_type: &str, object_id: &str| {
        Some(ObjectReference {
            object_type: object_type.to_owned(),
            object_id: object_id.to_owned(),
        })
    };
    Relationship {
        resource: object("item", id),
        relation: "viewer".to_owned(),
        subject: Some(SubjectReference {
            object: object("user", "u"),
            ..SubjectReference::default()
        }),
        ..Relationship::default()
    }
}

/// The same, which expires so many seconds after 1970.
#[must_use]
pub fn expiring(id: &str, seconds: i64) -> Relationship {
    let mut relationship = relationship(id);
    relationship.optional_expires_at = Some(authzed::Timestamp { seconds, nanos: 0 });
    relationship
}

/// An update.
#[must_use]
pub fn update(operation: Operation, relationship: Relationship) -> RelationshipUpdate {
    RelationshipUpdate {
        operation: operation.into(),
        relationship: Some(relationship),
    }
}

/// A TOUCH of [`relationship`].
#[must_use]
pub fn touch(id: &str) -> RelationshipUpdate {
    update(Operation::Touch, relationship(id))
}

/// A DELETE of [`relationship`].
#[must_use]
pub fn delete(id: &str) -> RelationshipUpdate {
    update(Operation::Delete, relationship(id))
}

/// An update in short: the operation's initial and the resource's id.
#[must_use]
pub fn text(update: &RelationshipUpdate) -> String {
    let operation = match update.operation() {
        Operation::Touch => "T",
        Operation::Create => "C",
        Operation::Delete => "D",
        Operation::Unspecified => "?",
    };
    let relationship = update.relationship.as_ref();
    let resource = relationship.and_then(|relationship| relationship.resource.as_ref());
    format!(
        "{operation} {}",
        resource.map_or("", |resource| &resource.object_id)
    )
}

/// The zedtoken of an integer revision of the datastore `scripted`.
#[must_use]
pub fn token(revision: u64) -> String {
    token_of("scripted", &revision.to_string())
}

/// The zedtoken of any revision of a datastore whose id has eight characters.
#[must_use]
pub fn token_of(datastore: &str, revision: &str) -> String {
    use base64::Engine as _;
    let field = |tag: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        [&[tag, length], bytes].concat()
    };
    let inner = [
        field(0x0a, revision.as_bytes()),
        field(0x12, datastore.as_bytes()),
    ]
    .concat();
    base64::engine::general_purpose::STANDARD.encode(field(0x1a, &inner))
}
