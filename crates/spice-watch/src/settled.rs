//! Follows behind the head, in rounds, where late transactions appear below revisions that were delivered
//! already, and reads contended relationships there before each checkpoint.

use std::collections::VecDeque;

use authzed::v1::{Consistency, Relationship, RelationshipUpdate};
use authzed::zedtoken::{self, Revision, revision_of};
use prost::Message as _;
use spice_cli::CommandError;
use spice_client::lookup::{self, ByKey};
use spice_client::retry::Retry;
use spice_record::Change;
use spice_record::relationship::Update;
use spice_spool::{Spool, SpoolReader};
use tokio::time::{Duration, Instant};

use crate::contended::{self, Contended};
use crate::dedup::{self, Delivered};
use crate::tail::Tail;
use crate::until::Until;
use crate::watcher::{Ended, SILENCE, StreamError, Watcher};
use crate::writer::Event;

/// Relationships that are tracked at a time: a revision of any size is read in pieces.
const TRACKED_AT_ONCE: usize = 10_000;
/// How often the number of contended relationships is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How many relationships were contended since that was last logged.
#[derive(Default)]
pub(crate) struct ContendedStats {
    read: usize,
    corrected: usize,
    logged_at: Option<Instant>,
}

impl ContendedStats {
    fn count(&mut self, read: usize, corrected: usize) {
        self.read += read;
        self.corrected += corrected;
        if self
            .logged_at
            .is_none_or(|logged_at| logged_at.elapsed() >= LOG_EVERY)
        {
            self.log();
        }
    }

    /// Logs it, unless nothing was contended.
    pub(crate) fn log(&mut self) {
        if self.read == 0 {
            return;
        }
        tracing::info!(
            "contended: read {} relationships that changed more than once within a short time, or may \
             have; {}",
            self.read,
            match self.corrected {
                0 => "all are as their last change left them".to_owned(),
                corrected => format!("{corrected} differ, and were corrected"),
            }
        );
        *self = Self {
            logged_at: Some(Instant::now()),
            ..Self::default()
        };
    }
}

/// Time in which the source was seen to answer. A pause of this machine, or of the source's, lets no transaction
/// settle: one that was in flight before it is in flight after it.
struct AnsweredTime {
    now: Instant,
    last: Instant,
    /// How much one look at the head counts at most.
    most: Duration,
}

impl AnsweredTime {
    fn new(settle: Duration) -> Self {
        let now = Instant::now();
        Self {
            now,
            last: now,
            most: settle / 3,
        }
    }

    /// The source has answered.
    fn note(&mut self) {
        self.now += self.last.elapsed().min(self.most);
        self.last = Instant::now();
    }
}

impl Watcher {
    /// Follows in rounds, each to a revision that was seen as head a settle time ago: where late
    /// transactions appear below revisions that were delivered already, a live Watch never delivers
    /// them, and a later one does (measured, SpiceDB v1.56 on MySQL and memory).
    pub(crate) async fn follow_settled(&mut self, settle: Duration) -> Result<Ended, CommandError> {
        let every = (settle / 10).clamp(Duration::from_millis(50), Duration::from_secs(2));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heads: VecDeque<(String, Instant)> = VecDeque::new();
        let mut answered = AnsweredTime::new(settle);
        let mut retry = Retry::new(self.max_retries);
        let mut check_at = Instant::now();
        let mut unbroken = Instant::now();
        loop {
            ticks.tick().await;
            if let Err(error) = self.observe_head(&mut heads, &mut answered).await {
                retry.pause(error, "looking at the head again").await?;
                self.client = self.client.reconnect();
                unbroken = Instant::now();
                continue;
            }
            retry.succeeded();
            let mut settled = None;
            while heads
                .front()
                .is_some_and(|(_, seen)| answered.now - *seen >= settle)
            {
                settled = heads.pop_front();
            }
            if let Some((token, seen)) = settled {
                let revision = revision_of(&token);
                if let Some(contended) = &mut self.contended {
                    contended.begin(seen);
                }
                self.next_head = heads.front().map(|(token, _)| token.clone());
                self.follow(Until::Number(&revision, &token)).await?;
                check_at = Instant::now() + SILENCE;
            } else if Instant::now() >= check_at {
                check_at = Instant::now() + SILENCE;
                // The next request meets any other failure as well, and repeats it.
                if let Err(StreamError::Failed(failure)) = self.check_history().await {
                    return Err(failure);
                }
            }
            let changed = self.progress.last_change.max(unbroken);
            if self
                .quiet
                .is_some_and(|quiet| changed.elapsed() >= quiet + settle)
            {
                return Ok(Ended::Quiet);
            }
        }
    }

