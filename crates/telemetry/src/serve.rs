//! The small HTTP server that every program of ours has.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | the metrics, in the OpenMetrics text format |
//! | `GET /healthz` | 200 while the program is alive; 503 and why when it had better be started anew |
//! | `GET /readyz` | 200 when it does its work; 503 and what it waits for |
//! | `GET /log-filter` | the filter of the log |
//! | `PUT /log-filter` | changes it, from this machine only: `kubectl port-forward`, then `curl -T- …` |

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{ConnectInfo, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;

use crate::log::{LogError, LogFilter};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the probes of Kubernetes ask for. An error says why not, in words.
pub trait Probes: Send + Sync + 'static {
    /// Whether it is alive: Kubernetes starts it anew when it is not, so no cause outside the program counts.
    ///
    /// # Errors
    /// When only a new start can help.
    fn alive(&self) -> Result<(), String>;

    /// Whether it does its work.
    ///
    /// # Errors
    /// While it waits for something.
    fn ready(&self) -> Result<(), String>;
}

struct Server {
    registry: Registry,
    probes: Box<dyn Probes>,
    log: Option<LogFilter>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// Serves until the future is dropped.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    probes: impl Probes,
    log: Option<LogFilter>,
) -> io::Result<()> {
    let listener = match TcpListener::bind(address).await {
        // Every address, on a host without IPv6.
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?
        }
        result => result?,
    };
    tracing::info!(address = %listener.local_addr()?, "metrics served");
    serve_on(listener, Server { registry, probes: Box::new(probes), log }).await
}

async fn serve_on(listener: TcpListener, server: Server) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/log-filter", get(log_filter).put(set_log_filter))
        .with_state(Arc::new(server));
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &server.registry) {
        Ok(()) => ([("content-type", OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn healthz(State(server): State<Arc<Server>>) -> (StatusCode, String) {
    answer(server.probes.alive())
}

async fn readyz(State(server): State<Arc<Server>>) -> (StatusCode, String) {
    answer(server.probes.ready())
}

fn answer(verdict: Result<(), String>) -> (StatusCode, String) {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn log_filter(State(server): State<Arc<Server>>) -> (StatusCode, String) {
    match server.log.as_ref().map(LogFilter::current) {
        Some(Ok(filter)) => (StatusCode::OK, format!("{filter}\n")),
        Some(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        None => (StatusCode::NOT_FOUND, "this program has no log\n".to_owned()),
    }
}

async fn set_log_filter(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    text: String,
) -> (StatusCode, String) {
    if !peer.ip().to_canonical().is_loopback() {
        let advice = "the log filter is changed from this machine only: use kubectl port-forward\n";
        return (StatusCode::FORBIDDEN, advice.to_owned());
    }
    let Some(log) = &server.log else {
        return (StatusCode::NOT_FOUND, "this program has no log\n".to_owned());
    };
    match log.set(text.trim()) {
        Ok(()) => {
            tracing::info!(filter = text.trim(), "log filter changed");
            (StatusCode::OK, format!("{}\n", text.trim()))
        }
        Err(error @ LogError::Filter(..)) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::log::tests::filter;

    #[derive(Clone, Default)]
    struct Switch(Arc<AtomicBool>);

    impl Probes for Switch {
        fn alive(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            self.0.load(Ordering::Relaxed).then_some(()).ok_or_else(|| "not yet".to_owned())
        }
    }

    async fn start(probes: Switch, log: Option<LogFilter>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut registry = Registry::default();
        crate::process::register(&mut registry, "test", "1");
        tokio::spawn(serve_on(listener, Server { registry, probes: Box::new(probes), log }));
        address
    }

    /// Status and body.
    async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn readiness_follows_the_program_and_says_what_is_missing() {
        let probes = Switch::default();
        let address = start(probes.clone(), None).await;
        assert_eq!(ask(address, "GET", "/readyz", "").await, (503, "not yet\n".to_owned()));
        assert_eq!(ask(address, "GET", "/healthz", "").await.0, 200);
        probes.0.store(true, Ordering::Relaxed);
        assert_eq!(ask(address, "GET", "/readyz", "").await, (200, "ok\n".to_owned()));
        let (status, text) = ask(address, "GET", "/metrics", "").await;
        assert!(status == 200 && text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[tokio::test]
    async fn the_log_filter_is_changed_by_a_put_from_this_machine() {
        let (log, _kept) = filter("info");
        let address = start(Switch::default(), Some(log)).await;
        assert_eq!(ask(address, "GET", "/log-filter", "").await, (200, "info\n".to_owned()));
        assert_eq!(ask(address, "PUT", "/log-filter", "debug\n").await, (200, "debug\n".to_owned()));
        assert_eq!(ask(address, "GET", "/log-filter", "").await, (200, "debug\n".to_owned()));
        let (status, why) = ask(address, "PUT", "/log-filter", "x=loud").await;
        assert!(status == 400 && why.contains("x=loud"), "{why}");
    }

    #[tokio::test]
    async fn nobody_else_changes_the_log_filter() {
        let (log, _kept) = filter("info");
        let server =
            Server { registry: Registry::default(), probes: Box::new(Switch::default()), log: Some(log) };
        let stranger = ConnectInfo("192.0.2.1:1".parse().unwrap());
        let (status, _) = set_log_filter(State(Arc::new(server)), stranger, "debug".to_owned()).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
}
