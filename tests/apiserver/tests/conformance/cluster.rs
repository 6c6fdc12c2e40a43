//! The two servers under test, behind one small client that shows answers as they are.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use apiserver::{Options, Server};
use http::Request;
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Client, Config};
use serde_json::{Value, json};

/// An answer: status and JSON body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    /// The body of an answer that must be a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{self:#?}");
        self.body
    }

    /// The `Status` of an answer that must have this code and reason.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, reason: &str) -> Value {
        assert_eq!(
            (self.status, self.body["reason"].as_str().unwrap_or_default()),
            (status, reason),
            "{self:#?}"
        );
        self.body
    }

    /// Asserts a 422 whose first cause names this field and contains this text.
    #[track_caller]
    pub(crate) fn invalid(self, field: &str, text: &str) {
        let body = self.refused(422, "Invalid");
        let causes = body["details"]["causes"].as_array().cloned().unwrap_or_default();
        let fits =
            |c: &Value| c["field"] == field && c["message"].as_str().unwrap_or_default().contains(text);
        assert!(causes.iter().any(fits), "no cause {field}: {text} in {body:#}");
    }
}

pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const JSON: &str = "application/json-patch+json";
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// A server under test, seen from a namespace.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    pub(crate) namespace: String,
}

impl Cluster {
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        accept: &str,
        body: &Value,
    ) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", media_type)
            .header("Accept", accept)
            .header("User-Agent", "conformance/1")
            .body(Body::from(bytes))
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let status = response.status().as_u16();
        let warnings =
            response.headers().get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
        Answer { status, body, warnings }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "application/json", "application/json", &Value::Null).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.call("GET", path, "application/json", accept, &Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, "application/json", "application/json", body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, "application/json", "application/json", body).await
    }

    pub(crate) async fn patch(&self, path: &str, language: &str, body: &Value) -> Answer {
        self.call("PATCH", path, language, "application/json", body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, "application/json", "application/json", &Value::Null).await
    }

    pub(crate) async fn delete_with(&self, path: &str, options: &Value) -> Answer {
        self.call("DELETE", path, "application/json", "application/json", options).await
    }

    /// The path of a core resource in this namespace.
    pub(crate) fn core(&self, plural: &str) -> String {
        format!("/api/v1/namespaces/{}/{plural}", self.namespace)
    }

    /// The path of a resource of a group in this namespace.
    pub(crate) fn group(&self, group_version: &str, plural: &str) -> String {
        format!("/apis/{group_version}/namespaces/{}/{plural}", self.namespace)
    }

    /// The lines of a watch that ends by itself.
    pub(crate) async fn watch(&self, path: &str) -> Vec<Value> {
        let answer = self.get_as(path, "application/json").await;
        match answer.body {
            Value::String(lines) => lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect(),
            Value::Null => Vec::new(),
            one => vec![one],
        }
    }

    /// The same server, seen from a new namespace.
    pub(crate) async fn in_namespace(&self, name: &str) -> Self {
        let name: String = name.chars().take(63).collect();
        let name = name.trim_end_matches('-').to_owned();
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.post("/api/v1/namespaces", &body).await.ok();
        Self { client: self.client.clone(), namespace: name }
    }

    async fn is_ready(&self) -> bool {
        let request = Request::get("/api/v1/namespaces/default").body(Body::empty()).unwrap();
        self.client.send(request).await.is_ok_and(|r| r.status().is_success())
    }
}

/// A client that shows refusals instead of trying again.
fn plain(url: String) -> Config {
    let mut config = Config::new(url.parse().unwrap());
    config.default_retry = false;
    config
}

/// The in-memory server.
pub(crate) async fn in_memory() -> (Cluster, Server) {
    let server = Server::start(Options::default()).await.unwrap();
    let config = plain(server.url());
    (Cluster { client: Client::try_from(config).unwrap(), namespace: "default".into() }, server)
}

/// The processes of the real server; killed and removed at the end.
pub(crate) struct Processes {
    children: Vec<Child>,
    folder: PathBuf,
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

const TOKEN: &str = "conformance";

/// The real server, as envtest starts it, if there is one.
pub(crate) async fn real() -> Option<(Cluster, Processes)> {
    let assets = PathBuf::from(std::env::var_os("KUBEBUILDER_ASSETS")?);
    let folder = tempfile::tempdir().unwrap().keep();
    let mut processes = Processes { children: Vec::new(), folder: folder.clone() };
    let (etcd, peer, secure) = (free_port(), free_port(), free_port());
    std::fs::write(folder.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
    let key = Command::new("openssl")
        .args(["genrsa", "-out"])
        .arg(folder.join("sa.key"))
        .arg("2048")
        .output()
        .unwrap();
    assert!(key.status.success(), "openssl makes the service account key");
    let client_url = format!("http://127.0.0.1:{etcd}");
    processes.spawn(
        &assets.join("etcd"),
        &[
            format!("--data-dir={}", folder.join("etcd").display()),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--listen-client-urls={client_url}"),
            format!("--advertise-client-urls={client_url}"),
            "--unsafe-no-fsync=true".into(),
        ],
    );
    processes.spawn(
        &assets.join("kube-apiserver"),
        &[
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--secure-port={secure}"),
            format!("--cert-dir={}", folder.join("certs").display()),
            format!("--etcd-servers={client_url}"),
            format!("--token-auth-file={}", folder.join("tokens.csv").display()),
            "--authorization-mode=RBAC".into(),
            "--disable-admission-plugins=ServiceAccount".into(),
            "--allow-privileged=true".into(),
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".into(),
            format!("--service-account-issuer=https://127.0.0.1:{secure}/"),
            format!("--service-account-key-file={}", folder.join("sa.key").display()),
            format!("--service-account-signing-key-file={}", folder.join("sa.key").display()),
        ],
    );
    let mut config = plain(format!("https://127.0.0.1:{secure}"));
    config.accept_invalid_certs = true;
    config.auth_info = AuthInfo { token: Some(TOKEN.to_owned().into()), ..AuthInfo::default() };
    let cluster = Cluster { client: Client::try_from(config).unwrap(), namespace: "default".into() };
    processes.wait_until_ready(&cluster).await;
    Some((cluster, processes))
}

impl Processes {
    fn spawn(&mut self, program: &Path, arguments: &[String]) {
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let log = std::fs::File::create(self.folder.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.children.push(command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display())));
    }

    async fn wait_until_ready(&mut self, cluster: &Cluster) {
        let ready = async {
            while !cluster.is_ready().await {
                for child in &mut self.children {
                    assert!(
                        child.try_wait().unwrap().is_none(),
                        "a process ended, see {}",
                        self.folder.display()
                    );
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), ready).await.expect("the real server becomes ready");
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
