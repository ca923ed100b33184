//! What a server offers of what is used here. Older servers lack some of it, and what they lack in a message
//! they drop without a word.

use std::collections::BTreeSet;

use crate::v1::{
    CheckBulkPermissionsRequest, CheckBulkPermissionsRequestItem, Consistency, ObjectReference,
    RelationshipUpdate, SubjectReference,
};

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
    /// Whether a Watch delivers checkpoints and changes of the schema. Without them it is unknown how far
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

    pub(crate) fn of(elements: &BTreeSet<String>) -> Self {
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
    pub(crate) const LEAST: Self = Self {
        bulk: Place::Experimental,
        schema: Place::Nowhere,
        expiry: false,
        checkpoints: false,
    };
}

pub(crate) fn expires(update: &RelationshipUpdate) -> bool {
    let relationship = update.relationship.as_ref();
    relationship.is_some_and(|found| found.optional_expires_at.is_some())
}

/// A question that needs no schema: its answer is an error, but names the revision at which it was asked.
#[must_use]
pub fn check_about_nothing() -> CheckBulkPermissionsRequest {
    let nothing = || ObjectReference {
        object_type: "nothing".to_owned(),
        object_id: "nothing".to_owned(),
    };
    let item = CheckBulkPermissionsRequestItem {
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
        items: vec![item],
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
    fn older_servers_are_recognized_by_their_descriptors() {
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
