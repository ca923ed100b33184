//! Calls of WriteRelationships, and what the target refuses.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use authzed::v1::{RelationshipUpdate, WriteRelationshipsRequest, relationship_update::Operation};
use authzed::{Client, Kind};
use futures::stream::{self, StreamExt as _};
use prost::Message as _;
use spice_cli::{CommandError, Exit, files, lock};
use spice_client::retry::Retry;
use spice_client::touch::Skips;
use spice_record::Record;
use spice_record::relationship::DisplayRelationship;
use tokio::time::{Interval, MissedTickBehavior};

use self::unsure::Answer;
use crate::ambiguous::{AMBIGUITY_WINDOW, AmbiguousWrites};
use crate::position::PositionStore;

mod unsure;

/// SpiceDB's default; the true limit is learned when it is lower.
const UPDATES_PER_CALL: usize = 1_000;
/// What cannot be one revision of the target is written by calls of so many: databases plan larger ones
/// badly. MariaDB 10.11 plans a call of 200 in 20 ms, one of 300 in 56 ms and one of 1,000 in 1.2 s
/// (measured on 2 busy cores), and in tables that hold relationships PostgreSQL 15 takes 4,000 to 7,500
/// updates a second in calls of 250, 900 to 1,900 in calls of 1,000.
const SPLIT_PER_CALL: usize = 200;
const TOO_MANY_UPDATES: &str = "TOO_MANY_UPDATES_IN_REQUEST";
/// A server takes no request above 4 MiB.
const BYTES_PER_CALL: usize = 3 << 20;
/// How often an internal error is put down to something else before it is put down to an update.
const INTERNAL_RETRIES: usize = 2;
/// Why a target refuses to delete what its schema cannot hold: it is not there.
const NOTHING_THERE: [&str; 4] = [
    "UNKNOWN_DEFINITION",
    "UNKNOWN_RELATION_OR_PERMISSION",
    "INVALID_SUBJECT_TYPE",
    "CANNOT_UPDATE_PERMISSION",
];

/// Where everything is written to.
pub(crate) struct Target {
    client: Mutex<Client>,
    max_retries: usize,
    jobs: usize,
    limit: AtomicUsize,
    pace: Option<tokio::sync::Mutex<Interval>>,
    ambiguous: Mutex<AmbiguousWrites>,
    store: Option<Arc<PositionStore>>,
    rejects: Option<Arc<Mutex<Rejects>>>,
    /// The updates are those of a source that is followed.
    is_followed: bool,
    dropped: AtomicBool,
    /// Which touches it may skip, by its last answer.
    skips: Mutex<Option<Skips>>,
    undone: AtomicU64,
}

/// A call under way. Dropped before its end, which a signal does, it leaves word of that.
struct InFlightGuard<'a>(&'a AtomicBool);

impl InFlightGuard<'_> {
    fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What became of a batch.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) calls: u64,
    /// The revision of the last call.
    pub(crate) token: Option<String>,
    /// Acknowledged, but perhaps not done.
    unsure: Vec<RelationshipUpdate>,
}

pub(crate) struct Rejects {
    file: File,
    path: PathBuf,
    count: u64,
}

impl Target {
    pub(crate) fn new(
        client: Client,
        max_retries: usize,
        jobs: usize,
        max_rps: Option<u32>,
        rejects: Option<Rejects>,
        is_followed: bool,
    ) -> Self {
        let pace = max_rps.map(|rps| {
            let mut pace = tokio::time::interval(Duration::from_secs(1) / rps.max(1));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::sync::Mutex::new(pace)
        });
        let rejects = rejects.map(|rejects| Arc::new(Mutex::new(rejects)));
        Self {
            client: Mutex::new(client),
            max_retries,
            jobs,
            limit: AtomicUsize::new(UPDATES_PER_CALL),
            pace,
            ambiguous: Mutex::default(),
            store: None,
            rejects,
            is_followed,
            dropped: AtomicBool::new(false),
            skips: Mutex::default(),
            undone: AtomicU64::new(0),
        }
    }

    /// Writes in doubt are noted there, too.
    pub(crate) fn store_ambiguous_in(&mut self, store: Arc<PositionStore>) {
        self.store = Some(store);
    }

    pub(crate) fn client(&self) -> Client {
        lock(&self.client).clone()
    }

