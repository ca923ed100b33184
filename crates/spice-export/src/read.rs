//! Reads all relationships at one revision: in shards, and across broken connections.
//!
//! A shard is a filter. Its stream comes in pages, each with a cursor; when the stream breaks it is
//! opened again at the cursor of the last page that was handed on, so that no relationship is missing
//! and none comes twice.

use authzed::v1::{Consistency, Cursor, ExportBulkRelationshipsRequest, RelationshipFilter};
use authzed::{Client, Kind};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use spice_cli::{CommandError, Exit};
use spice_client::retry::Retry;
use spice_record::record::{Filter, by_prefix};

use crate::plan::{Plan, Shards};
use crate::write::{Step, Writer};

/// The first page of a shard is small, because nothing is known yet: a caveat context can be 25 kB.
const FIRST_PAGE: u32 = 1_000;
/// The largest page that SpiceDB allows by default (`--max-bulk-export-relationships-limit`).
const LARGEST_PAGE: u32 = 10_000;
/// What a page should come to.
const PAGE_BYTES: usize = 512 << 10;

/// The characters that SpiceDB v1.56 allows in a resource id (read off its API's validation).
const ID_CHARACTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_|-=+";

pub(crate) struct Reader<'a> {
    pub(crate) client: &'a Client,
    pub(crate) revision: &'a str,
    pub(crate) page_size: Option<u32>,
    pub(crate) max_retries: usize,
    pub(crate) writer: &'a Writer,
    /// What is exported, if that is not everything.
    pub(crate) filter: Option<Filter>,
}

/// Whether a large shard is read, or returned unread to be split into smaller ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnLarge {
    Read,
    Split,
}

