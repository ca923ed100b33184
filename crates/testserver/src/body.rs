//! Plays a reply as the body of an HTTP/2 answer.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::reply::{Reply, Step};

pub(crate) struct ReplyBody {
    reply: Reply,
    pause: Option<Pin<Box<Sleep>>>,
    broken: Arc<Notify>,
    /// Called if this is dropped before its end.
    cancelled: Option<Box<dyn FnOnce() + Send>>,
}

impl ReplyBody {
    pub(crate) fn new(
        reply: Reply,
        broken: Arc<Notify>,
        cancelled: Box<dyn FnOnce() + Send>,
    ) -> Self {
        Self {
            reply,
            pause: None,
            broken,
            cancelled: Some(cancelled),
        }
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.cancelled = None;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        Frame::trailers(trailers)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.pause = None;
            }
            let Some(step) = self.reply.steps.pop_front() else {
                // The end has been sent.
                if self.cancelled.is_none() {
                    return Poll::Ready(None);
                }
                return Poll::Ready(Some(Ok(self.end(&Status::ok("")))));
            };
            match step {
                Step::Message(frame) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                Step::Pause(time) => self.pause = Some(Box::pin(sleep(time))),
                Step::Status(status) => return Poll::Ready(Some(Ok(self.end(&status)))),
                Step::Reset => {
                    self.cancelled = None;
                    return Poll::Ready(Some(Err("reset by the test's script")));
                }
                Step::Disconnect => {
                    self.cancelled = None;
                    self.broken.notify_one();
                    self.reply.steps.push_front(Step::Silence);
                    return Poll::Pending;
                }
                Step::Silence => {
                    self.reply.steps.push_front(Step::Silence);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if let Some(cancelled) = self.cancelled.take() {
            cancelled();
        }
    }
}
