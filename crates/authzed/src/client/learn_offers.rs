//! Finds what a server offers, where its first answers leave that open.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;

use super::{Client, reflection};
use crate::error::{Error, Kind};
use crate::offers::Offers;
use crate::v1::Consistency;

/// For all questions together: they are asked at first contact.
const IN_TIME: Duration = Duration::from_secs(5);

/// Asks the server.
///
/// # Errors
///
/// Those that may pass.
pub(super) async fn learn(client: &Client) -> Result<Offers, Error> {
    let Ok(described) = timeout(IN_TIME, described(client)).await else {
        return Err(client.deadline(reflection::RPC));
    };
    if let Some(elements) = described? {
        return Ok(Offers::of(&elements));
    }
    // No reflection, or a proxy in its place. All that has ReflectSchema in SchemaService has the rest.
    match client.reflect_schema(Consistency::fully_consistent()).await {
        Err(error) if error.is_transient() => Err(error),
        Err(error) if error.kind() == Kind::Unimplemented => Ok(Offers::LEAST),
        _ => Ok(Offers::ALL),
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
    /// The error instead of sending a relationship with an expiry to a server that would drop it.
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
