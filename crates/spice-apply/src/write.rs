//! The target: what becomes of updates that it refuses, and of those whose end is unknown.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use authzed::v1::{RelationshipUpdate, relationship_update::Operation};
use authzed::{Client, JsonObject};
use spice_cli::{CommandError, Exit, lock};
use spice_client::lookup::bare;
use spice_client::retry::Retry;
use spice_client::server::{Layout, Server};
use spice_client::write_engine::controller::Setting;
use spice_client::write_engine::{AfterAmbiguous, Outcome, Policy, Stage, Turn, WriteEngine};
use spice_record::relationship::DisplayRelationship;

use crate::ambiguous::{AMBIGUITY_WINDOW, AmbiguousWrites};
use crate::rejects::Rejects;
use crate::resume::PositionStore;

#[cfg(test)]
mod tests;

/// Why a target refuses to delete what its schema cannot hold: it is not there.
const NOTHING_THERE: [&str; 4] = [
    "UNKNOWN_DEFINITION",
    "UNKNOWN_RELATION_OR_PERMISSION",
    "INVALID_SUBJECT_TYPE",
    "CANNOT_UPDATE_PERMISSION",
];

/// Where everything is written to.
pub(crate) struct Target<S = Client> {
    engine: WriteEngine<S>,
    ambiguous: Mutex<AmbiguousWrites>,
    store: OnceLock<Arc<PositionStore>>,
    rejects: Option<Arc<Mutex<Rejects>>>,
    /// Early updates that were refused since this was asked last.
    refused_early: Mutex<Vec<RelationshipUpdate>>,
    /// The updates are those of a source that is followed.
    is_followed: bool,
}

impl<S: Server> Target<S> {
    pub(crate) fn new(engine: WriteEngine<S>, rejects: Option<Rejects>, is_followed: bool) -> Self {
        Self {
            engine,
            ambiguous: Mutex::default(),
            store: OnceLock::new(),
            rejects: rejects.map(|rejects| Arc::new(Mutex::new(rejects))),
            refused_early: Mutex::default(),
            is_followed,
        }
    }

    /// Ambiguous writes are noted there as well.
    pub(crate) fn store_ambiguous_in(&self, store: Arc<PositionStore>) {
        let _ = self.store.set(store);
    }

    pub(crate) fn server(&self) -> S {
        self.engine.server()
    }

    pub(crate) fn max_retries(&self) -> usize {
        self.engine.max_retries()
    }

    pub(crate) fn ambiguous(&self) -> MutexGuard<'_, AmbiguousWrites> {
        lock(&self.ambiguous)
    }

    /// Whether a call was dropped while it was in flight: its end is unknown.
    pub(crate) fn has_dropped(&self) -> bool {
        self.engine.has_dropped()
    }

    /// Writes a schema, once.
    pub(crate) async fn write_schema(&self, text: &str) -> Result<String, authzed::Error> {
        let server = self.server();
        self.engine.in_flight(server.write_schema(text)).await
    }

    /// The end of a write of a schema is unknown.
    pub(crate) fn schema_is_ambiguous(&self) -> Result<(), CommandError> {
        self.ambiguous().note_schema();
        self.store_ambiguous()?;
        self.engine.reconnect();
        Ok(())
    }

    /// A write that may be applied late is noted beside the position.
    fn store_ambiguous(&self) -> Result<(), CommandError> {
        match self.store.get() {
            Some(store) => store.note_ambiguous(AMBIGUITY_WINDOW),
            None => Ok(()),
        }
    }

    /// A revision that holds everything that was acknowledged.
    pub(crate) async fn head(&self) -> Result<String, CommandError> {
        let retry = Retry::new(self.max_retries());
        let head = async || self.server().head().await;
        retry.run("reading the target's head again", head).await
    }

    /// How many updates are best written together.
    pub(crate) fn batch(&self) -> usize {
        self.engine.batch()
    }

    /// Whether it acknowledges some TOUCHes and does not do them: those are read back behind a write.
    pub(crate) fn may_skip_touches(&self) -> bool {
        self.engine.may_skip_touches()
    }

    /// The size of calls, and how many are in flight, as it is now.
    pub(crate) fn setting(&self) -> Setting {
        self.engine.setting()
    }

    pub(crate) fn rejected(&self) -> u64 {
        let rejects = self.rejects.as_ref();
        rejects.map_or(0, |rejects| lock(rejects).count())
    }

    pub(crate) fn rejects(&self) -> Option<Arc<Mutex<Rejects>>> {
        self.rejects.clone()
    }

    /// Early updates that were refused since this was asked last.
    pub(crate) fn take_refused_early(&self) -> Vec<RelationshipUpdate> {
        std::mem::take(&mut lock(&self.refused_early))
    }

    /// Makes the rejects durable.
    pub(crate) fn sync_rejects(&self) -> Result<(), CommandError> {
        match &self.rejects {
            Some(rejects) => lock(rejects).sync(),
            None => Ok(()),
        }
    }

    /// Writes updates of different relationships: those of one revision in one call where the target takes
    /// so many, others in calls that it is quick with. All have ended when this returns. `what` is for
    /// messages.
    pub(crate) async fn write(
        &self,
        updates: Vec<RelationshipUpdate>,
        one_revision: bool,
        metadata: Option<&JsonObject>,
        what: &str,
    ) -> Result<Outcome<RelationshipUpdate>, CommandError> {
        let first = updates.len();
        let turn = Turn::default();
        let origin = Origin {
            metadata,
            what,
            is_early: false,
        };
        let written = self.write_in_turn(updates, first, one_revision, origin, turn);
        written.await
    }

    /// The same, in turn: the first of these updates beside the last calls of the write before this one, one
    /// revision after all of them.
    pub(crate) async fn write_in_turn(
        &self,
        updates: Vec<RelationshipUpdate>,
        first: usize,
        one_revision: bool,
        origin: Origin<'_>,
        mut turn: Turn,
    ) -> Result<Outcome<RelationshipUpdate>, CommandError> {
        let policy = FollowPolicy {
            target: self,
            origin,
        };
        let engine = &self.engine;
        let written = match one_revision {
            true => {
                turn.is_alone().await?;
                engine.write(&policy, updates, true).await?
            }
            false => {
                let written = engine.write_in_turn(&policy, updates, first, &mut turn);
                written.await?
            }
        };
        let verified = engine.verify_touches(&policy, Layout::Scattered, written);
        let verified = verified.await?;
        turn.end();
        Ok(verified)
    }

    fn refused(
        &self,
        update: &RelationshipUpdate,
        error: &authzed::Error,
        what: &str,
    ) -> Result<(), CommandError> {
        let reason = error.reason().unwrap_or_default();
        if self.is_followed && is_absent_anyway(update, reason) {
            self.ambiguous().acknowledged(std::slice::from_ref(update));
            return Ok(());
        }
        let Some(relationship) = &update.relationship else {
            return Ok(());
        };
        let (text, message) = (DisplayRelationship(relationship), error.message());
        if let Some(rejects) = &self.rejects {
            tracing::warn!("{what}: refused {text}: {message}");
            // It will never be there, so there is nothing to look for later.
            self.ambiguous().settle(std::slice::from_ref(update));
            return lock(rejects).append(update);
        }
        let failure = CommandError::new(
            Exit::Failed,
            format!("{what}: the target refuses {text}: {message}"),
        );
        Err(if !self.is_followed && is_absent_anyway(update, reason) {
            failure.hint(
                "nothing was deleted by this update: is a name in it misspelt? Correct it, or continue \
                 with --rejects FILE, which collects what is refused",
            )
        } else if NOTHING_THERE.contains(&reason) {
            failure.hint(
                "neither the target nor the newest schema of the source allows it: perhaps it was \
                 allowed for a moment only. Allow it on the target and run the same command again, or \
                 set it aside with --rejects FILE",
            )
        } else {
            failure.hint("--rejects FILE continues, and collects what is refused in the file")
        })
    }
}

