//! What the target holds of given relationships.
//!
//! One read for each would take a round trip each. So they are read by the longest prefix that their
//! resource ids share, and where such a read turns up far more than what is looked for it is given up
//! and cut: by the next character, then by resource, and for a resource with a great many
//! relationships one by one. A chunk of an export is sorted, so mostly one read finds all of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};

use authzed::v1::{
    Consistency, ExportBulkRelationshipsRequest, Relationship, RelationshipFilter, SubjectFilter,
    subject_filter::RelationFilter,
};
use authzed::{Client, Kind};
use futures::stream::{FuturesUnordered, StreamExt as _};
use spice_record::digest::put_key;

use crate::retry::Retry;
use spice_cli::{CommandError, Exit};

/// Reads side by side; and of rows that are few, whose answers then come together: a read alone costs
/// its reader 280 us of CPU, mostly to be woken for each piece, one of 32 costs it 60.
const READS: usize = 8;
const READS_OF_FEW: usize = 32;
/// A read may turn up this many times what is looked for, and this many more.
const WASTE_FACTOR: usize = 10;
const WASTE_ROWS: usize = 1_000;
/// As many where what is looked for is scattered over all that there is; and up to how many rows are then
/// read by themselves. A read of one row takes about as long as 25 more rows of another.
const WASTE_ROWS_OF_FEW: usize = 50;
const FEW: usize = 2 * READS_OF_FEW;
/// A page, and from how many that are looked for on it is the largest that the server gives (10,000
/// by default): the memory datastore sorts all that it has for each page.
const PAGE: u32 = 1_000;
const LARGE_PAGE_FROM: usize = 5_000;
const LARGEST_PAGE: u32 = 0;

/// Relationships by the identity that SpiceDB gives them.
pub type ByKey<T> = HashMap<Vec<u8>, T>;

/// The identity of a relationship: all of it but caveat and expiry.
#[must_use]
pub fn key(relationship: &Relationship) -> Vec<u8> {
    let mut key = Vec::with_capacity(128);
    put_key(relationship, &mut key);
    key
}

/// What a DELETE has of a relationship: its identity. One that names a caveat is refused where the schema has
/// none of that name.
#[must_use]
pub fn bare(mut relationship: Relationship) -> Relationship {
    relationship.optional_caveat = None;
    relationship.optional_expires_at = None;
    relationship
}

/// Reads, fully consistently, what the target holds under the keys of `rows`. Rows that have expired
/// are invisible, though they may still be in the way.
///
/// Gives back, inside, the error with which the target refuses to look for one of the ids.
///
/// # Errors
///
/// Any other error of the target's, after the retries.
pub async fn read(
    client: &Client,
    rows: &[&Relationship],
    max_retries: usize,
) -> Result<Result<ByKey<Relationship>, authzed::Error>, CommandError> {
    let look = Look {
        at: Consistency::fully_consistent(),
        waste_rows: WASTE_ROWS,
        few: 1,
        reads: READS,
        largest_page: AtomicU32::new(u32::MAX),
        max_retries,
    };
    read_with(client, rows, &look).await
}

/// The same at any revision, for rows that are few and scattered.
///
/// # Errors
///
/// As [`read`].
pub async fn read_few(
    client: &Client,
    rows: &[&Relationship],
    at: Consistency,
    max_retries: usize,
) -> Result<Result<ByKey<Relationship>, authzed::Error>, CommandError> {
    read_with(client, rows, &Look::side_by_side(at, FEW, max_retries)).await
}

/// The newest state of rows that are scattered over all that there is, one by one: a server's database
/// finds each by its index.
///
/// # Errors
///
/// As [`read`].
pub async fn read_scattered(
    client: &Client,
    rows: &[&Relationship],
    max_retries: usize,
) -> Result<Result<ByKey<Relationship>, authzed::Error>, CommandError> {
    let at = Consistency::fully_consistent();
    read_with(
        client,
        rows,
        &Look::side_by_side(at, usize::MAX, max_retries),
    )
    .await
}

