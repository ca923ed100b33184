//! A bounded export: how fast the source is read, and the largest of what it holds.
//!
//! An export is in the order of definitions and ids, so what it begins with is not drawn at random: it
//! shows at least how large contexts are, not at most.

use std::time::Duration;

use authzed::v1::{Consistency, ExportBulkRelationshipsRequest, Relationship};
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use super::{Probe, failure_of, no_answer};
use crate::facts::{Failure, Sample};

/// What spice-export begins with.
const PAGE: u32 = 1_000;

impl Probe {
    /// Reads relationships for so long, or so many.
    pub(crate) async fn sample(
        &self,
        at: Consistency,
        page: Option<u64>,
        time: Duration,
        most: u64,
    ) -> Result<Sample, Failure> {
        let limit = page.and_then(|page| u32::try_from(page).ok());
        let mut pages = self.client.export(ExportBulkRelationshipsRequest {
            consistency: Some(at),
            optional_limit: limit.map_or(PAGE, |limit| limit.clamp(1, PAGE)),
            ..ExportBulkRelationshipsRequest::default()
        });
        let began = Instant::now();
        let end = began + time;
        let mut sample = Sample::default();
        while sample.relationships < most {
            // The first page is waited for: without it there is no sample.
            let until = match sample.relationships {
                0 => self.until(),
                _ => self.deadline.min(end),
            };
            match timeout_at(until, pages.message()).await {
                Ok(Ok(Some(page))) => page.relationships.iter().for_each(|one| sample.add(one)),
                Ok(Ok(None)) => {
                    sample.is_complete = true;
                    break;
                }
                Ok(Err(error)) => return Err(failure_of(&error)),
                Err(_) if sample.relationships == 0 => return Err(no_answer()),
                Err(_) => break,
            }
            if Instant::now() >= end {
                break;
            }
        }
        sample.seconds = began.elapsed().as_secs_f64();
        Ok(sample)
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
