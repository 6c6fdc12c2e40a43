"""Lints and renders the chart with Helm for a matrix of values; any finding is an error.

usage: check.py CHART
"""

import base64
import sys
from pathlib import Path

import helm_python as helm
import yaml

GROUP = {"create": True, "name": "default", "spec": {"remote": {"v4pool": {"pool": "192.0.2.0/24", "subnet": "192.0.2.0/24", "aggregation": "/32"}}}}
PEERS = [{"name": "tor1", "spec": {"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"}},
         {"name": "tor2", "spec": {"myASN": 64512, "dynamicASN": "external", "peerAddress": "192.0.2.2"}}]

SIDECAR = {"image": "registry.example/ipam-file:1", "args": ["--store", "/books/ipam.json", "--pool", "external=192.0.2.0/24"],
           "volumeMounts": [{"name": "books", "mountPath": "/books"}]}

# name -> values
GOOD = {
    "defaults": {},
    "one replica": {"allocator": {"replicas": 1}},
    "another default": {"defaultAnnouncer": "Other"},
    "image": {"image": {"repository": "registry.example/purelb", "tag": "v9", "pullSecrets": [{"name": "pull"}]}},
    "json logs": {"log": {"filter": "info,bgp=debug", "format": "json"}},
    "placement": {"allocator": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}],
                                "affinity": {"nodeAffinity": {}}},
                  "lbnodeagent": {"nodeSelector": {"a": "b"}, "tolerations": []}},
    "heartbeats": {"lbnodeagent": {"heartbeat": {"interval": "1s", "multiplier": 3, "port": 9999, "existingSecret": "ours"}}},
    "restarts": {"lbnodeagent": {"onShutdown": "keep", "drainWait": "500ms", "garpRefresh": "1m", "bgp": {"port": 1179, "listen": True}}},
    "for good": {"lbnodeagent": {"onShutdown": "withdraw"}},
    "waits": {"lbnodeagent": {"linger": "1m30s", "kubeProxyWait": "0s", "weightDamping": "500ms"}},
    "no admission policy": {"lbnodeagent": {"admissionPolicy": False}},
    "sidecar": {"allocator": {"replicas": 1, "ipamSidecar": SIDECAR, "extraVolumes": [{"name": "books", "emptyDir": {}}]}},
    "plain sidecar": {"allocator": {"ipamSidecar": {"image": "registry.example/ipam:1", "securityContext": {"runAsUser": 7}}}},
    "containers": {"allocator": {"extraContainers": [{"name": "x", "image": "y"}], "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
                                 "extraVolumes": [{"name": "v", "emptyDir": {}}]}},
    "group": {"serviceGroup": GROUP},
    "peers": {"bgpPeers": PEERS},
    "group and peers": {"serviceGroup": GROUP, "bgpPeers": PEERS},
}
# name -> (values, what the error must name)
BAD = {
    "misspelt value": ({"alocator": {}}, "alocator"),
    "no replicas": ({"allocator": {"replicas": 0}}, "replicas"),
    "sidecar without image": ({"allocator": {"ipamSidecar": {"args": ["x"]}}}, "image"),
    "peer without spec": ({"bgpPeers": [{"name": "x"}]}, "spec"),
    "one heartbeat": ({"lbnodeagent": {"heartbeat": {"multiplier": 1}}}, "multiplier"),
    "heartbeat without unit": ({"lbnodeagent": {"heartbeat": {"interval": "100"}}}, "interval"),
    "another way to end": ({"lbnodeagent": {"onShutdown": "vanish"}}, "onShutdown"),
    "wait without unit": ({"lbnodeagent": {"drainWait": "2"}}, "drainWait"),
    "linger without unit": ({"lbnodeagent": {"linger": "5"}}, "linger"),
    "refresh without unit": ({"lbnodeagent": {"garpRefresh": "60"}}, "garpRefresh"),
    "port that is none": ({"lbnodeagent": {"bgp": {"port": 0}}}, "port"),
    "half an admission policy": ({"lbnodeagent": {"admissionPolicy": "yes"}}, "admissionPolicy"),
    "long interface": ({"lbnodeagent": {"dummyInterface": "a-name-that-is-too-long"}}, "dummyInterface"),
}
# name -> (values that the schema takes one by one, what the error of the templates must name)
UNFIT = {
    "a wait beyond the pod's life": ({"lbnodeagent": {"drainWait": "21s"}}, "drainWait"),
}
KINDS = {"ServiceGroup", "LBNodeAgent", "BGPPeer", "BGPNodeStatus"}
KEPT = {("Deployment", "allocator"), ("DaemonSet", "lbnodeagent")}


def objects(manifests):
    """Every object in rendered manifests, NOTES left out."""
    for path, text in manifests.items():
        if not path.endswith(".txt"):
            yield from (document for document in yaml.safe_load_all(text) if document)