/// How to read.
struct Look {
    at: Consistency,
    /// How many rows more than its share a read may turn up.
    waste_rows: usize,
    /// Up to so many rows are read one by one.
    few: usize,
    /// How many reads are made side by side.
    reads: usize,
    /// The largest page that the server gives, once its error has named it
    /// (`--max-bulk-export-relationships-limit`).
    largest_page: AtomicU32,
    max_retries: usize,
}

impl Look {
    /// Many small reads, of rows that are scattered.
    fn side_by_side(at: Consistency, few: usize, max_retries: usize) -> Self {
        Self {
            at,
            waste_rows: WASTE_ROWS_OF_FEW,
            few,
            reads: READS_OF_FEW,
            largest_page: AtomicU32::new(u32::MAX),
            max_retries,
        }
    }
}

async fn read_with(
    client: &Client,
    rows: &[&Relationship],
    look: &Look,
) -> Result<Result<ByKey<Relationship>, authzed::Error>, CommandError> {
    let wanted: ByKey<()> = rows
        .iter()
        .map(|relationship| (key(relationship), ()))
        .collect();
    let mut by_type: BTreeMap<&str, Vec<&Relationship>> = BTreeMap::new();
    for relationship in rows {
        by_type
            .entry(resource(relationship).0)
            .or_default()
            .push(relationship);
    }
    let mut ranges: Vec<Range<'_>> = by_type
        .into_values()
        .map(|rows| Range {
            rows,
            one_by_one: false,
        })
        .collect();
    let mut found = HashMap::new();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < look.reads
            && let Some(range) = ranges.pop()
        {
            if range.rows.len() > 1 && range.rows.len() <= look.few {
                ranges.extend(range.into_rows());
                continue;
            }
            running.push(read_range(client, range, &wanted, look));
        }
        match running.next().await.transpose()? {
            Some(Read::All(read)) => found.extend(read),
            Some(Read::TooMany(range)) => ranges.extend(range.split()),
            Some(Read::Refused(error)) => return Ok(Err(error)),
            None => return Ok(Ok(found)),
        }
    }
}

enum Read<'a> {
    All(ByKey<Relationship>),
    TooMany(Range<'a>),
    Refused(authzed::Error),
}

async fn read_range<'a>(
    client: &Client,
    range: Range<'a>,
    wanted: &ByKey<()>,
    look: &Look,
) -> Result<Read<'a>, CommandError> {
    let most = range.rows.len() * WASTE_FACTOR + look.waste_rows;
    let mut page = match range.rows.len() {
        ..LARGE_PAGE_FROM => u32::try_from(most + 1).map_or(PAGE, |most| most.min(PAGE)),
        _ => LARGEST_PAGE,
    };
    let mut retry = Retry::new(look.max_retries);
    'attempt: loop {
        page = page.min(look.largest_page.load(Ordering::Relaxed));
        let mut found = HashMap::new();
        let mut seen = 0;
        let mut stream = client.export(ExportBulkRelationshipsRequest {
            consistency: Some(look.at.clone()),
            optional_limit: page,
            optional_cursor: None,
            optional_relationship_filter: Some(range.filter()),
        });
        loop {
            let page = match stream.message().await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(Read::All(found)),
                Err(error) if error.kind() == Kind::Refused => return Ok(Read::Refused(error)),
                Err(error) => {
                    if let Some(limit) =
                        page_limit(&error).filter(|limit| (1..page).contains(limit))
                    {
                        look.largest_page.fetch_min(limit, Ordering::Relaxed);
                        continue 'attempt;
                    }
                    // Large caveat contexts: fewer of them in a page.
                    if error.kind() == Kind::AnswerTooLarge && page != 1 {
                        page = if page == LARGEST_PAGE {
                            PAGE
                        } else {
                            page / 10
                        };
                        continue 'attempt;
                    }
                    retry
                        .pause(error, "reading again what the target holds")
                        .await?;
                    continue 'attempt;
                }
            };
            seen += page.relationships.len();
            if seen > most && range.one_by_one {
                return Err(CommandError::new(
                    Exit::Failed,
                    format!(
                        "{}: ExportBulkRelationships: {seen} relationships where one was asked for",
                        client.endpoint()
                    ),
                ));
            }
            if seen > most {
                return Ok(Read::TooMany(range));
            }
            for relationship in page.relationships {
                let key = key(&relationship);
                if wanted.contains_key(&key) {
                    found.insert(key, relationship);
                }
            }
        }
    }
}

