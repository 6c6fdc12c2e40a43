//! What a user does with `kubectl`, against the in-memory server. Needs `kubectl` on PATH.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use apiserver::{Options, Server};

/// A server, its kubeconfig, and `kubectl` pointed at it.
struct Kubectl {
    server: Server,
    folder: tempfile::TempDir,
}

impl Kubectl {
    async fn start() -> Self {
        let server = Server::start(Options::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        server.write_kubeconfig(&folder.path().join("kubeconfig")).unwrap();
        Self { server, folder }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("HOME", self.folder.path())
            .args(shell_words(arguments));
        command
    }

    async fn output(&self, arguments: &str, input: &str) -> Output {
        let mut command = self.command(arguments);
        let input = input.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap()
    }

    /// Standard output of a command that must succeed.
    async fn run(&self, arguments: &str) -> String {
        self.feed(arguments, "").await
    }

    async fn feed(&self, arguments: &str, input: &str) -> String {
        let output = self.output(arguments, input).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {arguments}\n{out}{err}");
        out.into_owned()
    }

    /// Standard error of a command that must fail.
    async fn fails(&self, arguments: &str, input: &str) -> String {
        let output = self.output(arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// Splits at spaces, except within single quotes.
fn shell_words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata:
  name: my-app
  annotations:
    purelb.io/service-group: default
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  selector:
    app: my-app
  ports:
  - port: 80
    targetPort: 8080
";

const EVENT: &str = "
apiVersion: events.k8s.io/v1
kind: Event
metadata: {name: e, namespace: default}
regarding: {kind: Service, name: my-app, namespace: default, uid: UID, apiVersion: v1}
reason: AddressAssigned
note: assigned 192.0.2.1
type: Normal
action: Assign
reportingController: purelb.io/allocator
reportingInstance: a
eventTime: '2026-01-01T00:00:00.000000Z'
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_creates_changes_and_leaves_alone() {
    let k = Kubectl::start().await;
    assert_eq!(k.feed("apply -f -", SERVICE).await, "service/my-app created\n");
    assert_eq!(k.feed("apply -f -", SERVICE).await, "service/my-app unchanged\n");
    let changed = SERVICE.replace("8080", "8081");
    assert_eq!(k.feed("apply -f -", &changed).await, "service/my-app configured\n");
    assert_eq!(k.run("get svc my-app -o jsonpath={.spec.ports[0].targetPort}").await, "8081");
    assert_eq!(
        k.feed("apply --server-side --force-conflicts -f -", SERVICE).await,
        "service/my-app serverside-applied\n"
    );
    let diff = k.output("diff -f -", &changed).await;
    assert!(String::from_utf8_lossy(&diff.stdout).contains("+    targetPort: 8081"));
    let unknown = SERVICE.replace("type: Load", "typo: 1\n  type: Load");
    assert!(k.fails("apply -f -", &unknown).await.contains("unknown field \"spec.typo\""));
    k.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn describe_shows_ingress_annotations_and_events() {
    let k = Kubectl::start().await;
    k.feed("apply -f -", SERVICE).await;
    let status = r#"patch svc my-app --subresource=status --type=merge -p '{"metadata":{"annotations":{"purelb.io/allocated-by":"PureLB"}},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"},{"ip":"2001:db8::1"}]}}}'"#;
    k.run(status).await;
    let uid = k.run("get svc my-app -o jsonpath={.metadata.uid}").await;
    let event = EVENT.replace("UID", &uid);
    k.feed("create -f -", &event).await;
    let text = k.run("describe svc my-app").await;
    for wanted in [
        "LoadBalancer Ingress:",
        "192.0.2.1 (VIP)",
        "2001:db8::1",
        "purelb.io/allocated-by: PureLB",
        "AddressAssigned",
        "assigned 192.0.2.1",
    ] {
        assert!(text.contains(wanted), "{wanted} in:\n{text}");
    }
    let events = k.run("get events").await;
    assert!(events.contains("service/my-app") && events.contains("AddressAssigned"), "{events}");
    assert!(k.run("events --for svc/my-app").await.contains("AddressAssigned"));
    k.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn get_prints_tables_wide_yaml_and_selections() {
    let k = Kubectl::start().await;
    k.feed("apply -f -", SERVICE).await;
    let table = k.run("get svc").await;
    let mut lines = table.lines();
    let words: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(words, ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]);
    assert!(table.contains("my-app") && table.contains("<pending>"), "{table}");
    assert!(k.run("get svc my-app -o wide").await.contains("app=my-app"));
    assert!(k.run("get svc my-app -o yaml").await.contains("ipFamilyPolicy: PreferDualStack"));
    assert_eq!(k.run("get svc --field-selector metadata.name=my-app -o name").await, "service/my-app\n");
    assert!(k.run("get svc,nodes,ns -A").await.contains("kube-system"));
    assert!(k.run("get all").await.contains("service/my-app"));
    assert!(k.run("api-resources").await.contains("endpointslices"));
    assert!(k.run("version").await.contains("Server Version: v1.36"));
    assert!(
        k.run("explain service.spec.ports.port")
            .await
            .contains("The port that will be exposed by this service")
    );
    k.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_three_patches_labels_annotations_and_deletion() {
    let k = Kubectl::start().await;
    k.feed("apply -f -", SERVICE).await;
    k.run(r#"patch svc my-app -p '{"spec":{"ports":[{"port":81,"name":"b"},{"port":80,"name":"a"}]}}'"#)
        .await;
    k.run(r#"patch svc my-app --type=merge -p '{"spec":{"externalTrafficPolicy":"Local"}}'"#).await;
    k.run(r#"patch svc my-app --type=json -p '[{"op":"replace","path":"/spec/sessionAffinity","value":"ClientIP"}]'"#).await;
    let shown = k.run("get svc my-app -o jsonpath={.spec.ports[*].name},{.spec.externalTrafficPolicy},{.spec.sessionAffinity}").await;
    assert_eq!(shown, "b a,Local,ClientIP");
    k.run("label svc my-app tier=front").await;
    k.run("annotate svc my-app purelb.io/addresses=192.0.2.7").await;
    assert_eq!(k.run("get svc -l tier=front -o name").await, "service/my-app\n");
    let gone = k.run("delete svc my-app").await;
    assert!(gone.starts_with("service \"my-app\" deleted"), "{gone}");
    assert!(k.fails("get svc my-app", "").await.contains("services \"my-app\" not found"));
    k.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_projects_crds_work_from_wait_to_explain() {
    let k = Kubectl::start().await;
    let crds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../charts/purelb/crds");
    k.run(&format!("apply -f {}", crds.display())).await;
    k.run("wait --for=condition=Established --timeout=10s crd --all").await;
    let peer = "
apiVersion: bgp.purelb.io/v1
kind: BGPPeer
metadata: {name: leaf, namespace: default}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1}
";
    assert_eq!(k.feed("apply -f -", peer).await, "bgppeer.bgp.purelb.io/leaf created\n");
    assert_eq!(k.feed("apply -f -", peer).await, "bgppeer.bgp.purelb.io/leaf unchanged\n");
    assert!(k.run("get bgpp").await.contains("192.0.2.1"));
    assert!(k.run("describe bgpp leaf").await.contains("64513"));
    assert!(k.run("explain bgppeer.spec.holdTime").await.contains("FIELD: holdTime"));
    let both = peer.replace("peerASN: 64513", "peerASN: 64513, dynamicASN: internal");
    assert!(k.fails("apply -f -", &both).await.contains("exactly one of peerASN and dynamicASN must be set"));
    let typo = peer.replace("peerAddress", "peerAdress");
    assert!(k.fails("apply -f -", &typo).await.contains("unknown field \"spec.peerAdress\""));
    k.run(&format!("delete -f {}", crds.display())).await;
    assert_eq!(k.run("get crd -o name").await, "");
    k.fails("get bgpp", "").await;
    k.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_prints_changes_as_they_come() {
    let k = Kubectl::start().await;
    k.feed("apply -f -", SERVICE).await;
    let mut child = k.command("get svc my-app -w --no-headers").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines)).await.unwrap();
    assert!(first.0.contains("<pending>"), "{}", first.0);
    let mut lines = first.1;
    k.run(r#"patch svc my-app --subresource=status --type=merge -p '{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}'"#).await;
    let second = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap()).await.unwrap();
    assert!(second.contains("192.0.2.1"), "{second}");
    child.kill().unwrap();
    child.wait().unwrap();
    k.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_create_commands_send_protobuf_and_are_understood() {
    let k = Kubectl::start().await;
    k.run("create namespace x").await;
    k.run("create serviceaccount sa -n x").await;
    k.run("create secret generic s -n x --from-literal=password=secret").await;
    k.run("create service loadbalancer lb -n x --tcp=80:8080").await;
    k.run("create deployment web -n x --image=nginx:1 --port=80 --replicas=2").await;
    k.run("expose deployment web -n x --port=80 --type=LoadBalancer").await;
    let shown = k
        .run("get svc lb -n x -o jsonpath={.spec.type},{.spec.ports[0].targetPort},{.spec.selector.app}")
        .await;
    assert_eq!(shown, "LoadBalancer,8080,lb");
    let shown = k.run("get deploy web -n x -o jsonpath={.spec.replicas},{.spec.template.spec.containers[0].ports[0].containerPort}").await;
    assert_eq!(shown, "2,80");
    assert_eq!(k.run("get secret s -n x -o jsonpath={.data.password}").await, "c2VjcmV0");
    k.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_namespace_deletes_its_content() {
    let k = Kubectl::start().await;
    k.run("create namespace x").await;
    k.run("create configmap c -n x --from-literal=a=b").await;
    k.run("delete namespace x --timeout=10s").await;
    assert!(k.fails("get ns x", "").await.contains("not found"));
    assert_eq!(k.run("get cm -A -o name").await, "");
    k.server.stop().await;
}