    /// Adds the head to the observed ones, if it is new.
    async fn observe_head(
        &mut self,
        heads: &mut VecDeque<(String, Instant)>,
        answered: &mut AnsweredTime,
    ) -> Result<(), authzed::Error> {
        let asked = Instant::now();
        let head = self.client.head().await?;
        self.drains.record_latency(asked.elapsed());
        answered.note();
        let newest = heads.back().map_or(&self.since, |(token, _)| token);
        let newer = match (zedtoken::decode(&head), zedtoken::decode(newest)) {
            (Ok(head), Ok(newest)) => newest.revision.sees(&head.revision) == Some(false),
            _ => head != *newest,
        };
        if newer {
            heads.push_back((head, answered.now));
        }
        Ok(())
    }

    /// Resumes a spool at its last checkpoint instead of its end, and notes what it holds after that. The last
    /// revision of a spool may not see all of it: what it does not see would come again without what changed it
    /// later. Without a checkpoint, that of a spool that was pruned, all of it comes again, in its order.
    async fn load_delivered(&mut self, spool: Option<&Spool>) -> Result<(), CommandError> {
        let is_postgres = matches!(revision_of(&self.since), Revision::Postgres(_));
        let Some(spool) = spool.filter(|_| is_postgres) else {
            return Ok(());
        };
        let mut tail = Tail::open(spool, Duration::ZERO)?;
        let mut resumed = None;
        if !tail.is_complete
            && let Some(reader) = SpoolReader::open(spool)?.filter(|reader| reader.segment() == 0)
        {
            let start = reader.header().revision.clone();
            resumed = start.map(|start| (Delivered::before(&start), start));
        }
        while let Some(change) = tail.next_change()? {
            match change {
                Change::Checkpoint(checkpoint) => {
                    let revision = checkpoint.revision;
                    resumed = Some((Delivered::before(&revision), revision));
                }
                Change::Transaction(change) => {
                    let revision = revision_of(&change.revision);
                    if let Some((delivered, _)) = &mut resumed {
                        delivered.insert(&revision, dedup::Kind::Transaction);
                    }
                }
                Change::Schema(_) => {}
            }
            tokio::task::yield_now().await;
        }
        if let Some((delivered, since)) = resumed {
            self.progress.delivered = delivered;
            self.since = since;
        }
        Ok(())
    }

    /// Tracks what changed shortly before the end of a spool that is continued.
    pub(crate) async fn load_spool_tail(
        &mut self,
        spool: Option<&Spool>,
    ) -> Result<(), CommandError> {
        let Some(contended) = &mut self.contended else {
            return self.load_delivered(spool).await;
        };
        let tail = spool.map(|spool| Tail::open(spool, contended.resumed_window()));
        let mut tail = tail.transpose()?;
        if !tail.as_ref().is_some_and(|tail| tail.is_complete) {
            contended.past_is_unknown(Instant::now());
        }
        let since = self.since.clone();
        while let Some(transaction) = tail.as_mut().map(Tail::next).transpose()?.flatten() {
            let updates = transaction.updates.into_iter();
            let updates: Vec<RelationshipUpdate> = updates.map(|Update(update)| update).collect();
            if transaction.contended {
                if let Some(contended) = &mut self.contended {
                    contended.track_read(&updates);
                }
            } else {
                // The spool is complete through its end: what there is no room for is read there.
                for states in self.track_updates(&updates, &since).await? {
                    self.emit_states(states, &since).await?;
                }
            }
            tokio::task::yield_now().await;
        }
        if let Some(contended) = &mut self.contended {
            contended.checkpoint(false);
        }
        Ok(())
    }

