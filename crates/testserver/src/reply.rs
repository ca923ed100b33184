//! The answer to one call, step by step.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use authzed::rpc::{ErrorInfo, Status as RpcStatus};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Response};
use prost::Message;
use tokio::sync::Notify;
use tonic::{Code, Status};

use crate::body::ReplyBody;

/// h2 drops the frames that it has not written yet when a stream is reset.
const FLUSH: Duration = Duration::from_millis(1);

/// The answer to one call. It ends with the status OK where no other end is given.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub(crate) steps: VecDeque<Step>,
    /// An HTTP status in place of gRPC's 200.
    http: Option<u16>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A frame with a message.
    Message(Bytes),
    Pause(Duration),
    /// Nothing is sent any more, and nothing ends.
    Silence,
    Status(Box<Status>),
    /// RST_STREAM: this call ends, the connection remains.
    Reset,
    /// The connection ends.
    Disconnect,
}

impl Reply {
    /// No message.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// One message.
    #[must_use]
    pub fn message(message: &impl Message) -> Self {
        Self::empty().then(message)
    }

    /// These messages.
    #[must_use]
    pub fn messages<M: Message>(messages: impl IntoIterator<Item = M>) -> Self {
        let each = messages.into_iter();
        each.fold(Self::empty(), |reply, message| reply.then(&message))
    }

    /// An error, as SpiceDB sends it without details.
    #[must_use]
    pub fn error(code: Code, message: &str) -> Self {
        Self::empty().fail(code, message)
    }

    /// An error with a `google.rpc.ErrorInfo`: `reason` without the prefix `ERROR_REASON_`.
    #[must_use]
    pub fn refusal(code: Code, reason: &str, message: &str, metadata: &[(&str, &str)]) -> Self {
        Self::empty().refuse(code, reason, message, metadata)
    }

    /// No answer.
    #[must_use]
    pub fn silent() -> Self {
        Self::empty().silence()
    }

    /// An HTTP answer that is not gRPC's, as a load balancer gives it.
    #[must_use]
    pub fn http(status: u16) -> Self {
        Self {
            http: Some(status),
            ..Self::empty()
        }
    }

    /// The next message.
    #[must_use]
    pub fn then(self, message: &impl Message) -> Self {
        let mut frame = BytesMut::with_capacity(5 + message.encoded_len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
        message.encode(&mut frame).unwrap();
        self.step(Step::Message(frame.freeze()))
    }

    /// A pause.
    #[must_use]
    pub fn pause(self, time: Duration) -> Self {
        self.step(Step::Pause(time))
    }

    /// Silence until the client cancels.
    #[must_use]
    pub fn silence(self) -> Self {
        self.step(Step::Silence)
    }

    /// Ends with an error.
    #[must_use]
    pub fn fail(self, code: Code, message: &str) -> Self {
        self.step(Step::Status(Box::new(Status::new(code, message))))
    }

    /// Ends with an error that has a `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn refuse(
        self,
        code: Code,
        reason: &str,
        message: &str,
        metadata: &[(&str, &str)],
    ) -> Self {
        let metadata = metadata.iter();
        let metadata = metadata.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let info = ErrorInfo {
            reason: format!("ERROR_REASON_{reason}"),
            domain: "authzed.com".to_owned(),
            metadata: metadata.collect::<HashMap<_, _>>().into_iter().collect(),
        };
        let details = RpcStatus {
            code: code as i32,
            message: message.to_owned(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        let details = details.encode_to_vec().into();
        let status = Status::with_details(code, message, details);
        self.step(Step::Status(Box::new(status)))
    }

    /// Ends with RST_STREAM, once what comes before has been sent.
    #[must_use]
    pub fn reset(self) -> Self {
        self.pause(FLUSH).step(Step::Reset)
    }

    /// Ends the connection, once what comes before has been sent.
    #[must_use]
    pub fn disconnect(self) -> Self {
        self.pause(FLUSH).step(Step::Disconnect)
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push_back(step);
        self
    }

    pub(crate) fn into_response(
        self,
        broken: Arc<Notify>,
        cancelled: Box<dyn FnOnce() + Send>,
    ) -> Response<ReplyBody> {
        let (status, content) = match self.http {
            Some(status) => (status, "text/html"),
            None => (200, "application/grpc"),
        };
        let mut response = Response::new(ReplyBody::new(self, broken, cancelled));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static(content));
        response
    }
}
