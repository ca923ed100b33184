//! Streams of responses.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::time::{Instant, timeout};
use tonic::{Response, Status, Streaming};

use crate::client::shared_channel::SharedChannel;
use crate::error::Error;

type Opening<T> =
    Pin<Box<dyn Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static>>;

/// The responses of one streaming call.
///
/// The call is made when the first response is asked for: a server may send nothing at all until
/// there is a first response, for a Watch on an idle server that is never. Nothing is lost when a
/// [`message`](Self::message) future is dropped, so it can be used in a `select!`. Dropping the stream
/// cancels the call.
#[must_use = "the call is made when the first response is asked for"]
pub struct ResponseStream<T> {
    state: State<T>,
    rpc: &'static str,
    endpoint: Arc<str>,
    patience: Option<Patience<T>>,
    /// The server must not end it.
    unending: bool,
    /// What it was opened on, and when.
    channel: Option<(SharedChannel, Instant)>,
}

/// How long a stream may bring nothing that moves it on.
struct Patience<T> {
    limit: Duration,
    left: Duration,
    is_progress: fn(&T) -> bool,
}

enum State<T> {
    Opening(Opening<T>),
    Open(Box<Streaming<T>>),
    Ended,
}

impl<T> ResponseStream<T> {
    pub(crate) fn new(
        rpc: &'static str,
        endpoint: Arc<str>,
        call: impl Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static,
    ) -> Self {
        Self {
            state: State::Opening(Box::pin(call)),
            rpc,
            endpoint,
            patience: None,
            unending: false,
            channel: None,
        }
    }

    /// With the connection that is replaced if nothing comes in time.
    pub(crate) fn on(mut self, channel: SharedChannel) -> Self {
        self.channel = Some((channel, Instant::now()));
        self
    }

    /// With an end to the waiting: for the first response, and from one that moves the stream on to
    /// the next such. Time that passes between two calls of [`message`](Self::message) does not count.
    pub(crate) fn with_idle_timeout(
        mut self,
        patience: Duration,
        is_progress: fn(&T) -> bool,
    ) -> Self {
        self.patience = Some(Patience {
            limit: patience,
            left: patience,
            is_progress,
        });
        self
    }

    /// With an error in place of an end that the server gives it.
    pub(crate) fn unending(mut self) -> Self {
        self.unending = true;
        self
    }

    /// Waits for the next response; `None` at the end that the server meant.
    ///
    /// # Errors
    ///
    /// The call's error, once; after it the stream is at its end. [`Kind::Deadline`] where nothing
    /// comes for the request timeout, or only responses that hold nothing; a Watch may be silent for
    /// ever. [`Kind::Unavailable`] where the server ends a Watch.
    ///
    /// [`Kind::Deadline`]: crate::Kind::Deadline
    /// [`Kind::Unavailable`]: crate::Kind::Unavailable
    pub async fn message(&mut self) -> Result<Option<T>, Error> {
        let left = self.patience.as_ref().map(|patience| patience.left);
        let message = std::future::poll_fn(|context| self.poll_message(context));
        let Some(left) = left else {
            return message.await;
        };
        let began = Instant::now();
        let Ok(message) = timeout(left, message).await else {
            self.state = State::Ended;
            if let Some((channel, opened)) = &self.channel {
                channel.gave_no_answer(*opened);
            }
            return Err(self.with_proxy(Error::deadline(self.rpc, &self.endpoint)));
        };
        if let Some(patience) = &mut self.patience {
            patience.left = match &message {
                Ok(Some(message)) if (patience.is_progress)(message) => patience.limit,
                _ => left.saturating_sub(began.elapsed()),
            };
        }
        message
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<T>, Error>> {
        let result = loop {
            match &mut self.state {
                State::Opening(call) => match ready!(call.as_mut().poll(context)) {
                    Ok(response) => self.state = State::Open(Box::new(response.into_inner())),
                    Err(status) => break Err(status),
                },
                State::Open(stream) => match ready!(Pin::new(stream).poll_next(context)) {
                    Some(Ok(message)) => return Poll::Ready(Ok(Some(message))),
                    Some(Err(status)) => break Err(status),
                    None if self.unending => break Err(Status::unavailable("the server ended it")),
                    None => break Ok(None),
                },
                State::Ended => return Poll::Ready(Ok(None)),
            }
        };
        self.state = State::Ended;
        let error = |status| Error::from_status(self.rpc, &self.endpoint, status);
        Poll::Ready(result.map_err(|status| self.with_proxy(error(status))))
    }

    fn with_proxy(&self, error: Error) -> Error {
        match &self.channel {
            Some((channel, _)) => channel.target().with_proxy(error),
            None => error,
        }
    }
}

impl<T> Stream for ResponseStream<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(context).map(Result::transpose)
    }
}

impl<T> std::fmt::Debug for ResponseStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Opening(_) => "opening",
            State::Open(_) => "open",
            State::Ended => "ended",
        };
        f.debug_struct("ResponseStream")
            .field("rpc", &self.rpc)
            .field("state", &state)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Kind;

    fn responses(
        call: impl Future<Output = Result<Response<Streaming<()>>, Status>> + Send + 'static,
    ) -> ResponseStream<()> {
        ResponseStream::new("Watch", Arc::from("localhost:50051"), call)
    }

    #[tokio::test]
    async fn an_error_comes_once_and_then_the_end() {
        let mut responses = responses(async { Err(Status::unavailable("gone")) });
        assert_eq!(
            responses.message().await.unwrap_err().kind(),
            Kind::Unavailable
        );
        assert_eq!(responses.message().await.unwrap(), None);
    }

    #[tokio::test]
    async fn silence_ends_a_stream_that_has_patience() {
        let mut responses = responses(std::future::pending())
            .with_idle_timeout(Duration::from_millis(10), |()| true);
        assert_eq!(
            responses.message().await.unwrap_err().kind(),
            Kind::Deadline
        );
        assert_eq!(responses.message().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_dropped_wait_does_not_restart_the_call() {
        let call = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(Status::unavailable("gone"))
        };
        let mut responses = responses(call);
        let soon = Duration::from_millis(1);
        while timeout(soon, responses.message()).await.is_err() {}
        assert_eq!(responses.message().await.unwrap(), None);
    }
}
