//! The one place that speaks gRPC: calls over a Unix socket, each with a deadline.

use std::{
    error::Error,
    io::{self, ErrorKind},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::TokioIo;
use ipam::{
    AllocateRequest, ExplicitIPs, FamilyRequest, ReleaseRequest, StatsRequest, StatsResponse,
    allocate_request::Selector, ipam_client::IpamClient, release_request::Target,
};
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};

use api::IpFamily;

use super::{Ask, Want, account::Released};
use crate::{fence::Gate, inputs::Word};

/// How long a provider may take to answer.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer that is read: a few addresses, or the ranges of a pool.
const ANSWER_LIMIT: usize = 256 * 1024;

/// A connection to a provider; made when it is needed, made anew when it breaks.
#[derive(Clone, Debug)]
pub struct Client {
    ipam: IpamClient<Channel>,
    socket: Word,
}

impl Client {
    /// Of the provider at this path. Connects with the first call.
    /// Nothing is sent once the gate is closed: a release that comes late could take away what has been given since.
    pub fn new(socket: &Word, gate: Arc<Gate>) -> Client {
        let path = PathBuf::from(socket.as_ref());
        let connect = tower::service_fn(move |_| {
            let (path, gate) = (path.clone(), gate.clone());
            async move { UnixStream::connect(path).await.map(|stream| gate.guard(TokioIo::new(stream))) }
        });
        // Only the authority of the calls: the connector knows where to go.
        let channel = Endpoint::from_static("http://ipam").connect_with_connector_lazy(connect);
        let ipam = IpamClient::new(channel).max_decoding_message_size(ANSWER_LIMIT);
        Client { ipam, socket: socket.clone() }
    }

    /// The path.
    pub fn socket(&self) -> &Word {
        &self.socket
    }

    /// Asks for addresses. Where one family is better than none, a refusal of both is followed by a question for
    /// each.
    pub async fn allocate(&self, service: &str, ask: &Ask) -> Allocated {
        let mut allocated = Allocated::default();
        match (self.allocate_once(service, ask, &ask.want).await, &ask.want) {
            (Ok(ips), _) => allocated.ips = ips,
            (Err(status), Want::Families(families))
                if families.len() > 1 && !ask.all && is_answer(&status) =>
            {
                for family in families {
                    match self.allocate_once(service, ask, &Want::Families(vec![*family])).await {
                        Ok(ips) => allocated.ips.extend(ips),
                        Err(status) => drop(allocated.status.get_or_insert(status)),
                    }
                }
                // A provider may name what it has given before.
                allocated.ips.sort_unstable();
                allocated.ips.dedup();
            }
            (Err(status), _) => allocated.status = Some(status),
        }
        allocated
    }

    async fn allocate_once(&self, service: &str, ask: &Ask, want: &Want) -> Result<Vec<String>, Status> {
        let selector = match want {
            Want::Families(families) => Selector::Families(FamilyRequest {
                want_ipv4: families.contains(&IpFamily::IPv4),
                want_ipv6: families.contains(&IpFamily::IPv6),
            }),
            Want::Addresses(addresses) => {
                Selector::Explicit(ExplicitIPs { ips: addresses.iter().map(IpAddr::to_string).collect() })
            }
        };
        let request = AllocateRequest {
            pool: ask.group.to_string(),
            service: service.to_owned(),
            sharing_key: ask.sharing_key.as_deref().unwrap_or_default().to_owned(),
            selector: Some(selector),
        };
        let mut ipam = self.ipam.clone();
        let response = within(request, |request| async move { ipam.allocate(request).await }).await?;
        Ok(response.ips.into_iter().map(|ip| ip.ip).collect())
    }

    /// Releases. What the provider does not know is released.
    pub async fn release(&self, group: &str, service: &str, released: Released) -> Result<(), Status> {
        let target = match released {
            Released::One(address) => Target::Ip(address.to_string()),
            Released::All => Target::All(true),
        };
        let request =
            ReleaseRequest { pool: group.to_owned(), service: service.to_owned(), target: Some(target) };
        let mut ipam = self.ipam.clone();
        match within(request, |request| async move { ipam.release(request).await }).await {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// How full a pool is.
    pub async fn stats(&self, group: &str) -> Result<StatsResponse, Status> {
        let mut ipam = self.ipam.clone();
        let request = StatsRequest { pool: group.to_owned() };
        within(request, |request| async move { ipam.stats(request).await }).await
    }
}

/// What came of a question: addresses as the provider spells them, and why they are not all.
#[derive(Debug, Default)]
pub struct Allocated {
    /// Addresses.
    pub ips: Vec<String>,
    /// The first refusal.
    pub status: Option<Status>,
}

/// Whether a status says that the provider is there and has made up its mind.
pub fn is_answer(status: &Status) -> bool {
    super::answer::meaning(status.code()) != super::answer::Meaning::Unwell
}

/// Whether the call has surely not been sent: there was nobody to connect to.
pub fn is_unsent(status: &Status) -> bool {
    status.source().is_some_and(|error| refusal_of_connection(error).is_some())
}

fn refusal_of_connection(error: &(dyn Error + 'static)) -> Option<ErrorKind> {
    let kind = error.downcast_ref::<io::Error>()?.kind();
    // Not PermissionDenied: so a gate says that closes in the middle of a call.
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused).then_some(kind)
}

async fn within<Q, A, F: Future<Output = Result<tonic::Response<A>, Status>>>(
    request: Q,
    call: impl FnOnce(Request<Q>) -> F,
) -> Result<A, Status> {
    let mut request = Request::new(request);
    // The provider is told, too, so that it does not finish what nobody waits for.
    request.set_timeout(DEADLINE);
    match tokio::time::timeout(DEADLINE, call(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(plain(status)),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {DEADLINE:?}"))),
    }
}

/// What never reached the provider says what stood in the way instead of "transport error".
fn plain(status: Status) -> Status {
    let mut source = status.source();
    let (mut innermost, mut refusal) = (None, None);
    while let Some(error) = source {
        innermost = Some(error.to_string());
        refusal = refusal.or(refusal_of_connection(error));
        source = error.source();
    }
    let is_timer = status.message() == "Timeout expired";
    match (status.code(), innermost) {
        (Code::DeadlineExceeded | Code::Cancelled, _) if is_timer => {
            Status::deadline_exceeded(format!("no answer within {DEADLINE:?}"))
        }
        // Only what this side has made has a source; whatever the code, the provider has not said it.
        (_, Some(text)) => {
            let mut unavailable = Status::unavailable(text);
            if let Some(kind) = refusal {
                unavailable.set_source(Arc::new(io::Error::from(kind)));
            }
            unavailable
        }
        (_, None) => status,
    }
}
