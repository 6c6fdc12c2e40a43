//! One request socket to the kernel: requests with acknowledgement, alone or in batches, and dumps.

use std::io;

use futures::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    proto::{self, ConnectionHandle},
    sys::{SocketAddr, protocols::NETLINK_ROUTE},
};
use tokio::task::JoinHandle;

use crate::error::{Error, Step};

/// How often an interrupted dump is repeated before it is reported.
const DUMP_ATTEMPTS: usize = 8;

/// Requests in one datagram. Every one is answered by an acknowledgement that waits in the socket's receive
/// buffer, at under a kilobyte each: far below the default of 208 KiB.
const BATCH: usize = 64;

/// Requests to the kernel. Must be opened inside a tokio runtime; the task that serves the socket ends with it.
#[derive(Debug)]
pub struct Netlink {
    handle: ConnectionHandle<RouteNetlinkMessage>,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request of a batch: the message and what to call its object in an error.
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
    pub(crate) object: String,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Netlink, Error> {
        let (mut connection, handle, _unsolicited) =
            proto::new_connection::<RouteNetlinkMessage>(NETLINK_ROUTE).map_err(Error::Open)?;
        // The flag of an interrupted dump may be on its last message only, and a batch is told apart by the
        // order of its acknowledgements: both are wanted here.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        Ok(Netlink { handle, task: tokio::spawn(connection) })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) async fn acknowledged(&self, step: Step, request: Request) -> Result<(), Error> {
        let mut results = self.batch(step, vec![request]).await;
        results.pop().expect("a batch has one result a request")
    }

    /// Sends requests, many in a datagram, and waits for all acknowledgements. One result a request, in order.
    pub(crate) async fn batch(&self, step: Step, requests: Vec<Request>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let (messages, objects): (Vec<_>, Vec<_>) = requests
                .by_ref()
                .take(BATCH)
                .map(|request| (message(request.message, request.flags | NLM_F_ACK), request.object))
                .unzip();
            self.datagram(step, messages, objects, &mut results).await;
        }
        results
    }

    async fn datagram(
        &self,
        step: Step,
        messages: Vec<NetlinkMessage<RouteNetlinkMessage>>,
        objects: Vec<String>,
        results: &mut Vec<Result<(), Error>>,
    ) {
        let mut answers = self.handle.request_batch(messages, SocketAddr::new(0, 0)).ok();
        for object in objects {
            let answer = match &mut answers {
                Some(answers) => next_acknowledgement(answers).await,
                None => None,
            };
            results.push(match answer {
                None => Err(Error::Closed { step, object }),
                Some(0) => Ok(()),
                Some(errno) => {
                    Err(Error::Refused { step, object, source: io::Error::from_raw_os_error(errno) })
                }
            });
        }
    }

    /// A whole, uninterrupted dump, or an error.
    pub(crate) async fn dump(
        &self,
        step: Step,
        request: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let closed = || Error::Closed { step, object: String::new() };
            let answers = self
                .handle
                .request(message(request.clone(), NLM_F_DUMP), SocketAddr::new(0, 0))
                .map_err(|_| closed())?
                .collect::<Vec<_>>()
                .await;
            match read_dump(answers) {
                Dump::Whole(messages) => return Ok(messages),
                Dump::Interrupted => tracing::debug!(%step, "dump interrupted, asking again"),
                Dump::Cut => return Err(closed()),
                Dump::Refused(errno) => {
                    let source = io::Error::from_raw_os_error(errno);
                    return Err(Error::Refused { step, object: String::new(), source });
                }
            }
        }
        Err(Error::Interrupted { step })
    }
}

fn message(message: RouteNetlinkMessage, flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

/// The errno of the next acknowledgement, 0 for success; `None` when the stream ends.
async fn next_acknowledgement(
    answers: &mut (impl futures::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin),
) -> Option<i32> {
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload {
            return Some(error.raw_code().saturating_abs());
        }
    }
    None
}

/// What the messages of one dump amount to.
#[derive(Debug, PartialEq, Eq)]
enum Dump {
    Whole(Vec<RouteNetlinkMessage>),
    Interrupted,
    Refused(i32),
    /// No end: the socket went away in between.
    Cut,
}

fn read_dump(answers: Vec<NetlinkMessage<RouteNetlinkMessage>>) -> Dump {
    let mut messages = Vec::with_capacity(answers.len());
    let mut interrupted = false;
    for answer in answers {
        interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => messages.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Dump::Refused(error.raw_code().saturating_abs());
            }
            // The kernel reports an error that came up during a dump in its last message.
            NetlinkPayload::Done(done) if done.code < 0 => return Dump::Refused(done.code.saturating_abs()),
            NetlinkPayload::Done(_) if interrupted => return Dump::Interrupted,
            NetlinkPayload::Done(_) => return Dump::Whole(messages),
            NetlinkPayload::Overrun(_) => return Dump::Interrupted,
            _ => {}
        }
    }
    Dump::Cut
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DoneMessage, ErrorMessage};
    use netlink_packet_route::address::AddressMessage;

    use super::*;

    fn entry(flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
        message(RouteNetlinkMessage::NewAddress(AddressMessage::default()), flags)
    }

    fn done(flags: u16) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut message =
            NetlinkMessage::new(Default::default(), NetlinkPayload::Done(DoneMessage::default()));
        message.header.flags = flags;
        message
    }

    #[test]
    fn a_dump_with_its_end_is_whole() {
        let Dump::Whole(messages) = read_dump(vec![entry(0), entry(0), done(0)]) else { panic!("not whole") };
        assert_eq!(messages.len(), 2);
    }

    #[test]
    fn an_interruption_marked_on_any_message_makes_the_dump_unknown() {
        assert_eq!(read_dump(vec![entry(NLM_F_DUMP_INTR), entry(0), done(0)]), Dump::Interrupted);
        assert_eq!(read_dump(vec![entry(0), done(NLM_F_DUMP_INTR)]), Dump::Interrupted);
    }

    #[test]
    fn a_dump_without_its_end_is_not_an_empty_table() {
        assert_eq!(read_dump(vec![]), Dump::Cut);
        assert_eq!(read_dump(vec![entry(0)]), Dump::Cut);
    }

    #[test]
    fn an_error_in_a_dump_keeps_its_errno() {
        let mut error = ErrorMessage::default();
        error.code = std::num::NonZeroI32::new(-libc::EPERM);
        let answer = NetlinkMessage::new(Default::default(), NetlinkPayload::Error(error));
        assert_eq!(read_dump(vec![answer]), Dump::Refused(libc::EPERM));
    }
}
