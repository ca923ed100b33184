//! Whether the target takes the source's schema, as far as that can be asked without writing it.

use authzed::Kind;
use authzed::v1::Consistency;
use spice_client::schema;
use tokio::time::timeout_at;

use super::Probe;
use crate::facts::{Has, SchemaFit, SchemaText};

impl Probe {
    /// Compares the source's schema with the one of this server, which is the target.
    pub(crate) async fn schema_fit(
        &self,
        has: Has,
        there: &SchemaText,
        source: &SchemaText,
    ) -> SchemaFit {
        let text = match source {
            SchemaText::Text(text) => text,
            SchemaText::None => return SchemaFit::SourceHasNone,
            SchemaText::Unknown => {
                return SchemaFit::Unknown("the source's schema could not be read".to_owned());
            }
        };
        if source.has_expiration() && !has.expiry {
            return SchemaFit::Refused("it does not know `use expiration`".to_owned());
        }
        match there {
            SchemaText::Unknown => {
                SchemaFit::Unknown("the target's schema could not be read".to_owned())
            }
            SchemaText::Text(there) if there == text => SchemaFit::Equal,
            SchemaText::None if !has.schema_at_revision => {
                SchemaFit::TargetHasNone { is_tried: false }
            }
            SchemaText::None => match self.parses(text).await {
                Some(Err(refused)) => SchemaFit::Refused(refused),
                parsed => SchemaFit::TargetHasNone {
                    is_tried: parsed.is_some(),
                },
            },
            SchemaText::Text(_) => {
                if has.schema_at_revision
                    && let Some(Err(refused)) = self.parses(text).await
                {
                    return SchemaFit::Refused(refused);
                }
                self.difference(text).await
            }
        }
    }

    /// Whether the server parses a schema: DiffSchema does so before it compares. `None` where it did not
    /// answer that.
    async fn parses(&self, text: &str) -> Option<Result<(), String>> {
        let newest = Consistency::fully_consistent();
        match self.call(self.client.diff_schema(newest, text)).await {
            Ok(_) => Some(Ok(())),
            Err(failure) if failure.kind == Kind::Refused => Some(Err(failure.message)),
            Err(_) => None,
        }
    }

    async fn difference(&self, text: &str) -> SchemaFit {
        let newest = Consistency::fully_consistent();
        let differences = schema::differences(&self.client, newest, text);
        match timeout_at(self.until(), differences).await {
            Ok(Ok(None)) => SchemaFit::Equal,
            Ok(Ok(Some(difference))) => SchemaFit::Differs(difference),
            Ok(Err(failure)) => SchemaFit::Unknown(failure.message().to_owned()),
            Err(_) => SchemaFit::Unknown("no answer in time".to_owned()),
        }
    }
}
