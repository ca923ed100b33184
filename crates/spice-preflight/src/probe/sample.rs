//! A bounded export: how fast the source is read, and the largest of what it holds.
//!
//! An export is in the order of definitions and ids, so what it begins with is not drawn at random: it
//! shows at least how large contexts are, not at most.

use std::time::Duration;

use authzed::v1::{Consistency, ExportBulkRelationshipsRequest, Relationship, RelationshipFilter};
use prost::Message as _;
use spice_record::record::Filter;
use tokio::time::{Instant, timeout_at};

use super::{Probe, failure_of, no_answer};
use crate::facts::{Failure, Sample};

/// What spice-export begins with.
const PAGE: u32 = 1_000;

/// What is read of an end, and how much of it.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// Relationships of a page, as far as the server limits them.
    pub(crate) page: Option<u64>,
    pub(crate) time: Duration,
    pub(crate) relationships: u64,
    pub(crate) filter: Option<&'a Filter>,
}

impl Probe {
    /// Reads relationships, as many as there is time for.
    pub(crate) async fn sample(
        &self,
        at: &Consistency,
        bounds: Bounds<'_>,
    ) -> Result<Sample, Failure> {
        let requests = bounds.filter.map(Filter::requests).unwrap_or_default();
        let requests = match requests.is_empty() {
            true => vec![None],
            false => requests.into_iter().map(Some).collect(),
        };
        let began = Instant::now();
        let mut sample = Sample::default();
        let mut is_complete = true;
        for request in requests {
            is_complete &= self
                .sample_of(request, at, bounds, began, &mut sample)
                .await?;
            if !is_complete {
                break;
            }
        }
        sample.is_complete = is_complete;
        sample.seconds = began.elapsed().as_secs_f64();
        Ok(sample)
    }

    /// Adds what matches one request to the sample; returns whether that was all.
    async fn sample_of(
        &self,
        request: Option<RelationshipFilter>,
        at: &Consistency,
        bounds: Bounds<'_>,
        began: Instant,
        sample: &mut Sample,
    ) -> Result<bool, Failure> {
        let limit = bounds.page.and_then(|page| u32::try_from(page).ok());
        let mut pages = self.client.export(ExportBulkRelationshipsRequest {
            consistency: Some(at.clone()),
            optional_limit: limit.map_or(PAGE, |limit| limit.clamp(1, PAGE)),
            optional_relationship_filter: request,
            ..ExportBulkRelationshipsRequest::default()
        });
        let end = began + bounds.time;
        let mut is_first = true;
        while sample.relationships < bounds.relationships {
            // The first page is waited for: without it there is no sample.
            let until = match is_first {
                true => self.until(),
                false => self.deadline.min(end),
            };
            match timeout_at(until, pages.message()).await {
                Ok(Ok(Some(page))) => {
                    let is_asked_for = |one: &&Relationship| {
                        bounds.filter.is_none_or(|filter| filter.matches(one))
                    };
                    let found = page.relationships.iter().filter(is_asked_for);
                    found.for_each(|one| sample.add(one));
                }
                Ok(Ok(None)) => return Ok(true),
                Ok(Err(error)) => return Err(failure_of(&error)),
                Err(_) if is_first => return Err(no_answer()),
                Err(_) => return Ok(false),
            }
            is_first = false;
            if Instant::now() >= end {
                return Ok(false);
            }
        }
        Ok(false)
    }
}

impl Sample {
    fn add(&mut self, relationship: &Relationship) {
        self.relationships += 1;
        let largest = relationship.encoded_len() as u64;
        self.largest = self.largest.max(largest);
        if let Some(caveat) = &relationship.optional_caveat {
            self.largest_context = self.largest_context.max(caveat.encoded_len() as u64);
        }
        if let Some(expiry) = &relationship.optional_expires_at {
            self.expiring += 1;
            self.below_seconds += u64::from(expiry.nanos != 0);
        }
    }
}
