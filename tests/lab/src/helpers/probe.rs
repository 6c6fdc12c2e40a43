//! A client that never stops asking: a new connection at a fixed pace on every path, each attempt written down
//! with its outcome. What it writes says how long an outage lasted as a client saw it.

use std::{
    fs::{self, File},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::{MissedTickBehavior, interval, timeout},
};

use super::echo::Reply;
use crate::{Error, Result};

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Where to: `eth1 192.0.2.1:80`.
    pub path: String,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Which node answered; absent when none did.
    pub node: Option<String>,
    /// Why none did.
    pub error: Option<String>,
}

/// `lab probe`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Interface to leave by; repeat it for more.
    #[arg(long, required = true)]
    pub interface: Vec<String>,
    /// Address and port to ask; repeat it for more. Every target is asked over every interface.
    #[arg(long, required = true)]
    pub target: Vec<SocketAddr>,
    /// Milliseconds between attempts on one path.
    #[arg(long, default_value_t = 25)]
    pub pace_ms: u64,
    /// Milliseconds until an attempt counts as failed.
    #[arg(long, default_value_t = 500)]
    pub patience_ms: u64,
    /// File for the attempts, one JSON object a line.
    #[arg(long)]
    pub out: PathBuf,
}

/// Asks until the process is ended.
///
/// # Errors
/// When the file cannot be written.
pub fn ask(arguments: &Arguments) -> Result<()> {
    let file = File::create(&arguments.out).map_err(Error::path(&arguments.out))?;
    let out = Arc::new(Mutex::new(file));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("starting the runtime"))?;
    let (pace, patience) =
        (Duration::from_millis(arguments.pace_ms), Duration::from_millis(arguments.patience_ms));
    runtime.block_on(async {
        let paths = arguments.interface.iter().flat_map(|interface| {
            arguments
                .target
                .iter()
                .map(|target| ask_path(interface.clone(), *target, pace, patience, out.clone()))
        });
        futures::future::join_all(paths).await;
    });
    Ok(())
}

async fn ask_path(
    interface: String,
    target: SocketAddr,
    pace: Duration,
    patience: Duration,
    out: Arc<Mutex<File>>,
) {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let (interface, out) = (interface.clone(), out.clone());
        tokio::spawn(async move {
            let began = SystemTime::now();
            let outcome = match timeout(patience, ask_once(&interface, target)).await {
                Ok(outcome) => outcome.map_err(|error| error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            let (node, error) = match outcome {
                Ok(reply) => (Some(reply.node), None),
                Err(error) => (None, Some(error)),
            };
            let took_ms = began.elapsed().unwrap_or_default().as_millis() as u64;
            let path = format!("{interface} {target}");
            let attempt = Attempt { path, began_ms: unix_ms(began), took_ms, node, error };
            let line = serde_json::to_string(&attempt).unwrap_or_default();
            // A full disk shows as missing attempts; there is nobody to tell here.
            let _ = writeln!(out.lock().unwrap_or_else(PoisonError::into_inner), "{line}");
        });
    }
}

async fn ask_once(interface: &str, target: SocketAddr) -> std::io::Result<Reply> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind_device(Some(interface.as_bytes()))?;
    let mut stream = socket.connect(target).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(65536).read_to_string(&mut answer).await?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    serde_json::from_str(body).map_err(std::io::Error::other)
}

/// Milliseconds since 1970, the clock of [`Attempt::began_ms`].
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The attempts that a prober has written and that began at or after a time.
///
/// # Errors
/// When the file cannot be read.
pub fn attempts_since(file: &Path, since_ms: u64) -> Result<Vec<Attempt>> {
    let text = fs::read_to_string(file).map_err(Error::path(file))?;
    // The last line may be half written.
    let attempts = text.lines().filter_map(|line| serde_json::from_str::<Attempt>(line).ok());
    Ok(attempts.filter(|attempt| attempt.began_ms >= since_ms).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_before_a_time_and_half_written_lines_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("attempts");
        let attempt = |began_ms| Attempt {
            path: "eth1 192.0.2.1:80".into(),
            began_ms,
            took_ms: 1,
            node: Some("node1".into()),
            error: None,
        };
        let lines = [1, 2, 3].map(|at| serde_json::to_string(&attempt(at)).unwrap());
        fs::write(&file, format!("{}\n{}\n{}\n{{\"path\":", lines[0], lines[1], lines[2])).unwrap();
        assert_eq!(attempts_since(&file, 2).unwrap(), [attempt(2), attempt(3)]);
    }
}
