//! Whether the target takes the source's schema, as far as that can be asked without writing it.

use authzed::Kind;
use authzed::v1::Consistency;
use spice_cli::Exit;
use spice_client::schema;
use tokio::time::timeout_at;

use super::{Probe, no_answer};
use crate::facts::{Failure, Has, SchemaFit, SchemaText};

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
                Ok(()) => SchemaFit::TargetHasNone { is_tried: true },
                Err(failure) => unparsed(failure),
            },
            SchemaText::Text(_) => self.difference(text).await,
        }
    }

    /// Whether the server parses a schema: DiffSchema does so before it compares.
    async fn parses(&self, text: &str) -> Result<(), Failure> {
        let newest = Consistency::fully_consistent();
        self.call(self.client.diff_schema(newest, text))
            .await
            .map(drop)
    }

    /// Whether a schema cannot be compared with itself without ReflectSchema, as spice-export does to prove that
    /// it is that of a revision.
    pub(crate) async fn needs_definitions(&self, text: &str) -> bool {
        let newest = Consistency::fully_consistent();
        let compared = schema::differences(&self.client, newest, text);
        let compared = timeout_at(self.until(), compared).await;
        matches!(compared, Ok(Err(failure)) if failure.exit == Exit::Denied)
    }

    /// As spice-import compares them.
    async fn difference(&self, text: &str) -> SchemaFit {
        let newest = Consistency::fully_consistent();
        let differences = schema::differences(&self.client, newest, text);
        let failure = match timeout_at(self.until(), differences).await {
            Ok(Ok(None)) => return SchemaFit::Equal,
            Ok(Ok(Some(difference))) => return SchemaFit::Differs(difference),
            Ok(Err(failure)) => failure,
            Err(_) => return failed(no_answer()),
        };
        let message = failure.message().to_owned();
        match failure.exit {
            Exit::Denied => SchemaFit::Unknown(message),
            Exit::TryAgain => SchemaFit::Failed {
                message,
                passes: true,
            },
            _ => match self.parses(text).await {
                Err(failure) if is_refusal(&failure) => SchemaFit::Refused(failure.message),
                _ => SchemaFit::Failed {
                    message,
                    passes: false,
                },
            },
        }
    }
}

/// The server was asked, and does not take the text.
fn is_refusal(failure: &Failure) -> bool {
    matches!(
        failure.kind,
        Kind::Refused | Kind::MessageTooLarge | Kind::LimitExceeded
    )
}

/// What it means for a target without a schema that a text was not parsed.
fn unparsed(failure: Failure) -> SchemaFit {
    match failure.kind {
        _ if is_refusal(&failure) => SchemaFit::Refused(failure.message),
        Kind::Denied | Kind::Unauthenticated | Kind::Unimplemented => {
            SchemaFit::TargetHasNone { is_tried: false }
        }
        _ => failed(failure),
    }
}

fn failed(failure: Failure) -> SchemaFit {
    SchemaFit::Failed {
        message: failure.message,
        passes: failure.passes,
    }
}