    /// Tracks what is emitted at a revision. What there is no room for is read there at once; returns
    /// the states that must be emitted after it.
    pub(crate) async fn track_updates(
        &mut self,
        updates: &[RelationshipUpdate],
        token: &str,
    ) -> Result<Vec<Vec<RelationshipUpdate>>, CommandError> {
        let mut states = Vec::new();
        for some in updates.chunks(TRACKED_AT_ONCE) {
            let Some(contended) = &mut self.contended else {
                break;
            };
            contended.track(some);
            if contended.is_full() {
                states.push(self.read_contended(token, false).await?);
            }
        }
        Ok(states)
    }

    /// Reads the contended relationships at exactly a revision; returns the states that differ from the
    /// stream.
    async fn read_contended(
        &mut self,
        token: &str,
        ends_round: bool,
    ) -> Result<Vec<RelationshipUpdate>, CommandError> {
        let Some(contended) = &self.contended else {
            return Ok(Vec::new());
        };
        let due = contended.due(ends_round);
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut there = self.read_at(&due, token).await?;
        let now = jiff::Timestamp::now();
        // A transaction that the end of this round overtook was committed by the next head, at most 2 s later.
        if let Some(next) = self.next_head.clone()
            && let Some(contended) = &mut self.contended
        {
            let doubtful = contended.doubtful(&due, &there, now);
            // Without this answer the first one counts.
            if !doubtful.is_empty()
                && let Ok(mut later) = self.read_at(&doubtful, &next).await
            {
                contended::confirm(&doubtful, &mut later, &mut there, now);
            }
        }
        let Some(contended) = &mut self.contended else {
            return Ok(Vec::new());
        };
        let (states, corrected) = contended.compare(&due, &there, now);
        self.contended_stats.count(due.len(), corrected);
        Ok(states)
    }

    /// What there is of the relationships of these updates at exactly a revision.
    async fn read_at(
        &self,
        updates: &[RelationshipUpdate],
        token: &str,
    ) -> Result<ByKey<Relationship>, CommandError> {
        let wanted = updates.iter();
        let wanted: Vec<&Relationship> = wanted
            .filter_map(|update| update.relationship.as_ref())
            .collect();
        let at = Consistency::at_exact(token);
        let there = lookup::read_few(&self.client, &wanted, at, self.max_retries);
        let there = there
            .await
            .and_then(|read| read.map_err(CommandError::from));
        there.map_err(|failure| {
            failure.context(format!(
                "cannot read contended relationships at revision {token}"
            ))
        })
    }

    /// Emits states that were read.
    pub(crate) async fn emit_states(
        &mut self,
        states: Vec<RelationshipUpdate>,
        token: &str,
    ) -> Result<(), CommandError> {
        if states.is_empty() {
            return Ok(());
        }
        let bytes = states.iter().map(|state| 2 * state.encoded_len() + 512);
        let bytes = bytes.sum();
        let event = Event::Transaction {
            revision: token.to_owned(),
            updates: states,
            metadata: Vec::new(),
            contended: true,
        };
        self.emitter.send(event, bytes).await
    }

    /// Emits a checkpoint: everything through a revision was emitted, contended relationships included.
    pub(crate) async fn emit_settled(
        &mut self,
        revision: &Revision,
        token: String,
        ends_round: bool,
    ) -> Result<(), CommandError> {
        let states = self.read_contended(&token, ends_round).await?;
        self.emit_states(states, &token).await?;
        if let Some(contended) = &mut self.contended {
            contended.checkpoint(ends_round);
        }
        self.checkpoint(revision, token).await
    }

    /// Whether what was emitted needs a checkpoint before the stream may end.
    pub(crate) fn needs_checkpoint(&self) -> bool {
        self.contended
            .as_ref()
            .is_some_and(Contended::needs_checkpoint)
    }

    /// Ends an interrupted round with a checkpoint at the last emitted revision.
    pub(crate) async fn close_round(&mut self) -> Result<(), CommandError> {
        if !self.needs_checkpoint() {
            return Ok(());
        }
        // A stop has no time for a second look.
        self.next_head = None;
        let token = self.since.clone();
        let revision = revision_of(&token);
        self.emit_settled(&revision, token, false).await
    }
}

#[cfg(test)]
mod tests;
