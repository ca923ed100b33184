//! The connection of a client and its clones.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tonic::transport::Channel;

use crate::endpoint::Target;

/// A connection that can be replaced for all who share it. Calls in flight keep the one they began on.
#[derive(Clone)]
pub(super) struct SharedChannel(Arc<Mutex<Opened>>);

struct Opened {
    channel: Channel,
    at: Instant,
}

impl SharedChannel {
    pub(super) fn open(target: &Target) -> Self {
        let (channel, at) = (target.open(), Instant::now());
        Self(Arc::new(Mutex::new(Opened { channel, at })))
    }

    pub(super) fn get(&self) -> Channel {
        let opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        opened.channel.clone()
    }

    /// A call that began then had no answer in time. Something on the way may hold the connection open and pass on
    /// nothing: only a new one tells.
    pub(super) fn gave_no_answer(&self, target: &Target, call_began: Instant) {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.at <= call_began {
            *opened = Opened {
                channel: target.open(),
                at: Instant::now(),
            };
        }
    }
}