impl Reader<'_> {
    /// Reads the shards of a plan, with up to `jobs` streams at a time, from where an earlier run has
    /// come to.
    pub(crate) async fn read(
        &self,
        mut plan: Plan,
        begun: &Shards,
        jobs: u16,
    ) -> Result<(), CommandError> {
        let jobs = usize::from(jobs);
        let on_large = match jobs > 1 && plan.is_by_definition() {
            true => OnLarge::Split,
            false => OnLarge::Read,
        };
        let open = |shard: &usize| !begun.is_finished(*shard);
        let first = (0..).zip(plan.first()).filter(|(shard, _)| open(shard));
        let large: Vec<Option<usize>> = stream::iter(first)
            .map(|(shard, filter)| self.shard(shard, filter, on_large, begun.cursor(shard)))
            .buffered(jobs)
            .try_collect()
            .await?;
        large
            .into_iter()
            .flatten()
            .for_each(|shard| plan.split(shard));
        if !plan.is_split() {
            return Ok(());
        }
        if plan.characters().is_none() {
            let characters: String = self.id_characters().await?.into_iter().collect();
            plan.set_characters(characters.clone());
            self.writer.send(Step::Characters(characters)).await?;
        }
        let second = plan.second().into_iter();
        stream::iter(second.filter(|(shard, _)| open(shard)))
            .map(|(shard, filter)| {
                self.shard(shard, Some(filter), OnLarge::Read, begun.cursor(shard))
            })
            .buffer_unordered(jobs)
            .try_for_each(|_| async { Ok(()) })
            .await
    }

    /// The characters that ids can begin with: the known ones, and any other that this server does
    /// not refuse in a filter. A newer server with more of them must not cost relationships.
    async fn id_characters(&self) -> Result<Vec<char>, CommandError> {
        let mut characters: Vec<char> = ID_CHARACTERS.chars().collect();
        for character in ('!'..='~').filter(|c| !ID_CHARACTERS.contains(*c)) {
            let filter = by_prefix("", character.encode_utf8(&mut [0; 4]));
            let mut retry = Retry::new(self.max_retries);
            loop {
                let request = self.request(Some(filter.clone()), 1, None);
                match self.client.export(request).message().await {
                    Ok(_) => {
                        characters.push(character);
                        break;
                    }
                    Err(error) if error.kind() == Kind::Refused => break,
                    Err(error) => {
                        retry
                            .pause(error, "asking for the characters of ids")
                            .await?;
                    }
                }
            }
        }
        Ok(characters)
    }

    /// Reads one shard to its end, from a cursor. Returns its number where it was large and is to be split:
    /// then nothing of it was written.
    async fn shard(
        &self,
        shard: usize,
        filter: Option<RelationshipFilter>,
        large: OnLarge,
        cursor: Option<&str>,
    ) -> Result<Option<usize>, CommandError> {
        let mut page = Page::new(self.page_size);
        let mut cursors = Cursors::from(cursor);
        let mut retry = Retry::new(self.max_retries);
        loop {
            let ended = self
                .pages(shard, &filter, large, &mut page, &mut cursors, &mut retry)
                .await;
            match ended {
                Ok(ShardOutcome::Done) => {
                    self.writer.send(Step::End(shard)).await?;
                    return Ok(None);
                }
                Ok(ShardOutcome::OnLarge) => {
                    self.writer.send(Step::Split(shard)).await?;
                    return Ok(Some(shard));
                }
                Ok(ShardOutcome::OtherPageSize) => {}
                Err(ShardError::Output(failure)) => return Err(failure),
                Err(ShardError::Server(error)) => {
                    if let (Kind::LimitExceeded, Some(limit)) = (error.kind(), error.limit())
                        && page.bound(limit)
                    {
                        tracing::info!("the server's largest page is {limit} relationships");
                        continue;
                    }
                    if error.kind() == Kind::AnswerTooLarge && page.shrink() {
                        tracing::debug!("{error}; asking for {} relationships", page.rows);
                        continue;
                    }
                    retry.pause(error, "resuming the export").await?;
                    // A cursor holds no datastore id: the server behind the endpoint may be another
                    // one now, and would answer with its own relationships.
                    while let Err(error) = self.client.check_revision_exists(self.revision).await {
                        retry.pause(error, "resuming the export").await?;
                    }
                }
            }
        }
    }

    /// Hands on the pages of one stream until it ends, breaks, or should have another page size.
    async fn pages(
        &self,
        shard: usize,
        filter: &Option<RelationshipFilter>,
        large: OnLarge,
        page: &mut Page,
        cursors: &mut Cursors,
        retry: &mut Retry,
    ) -> Result<ShardOutcome, ShardError> {
        let request = self.request(filter.clone(), page.rows, cursors.last.clone());
        let mut stream = self.client.export(request);
        while let Some(message) = stream.message().await.map_err(ShardError::Server)? {
            let rows = message.relationships.len();
            if rows == 0 {
                // It holds nothing, and its cursor leads nowhere else.
                continue;
            }
            if large == OnLarge::Split && cursors.last.is_none() && rows >= page.rows as usize {
                return Ok(ShardOutcome::OnLarge);
            }
            let bytes = message.encoded_len();
            let cursor = cursors
                .advance(message.after_result_cursor)
                .map_err(|what| ShardError::Output(self.stuck(what)))?;
            retry.succeeded();
            let mut relationships = message.relationships;
            // Should a server take the filter for less than it is, nothing of others may leave here.
            if let Some(filter) = &self.filter {
                relationships.retain(|relationship| filter.matches(relationship));
            }
            let page_of_shard = Step::Page {
                shard,
                relationships,
                cursor,
            };
            self.writer
                .send(page_of_shard)
                .await
                .map_err(ShardError::Output)?;
            if page.adapt(rows, bytes) {
                return Ok(ShardOutcome::OtherPageSize);
            }
        }
        Ok(ShardOutcome::Done)
    }

    fn stuck(&self, what: &str) -> CommandError {
        CommandError::new(
            Exit::Failed,
            format!(
                "{}: ExportBulkRelationships: {what}",
                self.client.endpoint()
            ),
        )
        .hint("no page of it can be trusted: is a proxy repeating answers?")
    }

    fn request(
        &self,
        filter: Option<RelationshipFilter>,
        limit: u32,
        cursor: Option<Cursor>,
    ) -> ExportBulkRelationshipsRequest {
        ExportBulkRelationshipsRequest {
            consistency: Some(Consistency::at_exact(self.revision)),
            optional_limit: limit,
            optional_cursor: cursor,
            optional_relationship_filter: filter,
        }
    }
}

