//! The calls that the writing programs make of a target.
//!
//! They talk to a server through this trait, so that their tests run against a
//! `scripted` one, with tokio's clock paused: thousands of cases in seconds.

use authzed::v1::{Consistency, Relationship, WriteRelationshipsRequest};
use authzed::{Client, EncodedRelationships, Error, Written};
use futures::Stream;
use spice_cli::CommandError;

use crate::lookup::{self, ByKey};
use crate::schema;

/// How the relationships that are looked up lie among all that a server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Close together, as a chunk of an export.
    Sorted,
    /// Few, and anywhere.
    Few,
    /// Many, and anywhere: each is read by itself.
    Scattered,
}

/// A server that relationships are written to. [`Client`] has the meaning of each call.
#[expect(
    async_fn_in_trait,
    reason = "each program drives its calls on one task, so no future has to be Send"
)]
pub trait Server: Clone {
    /// Whether the server keeps the expiry of a relationship.
    fn keeps_expiry(&self) -> bool;

    /// The error for an expiry that the server would drop.
    fn drops_expiry(&self) -> Error;

    /// The same server on a connection of its own.
    #[must_use]
    fn reconnect(&self) -> Self;

    /// WriteRelationships.
    ///
    /// # Errors
    ///
    /// As [`Client::write`].
    async fn write(&self, request: WriteRelationshipsRequest) -> Result<Written, Error>;

    /// An empty write.
    ///
    /// # Errors
    ///
    /// As [`Client::write_marker`].
    async fn write_marker(&self) -> Result<String, Error>;

    /// ImportBulkRelationships: one transaction; returns how many relationships the server counted.
    ///
    /// # Errors
    ///
    /// As [`Client::import`].
    async fn import(
        &self,
        messages: impl Stream<Item = EncodedRelationships> + Send + 'static,
    ) -> Result<u64, Error>;

    /// The newest revision.
    ///
    /// # Errors
    ///
    /// As [`Client::head`].
    async fn head(&self) -> Result<String, Error>;

    /// The text of the schema; `None` where there is none.
    ///
    /// # Errors
    ///
    /// As [`Client::read_schema`].
    async fn read_schema(&self) -> Result<Option<String>, Error>;

    /// Writes a schema.
    ///
    /// # Errors
    ///
    /// As [`Client::write_schema`].
    async fn write_schema(&self, text: &str) -> Result<String, Error>;

    /// In which way the schema of the server, whose text is `there`, differs from `text`; `None` where
    /// they are equal.
    ///
    /// # Errors
    ///
    /// As [`schema::difference`].
    async fn schema_difference(
        &self,
        there: Option<&str>,
        text: &str,
    ) -> Result<Option<String>, CommandError>;

    /// What the server holds, fully consistently, under the keys of `rows`. The error inside is the one
    /// with which it refuses to look for one of the ids.
    ///
    /// # Errors
    ///
    /// As [`lookup::read`].
    async fn lookup(
        &self,
        rows: &[&Relationship],
        layout: Layout,
        max_retries: usize,
    ) -> Result<Result<ByKey<Relationship>, Error>, CommandError>;
}

impl Server for Client {
    fn keeps_expiry(&self) -> bool {
        self.offers().expiry
    }

    fn drops_expiry(&self) -> Error {
        Self::drops_expiry(self)
    }

    fn reconnect(&self) -> Self {
        Self::reconnect(self)
    }

    async fn write(&self, request: WriteRelationshipsRequest) -> Result<Written, Error> {
        Self::write(self, request).await
    }

    async fn write_marker(&self) -> Result<String, Error> {
        Self::write_marker(self).await
    }

    async fn import(
        &self,
        messages: impl Stream<Item = EncodedRelationships> + Send + 'static,
    ) -> Result<u64, Error> {
        Self::import(self, messages).await
    }

    async fn head(&self) -> Result<String, Error> {
        Self::head(self).await
    }

    async fn read_schema(&self) -> Result<Option<String>, Error> {
        let schema = Self::read_schema(self).await?;
        Ok(schema.map(|schema| schema.text))
    }

    async fn write_schema(&self, text: &str) -> Result<String, Error> {
        Self::write_schema(self, text).await
    }

    async fn schema_difference(
        &self,
        there: Option<&str>,
        text: &str,
    ) -> Result<Option<String>, CommandError> {
        schema::difference(self, Consistency::fully_consistent(), there, text).await
    }

    async fn lookup(
        &self,
        rows: &[&Relationship],
        layout: Layout,
        max_retries: usize,
    ) -> Result<Result<ByKey<Relationship>, Error>, CommandError> {
        match layout {
            Layout::Sorted => lookup::read(self, rows, max_retries).await,
            Layout::Few => {
                let newest = Consistency::fully_consistent();
                lookup::read_few(self, rows, newest, max_retries).await
            }
            Layout::Scattered => lookup::read_scattered(self, rows, max_retries).await,
        }
    }
}
