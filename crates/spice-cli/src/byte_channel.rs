//! A channel whose bound is bytes, not messages: one revision may be as large as all others together.

use std::sync::Arc;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Makes a channel that holds about `bytes`, and always at least one message.
#[must_use]
pub fn channel<T>(bytes: usize) -> (Sender<T>, Receiver<T>) {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let (sender, receiver) = mpsc::unbounded_channel();
    let sender = Sender {
        sender,
        room: Arc::new(Semaphore::new(bytes as usize)),
        bytes,
    };
    (sender, Receiver(receiver))
}

/// A message, and its claim on the room: that ends when this is dropped.
#[derive(Debug)]
pub struct Held<T> {
    /// The message.
    pub message: T,
    room: OwnedSemaphorePermit,
}

impl<T> Held<T> {
    /// The message with another content, and the same room.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Held<U> {
        Held {
            message: change(self.message),
            room: self.room,
        }
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Sender<T> {
    sender: mpsc::UnboundedSender<Held<T>>,
    room: Arc<Semaphore>,
    bytes: u32,
}

impl<T> Sender<T> {
    /// Whether a message of this size would have to wait.
    #[must_use]
    pub fn is_full(&self, size: usize) -> bool {
        self.room.available_permits() < self.share(size) as usize
    }

    /// Waits for room; `false` where nobody listens any more.
    pub async fn send(&self, message: T, size: usize) -> bool {
        let room = Arc::clone(&self.room).acquire_many_owned(self.share(size));
        let room = tokio::select! {
            room = room => room,
            () = self.sender.closed() => return false,
        };
        // The semaphore is never closed.
        room.is_ok_and(|room| self.sender.send(Held { message, room }).is_ok())
    }

    fn share(&self, size: usize) -> u32 {
        u32::try_from(size).unwrap_or(u32::MAX).clamp(1, self.bytes)
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver<T>(mpsc::UnboundedReceiver<Held<T>>);

impl<T> Receiver<T> {
    /// The next message; `None` once the sender is gone.
    pub async fn recv(&mut self) -> Option<Held<T>> {
        self.0.recv().await
    }

    /// [`recv`](Self::recv) for a thread.
    pub fn blocking_recv(&mut self) -> Option<Held<T>> {
        self.0.blocking_recv()
    }

    /// The next message if there is one.
    ///
    /// # Errors
    ///
    /// Whether it is only empty, or at its end.
    pub fn try_recv(&mut self) -> Result<Held<T>, TryRecvError> {
        self.0.try_recv()
    }
}
