//! The calls about the schema, and the newest revision, which their answers hold.

use crate::call::{self, Rpc};
use crate::client::Client;
use crate::error::{Error, Kind};
use crate::offers;
use crate::v1::{self, Consistency};

/// A server's schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// Its text, as the server has normalised it: definitions by name, comments within them kept.
    pub text: String,
    /// The zedtoken of the head revision at which it was read.
    pub read_at: String,
}

impl Client {
    /// The newest schema; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Any, but not [`Kind::NoSchema`].
    pub async fn read_schema(&self) -> Result<Option<Schema>, Error> {
        let request = v1::ReadSchemaRequest {};
        match self.unary(Rpc::READ_SCHEMA, request, self.timeout()).await {
            Ok::<v1::ReadSchemaResponse, _>(response) => Ok(Some(Schema {
                text: response.schema_text,
                read_at: self.token("ReadSchema", response.read_at)?,
            })),
            Err(error) if error.kind() == Kind::NoSchema => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The version of the server, such as `v1.56.0`; `None` where it keeps that to itself
    /// (`--disable-version-response`), or refuses the call before it is asked.
    ///
    /// An answer that is an error may have it as well: a server without a schema answers with one.
    ///
    /// # Errors
    ///
    /// Those of reading the schema that may pass.
    pub async fn server_version(&self) -> Result<Option<String>, Error> {
        let (rpc, limit) = (Rpc::READ_SCHEMA.asking_version(), self.timeout());
        let (transport, unknown) = (self.transport(), self.unknown.clone());
        let call = async {
            let request = v1::ReadSchemaRequest {};
            let opened = call::open(transport, rpc, request, Some(limit), unknown).await?;
            let answer = call::only_with_version::<v1::ReadSchemaResponse>(opened);
            answer.await.map(|(_, version)| version)
        };
        let call = async {
            call.await
                .or_else(|status| match call::version_in(status.metadata()) {
                    None => Err(status),
                    version => Ok(version),
                })
        };
        match self.in_time(rpc.name(), limit, call).await {
            Err(error) if !error.is_transient() => Ok(None),
            answer => answer,
        }
    }

    /// Replaces the schema and returns the zedtoken of the revision that has the new one.
    ///
    /// # Errors
    ///
    /// [`Kind::Refused`] where it does not parse, or existing relationships would not fit it.
    pub async fn write_schema(&self, text: impl Into<String>) -> Result<String, Error> {
        let request = v1::WriteSchemaRequest {
            schema: text.into(),
        };
        let response: v1::WriteSchemaResponse = self
            .unary(Rpc::WRITE_SCHEMA, request, self.write_timeout())
            .await?;
        self.token("WriteSchema", response.written_at)
    }

    /// The schema's definitions and caveats at a revision; none where there is no schema.
    ///
    /// # Errors
    ///
    /// [`Kind::HistoryLost`] and [`Kind::ForeignDatastore`] with an exact revision.
    pub async fn reflect_schema(
        &self,
        consistency: Consistency,
    ) -> Result<v1::ReflectSchemaResponse, Error> {
        let request = v1::ReflectSchemaRequest {
            consistency: Some(consistency),
            optional_filters: Vec::new(),
        };
        let rpc = Rpc::reflect_schema(self.offers.schema);
        self.unary(rpc, request, self.timeout()).await
    }

    /// How the schema at a revision differs from `text`; no differences: it is the same.
    ///
    /// # Errors
    ///
    /// [`Kind::HistoryLost`] and [`Kind::ForeignDatastore`] with an exact revision;
    /// [`Kind::Refused`] where the text does not parse.
    pub async fn diff_schema(
        &self,
        consistency: Consistency,
        text: impl Into<String>,
    ) -> Result<v1::DiffSchemaResponse, Error> {
        let request = v1::DiffSchemaRequest {
            consistency: Some(consistency),
            comparison_schema: text.into(),
        };
        let rpc = Rpc::diff_schema(self.offers.schema);
        self.unary(rpc, request, self.timeout()).await
    }

    /// The zedtoken of the newest revision.
    ///
    /// On PostgreSQL it names no transaction, so a Watch can start from it but not wait for it.
    ///
    /// # Errors
    ///
    /// Those of reading the schema.
    pub async fn head(&self) -> Result<String, Error> {
        if let Some(schema) = self.read_schema().await? {
            return Ok(schema.read_at);
        }
        if !self.offers.schema_at_revision() {
            let response = self.check_bulk(offers::check_about_nothing()).await?;
            return self.token("CheckBulkPermissions", response.checked_at);
        }
        let response = self.reflect_schema(Consistency::fully_consistent()).await?;
        self.token("ReflectSchema", response.read_at)
    }
}
