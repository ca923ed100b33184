//! SIGINT, SIGTERM and SIGUSR1, which is SIGTERM without hurry.
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
pub struct Shutdown(watch::Receiver<Option<Request>>);

#[derive(Clone, Copy, Debug)]
struct Request {
    number: i32,
    patient: bool,
}

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
        let mut finish = signal(SignalKind::user_defined1())?;
        tokio::spawn(async move {
            loop {
                let (number, patient) = tokio::select! {
                    _ = interrupt.recv() => (SIGINT, false),
                    _ = terminate.recv() => (SIGTERM, false),
                    _ = finish.recv() => (SIGTERM, true),
                };
                let before = sender.send_replace(Some(Request { number, patient }));
                // After "without hurry" the next one may still be polite.
                if before.is_some_and(|before| !before.patient) {
                    let _ = signal_hook::low_level::emulate_default_handler(number);
                }
            }
        });
        Ok(Self(receiver))
    }

    /// The signal that asked for the end, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.0.borrow().map(|request| request.number)
    }

    /// Waits until the end is not only asked for but in a hurry: what is under way may be dropped.
    pub async fn in_a_hurry(&self) -> i32 {
        self.wait_for(|request| !request.patient).await
    }

    /// Waits until a signal asks for the end, and says which; SIGTERM for SIGUSR1.
    pub async fn requested(&self) -> i32 {
        self.wait_for(|_| true).await
    }

    async fn wait_for(&self, is_it: impl Fn(&Request) -> bool) -> i32 {
        let mut receiver = self.0.clone();
        let request = receiver.wait_for(|request| request.as_ref().is_some_and(&is_it));
        match request.await.map(|request| *request) {
            Ok(Some(request)) => request.number,
            // The listener lives as long as the runtime.
            _ => std::future::pending().await,
        }
    }
}
