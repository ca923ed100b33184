//! The connection of a client and its clones.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tonic::transport::Channel;

use crate::endpoint::Target;

/// A connection that can be replaced for all who share it. Calls in flight keep the one they began on.
#[derive(Clone)]
pub(crate) struct SharedChannel {
    target: Arc<Target>,
    opened: Arc<Mutex<Opened>>,
}

struct Opened {
    channel: Channel,
    at: Instant,
}

impl SharedChannel {
    pub(super) fn open(target: &Arc<Target>) -> Self {
        Self {
            target: Arc::clone(target),
            opened: Arc::new(Mutex::new(Opened::now(target))),
        }
    }

    pub(super) fn get(&self) -> Channel {
        self.lock().channel.clone()
    }

    /// A call that began then had no answer in time. Something on the way may hold the connection open and pass on
    /// nothing: only a new one shows that.
    pub(crate) fn gave_no_answer(&self, call_began: Instant) {
        let mut opened = self.lock();
        if opened.at <= call_began {
            *opened = Opened::now(&self.target);
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    fn now(target: &Target) -> Self {
        Self {
            channel: target.open(),
            at: Instant::now(),
        }
    }
}
