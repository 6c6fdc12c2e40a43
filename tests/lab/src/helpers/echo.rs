//! An HTTP server that stands for a pod behind a Service: its answer names the node it runs on and the client's
//! address as it arrived, so one request proves the whole path.
//!
//! It listens on the load balancer address itself, which may come and go on the node (`IP_FREEBIND`): the lab has
//! no kube-proxy that would carry the packets on to a pod's own address.

use std::net::SocketAddr;

use axum::{Json, Router, extract::ConnectInfo, extract::State};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, Result};

/// What the server answers to every request, as JSON in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The pod.
    pub pod: String,
    /// The node it runs on.
    pub node: String,
    /// The client's address as the pod sees it.
    pub client: String,
}

/// `lab echo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Name of the pod.
    #[arg(long)]
    pub pod: String,
    /// Name of the node.
    #[arg(long)]
    pub node: String,
    /// Address and port to listen on; repeat it for more.
    #[arg(long, required = true)]
    pub listen: Vec<SocketAddr>,
}

/// Serves until the process is ended.
///
/// # Errors
/// When an address cannot be listened on.
pub fn serve(arguments: Arguments) -> Result<()> {
    let listeners = arguments.listen.iter().map(|at| listen(*at)).collect::<Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("starting the runtime"))?;
    let app = Router::new().fallback(answer).with_state((arguments.pod, arguments.node));
    runtime.block_on(async {
        let servers = listeners.into_iter().map(|listener| {
            let service = app.clone().into_make_service_with_connect_info::<SocketAddr>();
            async { axum::serve(tokio::net::TcpListener::from_std(listener)?, service).await }
        });
        futures::future::try_join_all(servers).await.map(drop).map_err(Error::io("serving"))
    })
}

async fn answer(
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    State((pod, node)): State<(String, String)>,
) -> Json<Reply> {
    Json(Reply { pod, node, client: client.ip().to_string() })
}

/// A listener on an address that the node need not have yet.
fn listen(at: SocketAddr) -> Result<std::net::TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if at.is_ipv4() {
            socket.set_freebind_v4(true)?;
        } else {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&at.into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    };
    bind().map_err(Error::io(format!("listening on {at}")))
}
