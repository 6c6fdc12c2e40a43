//! TCP connections: accepting, serving HTTP/1 and HTTP/2 on them, and following the injected partition.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use http::Request;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::faults::{Cut, Partition};
use crate::http::dispatch;
use crate::server::Shared;

/// Accepts connections until stopped, which also closes them.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(serve(stream, peer, shared.clone()));
            }
            Err(error) => {
                // Out of descriptors, mostly: others will be closed.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::task::yield_now().await;
            }
        }
    }
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let mut partition = shared.faults.follow_partition();
    let refused = |p: &Partition| p.cut_for(peer.ip()) == Cut::Refuse;
    if refused(&partition.borrow()) {
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    let gate = Gate::follow(partition.clone(), peer);
    let io = TokioIo::new(Gated { inner: stream, gate });
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let shared = shared.clone();
        async move { dispatch::serve(shared, request.map(Body::new)).await }
    });
    let builder = Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(io, service);
    tokio::select! {
        served = connection => {
            if let Err(error) = served {
                tracing::debug!(%error, %peer, "a connection ended");
            }
        }
        _ = partition.wait_for(|p| refused(p)) => {}
    }
}

/// Lets bytes pass unless the partition hangs.
struct Gate {
    partition: watch::Receiver<Partition>,
    peer: SocketAddr,
    opened: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Gate {
    fn follow(partition: watch::Receiver<Partition>, peer: SocketAddr) -> Self {
        Self { partition, peer, opened: None }
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let peer = self.peer;
        if self.opened.is_none() {
            if self.partition.borrow().cut_for(peer.ip()) != Cut::Hang {
                return Poll::Ready(());
            }
            let mut partition = self.partition.clone();
            self.opened = Some(Box::pin(async move {
                // The sender lives as long as the server.
                let _ = partition.wait_for(|p| p.cut_for(peer.ip()) != Cut::Hang).await;
            }));
        }
        match self.opened.as_mut().map(|opened| opened.as_mut().poll(context)) {
            Some(Poll::Pending) => Poll::Pending,
            _ => {
                self.opened = None;
                Poll::Ready(())
            }
        }
    }
}

/// A stream behind a gate.
struct Gated {
    inner: TcpStream,
    gate: Gate,
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.gate.poll_open(cx));
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.gate.poll_open(cx));
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.gate.poll_open(cx));
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}
