//! What a server offers of what is used here. Older servers lack some of it, and what they lack in a message
//! they drop without a word.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;

use crate::client::Client;
use crate::error::{Error, Kind};
use crate::reflection;
use crate::v1::{
    CheckBulkPermissionsRequest, CheckBulkPermissionsRequestItem, Consistency, ObjectReference,
    RelationshipUpdate, SubjectReference,
};

/// For all questions together: they are asked at first contact.
const IN_TIME: Duration = Duration::from_secs(5);

/// What a server offers. Found in the descriptors of v1.30.0 to v1.57.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// Where export and import are.
    pub(crate) bulk: Place,
    /// Where ReflectSchema and DiffSchema are.
    pub(crate) schema: Place,
    /// Whether a relationship can have an expiry. A server without it takes the relationship and drops the
    /// expiry.
    pub expiry: bool,
    /// Whether a Watch tells checkpoints and changes of the schema. Without them it cannot be known how far
    /// a silent Watch has come.
    pub checkpoints: bool,
}

/// The service that has a method. The messages are the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The service that has it in newer versions: PermissionsService, SchemaService.
    Stable,
    /// ExperimentalService, under another name.
    Experimental,
    Nowhere,
}

impl Offers {
    /// What a server of today offers.
    pub(crate) const ALL: Self = Self {
        bulk: Place::Stable,
        schema: Place::Stable,
        expiry: true,
        checkpoints: true,
    };

    /// Whether the schema of an older revision can be asked for, by ReflectSchema and DiffSchema. ReadSchema
    /// has only the newest.
    #[must_use]
    pub fn schema_at_revision(&self) -> bool {
        self.schema != Place::Nowhere
    }

    fn of(elements: &BTreeSet<String>) -> Self {
        let has = |name: &str| elements.contains(&format!("authzed.api.v1.{name}"));
        let place = |stable: &str, experimental: &str| {
            if has(stable) {
                Place::Stable
            } else if has(experimental) {
                Place::Experimental
            } else {
                Place::Nowhere
            }
        };
        Self {
            bulk: place(
                "PermissionsService.ExportBulkRelationships",
                "ExperimentalService.BulkExportRelationships",
            ),
            schema: place(
                "SchemaService.DiffSchema",
                "ExperimentalService.ExperimentalDiffSchema",
            ),
            expiry: has("Relationship.optional_expires_at"),
            checkpoints: has("WatchRequest.optional_update_kinds"),
        }
    }

    /// What a server is taken for of which nothing can be known: what every version has. So nothing is sent to
    /// it that it might drop.
    const LEAST: Self = Self {
        bulk: Place::Experimental,
        schema: Place::Nowhere,
        expiry: false,
        checkpoints: false,
    };

    /// Asks the server.
    ///
    /// # Errors
    ///
    /// Those that may pass.
    pub(crate) async fn learn(client: &Client) -> Result<Self, Error> {
        let Ok(described) = timeout(IN_TIME, described(client)).await else {
            return Err(client.deadline(reflection::RPC));
        };
        if let Some(elements) = described? {
            return Ok(Self::of(&elements));
        }
        // No reflection, or a proxy in its place. All that has ReflectSchema in SchemaService has the rest.
        match client.reflect_schema(Consistency::fully_consistent()).await {
            Err(error) if error.is_transient() => Err(error),
            Err(error) if error.kind() == Kind::Unimplemented => Ok(Self::LEAST),
            _ => Ok(Self::ALL),
        }
    }
}

/// The names of all that the server describes; `None` where it does not describe itself.
async fn described(client: &Client) -> Result<Option<BTreeSet<String>>, Error> {
    const SERVICES: [&str; 4] = [
        "authzed.api.v1.PermissionsService",
        "authzed.api.v1.SchemaService",
        "authzed.api.v1.WatchService",
        "authzed.api.v1.ExperimentalService",
    ];
    let mut elements = BTreeSet::new();
    let asked = SERVICES.map(|service| client.file_descriptor(service));
    for answer in futures::future::join_all(asked).await {
        match answer {
            Ok(files) => elements.extend(reflection::names(&files.unwrap_or_default())),
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => return Ok(None),
        }
    }
    let is_described = SERVICES[..3]
        .iter()
        .all(|service| elements.contains(*service));
    Ok(is_described.then_some(elements))
}

impl Client {
    /// What is to be said instead of sending a relationship with an expiry to a server that would drop it.
    /// [`write_relationships`](Self::write_relationships) does so; whoever calls [`import`](Self::import)
    /// has to look at [`Offers::expiry`] before.
    #[must_use]
    pub fn drops_expiry(&self) -> Error {
        let message = "the relationship has an expiry, and this server does not know expiries: it would \
                       grant for ever (SpiceDB v1.40 has them)";
        Error::new(
            Kind::Refused,
            "WriteRelationships",
            &self.name(),
            message.to_owned(),
        )
    }
}

pub(crate) fn expires(update: &RelationshipUpdate) -> bool {
    let relationship = update.relationship.as_ref();
    relationship.is_some_and(|found| found.optional_expires_at.is_some())
}

/// A question that needs no schema: its answer is an error, but says at which revision it was asked.
pub(crate) fn question_about_nothing() -> CheckBulkPermissionsRequest {
    let nothing = || ObjectReference {
        object_type: "nothing".to_owned(),
        object_id: "nothing".to_owned(),
    };
    let question = CheckBulkPermissionsRequestItem {
        resource: Some(nothing()),
        permission: "nothing".to_owned(),
        subject: Some(SubjectReference {
            object: Some(nothing()),
            ..SubjectReference::default()
        }),
        context: None,
    };
    CheckBulkPermissionsRequest {
        consistency: Some(Consistency::fully_consistent()),
        items: vec![question],
        with_tracing: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(elements: &[&str]) -> Offers {
        let full = |name: &&str| format!("authzed.api.v1.{name}");
        Offers::of(&elements.iter().map(full).collect())
    }

    #[test]
    fn older_servers_are_told_by_what_they_describe() {
        let v1_30 = offers(&["ExperimentalService.BulkExportRelationships"]);
        assert_eq!(v1_30.bulk, Place::Experimental);
        assert!(!v1_30.schema_at_revision() && !v1_30.expiry && !v1_30.checkpoints);
        let v1_40 = offers(&[
            "ExperimentalService.BulkExportRelationships",
            "ExperimentalService.ExperimentalDiffSchema",
            "PermissionsService.ExportBulkRelationships",
            "Relationship.optional_expires_at",
        ]);
        assert_eq!(
            (v1_40.bulk, v1_40.schema),
            (Place::Stable, Place::Experimental)
        );
        assert!(v1_40.schema_at_revision() && v1_40.expiry && !v1_40.checkpoints);
        let today = offers(&[
            "PermissionsService.ExportBulkRelationships",
            "SchemaService.DiffSchema",
            "Relationship.optional_expires_at",
            "WatchRequest.optional_update_kinds",
        ]);
        assert_eq!(today, Offers::ALL);
    }
}
