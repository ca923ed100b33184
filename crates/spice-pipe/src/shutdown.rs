//! SIGINT and SIGTERM.
//!
//! The first one asks the program to stop where it can; a second one ends it at once. A program that
//! stopped because it was asked to dies of the real signal afterwards ([`crate::run`]), so that a
//! shell loop around it ends too.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// SIGHUP, SIGINT, SIGTERM, SIGPIPE on every Unix that the programs are built for.
pub(crate) const SIGINT: i32 = 2;
/// The polite request to stop.
pub const SIGTERM: i32 = 15;
pub(crate) const SIGPIPE: i32 = 13;

/// Whether the program was asked to stop, and by which signal.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Option<i32>>);

impl Shutdown {
    /// Starts to listen. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// Where the operating system refuses signal handlers.
    pub fn listen() -> std::io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => SIGINT,
                    _ = terminate.recv() => SIGTERM,
                };
                if sender.send_replace(Some(number)).is_some() {
                    let _ = signal_hook::low_level::emulate_default_handler(number);
                }
            }
        });
        Ok(Self(receiver))
    }

    /// The signal that asked for the end, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        *self.0.borrow()
    }

    /// Waits until a signal asks for the end, and says which.
    pub async fn requested(&self) -> i32 {
        let mut receiver = self.0.clone();
        match receiver
            .wait_for(Option::is_some)
            .await
            .map(|number| *number)
        {
            Ok(Some(number)) => number,
            // The listener lives as long as the runtime.
            _ => std::future::pending().await,
        }
    }
}
