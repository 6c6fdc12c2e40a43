//! Requests → books → file → answers.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use ipam::{
    AllocateRequest, AllocateResponse, AllocatedIp, ReleaseRequest, ReleaseResponse, StatsRequest,
    StatsResponse, allocate_request::Selector, ipam_server::Ipam, release_request::Target,
};
use tonic::{Request, Response, Status};

use crate::{
    books::{Books, Holder, Refusal},
    store::Store,
};

/// One call at a time, each in the file before it is answered.
pub(crate) struct Server(Arc<Mutex<State>>);

struct State {
    books: Books,
    store: Store,
}

impl Server {
    /// A server of these books.
    pub(crate) fn new(books: Books, store: Store) -> Server {
        Server(Arc::new(Mutex::new(State { books, store })))
    }

    /// Does something with the books, away from the threads that wait for the network.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let state = self.0.clone();
        let work = move || work(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| Status::internal(error.to_string()))?.map(Response::new)
    }
}

impl State {
    /// Changes the books and the file, or neither.
    fn change<T>(&mut self, change: impl FnOnce(&mut Books) -> Result<T, Refusal>) -> Result<T, Status> {
        let before = self.books.holdings().clone();
        let done = change(&mut self.books).map_err(status)?;
        if *self.books.holdings() != before
            && let Err(error) = self.store.save(self.books.holdings())
        {
            tracing::error!(%error, "the books cannot be written");
            self.books.restore(before);
            return Err(Status::unavailable(format!("the books cannot be written: {error}")));
        }
        Ok(done)
    }
}

fn status(refusal: Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::NoPool(..) => Status::not_found(text),
        Refusal::NoFamily(..) => Status::failed_precondition(text),
        Refusal::Exhausted(..) => Status::resource_exhausted(text),
        Refusal::Held(..) => Status::already_exists(text),
        Refusal::Outside(..) | Refusal::Malformed(_) => Status::invalid_argument(text),
    }
}

fn address(text: &str) -> Result<IpAddr, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is not an IP address")))
}

fn of_service(service: String) -> Result<String, Status> {
    match service.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(service),
        _ => Err(Status::invalid_argument(format!("service is {service:?}: expected namespace/name"))),
    }
}

#[tonic::async_trait]
impl Ipam for Server {
    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let request = request.into_inner();
        let holder = Holder { service: of_service(request.service)?, sharing_key: request.sharing_key };
        let pool = request.pool;
        let explicit = match &request.selector {
            Some(Selector::Explicit(explicit)) => {
                explicit.ips.iter().map(|ip| address(ip)).collect::<Result<Vec<_>, _>>()?
            }
            _ => Vec::new(),
        };
        self.with(move |state| {
            let addresses = match request.selector {
                Some(Selector::Explicit(_)) => {
                    state.change(|books| books.allocate_explicit(&pool, &holder, &explicit))?;
                    explicit
                }
                Some(Selector::Families(wanted)) => state
                    .change(|books| books.allocate(&pool, &holder, wanted.want_ipv4, wanted.want_ipv6))?,
                None => return Err(Status::invalid_argument("neither explicit nor families is set")),
            };
            tracing::info!(pool, service = holder.service, ?addresses, "allocated");
            let ips = addresses.iter().map(|ip| AllocatedIp { ip: ip.to_string() }).collect();
            Ok(AllocateResponse { ips })
        })
        .await
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let ReleaseRequest { pool, service, target } = request.into_inner();
        let only = match target {
            Some(Target::Ip(ip)) => Some(address(&ip)?),
            Some(Target::All(true)) => None,
            _ => return Err(Status::invalid_argument("neither ip nor all is set")),
        };
        self.with(move |state| {
            if state.change(|books| books.release(&pool, &service, only))? {
                tracing::info!(pool, service, address = ?only, "released");
            }
            Ok(ReleaseResponse {})
        })
        .await
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        let pool = request.into_inner().pool;
        self.with(move |state| {
            let figures = state.books.figures(&pool).map_err(status)?;
            Ok(StatsResponse {
                in_use_v4: figures.in_use[0],
                in_use_v6: figures.in_use[1],
                size_v4: figures.size[0],
                size_v6: figures.size[1],
                has_known_capacity: true,
                display_addresses: figures.ranges,
            })
        })
        .await
    }
}
