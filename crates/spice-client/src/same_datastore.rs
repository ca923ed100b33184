//! Refuses a stream that comes from the datastore that it would be written to.

use spice_cli::CommandError;

/// The first characters of the datastore's id in a zedtoken, which distinguish datastores.
#[must_use]
pub fn datastore_id(token: &str) -> Option<String> {
    authzed::zedtoken::decode(token).ok()?.datastore_id
}

/// What two zedtokens show of whether they come from one datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sameness {
    /// From this one, both of them.
    Same(String),
    /// Neither names its datastore, and their revisions have one form.
    Unknown,
    /// Only one names its datastore, and their revisions have one form.
    HalfKnown,
    /// From two.
    Different,
}

impl Sameness {
    /// Compares two zedtokens.
    #[must_use]
    pub fn of(source: &str, target: &str) -> Self {
        match (datastore_id(source), datastore_id(target)) {
            (Some(source), Some(target)) if source == target => Self::Same(source),
            (None, None) if form(source) == form(target) => Self::Unknown,
            (None, Some(_)) | (Some(_), None) if form(source) == form(target) => Self::HalfKnown,
            _ => Self::Different,
        }
    }
}

/// Refuses a stream that comes from the datastore that it would be written to, or of which that cannot be
/// known: servers up to SpiceDB v1.45 do not name it.
///
/// # Errors
///
/// Exit 2 where both tokens carry the same datastore id, or none and revisions of one form.
pub fn refuse_same_datastore(
    source: &str,
    target: &str,
    endpoint: &str,
) -> Result<(), CommandError> {
    let same = match Sameness::of(source, target) {
        Sameness::Same(id) => {
            format!("the stream comes from the target's own datastore ({id} behind {endpoint})")
        }
        Sameness::Unknown => {
            return Err(CommandError::usage(format!(
                "whether the stream comes from the target's own datastore, behind {endpoint}, cannot be known: \
                 the zedtokens of neither name one (SpiceDB v1.45 and older)"
            ))
            .hint(
                "check --context or --endpoint of both ends; --same-datastore accepts both, whether they \
                 are the same or not",
            ));
        }
        Sameness::HalfKnown => {
            tracing::warn!(
                "whether the stream comes from the target's own datastore, behind {endpoint}, is not known: only \
                 one of their zedtokens names it (SpiceDB v1.45 and older do not)"
            );
            return Ok(());
        }
        Sameness::Different => return Ok(()),
    };
    Err(CommandError::usage(same).hint(
        "source and target are the same: check --context or --endpoint of both ends; to put a backup \
         back where it came from, or to load a clone of the database: --same-datastore",
    ))
}

/// `None` for a token of no known form, which shows nothing.
fn form(token: &str) -> Option<&'static str> {
    Some(authzed::zedtoken::decode(token).ok()?.revision.form())
}

#[cfg(test)]
mod tests {
    use super::refuse_same_datastore;
    use spice_cli::Exit;

    #[test]
    fn a_datastore_that_is_or_may_be_the_source_is_refused() {
        // Revision 7 and 8 of one datastore, and of one that is not named.
        let (named, other) = ("GgoKATcSBTEyMzQ1", "GgoKATgSBTk4NzY1");
        let (unnamed, later) = ("GgMKATc=", "GgMKATg=");
        let refused = |source, target| {
            let found = refuse_same_datastore(source, target, "localhost:50051");
            found.err().map(|failure| failure.exit)
        };
        assert_eq!(refused(named, named), Some(Exit::Usage));
        assert_eq!(refused(unnamed, later), Some(Exit::Usage));
        assert_eq!(refused(named, other), None);
        assert_eq!(refused(named, unnamed), None);
        // A PostgreSQL revision that is not named.
        let postgres = "GhoKGENMc0dJTG9HS05pVHU1THJ1N2IxR0E9PQ==";
        assert_eq!(refused(postgres, unnamed), None);
    }
}