enum ShardOutcome {
    Done,
    OnLarge,
    OtherPageSize,
}

enum ShardError {
    Server(authzed::Error),
    Output(CommandError),
}

/// Where the pages of a shard have led, and whether they lead on.
#[derive(Default)]
struct Cursors {
    last: Option<Cursor>,
    /// A cursor of before, against which each new one is compared: it is replaced after 1, 2, 4, 8, ...
    /// pages, so that pages in a circle of any length meet it (Brent).
    mark: Option<Cursor>,
    since_mark: u64,
    next_mark: u64,
}

impl Cursors {
    /// Begins after a page that an earlier run has written.
    fn from(cursor: Option<&str>) -> Self {
        let last = cursor.map(|token| Cursor {
            token: token.to_owned(),
        });
        Self {
            last,
            ..Self::default()
        }
    }

    /// Goes to the cursor of a page that holds relationships, and returns its token.
    fn advance(&mut self, cursor: Option<Cursor>) -> Result<String, &'static str> {
        let cursor = cursor.filter(|cursor| !cursor.token.is_empty());
        let Some(cursor) = cursor else {
            return Err("a page of relationships without a cursor");
        };
        if self.last.as_ref() == Some(&cursor) || self.mark.as_ref() == Some(&cursor) {
            return Err("the pages do not advance: a cursor came twice");
        }
        self.since_mark += 1;
        if self.since_mark > self.next_mark {
            self.since_mark = 0;
            self.next_mark = self.next_mark.saturating_mul(2).max(1);
            self.mark = Some(cursor.clone());
        }
        let token = cursor.token.clone();
        self.last = Some(cursor);
        Ok(token)
    }
}

/// How many relationships to ask for in one message.
struct Page {
    rows: u32,
    largest: u32,
    /// Grows once, from the first page to one of about [`PAGE_BYTES`]; after that it only shrinks.
    grown: bool,
}

impl Page {
    fn new(asked_for: Option<u32>) -> Self {
        Self {
            rows: asked_for.unwrap_or(FIRST_PAGE),
            largest: asked_for.unwrap_or(LARGEST_PAGE),
            grown: asked_for.is_some(),
        }
    }

    /// A page was larger than is taken; `false` where it held one relationship only.
    fn shrink(&mut self) -> bool {
        let before = self.rows;
        self.rows = (before / 4).max(1);
        self.largest = self.rows;
        self.grown = true;
        self.rows != before
    }

    /// Keeps to a limit that the server named; `false` where that changes nothing.
    fn bound(&mut self, largest: u64) -> bool {
        self.largest = u32::try_from(largest)
            .unwrap_or(u32::MAX)
            .clamp(1, self.largest);
        let before = self.rows;
        self.rows = before.min(self.largest);
        self.rows != before
    }

    /// Adapts to a page that came; `true` where the next ones should have another size.
    fn adapt(&mut self, rows: usize, bytes: usize) -> bool {
        if rows == 0 {
            return false;
        }
        let fitting = (PAGE_BYTES * rows / bytes.max(1)).max(1);
        let fitting = u32::try_from(fitting).unwrap_or(u32::MAX).min(self.largest);
        let full = rows >= self.rows as usize;
        let wanted = match (bytes > 4 * PAGE_BYTES, full && !self.grown) {
            (true, _) => fitting.min(self.rows),
            (false, true) => fitting.max(self.rows),
            (false, false) => self.rows,
        };
        self.grown |= full;
        std::mem::replace(&mut self.rows, wanted) != wanted
    }
}

#[cfg(test)]
mod tests;
