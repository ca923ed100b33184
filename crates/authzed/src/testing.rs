//! The seam of the unit tests: a client whose connections are byte streams in memory.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::DuplexStream;

use crate::client::Client;
use crate::config::Config;
use crate::connector::Io;
use crate::error::{ConnectError, Error};

/// Opens the client's end of a new connection.
pub(crate) type OpenStream = Arc<dyn Fn() -> io::Result<DuplexStream> + Send + Sync>;

impl Client {
    /// A client that calls `open` for each connection, and opens no socket.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config), as with [`new`](Self::new).
    pub fn in_memory(
        config: &Config,
        open: impl Fn() -> io::Result<DuplexStream> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::with_streams(config, Arc::new(open))
    }
}

pub(crate) fn open_stream(
    open: &(dyn Fn() -> io::Result<DuplexStream> + Send + Sync),
) -> Result<Io, ConnectError> {
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    open()
        .map(Io::InMemory)
        .map_err(|error| ConnectError::Dial(nowhere, Arc::new(error)))
}
