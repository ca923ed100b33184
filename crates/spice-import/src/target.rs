//! The target: whether it is fit to be loaded into, and what is there afterwards.

use authzed::v1::{Consistency, ExportBulkRelationshipsRequest, RelationshipFilter};
use authzed::{Client, DatastoreKind};
use spice_cli::progress::Progress;
use spice_cli::{CommandError, Connection};
use spice_client::datastore::expiry_precision;
use spice_client::retry::Retry;
use spice_client::same_datastore::refuse_same_datastore;
use spice_client::write_engine::controller::Setting;
use spice_record::record::{Filter, Imported};
use spice_record::{ExpiryPrecision, Header};

use crate::dry_run::Occupied;
use crate::input::Totals;
use crate::load::Loader;
use crate::rejects::Rejects;
use crate::stats::Stats;
use crate::{Import, OnConflict, schema};

/// How many transactions there are at the same time at most, unless `--jobs` is given.
const MOST_IN_FLIGHT: usize = 4;

/// A target that was found fit to load into.
pub(crate) struct Target {
    pub(crate) connection: Connection,
    pub(crate) client: Client,
    head: String,
    kind: DatastoreKind,
    /// It holds relationships, and may not.
    is_occupied: bool,
}

impl Target {
    /// Connects; looks whether it holds relationships, unless `--on-conflict` is given, and refuses one that
    /// takes no writes: better now than after an hour of reading.
    pub(crate) async fn open(args: &Import) -> Result<Self, CommandError> {
        let connection = args.common.connection.resolve().await?;
        let client = spice_client::connect(&connection).await?;
        let is_occupied = args.on_conflict.is_none() && holds_any(&client, None).await?;
        let head = match is_occupied || args.dry_run {
            true => client.head().await?,
            false => client.write_marker().await?,
        };
        Ok(Self {
            kind: spice_client::datastore::kind_by_form(&connection, &head)?,
            connection,
            client,
            head,
            is_occupied,
        })
    }

    /// Refuses a target that holds relationships, unless they are all outside of what the stream is about.
    pub(crate) async fn check_is_free(
        &self,
        args: &Import,
        filter: Option<&Filter>,
    ) -> Result<(), CommandError> {
        if !self.is_occupied {
            return Ok(());
        }
        let endpoint = self.connection.endpoint();
        let policy = "--on-conflict fail|skip|touch loads into one that is not empty";
        let requests = filter.map(Filter::requests).unwrap_or_default();
        let Some(filter) = filter.filter(|_| !requests.is_empty()) else {
            return Err(
                CommandError::usage(format!("{endpoint} already holds relationships"))
                    .hint(format!("is it the right target? {policy}")),
            );
        };
        for request in requests {
            if holds_any(&self.client, Some(request)).await? {
                return Err(CommandError::usage(format!(
                    "{endpoint} already holds relationships of {filter}"
                ))
                .hint(format!("is it the right target? {policy}")));
            }
        }
        tracing::info!("{endpoint} holds relationships, and none of {filter}");
        if !args.dry_run {
            self.client.write_marker().await?;
        }
        Ok(())
    }

    /// Refuses a stream whose header does not fit the target; `true` where its schema is to be written.
    pub(crate) async fn check_against(
        &self,
        args: &Import,
        header: Option<&Header>,
    ) -> Result<bool, CommandError> {
        let endpoint = self.connection.endpoint();
        if !args.same_datastore
            && let Some(source) = header.and_then(|header| header.revision.as_deref())
        {
            refuse_same_datastore(source, &self.head, endpoint)?;
        }
        let schema = header.and_then(|header| header.schema.as_deref());
        schema::is_to_be_written(&self.client, endpoint, schema, args.schema).await
    }

    /// How precisely it keeps expiries.
    pub(crate) fn precision(&self) -> ExpiryPrecision {
        expiry_precision(self.kind)
    }

    /// `in_order`: the stream may hold a relationship twice, and the last one counts.
    pub(crate) fn loader(
        &self,
        on_conflict: OnConflict,
        rejects: Rejects,
        jobs: Option<u16>,
        in_order: bool,
    ) -> Loader<Client> {
        let retries = self.connection.max_retries;
        let jobs = match jobs {
            Some(jobs) => usize::from(jobs),
            None if self.kind.takes_calls_in_turn() || in_order => 1,
            None => MOST_IN_FLIGHT,
        };
        let first = match self.kind.gains_by_concurrency() {
            true => 4,
            false => 1,
        };
        Loader::new(
            self.client.clone(),
            retries,
            on_conflict,
            self.precision(),
            rejects,
            &(first.min(jobs)..=jobs),
        )
    }

    /// For a dry run.
    pub(crate) fn occupied(&self) -> Occupied<Client> {
        Occupied {
            server: self.client.clone(),
            endpoint: self.connection.endpoint().to_owned(),
            max_retries: self.connection.max_retries,
            precision: self.precision(),
        }
    }

    pub(crate) async fn summary(
        &self,
        header: Option<&Header>,
        stats: &Stats,
        totals: &Totals,
        setting: Setting,
        progress: &Progress,
    ) -> Result<Imported, CommandError> {
        let expiry_truncated = self.kind.expiry_resolution().map(|nanos| match nanos {
            0 | 1 => 0,
            2..=1_000 => totals.below_micros,
            _ => totals.below_seconds,
        });
        if expiry_truncated.is_some_and(|count| count > 0) {
            tracing::warn!(
                "{} expiries have a fraction of a second that {} does not keep",
                expiry_truncated.unwrap_or_default(),
                self.connection.endpoint(),
            );
        }
        Ok(Imported {
            relationships: totals.relationships,
            loaded: stats.loaded,
            present: stats.present,
            touched: stats.touched,
            skipped: stats.skipped,
            rejected: stats.rejected,
            expiry_truncated,
            source_revision: header.and_then(|header| header.revision.clone()),
            target_revision: Some(self.newest_revision().await?),
            digest: totals.digest,
            expiry_precision: totals.precision,
            verified: totals.verified,
            call_size: Some(setting.size as u64),
            calls_in_flight: Some(setting.in_flight as u64),
            seconds: (progress.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        })
    }

    /// Read after the load: a broken connection must not make that fail at its end.
    async fn newest_revision(&self) -> Result<String, CommandError> {
        let retry = Retry::new(self.connection.max_retries);
        let head = async || self.client.head().await;
        retry
            .run("reading the target's newest revision", head)
            .await
    }
}

/// Whether a server holds a relationship, or one that matches.
async fn holds_any(
    client: &Client,
    filter: Option<RelationshipFilter>,
) -> Result<bool, authzed::Error> {
    let request = ExportBulkRelationshipsRequest {
        consistency: Some(Consistency::fully_consistent()),
        optional_limit: 1,
        optional_relationship_filter: filter,
        ..ExportBulkRelationshipsRequest::default()
    };
    let first = client.export(request).message().await?;
    Ok(first.is_some_and(|page| !page.relationships.is_empty()))
}