def heartbeat(document):
    """What an agent of this DaemonSet takes the key of heartbeats from: the Secret, if the container sees it."""
    pod = document["spec"]["template"]["spec"]
    [container] = pod["containers"]
    [secret] = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "heartbeat"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "heartbeat"]
    [file] = [entry["value"] for entry in container["env"] if entry["name"] == "PURELB_HEARTBEAT_KEY_FILE"]
    fits = mount["readOnly"] and file == mount["mountPath"] + "/key" and secret["defaultMode"] == 0o400
    return secret["secretName"] if fits else None


def agents_environment(values):
    """What these values mean for the environment of the agent."""
    agent = values.get("lbnodeagent", {})
    bgp = {"port": 179, "listen": False} | agent.get("bgp", {})
    listen = "true" if bgp["listen"] else "false"
    waits = {"PURELB_LINGER": agent.get("linger", "5s"), "PURELB_KUBE_PROXY_WAIT": agent.get("kubeProxyWait", "2s"), "PURELB_WEIGHT_DAMPING": agent.get("weightDamping", "10s")}
    return waits | {"PURELB_DAEMON_SET": "lbnodeagent", "PURELB_ON_SHUTDOWN": agent.get("onShutdown", "auto"), "PURELB_DRAIN_WAIT": agent.get("drainWait", "2s"), "PURELB_GARP_REFRESH": agent.get("garpRefresh", "0s"), "PURELB_BGP_PORT": str(bgp["port"]), "PURELB_BGP_LISTEN": listen}


def check(chart, path, name, values):
    """The faults of one set of values, as sentences."""
    for message in helm.lint(path, values, strict=True)["messages"]:
        if message["severity"] >= 2:
            yield f"{name}: lint: {message}"
    found = set()
    agents_secret, chart_secret = None, values.get("lbnodeagent", {}).get("heartbeat", {}).get("existingSecret")
    wants_sidecar = bool(values.get("allocator", {}).get("ipamSidecar"))
    for document in objects(chart.render(values, name="purelb", namespace="purelb-system")):
        if document["kind"] == "Deployment" and wants_sidecar:
            containers = document["spec"]["template"]["spec"]["containers"]
            mounts = [{mount["name"]: mount["mountPath"] for mount in c["volumeMounts"]} for c in containers]
            if len(containers) != 2 or any(mount.get("ipam-socket") != "/var/run/purelb" for mount in mounts):
                yield f"{name}: the allocator and its sidecar do not share the directory of the socket"
        if document["kind"] == "DaemonSet":
            agents_secret = heartbeat(document)
            environment = document["spec"]["template"]["spec"]["containers"][0]["env"]
            told = {entry["name"]: entry.get("value") for entry in environment}
            for variable, value in agents_environment(values).items():
                if told.get(variable) != value:
                    yield f"{name}: {variable} is {told.get(variable)!r}, expected {value!r}"
        if document["kind"] == "Secret":
            if chart_secret or len(base64.b64decode(document["data"]["key"])) < 16:
                yield f"{name}: a Secret that nobody needs, or with a key that is too short"
            chart_secret = document["metadata"]["name"]
        key = (document["apiVersion"], document["kind"], document["metadata"]["name"])
        if key in found:
            yield f"{name}: {key} is rendered twice"
        found.add(key)
    if not chart_secret or agents_secret != chart_secret:
        yield f"{name}: agents take the key of heartbeats from {agents_secret}, expected {chart_secret}"
    kinds = {(kind, title) for _, kind, title in found}
    yield from (f"{name}: {missing} is not rendered" for missing in KEPT - kinds)
    wants_policy = values.get("lbnodeagent", {}).get("admissionPolicy", True)
    policy = {kind for kind, _ in kinds if kind.startswith("ValidatingAdmissionPolicy")}
    if policy != ({"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} if wants_policy else set()):
        yield f"{name}: of the admission policy there is {sorted(policy)}"


def main(path):
    faults = []
    with helm.Chart.load(path) as chart:
        # Under crds/, not templates/: Helm refuses a release whose templates hold both a definition and an object of it.
        defined = {yaml.safe_load(crd["data"])["spec"]["names"]["kind"] for crd in chart.crds}
        if defined != KINDS:
            faults.append(f"expected the custom resources {sorted(KINDS)}, found {sorted(defined)}")
        for name, values in GOOD.items():
            faults += check(chart, path, name, values)
        for name, (values, word) in BAD.items():
            try:
                chart.validate_schema(values)
                faults.append(f"{name}: accepted, though it is wrong")
            except helm.HelmValuesError as error:
                if word not in str(error):
                    faults.append(f"{name}: the error does not name {word}: {error}")
        for name, (values, word) in UNFIT.items():
            try:
                chart.render(values, name="purelb", namespace="purelb-system")
                faults.append(f"{name}: rendered, though it is wrong")
            except helm.HelmError as error:
                if word not in str(error):
                    faults.append(f"{name}: the error does not name {word}: {error}")
    for fault in faults:
        print("chart:", fault)
    print(f"chart: {len(GOOD)} sets of values rendered with Helm {helm.helm_sdk_version()}, {len(BAD) + len(UNFIT)} refused, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]))))
