//! Streams of responses.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::time::timeout;
use tonic::{Response, Status, Streaming};

use crate::error::Error;

type Opening<T> =
    Pin<Box<dyn Future<Output = Result<Response<Streaming<T>>, Status>> + Send + 'static>>;

/// The responses of one streaming call.
///
/// The call is made when the first response is asked for: a server may send nothing at all until
/// there is a first response, for a Watch on an idle server that is never. Nothing is lost when a
/// [`message`](Self::message) future is dropped, so it can stand in a `select!`. Dropping the stream
/// cancels the call.
#[must_use = "the call is made when the first response is asked for"]
pub struct Responses<T> {
    state: State<T>,
    rpc: &'static str,
    endpoint: Arc<str>,
    patience: Option<Duration>,
}

enum State<T> {
    Opening(Opening<T>),
    Open(Box<Streaming<T>>),
    Ended,
}

impl<T> Responses<T> {
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
        }
    }

    /// With an end to the waiting for any one response.
    pub(crate) fn within(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Waits for the next response; `None` at the end that the server meant.
    ///
    /// # Errors
    ///
    /// The call's error, once; after it the stream is at its end. [`Kind::Deadline`] where an export
    /// brings nothing for the request timeout; a Watch may be silent for ever.
    ///
    /// [`Kind::Deadline`]: crate::Kind::Deadline
    pub async fn message(&mut self) -> Result<Option<T>, Error> {
        let patience = self.patience;
        let message = std::future::poll_fn(|context| self.poll_message(context));
        let Some(patience) = patience else {
            return message.await;
        };
        match timeout(patience, message).await {
            Ok(message) => message,
            Err(_) => {
                self.state = State::Ended;
                Err(Error::deadline(self.rpc, &self.endpoint))
            }
        }
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
                    None => break Ok(None),
                },
                State::Ended => return Poll::Ready(Ok(None)),
            }
        };
        self.state = State::Ended;
        Poll::Ready(result.map_err(|status| Error::from_status(self.rpc, &self.endpoint, status)))
    }
}

impl<T> Stream for Responses<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(context).map(Result::transpose)
    }
}

impl<T> std::fmt::Debug for Responses<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Opening(_) => "opening",
            State::Open(_) => "open",
            State::Ended => "ended",
        };
        f.debug_struct("Responses")
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
    ) -> Responses<()> {
        Responses::new("Watch", Arc::from("localhost:50051"), call)
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
        let mut responses = responses(std::future::pending()).within(Duration::from_millis(10));
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
