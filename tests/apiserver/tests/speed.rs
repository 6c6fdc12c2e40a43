//! How fast the server is: 10,000 Services written by parallel clients while they are watched, and the time
//! from a write to its event. Asserted in release builds; a debug build only proves that it works.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use apiserver::{Options, Server};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const CLIENTS: usize = 8;
const SERVICES: usize = if cfg!(debug_assertions) { 1_000 } else { 10_000 };

/// The smallest HTTP/1.1 client: what is measured is the server.
struct Client {
    input: BufReader<OwnedReadHalf>,
    output: OwnedWriteHalf,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (input, output) = stream.into_split();
        Self { input: BufReader::new(input), output }
    }

    async fn send(&mut self, method: &str, path: &str, media_type: &str, body: &str) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: speed\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.output.write_all(request.as_bytes()).await.unwrap();
    }

    /// Reads the head; returns the status and the body's length, if it has one.
    async fn head(&mut self) -> (u16, Option<usize>) {
        let mut line = String::new();
        self.input.read_line(&mut line).await.unwrap();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut length = None;
        loop {
            line.clear();
            self.input.read_line(&mut line).await.unwrap();
            if line == "\r\n" {
                return (status, length);
            }
            if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                length = Some(text.trim().parse().unwrap());
            }
        }
    }

    async fn call(&mut self, method: &str, path: &str, media_type: &str, body: &str) -> u16 {
        self.send(method, path, media_type, body).await;
        let (status, length) = self.head().await;
        let mut rest = vec![0; length.unwrap()];
        self.input.read_exact(&mut rest).await.unwrap();
        status
    }

    /// Reads chunks of a watch until `events` lines were seen.
    async fn events(&mut self, events: usize) {
        let (mut seen, mut line) = (0, String::new());
        while seen < events {
            line.clear();
            self.input.read_line(&mut line).await.unwrap();
            seen += usize::from(line.starts_with("{\"type\""));
        }
    }
}

fn service(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}","annotations":{{"purelb.io/service-group":"default"}}}},"spec":{{"type":"LoadBalancer","allocateLoadBalancerNodePorts":false,"selector":{{"app":"a"}},"ports":[{{"port":80}}]}}}}"#
    )
}

const PATH: &str = "/api/v1/namespaces/default/services";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_services_are_written_and_watched_at_five_thousand_a_second() {
    let server = Server::start(Options::default()).await.unwrap();
    let mut watcher = Client::connect(&server).await;
    watcher.send("GET", &format!("{PATH}?watch=1&resourceVersion=1"), "", "").await;
    assert_eq!(watcher.head().await.0, 200);
    let watching = tokio::spawn(async move { watcher.events(SERVICES).await });
    let begin = Instant::now();
    let writers: Vec<_> = (0..CLIENTS)
        .map(|c| {
            let client = Client::connect(&server);
            async move {
                let mut client = client.await;
                for i in (c..SERVICES).step_by(CLIENTS) {
                    let body = service(&format!("s{i}"));
                    assert_eq!(client.call("POST", PATH, "application/json", &body).await, 201);
                }
            }
        })
        .collect();
    futures::future::join_all(writers).await;
    let wrote = begin.elapsed();
    tokio::time::timeout(Duration::from_secs(60), watching).await.unwrap().unwrap();
    let rate = SERVICES as f64 / wrote.as_secs_f64();
    println!("{SERVICES} Services in {wrote:?}: {rate:.0} a second; all events after {:?}", begin.elapsed());
    assert!(cfg!(debug_assertions) || rate >= 5_000.0, "{rate:.0} writes a second");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_reaches_its_watcher_within_a_millisecond() {
    let server = Server::start(Options::default()).await.unwrap();
    let mut writer = Client::connect(&server).await;
    assert_eq!(writer.call("POST", PATH, "application/json", &service("one")).await, 201);
    let mut watcher = Client::connect(&server).await;
    watcher.send("GET", &format!("{PATH}?watch=1&fieldSelector=metadata.name%3Done"), "", "").await;
    watcher.head().await;
    watcher.events(1).await;
    let mut times = Vec::new();
    for i in 0..200 {
        let body = format!(r#"{{"metadata":{{"annotations":{{"i":"{i}"}}}}}}"#);
        let begin = Instant::now();
        writer.send("PATCH", &format!("{PATH}/one"), "application/merge-patch+json", &body).await;
        watcher.events(1).await;
        times.push(begin.elapsed());
        let (_, length) = writer.head().await;
        writer.input.read_exact(&mut vec![0; length.unwrap()]).await.unwrap();
    }
    times.sort();
    let median = times[times.len() / 2];
    println!("request to event: median {median:?}, worst {:?}", times[times.len() - 1]);
    assert!(cfg!(debug_assertions) || median < Duration::from_millis(1), "{median:?}");
    server.stop().await;
}
