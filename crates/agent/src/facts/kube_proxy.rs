//! Whether kube-proxy forwards for a Service with policy Local: it answers `spec.healthCheckNodePort` with 200
//! once it has local endpoints in its rules. Asked only before a route is announced, for a bounded time.
//!
//! Where nothing ever answers on this node, there is no kube-proxy of that kind (Cilium without health checks,
//! kube-router …), and nobody waits.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};

/// Pause between two questions.
const INTERVAL: Duration = Duration::from_millis(20);
/// Questions at one time, over all Services.
const CONCURRENT: usize = 32;

/// What the questions came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// kube-proxy reports endpoints on this node.
    Forwards,
    /// Nothing answers, here or for any other Service so far: there is nobody to wait for.
    NobodyThere,
    /// It did not report endpoints in time.
    TimedOut,
}

/// Asks kube-proxy. Clones share what they have learnt.
#[derive(Clone, Debug)]
pub struct KubeProxy {
    deadline: Duration,
    has_answered: Arc<AtomicBool>,
    permits: Arc<Semaphore>,
}

impl KubeProxy {
    /// `deadline`: how long a route may wait.
    pub fn new(deadline: Duration) -> KubeProxy {
        KubeProxy {
            deadline,
            has_answered: Arc::new(AtomicBool::new(false)),
            permits: Arc::new(Semaphore::new(CONCURRENT)),
        }
    }

    /// Asks until the answer is yes, or until the time is over. `node` is an address of this node; the loopback
    /// address is asked where there is none.
    pub async fn wait(&self, node: Option<IpAddr>, port: u16) -> Answer {
        let address = SocketAddr::new(node.unwrap_or(Ipv4Addr::LOCALHOST.into()), port);
        let deadline = Instant::now() + self.deadline;
        loop {
            let next = Instant::now() + INTERVAL;
            let asked = async {
                let _permit = self.permits.acquire().await.ok();
                status(address).await
            };
            match timeout_at(deadline, asked).await {
                Err(_elapsed) => return Answer::TimedOut,
                Ok(Ok(200)) => {
                    self.has_answered.store(true, Ordering::Relaxed);
                    return Answer::Forwards;
                }
                Ok(Ok(_not_yet)) => self.has_answered.store(true, Ordering::Relaxed),
                // A kube-proxy that is there opens the port a moment after the Service has come.
                Ok(Err(_refused)) if self.has_answered.load(Ordering::Relaxed) => {}
                Ok(Err(_refused)) => return Answer::NobodyThere,
            }
            if next >= deadline {
                return Answer::TimedOut;
            }
            sleep_until(next).await;
        }
    }
}

/// The status code of a GET.
async fn status(address: SocketAddr) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    let code = std::str::from_utf8(&head).ok().and_then(|head| head.strip_prefix("HTTP/1."));
    code.and_then(|rest| rest.get(2..)?.parse().ok())
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidData, "not an HTTP answer"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LOCALHOST: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// A health check that answers 503 so many times, then 200.
    async fn health_check(failures: usize) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for n in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 256];
                let _ = stream.read(&mut request).await;
                let status = if n < failures { "503 Service Unavailable" } else { "200 OK" };
                let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n{{}}").as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_kube_proxy_that_has_endpoints_is_believed_at_once_and_one_that_gets_them_later() {
        let kube_proxy = KubeProxy::new(Duration::from_secs(20));
        for failures in [0, 3] {
            let port = health_check(failures).await;
            assert_eq!(kube_proxy.wait(LOCALHOST, port).await, Answer::Forwards);
        }
    }

    #[tokio::test]
    async fn nobody_is_waited_for_where_nothing_ever_answered() {
        let kube_proxy = KubeProxy::new(Duration::from_secs(20));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        assert_eq!(kube_proxy.wait(LOCALHOST, closed).await, Answer::NobodyThere);
    }

    #[tokio::test]
    async fn a_closed_port_is_waited_for_where_kube_proxy_has_answered_before_and_only_so_long() {
        let kube_proxy = KubeProxy::new(Duration::from_millis(100));
        let port = health_check(0).await;
        assert_eq!(kube_proxy.wait(LOCALHOST, port).await, Answer::Forwards);
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        assert_eq!(kube_proxy.wait(LOCALHOST, closed).await, Answer::TimedOut);
    }

    #[tokio::test]
    async fn a_kube_proxy_without_endpoints_is_not_waited_for_longer_than_set() {
        let port = health_check(usize::MAX).await;
        let kube_proxy = KubeProxy::new(Duration::from_millis(100));
        assert_eq!(kube_proxy.wait(LOCALHOST, port).await, Answer::TimedOut);
    }
}
