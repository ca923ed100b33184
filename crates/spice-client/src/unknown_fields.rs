//! `--ignore-unknown-fields`: what a newer server sends, and this version would lose.

use std::convert::Infallible;
use std::time::Duration;

use authzed::Client;

/// How often a long run reports that fields were dropped.
const EVERY: Duration = Duration::from_secs(10);

/// `--ignore-unknown-fields`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct UnknownFieldsArgs {
    /// Drop fields of a relationship that a newer server sends and this version does not know, instead of
    /// ending with an error. The stream then lacks them, and its digest does not show that.
    #[arg(long)]
    pub ignore_unknown_fields: bool,
}

impl UnknownFieldsArgs {
    /// The client, configured for such fields.
    #[must_use]
    pub fn apply(self, client: Client) -> Client {
        if self.ignore_unknown_fields {
            client.ignore_unknown_fields()
        } else {
            client
        }
    }
}

/// Warns of the fields that were dropped so far, if there are any.
pub fn warn(client: &Client) {
    match client.unknown_fields() {
        0 => {}
        count => tracing::warn!(
            "dropped {count} fields of relationships that this version does not know \
             (--ignore-unknown-fields)"
        ),
    }
}

/// Warns while a program follows a server: soon after the first such field, and when there are more.
/// Never ends.
pub async fn watch(client: &Client) -> Infallible {
    let mut reported = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        let count = client.unknown_fields();
        if count > reported {
            reported = count;
            warn(client);
        }
    }
}
