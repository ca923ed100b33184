//! The steps as commands for bash.

use crate::Migrate;
use crate::session::Session;
use crate::stop::Outcome;

impl Migrate {
    /// The commands of this step, if they are asked for.
    pub(crate) fn printed(&self, _session: &Session) -> Option<Outcome<String>> {
        self.step.prints().then(|| Ok(String::new()))
    }
}
