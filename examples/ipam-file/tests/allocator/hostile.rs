//! A provider that answers nonsense: nothing of it is published, everything goes back, and nobody else suffers.

use std::sync::{Arc, Mutex};

use ipam::{
    AllocateRequest, AllocateResponse, AllocatedIp, ReleaseRequest, ReleaseResponse, StatsRequest,
    StatsResponse,
    ipam_server::{Ipam, IpamServer},
    release_request::Target,
};
use serde_json::json;
use tokio::{net::UnixListener, task::JoinSet};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::cluster::Cluster;

/// Answers every question with what it is told to.
#[derive(Clone, Default)]
struct Liar(Arc<Mutex<Lies>>);

#[derive(Default)]
struct Lies {
    addresses: Vec<String>,
    status: Option<Status>,
    released: Vec<String>,
}

#[tonic::async_trait]
impl Ipam for Liar {
    async fn allocate(&self, _: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let lies = self.0.lock().unwrap();
        if let Some(status) = &lies.status {
            return Err(status.clone());
        }
        let ips = lies.addresses.iter().map(|ip| AllocatedIp { ip: ip.clone() }).collect();
        Ok(Response::new(AllocateResponse { ips }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let request = request.into_inner();
        let what = match request.target {
            Some(Target::Ip(ip)) => ip,
            Some(Target::All(true)) => "all".to_owned(),
            _ => "nothing".to_owned(),
        };
        self.0.lock().unwrap().released.push(format!("{} {what}", request.service));
        Ok(Response::new(ReleaseResponse {}))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        Ok(Response::new(StatsResponse { in_use_v4: 7, ..StatsResponse::default() }))
    }
}

impl Liar {
    fn serve(&self, cluster: &Cluster, name: &str) -> JoinSet<()> {
        let listener = UnixListener::bind(cluster.socket(name)).unwrap();
        let server = tonic::transport::Server::builder().add_service(IpamServer::new(self.clone()));
        let mut task = JoinSet::new();
        task.spawn(async move {
            server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap();
        });
        task
    }

    fn says(&self, addresses: &[&str]) {
        let mut lies = self.0.lock().unwrap();
        lies.addresses = addresses.iter().map(|text| (*text).to_owned()).collect();
        lies.status = None;
    }

    fn refuses(&self, status: Status) {
        self.0.lock().unwrap().status = Some(status);
    }

    async fn has_released(&self, what: &str) {
        crate::cluster::within(&format!("{what} is released"), async || {
            let lies = self.0.lock().unwrap();
            lies.released.iter().any(|known| known == what).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_refused_and_given_back() {
    let cluster = Cluster::start().await;
    let liar = Liar::default();
    let _server = liar.serve(&cluster, "ext");
    let _allocator = cluster.allocator().await;
    cluster.external("ext").await;
    cluster.plain("ours", "default").await;
    cluster.has("ours", &["192.0.2.0"]).await;
    for (number, (addresses, part)) in [
        (&["banana"][..], "\"banana\", which is no IP address"),
        (&[], "nothing and no IPv4 address"),
        (&["0.0.0.0"], "0.0.0.0, which no Service can have"),
        (&["224.0.0.1"], "224.0.0.1, which no Service can have"),
        (&["127.0.0.1"], "127.0.0.1, which no Service can have"),
        (&["2001:db8::1"], "2001:db8::1, which is of no family that was asked for"),
        (&["198.51.100.1", "198.51.100.1"], "198.51.100.1 twice"),
        (&["198.51.100.1", "198.51.100.2"], "of which one IPv4 address is enough"),
        (&["192.0.2.9"], "192.0.2.9, which is in a pool of ServiceGroup default"),
    ]
    .into_iter()
    .enumerate()
    {
        liar.says(addresses);
        let name = format!("web{number}");
        cluster.plain(&name, "ext").await;
        cluster.event(&name, "AllocationFailed", part).await;
        assert!(cluster.addresses(&name).await.is_empty());
        if addresses.iter().any(|text| text.contains("198")) {
            liar.has_released(&format!("default/{name} all")).await;
        }
    }
    // One address for two Services that do not share.
    liar.says(&["198.51.100.7"]);
    cluster.plain("first", "ext").await;
    cluster.has("first", &["198.51.100.7"]).await;
    cluster.plain("second", "ext").await;
    cluster.event("second", "AllocationFailed", "198.51.100.7 is in use by default/first").await;
    liar.has_released("default/second all").await;
    // Another than the one that was asked for.
    cluster.service("exact", "ext", json!({"purelb.io/addresses": "198.51.100.9"}), json!({})).await;
    cluster.event("exact", "AllocationFailed", "198.51.100.7 where 198.51.100.9 was asked for").await;
    cluster
        .status("ext", "figures without a capacity", |status| {
            status.allocated_ipv4 == 7 && status.available_ipv4.is_none()
        })
        .await;
    assert_eq!(cluster.addresses("first").await, ["198.51.100.7"]);
}

#[tokio::test]
async fn a_refusal_is_passed_on_cut_to_a_sane_length() {
    let cluster = Cluster::start().await;
    let liar = Liar::default();
    let _server = liar.serve(&cluster, "ext");
    let _allocator = cluster.allocator().await;
    cluster.external("ext").await;
    liar.refuses(Status::permission_denied(format!("no\u{7}pe {}", "x".repeat(5_000))));
    cluster.plain("web", "ext").await;
    let message = cluster.event("web", "AllocationFailed", "refuses: nope xxx").await;
    assert!(message.len() < 500 && message.ends_with('…'), "{message}");
    // Not well in itself, though its figures come: others wait, and are served when it is.
    liar.refuses(Status::internal("database is gone"));
    cluster.plain("other", "ext").await;
    cluster.event("other", "AllocationFailed", "database is gone").await;
    liar.says(&["198.51.100.1"]);
    cluster.has("other", &["198.51.100.1"]).await;
}
