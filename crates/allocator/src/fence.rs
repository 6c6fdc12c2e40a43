//! The connections on which a term writes: they close with the right to write.
//!
//! Between the check whether we may write and the system call that hands a request to the kernel lie queues,
//! serialisation, name resolution, a connection, TLS; a process that is stopped there for a minute goes on as if
//! nothing had happened. So the check is made once more where nothing is left between it and the kernel: in the
//! stream under TLS. No octet passes it after the tenure, nor after the term.
//!
//! What the kernel has got by then is bounded, too: `TCP_USER_TIMEOUT` gives up what is not acknowledged in time,
//! also while the process is stopped, and a connection that is closed throws away what it has not sent
//! (`SO_LINGER` 0). See [`crate::leader`] for what follows.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::{
        Client as HttpClient,
        connect::{Connected, Connection, HttpConnector},
    },
    rt::{TokioExecutor, TokioIo},
};
use kube::{
    Config, Error,
    client::{Body, ConfigExt},
};
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceBuilder, util::BoxCloneSyncService};

use crate::leader::Tenure;

/// How writes go out and answers come back. Each request is on its way in the task that sends it: no queue is between
/// that task and the connections.
pub type Transport = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

/// Open while its term may write. Dropped, it closes for good.
#[derive(Debug)]
pub struct Fence(Arc<Gate>);

/// What connections pass as long as the fence is open.
#[derive(Debug)]
pub struct Gate {
    tenure: Tenure,
    is_closed: AtomicBool,
}

impl Fence {
    /// For connections to others than the API server.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.0
    }
}

impl Gate {
    /// A connection behind the gate.
    pub fn guard<S>(self: &Arc<Gate>, stream: S) -> FencedStream<S> {
        FencedStream { stream, gate: self.clone() }
    }

    fn check(&self) -> io::Result<()> {
        if self.is_closed.load(Ordering::Acquire) || !self.tenure.is_valid() {
            // Once closed, a later tenure does not open it again.
            self.is_closed.store(true, Ordering::Release);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the right to write is over"));
        }
        Ok(())
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
    }
}

/// Connections that close with the tenure and with the fence. What is sent on them is acknowledged by the other
/// side's kernel within `delivery`, or never arrives.
///
/// # Errors
///
/// When the configuration is not one of a cluster that can be reached.
pub fn transport(config: &Config, tenure: Tenure, delivery: Duration) -> Result<(Transport, Fence), Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(delivery.max(Duration::from_secs(1))));
    connector.set_tcp_user_timeout(Some(delivery));
    let gate = Arc::new(Gate { tenure, is_closed: AtomicBool::new(false) });
    let connector = Fenced { connector, gate: gate.clone() };
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let client: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    // Nothing is sent again down here: that is decided anew each time.
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok((BoxCloneSyncService::new(service), Fence(gate)))
}

/// Connects, and puts each connection behind the gate.
#[derive(Clone)]
struct Fenced {
    connector: HttpConnector,
    gate: Arc<Gate>,
}

impl Service<Uri> for Fenced {
    type Response = FencedStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context).map_err(BoxError::from)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (connecting, gate) = (self.connector.call(to), self.gate.clone());
        Box::pin(async move {
            let stream = connecting.await?;
            socket2::SockRef::from(stream.inner()).set_linger(Some(Duration::ZERO))?;
            Ok(gate.guard(stream))
        })
    }
}

/// A connection behind the gate.
#[derive(Debug)]
pub struct FencedStream<S> {
    stream: S,
    gate: Arc<Gate>,
}

impl<S: Connection> Connection for FencedStream<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl<S: Read + Unpin> Read for FencedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Write + Unpin> Write for FencedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.gate.check()?;
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.gate.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
