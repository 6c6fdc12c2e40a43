//! Injected faults and counters, through the library and through the control endpoint; a kube-rs watcher
//! lives through them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::time::{Duration, Instant};

use apiserver::{Action, Cut, Fault, Matcher, Options, Server};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use kube::{Client, Config};
use serde_json::json;

async fn start() -> (Server, Api<ConfigMap>) {
    let server = Server::start(Options::default()).await.unwrap();
    let maps = Api::namespaced(client(&server), "default");
    (server, maps)
}

fn client(server: &Server) -> Client {
    let mut config = Config::new(server.url().parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        ..ConfigMap::default()
    }
}

fn code(error: kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn selected_requests_are_refused_so_many_times() {
    let (server, maps) = start().await;
    for refusal in [409, 429, 500, 503] {
        server.faults().refuse(Matcher::verb("create").on("configmaps"), refusal, 2);
        for _ in 0..2 {
            assert_eq!(code(maps.create(&PostParams::default(), &map("a")).await.unwrap_err()), refusal);
        }
        maps.list(&ListParams::default()).await.unwrap();
    }
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn slow_answers_are_slow() {
    let (server, maps) = start().await;
    server.faults().delay(Matcher::verb("list"), Duration::from_millis(150));
    let begin = Instant::now();
    maps.list(&ListParams::default()).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(150));
    server.faults().clear();
    server.stop().await;
}

#[tokio::test]
async fn stale_lists_show_the_moment_of_the_fault() {
    let (server, maps) = start().await;
    maps.create(&PostParams::default(), &map("old")).await.unwrap();
    server.faults().add(Fault {
        matcher: Matcher::verb("list"),
        action: Action::Stale { revision: 0 },
        times: None,
        skip: 0,
    });
    maps.create(&PostParams::default(), &map("new")).await.unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    server.faults().clear();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn watches_are_closed_or_told_that_they_are_too_old() {
    let (server, maps) = start().await;
    let mut closed = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let mut expired = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    for stream in [&mut closed, &mut expired] {
        assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    }
    server.faults().expire_watches(Matcher::verb("watch").on("configmaps"));
    for stream in [&mut closed, &mut expired] {
        assert!(matches!(stream.try_next().await.unwrap(), Some(WatchEvent::Error(e)) if e.code == 410));
        assert!(stream.try_next().await.unwrap().is_none());
    }
    let mut again = maps.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert!(matches!(again.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    server.faults().close_watches(Matcher::all());
    assert!(again.try_next().await.unwrap().is_none());
    server.stop().await;
}

#[tokio::test]
async fn a_forgotten_history_answers_410_and_a_watcher_lists_again() {
    let (server, maps) = start().await;
    let first =
        maps.create(&PostParams::default(), &map("a")).await.unwrap().metadata.resource_version.unwrap();
    let mut seen = watcher(maps.clone(), watcher::Config::default()).boxed();
    let mut applied = async |wanted: &str| {
        let found = async {
            loop {
                // A watcher reports the errors that it recovers from.
                if let Ok(watcher::Event::Apply(o) | watcher::Event::InitApply(o)) =
                    seen.next().await.unwrap()
                    && o.metadata.name.as_deref() == Some(wanted)
                {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), found).await.expect("the watcher sees it");
    };
    applied("a").await;
    maps.create(&PostParams::default(), &map("b")).await.unwrap();
    applied("b").await;
    server.compact();
    let mut late = maps.watch(&WatchParams::default(), &first).await.unwrap().boxed();
    assert!(matches!(late.try_next().await.unwrap(), Some(WatchEvent::Error(e)) if e.code == 410));
    server.faults().expire_watches(Matcher::all());
    maps.create(&PostParams::default(), &map("c")).await.unwrap();
    applied("c").await;
    server.stop().await;
}

#[tokio::test]
async fn a_partition_refuses_or_hangs_until_it_is_healed() {
    let (server, maps) = start().await;
    server.faults().partition(Cut::Refuse, Vec::new());
    assert!(maps.list(&ListParams::default()).await.is_err());
    server.faults().partition(Cut::Hang, Vec::new());
    let waiting = tokio::spawn({
        let maps = maps.clone();
        async move { maps.list(&ListParams::default()).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    server.faults().heal();
    waiting.await.unwrap().unwrap();
    server.faults().partition(Cut::Refuse, vec!["192.0.2.1".parse().unwrap()]);
    maps.list(&ListParams::default()).await.expect("others are not cut off");
    server.stop().await;
}

#[tokio::test]
async fn counters_tell_writes_from_reads() {
    let (server, maps) = start().await;
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "v"}}))).await.unwrap();
    maps.list(&ListParams::default()).await.unwrap();
    let counters = server.counters();
    assert_eq!(counters.total(&Matcher::verb("write")), 2);
    assert_eq!(counters.total(&Matcher::verb("patch").on("configmaps")), 1);
    assert_eq!(counters.total(&Matcher::verb("list").on("services")), 0);
    counters.reset();
    assert_eq!(counters.total(&Matcher::all()), 0);
    server.stop().await;
}

#[tokio::test]
async fn the_control_endpoint_does_the_same_for_shell_tests() {
    let (server, maps) = start().await;
    let client = client(&server);
    let control = async |method: &str, path: &str, body: serde_json::Value| {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        client
            .request::<serde_json::Value>(
                http::Request::builder().method(method).uri(path).body(bytes).unwrap(),
            )
            .await
    };
    let fault = json!({"match": {"verb": "create", "resource": "configmaps"}, "action": {"refuse": {"code": 500}}, "times": 1});
    control("POST", "/-/faults", fault.clone()).await.unwrap();
    assert_eq!(control("GET", "/-/faults", json!(null)).await.unwrap()[0]["action"]["refuse"]["code"], 500);
    assert_eq!(code(maps.create(&PostParams::default(), &map("a")).await.unwrap_err()), 500);
    maps.create(&PostParams::default(), &map("a")).await.unwrap();
    let requests = control("GET", "/-/requests", json!(null)).await.unwrap();
    let creates = requests.as_array().unwrap().iter().find(|r| r["verb"] == "create").unwrap();
    assert_eq!((&creates["resource"], &creates["count"]), (&json!("configmaps"), &json!(2)));
    assert_eq!(code(control("POST", "/-/faults", json!({"action": "explode"})).await.unwrap_err()), 400);
    assert_eq!(code(control("POST", "/-/nothing", json!(null)).await.unwrap_err()), 404);
    server.stop().await;
}