    pub(crate) fn ambiguous(&self) -> MutexGuard<'_, AmbiguousWrites> {
        lock(&self.ambiguous)
    }

    /// Whether a call was dropped while it was under way: its end is not known.
    pub(crate) fn has_dropped(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes a schema, once.
    pub(crate) async fn write_schema(&self, text: &str) -> Result<String, authzed::Error> {
        let call = InFlightGuard(&self.dropped);
        let written = self.client().write_schema(text).await;
        call.ended();
        written
    }

    /// The end of a write of a schema is not known.
    pub(crate) fn schema_is_ambiguous(&self) -> Result<(), CommandError> {
        self.ambiguous().note_schema();
        self.note_ambiguous(&self.client())
    }

    /// What was given up on this connection may come late: that is noted beside the position, and another
    /// connection is taken.
    fn note_ambiguous(&self, client: &Client) -> Result<(), CommandError> {
        if let Some(store) = &self.store {
            store.note_ambiguous(AMBIGUITY_WINDOW)?;
        }
        *lock(&self.client) = client.reconnect();
        Ok(())
    }

    /// A revision that holds everything that was acknowledged.
    pub(crate) async fn head(&self) -> Result<String, CommandError> {
        let mut retry = Retry::new(self.max_retries);
        loop {
            match self.client().head().await {
                Ok(head) => return Ok(head),
                Err(error) => {
                    retry
                        .pause(error, "reading the target's head again")
                        .await?;
                }
            }
        }
    }

    /// How many updates are written at the same time at most.
    pub(crate) fn width(&self) -> usize {
        self.limit.load(Ordering::Relaxed) * self.jobs
    }

    pub(crate) fn rejected(&self) -> u64 {
        self.rejects
            .as_ref()
            .map_or(0, |rejects| lock(rejects).count())
    }

    pub(crate) fn rejects(&self) -> Option<Arc<Mutex<Rejects>>> {
        self.rejects.clone()
    }

    /// Makes the rejects durable.
    pub(crate) fn finish(&self) -> Result<(), CommandError> {
        let Some(rejects) = &self.rejects else {
            return Ok(());
        };
        let rejects = lock(rejects);
        rejects.file.sync_all().or_else(|error| {
            // A device or a pipe cannot be synced.
            match rejects.file.metadata() {
                Ok(metadata) if !metadata.is_file() => Ok(()),
                _ => Err(rejects.failed(&error)),
            }
        })
    }

    /// Writes updates of different relationships: those of one revision in one call where the target takes
    /// so many, others in calls that it is quick with. All have ended when this returns.
    pub(crate) async fn write(
        &self,
        updates: Vec<RelationshipUpdate>,
        one_revision: bool,
        metadata: Option<&authzed::JsonObject>,
        of: &str,
    ) -> Result<Written, CommandError> {
        let mut written = Written::default();
        let calls = self.cut(updates, one_revision);
        if let [updates] = calls.as_slice() {
            self.call(updates, metadata, of, &mut written).await?;
            return self.made_sure(written, metadata, of).await;
        }
        // Each is waited for, also when another one has failed: a call that is dropped is in doubt.
        let all: Vec<Result<Written, CommandError>> = stream::iter(calls)
            .map(|updates| async move {
                let mut written = Written::default();
                self.call(&updates, metadata, of, &mut written).await?;
                Ok(written)
            })
            .buffer_unordered(self.jobs)
            .collect()
            .await;
        for one in all {
            let one = one?;
            written.calls += one.calls;
            written.token = one.token.or(written.token);
            written.unsure.extend(one.unsure);
        }
        self.made_sure(written, metadata, of).await
    }

    fn cut(
        &self,
        updates: Vec<RelationshipUpdate>,
        one_revision: bool,
    ) -> Vec<Vec<RelationshipUpdate>> {
        let mut limit = self.limit.load(Ordering::Relaxed);
        if !one_revision || updates.len() > limit {
            limit = limit.min(SPLIT_PER_CALL);
        }
        let mut calls = Vec::new();
        let (mut call, mut bytes) = (Vec::new(), 0);
        for update in updates {
            let size = update.encoded_len() + 8;
            if call.len() >= limit || (bytes + size > BYTES_PER_CALL && !call.is_empty()) {
                calls.push(std::mem::take(&mut call));
                bytes = 0;
            }
            bytes += size;
            call.push(update);
        }
        if !call.is_empty() {
            calls.push(call);
        }
        calls
    }

    /// Writes updates with one call, or more where the target takes fewer or refuses some.
    async fn call(
        &self,
        updates: &[RelationshipUpdate],
        metadata: Option<&authzed::JsonObject>,
        of: &str,
        written: &mut Written,
    ) -> Result<(), CommandError> {
        let mut pieces = VecDeque::from([updates]);
        while let Some(piece) = pieces.pop_front() {
            let error = match self.attempt(piece, metadata).await? {
                Ok(answer) => {
                    self.ambiguous().acknowledged(piece);
                    written.calls += 1;
                    written.unsure.extend(answer.unsure);
                    written.token = Some(answer.token);
                    continue;
                }
                Err(error) => error,
            };
            if error.reason() == Some(TOO_MANY_UPDATES) && piece.len() > 1 {
                let learned = error.limit().and_then(|limit| usize::try_from(limit).ok());
                let limit = learned.unwrap_or(1).clamp(1, piece.len() - 1);
                self.limit.fetch_min(limit, Ordering::Relaxed);
                for (index, part) in piece.chunks(limit).enumerate() {
                    pieces.insert(index, part);
                }
            } else if let [update] = piece {
                self.refused(update, &error, of)?;
            } else {
                let (first, rest) = piece.split_at(piece.len() / 2);
                pieces.push_front(rest);
                pieces.push_front(first);
            }
        }
        Ok(())
    }

    /// One call, repeated while its failure is a passing one; gives back an error that lies with the
    /// updates.
    async fn attempt(
        &self,
        updates: &[RelationshipUpdate],
        metadata: Option<&authzed::JsonObject>,
    ) -> Result<Result<Answer, authzed::Error>, CommandError> {
        let mut creates = self.as_creates(updates);
        let mut retry = Retry::new(self.max_retries);
        let mut internal_retries = INTERNAL_RETRIES;
        loop {
            if let Some(pace) = &self.pace {
                pace.lock().await.tick().await;
            }
            let request = WriteRelationshipsRequest {
                updates: creates.as_deref().unwrap_or(updates).to_vec(),
                optional_transaction_metadata: metadata.cloned(),
                ..WriteRelationshipsRequest::default()
            };
            let client = self.client();
            let call = InFlightGuard(&self.dropped);
            let written = client.write(request).await;
            call.ended();
            let error = match written {
                Ok(written) => {
                    let answer = self.answer(written, updates, creates.is_some());
                    return Ok(Ok(answer));
                }
                Err(error) => error,
            };
            match error.kind() {
                Kind::AlreadyExists if creates.take().is_some() => continue,
                Kind::Refused | Kind::MessageTooLarge | Kind::LimitExceeded => {
                    return Ok(Err(error));
                }
                // How a server reports a value that its database cannot hold, and also a database that
                // is restarting.
                Kind::Internal if client.write_marker().await.is_ok() => {
                    if internal_retries == 0 {
                        return Ok(Err(error));
                    }
                    internal_retries -= 1;
                }
                _ => {}
            }
            if error.is_ambiguous_for_writes() {
                self.ambiguous().note(updates);
                self.note_ambiguous(&client)?;
            }
            retry.pause(error, "writing again").await?;
        }
    }

    fn refused(
        &self,
        update: &RelationshipUpdate,
        error: &authzed::Error,
        of: &str,
    ) -> Result<(), CommandError> {
        let reason = error.reason().unwrap_or_default();
        if self.is_followed && is_done(update, reason) {
            self.ambiguous().acknowledged(std::slice::from_ref(update));
            return Ok(());
        }
        let Some(relationship) = &update.relationship else {
            return Ok(());
        };
        let (text, message) = (DisplayRelationship(relationship), error.message());
        if let Some(rejects) = &self.rejects {
            tracing::warn!("{of}: refused {text}: {message}");
            // It will never be there, so there is nothing to look for later.
            self.ambiguous().settle(std::slice::from_ref(update));
            return lock(rejects).keep(update);
        }
        let failure = CommandError::new(
            Exit::Failed,
            format!("{of}: the target refuses {text}: {message}"),
        );
        Err(if !self.is_followed && is_done(update, reason) {
            failure.hint(
                "nothing was deleted by this update: is a name in it misspelt? Mend it; or put what is \
                 refused into a file with --rejects FILE, and go on",
            )
        } else if NOTHING_THERE.contains(&reason) {
            failure.hint(
                "neither the target nor the newest schema of the source allows it: perhaps it was \
                 allowed for a moment only. Allow it on the target and run the same command again, or \
                 keep it aside with --rejects FILE",
            )
        } else {
            failure.hint("--rejects FILE goes on, and puts what is refused into the file")
        })
    }
}

/// Whether a delete is refused because the target's schema cannot hold what it names. In a stream that is
/// followed it counts as done: the source's schema has changed, and the relationship went with it. In updates
/// made by hand a misspelt name would leave the grant that was to be taken away.
fn is_done(update: &RelationshipUpdate, reason: &str) -> bool {
    update.operation() == Operation::Delete && NOTHING_THERE.contains(&reason)
}

impl Rejects {
    /// Opens the file, private and for appending. May wait for the reader of a named pipe.
    pub(crate) fn open(path: &Path, inputs: &[PathBuf]) -> Result<Self, CommandError> {
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        let file = files::append("--rejects", path, &inputs)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            count: 0,
        })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn keep(&mut self, update: &RelationshipUpdate) -> Result<(), CommandError> {
        let mut line = serde_json::to_vec(&Record::Update(Box::new(update.clone().into())))?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(|error| self.failed(&error))?;
        self.count += 1;
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> CommandError {
        let path = self.path.display();
        CommandError::new(Exit::Failed, format!("--rejects {path}: {error}"))
    }
}