/// What updates belong to.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) metadata: Option<&'a JsonObject>,
    /// For messages.
    pub(crate) what: &'a str,
    /// They come again in their place: what is refused now may be taken there.
    pub(crate) is_early: bool,
}

/// What an apply does with refused and ambiguous updates.
struct FollowPolicy<'a, S> {
    target: &'a Target<S>,
    origin: Origin<'a>,
}

impl<S: Server> Policy for FollowPolicy<'_, S> {
    type Item = RelationshipUpdate;

    fn operation(&self, update: &RelationshipUpdate) -> Operation {
        update.operation()
    }

    fn metadata(&self) -> Option<&JsonObject> {
        self.origin.metadata
    }

    fn tries_create(&self) -> bool {
        true
    }

    fn acknowledged(&self, updates: &[RelationshipUpdate], stage: Stage) {
        let mut ambiguous = self.target.ambiguous();
        if ambiguous.has_relationships() {
            ambiguous.acknowledged(&as_written(updates, stage));
        }
    }

    /// What was given up on this connection may arrive late: that is noted beside the position, and another
    /// connection is taken.
    fn ambiguous(
        &self,
        updates: &[RelationshipUpdate],
        stage: Stage,
    ) -> Result<AfterAmbiguous, CommandError> {
        let updates = as_written(updates, stage);
        self.target.ambiguous().note(&updates);
        self.target.store_ambiguous()?;
        Ok(AfterAmbiguous {
            reconnect: true,
            ..AfterAmbiguous::default()
        })
    }

    fn refused(
        &self,
        update: &RelationshipUpdate,
        stage: Stage,
        error: &authzed::Error,
    ) -> Result<(), CommandError> {
        for update in &as_written(std::slice::from_ref(update), stage) {
            if self.origin.is_early {
                // Of one whose end was unknown before nothing is to be looked for.
                self.target.ambiguous().settle_one(update);
                lock(&self.target.refused_early).push(update.clone());
                continue;
            }
            self.target.refused(update, error, self.origin.what)?;
        }
        Ok(())
    }
}

/// The updates of a call in this stage.
fn as_written(updates: &[RelationshipUpdate], stage: Stage) -> Vec<RelationshipUpdate> {
    let mut updates = updates.to_vec();
    if stage == Stage::DeleteSkipped {
        for update in &mut updates {
            update.operation = Operation::Delete.into();
            update.relationship = update.relationship.take().map(bare);
        }
    }
    updates
}

/// Whether a delete is refused because the target's schema cannot hold what it names. In a stream that is
/// followed it counts as done: the source's schema has changed, and the relationship went with it. In updates
/// made by hand a misspelt name would leave the grant that was to be taken away.
fn is_absent_anyway(update: &RelationshipUpdate, reason: &str) -> bool {
    update.operation() == Operation::Delete && NOTHING_THERE.contains(&reason)
}