/// The largest page of a server that refused one, as its error has it.
fn page_limit(error: &authzed::Error) -> Option<u32> {
    let limit = error
        .limit()
        .filter(|_| error.kind() == Kind::LimitExceeded);
    limit.and_then(|limit| u32::try_from(limit).ok())
}

/// Relationships of one resource type that are looked for with one read.
struct Range<'a> {
    rows: Vec<&'a Relationship>,
    one_by_one: bool,
}

impl Range<'_> {
    /// The longest prefix that all ids share, and whether it is the one id of all.
    fn prefix(&self) -> (&str, bool) {
        let mut ids = self.rows.iter().map(|row| resource(row).1);
        let first = ids.next().unwrap_or_default();
        let mut length = first.len();
        let mut same = true;
        for id in ids {
            same &= id == first;
            let shared = first
                .bytes()
                .zip(id.bytes())
                .take_while(|(a, b)| a == b)
                .count();
            length = length.min(shared);
        }
        // Ids that a server takes are ASCII; a line made by hand may hold any.
        while !first.is_char_boundary(length) {
            length -= 1;
        }
        (first.get(..length).unwrap_or_default(), same)
    }

    fn filter(&self) -> RelationshipFilter {
        let (prefix, one_resource) = self.prefix();
        let resource_type = self
            .rows
            .first()
            .map_or("", |row| resource(row).0)
            .to_owned();
        let mut filter = RelationshipFilter {
            resource_type,
            ..RelationshipFilter::default()
        };
        if !one_resource {
            prefix.clone_into(&mut filter.optional_resource_id_prefix);
            return filter;
        }
        prefix.clone_into(&mut filter.optional_resource_id);
        if let ([row], true) = (self.rows.as_slice(), self.one_by_one)
            && let Some(subject) = &row.subject
            && let Some(object) = &subject.object
        {
            row.relation.clone_into(&mut filter.optional_relation);
            filter.optional_subject_filter = Some(SubjectFilter {
                subject_type: object.object_type.clone(),
                optional_subject_id: object.object_id.clone(),
                optional_relation: Some(RelationFilter {
                    relation: subject.optional_relation.clone(),
                }),
            });
        }
        filter
    }

    fn into_rows(self) -> Vec<Self> {
        let single = |row| Self {
            rows: vec![row],
            one_by_one: true,
        };
        self.rows.into_iter().map(single).collect()
    }

    fn split(self) -> Vec<Self> {
        let (prefix, one_resource) = self.prefix();
        if one_resource {
            return self.into_rows();
        }
        let length = prefix.len();
        let mut parts: BTreeMap<Option<char>, Vec<&Relationship>> = BTreeMap::new();
        for row in self.rows {
            parts
                .entry(
                    resource(row)
                        .1
                        .get(length..)
                        .and_then(|rest| rest.chars().next()),
                )
                .or_default()
                .push(row);
        }
        parts
            .into_values()
            .map(|rows| Self {
                rows,
                one_by_one: false,
            })
            .collect()
    }
}

fn resource(relationship: &Relationship) -> (&str, &str) {
    let resource = relationship.resource.as_ref();
    resource.map_or(("", ""), |resource| {
        (&resource.object_type, &resource.object_id)
    })
}

#[cfg(test)]
mod tests;
