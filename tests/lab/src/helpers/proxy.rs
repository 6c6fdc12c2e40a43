//! Carries TCP connections from one network namespace into another, octet by octet: the root namespace's loopback
//! to the API server in its namespace, so that a run needs no link, address or route in the root namespace.

use std::{
    fs,
    net::{SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    thread,
};

use tokio::net::{TcpListener, TcpStream};

use crate::{Error, Namespace, Result};

/// `lab proxy`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Namespace to listen in; absent: the one it is started in.
    #[arg(long)]
    pub listen_in: Option<String>,
    /// Address to connect to.
    #[arg(long)]
    pub connect: SocketAddr,
    /// Namespace to connect in; absent: the one it is started in.
    #[arg(long)]
    pub connect_in: Option<String>,
    /// Namespace to be found in, so that it ends with its run.
    #[arg(long)]
    pub home: String,
    /// File to write the listening address to, once it listens.
    #[arg(long)]
    pub ready: PathBuf,
}

/// Serves until the process is ended.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(arguments: Arguments) -> Result<()> {
    let bind = || StdListener::bind(arguments.listen);
    let bound = match &arguments.listen_in {
        Some(name) => Namespace::existing(name).enter(bind)?,
        None => bind(),
    };
    let listener = bound.map_err(Error::io(format!("listening on {}", arguments.listen)))?;
    let address = listener.local_addr().map_err(Error::io("asking for the listening address"))?;
    listener.set_nonblocking(true).map_err(Error::io("making the listener non-blocking"))?;
    let (connect, connect_in) = (arguments.connect, arguments.connect_in);
    let server = thread::spawn(move || {
        if let Some(name) = connect_in {
            Namespace::existing(name).join()?;
        }
        carry_all(listener, connect)
    });
    Namespace::existing(arguments.home).join()?;
    // Renamed into place: whoever sees the file sees all of it.
    let unfinished = arguments.ready.with_extension("new");
    fs::write(&unfinished, address.to_string()).map_err(Error::path(&unfinished))?;
    fs::rename(&unfinished, &arguments.ready).map_err(Error::path(&arguments.ready))?;
    server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn carry_all(listener: StdListener, to: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("starting the runtime"))?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).map_err(Error::io("taking the listener over"))?;
        loop {
            let (near, _) = listener.accept().await.map_err(Error::io("accepting"))?;
            tokio::spawn(carry(near, to));
        }
    })
}

/// A side that ends or cannot be reached ends the other: each client sees what it would see without us.
async fn carry(mut near: TcpStream, to: SocketAddr) {
    let Ok(mut far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
}
