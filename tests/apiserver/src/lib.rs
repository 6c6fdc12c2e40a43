//! An in-memory Kubernetes API server for tests: the resources that the project uses, answered as
//! kube-apiserver 1.36 answers, plus faults on request. No etcd, no TLS, no authentication, no controllers
//! but garbage collection and namespace deletion.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let server = apiserver::Server::start(apiserver::Options::default()).await?;
//! println!("kubectl --server {} get services", server.url());
//! server.faults().refuse(apiserver::Matcher::verb("write").on("services/status"), 409, 1);
//! # Ok(()) }
//! ```

mod cel;
mod connection;
mod control;
mod counters;
mod crd;
mod discovery;
mod faults;
mod garbage;
mod http;
mod kinds;
mod managed;
mod object;
mod openapi;
mod patch;
mod present;
mod refusal;
mod registry;
mod schema;
mod selectors;
mod server;
mod stamp;
mod store;
mod table;
mod verbs;
mod view;

pub use counters::Counters;
pub use faults::{Action, Call, Cut, Fault, Faults, Matcher};
pub use server::{Options, Server, StartError};
