//! An IPAM provider in this process that keeps to the contract, has one address, and fails once where it is told to.
//! Its books outlive the allocators that are killed.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use ipam::{
    AllocateRequest, AllocateResponse, AllocatedIp, ReleaseRequest, ReleaseResponse, StatsRequest,
    StatsResponse,
    ipam_server::{Ipam, IpamServer},
};
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// What the provider has to give.
pub(crate) const ADDRESS: &str = "203.0.113.1";

/// Its calls.
pub(crate) const METHODS: [&str; 3] = ["Allocate", "Release", "Stats"];

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ill {
    /// The allocator is killed before it is done.
    CrashBefore,
    /// The allocator is killed when it is done, before the answer.
    CrashAfter,
    /// It is answered with an error, and nothing is done.
    Error,
    /// It is answered with an error, and done.
    ErrorAfter,
    /// It is not answered in time, and nothing is done.
    Deadline,
    /// It is not answered in time, and done.
    DeadlineAfter,
}

impl Ill {
    pub(crate) const ALL: [Ill; 6] =
        [Ill::CrashBefore, Ill::CrashAfter, Ill::Error, Ill::ErrorAfter, Ill::Deadline, Ill::DeadlineAfter];
}

/// Serves until it is dropped.
pub(crate) struct Provider {
    state: Arc<Mutex<State>>,
    dir: tempfile::TempDir,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    holder: Option<String>,
    calls: BTreeMap<&'static str, u32>,
    ill: Option<(Ill, &'static str, u32)>,
    has_struck: bool,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    /// With what befalls which call, after how many of that method.
    pub(crate) fn start(ill: Option<(Ill, &'static str, u32)>) -> Provider {
        let state = Arc::new(Mutex::new(State { ill, ..State::default() }));
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("ipam.sock")).unwrap();
        let service = IpamServer::new(Service(state.clone()));
        let serving = Server::builder().add_service(service);
        let task = tokio::spawn(async move {
            serving.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        Provider { state, dir, task }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("ipam.sock")
    }

    /// Who has the address.
    pub(crate) fn holder(&self) -> Option<String> {
        self.state.lock().unwrap().holder.clone()
    }

    pub(crate) fn calls(&self, method: &str) -> u32 {
        self.state.lock().unwrap().calls.get(method).copied().unwrap_or_default()
    }

    pub(crate) fn has_struck(&self) -> bool {
        self.state.lock().unwrap().has_struck
    }
}

struct Service(Arc<Mutex<State>>);

impl Service {
    /// One call, with what befalls it.
    async fn call<T>(
        &self,
        method: &'static str,
        work: impl FnOnce(&mut State) -> Result<T, Status> + Send,
    ) -> Result<Response<T>, Status> {
        let (ill, done) = {
            let mut state = self.0.lock().unwrap();
            let number = state.calls.entry(method).or_default();
            let nth = std::mem::replace(number, *number + 1);
            let ill = state.ill.filter(|(_, of, skip)| (*of, *skip) == (method, nth)).map(|(ill, ..)| ill);
            state.has_struck |= ill.is_some();
            let is_done = !matches!(ill, Some(Ill::CrashBefore | Ill::Error | Ill::Deadline));
            (ill, is_done.then(|| work(&mut state)))
        };
        match (ill, done) {
            (None, Some(done)) => done.map(Response::new),
            (Some(Ill::Error | Ill::ErrorAfter), _) => Err(Status::unavailable("a fault")),
            // The allocator is killed meanwhile, or does not wait any longer.
            _ => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Ipam for Service {
    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let service = request.into_inner().service;
        self.call("Allocate", |state| {
            if state.holder.as_ref().is_some_and(|holder| *holder != service) {
                return Err(Status::resource_exhausted("it has one address"));
            }
            state.holder = Some(service);
            Ok(AllocateResponse { ips: vec![AllocatedIp { ip: ADDRESS.to_owned() }] })
        })
        .await
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let service = request.into_inner().service;
        self.call("Release", |state| {
            state.holder.take_if(|holder| *holder == service);
            Ok(ReleaseResponse {})
        })
        .await
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        self.call("Stats", |state| {
            let in_use_v4 = u64::from(state.holder.is_some());
            Ok(StatsResponse { in_use_v4, size_v4: 1, has_known_capacity: true, ..StatsResponse::default() })
        })
        .await
    }
}
