"""The Helm chart, rendered by Helm for several installations. No cluster has ever run it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import footlights
from footlights.cli.secret_files import BY_FILE
from footlights.control.credentials.kubernetes import AUDIENCE
from tests.control.test_server import serving
from tests.deploy import DEPLOY
from tests.deploy.commands import Accepted, accept
from tests.deploy.helm import Helm, Manifest, Rendered, unpack

CHART = DEPLOY / "helm" / "footlights"
VALUES = Path(__file__).with_name("values")
INSTALLATIONS = {
    "default": [],
    "split": [VALUES / "split.yaml"],
    "software": [VALUES / "software.yaml"],
    "everything": [VALUES / "everything.yaml"],
}
NOT_KUBERNETES = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "HTTPRoute", "GRPCRoute"}
"""Kinds of others, whose schemas are not at hand."""

ROLES = {"api", "frontdoor", "hub", "loops"}


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return unpack(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session", params=INSTALLATIONS)
def installation(request: pytest.FixtureRequest, helm: Helm) -> Rendered:
    """One installation, as Helm would send it."""
    return helm.render(CHART, INSTALLATIONS[request.param])


@pytest.fixture(scope="session")
def default(helm: Helm) -> Rendered:
    return helm.render(CHART)


@pytest.fixture(scope="session")
def everything(helm: Helm) -> Rendered:
    return helm.render(CHART, INSTALLATIONS["everything"])


def test_helm_finds_nothing(helm: Helm) -> None:
    """
    ``helm lint --strict`` passes with every set of values.
    """
    values = [option for paths in INSTALLATIONS.values() for path in paths for option in ("--values", str(path))]
    plain, full = helm.run("lint", "--strict", CHART), helm.run("lint", "--strict", CHART, *values)

    assert (plain.returncode, full.returncode) == (0, 0), plain.stdout + full.stdout


@pytest.mark.parametrize("version", ["1.27", kubernetes_validate.latest_version()])
def test_manifests_are_what_kubernetes_takes(installation: Rendered, version: str) -> None:
    """
    Every manifest fits Kubernetes' own schema, strictly: of the oldest version that the chart admits, and the newest.
    """
    for manifest in installation.manifests:
        if manifest["kind"] not in NOT_KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)

    assert {manifest["kind"] for manifest in installation.manifests} >= {"Deployment", "DaemonSet", "Service"}


def test_oldest_version_is_the_charts() -> None:
    """
    What the chart says of Kubernetes' version is what is tested.
    """
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == ">=1.27.0-0"


def test_everything_renders_every_template(everything: Rendered) -> None:
    """
    With everything on, every kind is there, the foreign ones included: no template is without a test.
    """
    wanted = set()
    for template in CHART.rglob("templates/**/*.yaml"):
        wanted |= set(re.findall(r"^kind: (\w+)$", template.read_text(), re.MULTILINE))

    assert {manifest["kind"] for manifest in everything.manifests} == wanted
    assert wanted >= NOT_KUBERNETES


def test_nothing_claims_a_gpu(installation: Rendered) -> None:
    """
    No container asks for a device; the agent sees all GPUs by its runtime, where it watches GPUs at all.
    """
    for container in _containers(installation):
        claimed = {name for part in container.get("resources", {}).values() for name in part}
        assert claimed <= {"cpu", "memory", "ephemeral-storage"}
    (agent,) = installation.of("DaemonSet")
    spec = agent["spec"]["template"]["spec"]
    names = {entry["name"] for entry in spec["containers"][0]["env"]}

    assert ("runtimeClassName" in spec) == ({"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"} <= names)


def test_nobody_is_root(installation: Rendered) -> None:
    """
    Every container runs as a user by number, without capabilities, on a root file system that it cannot write.
    """
    for pod in _pods(installation):
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] > 0
        assert pod["automountServiceAccountToken"] is False
    for container in _containers(installation):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_servers_and_agents_are_different_users(installation: Rendered, helm: Helm) -> None:
    """
    With the host's processes in sight, an application can neither read a server's environment nor signal it: servers
    and agents are two users, which are those of the images.
    """
    users = {_template(w)["spec"]["securityContext"]["runAsUser"] for w in installation.of("Deployment")}
    agent = _template(installation.of("DaemonSet")[0])["spec"]["securityContext"]["runAsUser"]
    images = [
        int(re.findall(r"ARG UID=(\d+)", (DEPLOY / f"docker/{image}.Dockerfile").read_text())[0])
        for image in ("control-plane", "agent", "viewer")
    ]

    assert [*users, agent] == images[:2]
    assert len(set(images)) == 3
    refused = helm.run("template", "footlights", CHART, "--set-json", "agent.podSecurityContext.runAsUser=10001")
    assert "Give each a user of its own" in refused.stderr


def test_agents_enroll_by_what_kubernetes_says_of_their_pods(
    installation: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    No Secret of tokens, and no step after the installation: an agent's pod has a token for the control plane alone, and
    servers ask Kubernetes whose it is. That, and which node a pod is on, is all that they may ask.
    """
    (agent,) = installation.of("DaemonSet")
    record = _accepted(agent, monkeypatch).record
    volumes = {volume["name"]: volume for volume in _template(agent)["spec"]["volumes"]}
    account = f"stages:{_template(agent)['spec']['serviceAccountName']}"
    servers = {_template(deployment)["spec"]["serviceAccountName"] for deployment in installation.of("Deployment")}
    bound = {
        (subject["kind"], subject["namespace"], subject["name"])
        for binding in installation.of("RoleBinding", "ClusterRoleBinding")
        for subject in binding["subjects"]
    }
    rules = [rule for role in installation.of("Role", "ClusterRole") for rule in role["rules"]]

    assert (str(record.enroll_token_file), record.token_file) == ("/run/footlights/pod/token", None)
    (source,) = volumes["pod"]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == AUDIENCE
    assert not any("secret" in volume for name, volume in volumes.items() if name != "ca")
    assert "initContainers" not in _template(agent)["spec"]
    for deployment in installation.of("Deployment"):
        assert _accepted(deployment, monkeypatch).record.kubernetes_agents == (account,)
        mounts = _template(deployment)["spec"]["containers"][0]["volumeMounts"]
        assert "/var/run/secrets/kubernetes.io/serviceaccount" in [mount["mountPath"] for mount in mounts]
    assert bound == {("ServiceAccount", "stages", name) for name in servers}
    assert account.partition(":")[2] not in servers
    asked = {(rule["resources"][0], *rule["verbs"]) for rule in rules}
    assert (
        {("tokenreviews", "create"), ("pods", "get")}
        <= asked
        <= {
            ("tokenreviews", "create"),
            ("pods", "get"),
            ("configmaps", "patch"),
        }
    )


def test_secrets_are_files(installation: Rendered) -> None:
    """
    No secret is in a container's environment or command line, where others of its user and `kubectl describe` see it.
    """
    for container in _containers(installation):
        assert [entry for entry in container.get("env", ()) if "secretKeyRef" in entry.get("valueFrom", {})] == []
    for deployment in installation.of("Deployment"):
        pod = _template(deployment)["spec"]
        (container,) = pod["containers"]
        named = {entry["name"]: entry.get("value") for entry in container["env"]}
        (volume,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets"]
        paths = {f"/run/footlights/secrets/{item['path']}": item["key"] for item in volume["items"]}
        assert paths[named["FOOTLIGHTS_DATABASE_FILE"]] == "database-url"
        assert paths[named["FOOTLIGHTS_CLUSTER_KEY_FILE"]] == "cluster-key"
        assert volume["defaultMode"] == 0o440


def test_servers_keep_off_machines_with_gpus(default: Rendered, everything: Rendered, helm: Helm) -> None:
    """
    Unless told otherwise no server runs where sessions do.
    """
    kept = _template(default.one("Deployment", "footlights-server"))["spec"]["affinity"]
    own = _template(everything.one("Deployment", "footlights-web"))["spec"]["affinity"]
    anywhere = helm.render(CHART, settings=["server.avoidGpuNodes=false"])

    assert kept["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] == [
        {"matchExpressions": [{"key": "nvidia.com/gpu.present", "operator": "NotIn", "values": ["true"]}]}
    ]
    assert own.keys() == {"podAntiAffinity"}
    assert "affinity" not in _template(anywhere.one("Deployment", "footlights-server"))["spec"]


def test_commands_are_accepted(installation: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Our CLI takes every container's command line, with its environment and that of its image.
    """
    records = [_accepted(workload, monkeypatch) for workload in installation.of("Deployment", "DaemonSet")]

    assert {accepted.name for accepted in records} == {"server", "agent"}
    for accepted in records:
        assert str(accepted.record.data_dir) == "/data"
        if accepted.name == "server":
            assert accepted.record.database == "a-secret"
            assert accepted.record.peer_address == "10.1.2.3:50053"
        assert accepted.name == "server" or accepted.record.node == "node-1.example.com"


def test_values_arrive(everything: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is set in the values is what the programs would run with.
    """
    web = _accepted(everything.one("Deployment", "footlights-web"), monkeypatch).record
    agent = _accepted(everything.one("DaemonSet", "footlights-agent"), monkeypatch).record

    assert (web.public_url, web.retention_days, web.queue_limit) == ("https://streams.example.com", 90, 2000)
    assert web.min_isolation == "container"
    assert web.ice_servers == ("stun:relay.example.com:3478",)
    assert web.turn_urls == ("turn:relay.example.com:3478", "turns:relay.example.com:5349")
    assert (str(web.tls_cert), web.insecure) == ("/run/footlights/tls/tls.crt", False)
    assert (agent.tls, agent.insecure, str(agent.ca_file)) == (True, False, "/run/footlights/ca/ca.crt")
    assert (agent.public_address, agent.slots_per_device) == ("203.0.113.7", 2)
    assert dict(agent.labels) == {"zone": "a", "rack": "12"}


def test_tls_is_on(installation: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing is set for it: replicas serve it with a certificate that is given or that they make; all who call them, from
    probes to agents, use it and know the authority.
    """
    for deployment in installation.of("Deployment"):
        server = _accepted(deployment, monkeypatch).record
        assert not server.insecure
        assert server.needs_certificate or server.tls_cert
        assert _schemes(deployment) == {"HTTPS"}
    agent = _accepted(installation.of("DaemonSet")[0], monkeypatch).record
    assert (agent.tls, agent.insecure, str(agent.ca_file)) == (True, False, "/run/footlights/ca/ca.crt")
    assert {protocol for _, protocol in _protocols(installation)} == {"https"}
    assert "https://" in installation.of("Pod")[0]["spec"]["containers"][0]["args"][0]


def test_servers_ask_kubernetes_for_nothing_that_is_not_needed(helm: Helm) -> None:
    """
    Without agents of the chart no token is reviewed; with a certificate of yours as well, nothing is asked or mounted.
    """
    without = helm.render(CHART, settings=["agent.enabled=false"])
    nothing = helm.render(CHART, settings=["agent.enabled=false", 'server.tls.existingSecret="a"'])

    assert [rule["resources"] for role in without.of("Role", "ClusterRole") for rule in role["rules"]] == [
        ["configmaps"]
    ]
    assert [each["metadata"]["name"] for each in without.of("ConfigMap")] == ["footlights-ca"]
    assert nothing.of("Role", "ClusterRole", "RoleBinding", "ConfigMap") == []
    mounted = {volume["name"] for pod in _pods(nothing) for volume in pod.get("volumes", ())}
    assert "kubernetes" not in mounted


def test_the_authority_is_where_servers_put_it(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The control plane's own authority is in a ConfigMap of the chart, which servers fill and may fill, agents wait for
    and Prometheus verifies by; without any known one, the system's is used.
    """
    monitors = ["metrics.podMonitor.enabled=true", "metrics.serviceMonitor.enabled=true"]
    own = helm.render(CHART, settings=monitors)
    given = helm.render(CHART, settings=[*monitors, 'server.tls.existingSecret="a"', 'agent.caSecret="b"'])
    public = helm.render(CHART, settings=[*monitors, 'server.tls.existingSecret="a"'])

    (made,) = [each["metadata"]["name"] for each in own.of("ConfigMap")]
    assert "data" not in own.one("ConfigMap", made)
    assert _accepted(own.one("Deployment", "footlights-server"), monkeypatch).record.kubernetes_ca == made
    assert [rule.get("resourceNames") for rule in own.of("Role")[0]["rules"]] == [None, [made]]
    assert _authorities(own) == [
        {"configMap": {"name": made, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        *[{"ca": {"configMap": {"name": made, "key": "ca.crt"}}, "serverName": "footlights-hub.stages.svc"}] * 2,
    ]
    assert _authorities(given) == [
        {"secret": {"secretName": "b", "defaultMode": 0o440}},
        *[{"ca": {"secret": {"name": "b", "key": "ca.crt"}}, "serverName": "footlights-hub.stages.svc"}] * 2,
    ]
    assert _authorities(public) == [{"insecureSkipVerify": True}] * 2
    assert given.of("ConfigMap") == public.of("ConfigMap") == []
    assert "cat /data/ca.pem > ca.crt" in own.notes
    assert "FOOTLIGHTS_CA_FILE=ca.crt" in own.notes


async def test_a_replicas_certificate_has_the_names_of_its_services(
    helm: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A server that runs with the chart's settings is known, by its authority, at each name that it is called by.
    """
    rendered = helm.render(CHART, settings=['server.tls.names=["streams.example.com", "192.0.2.7"]'])
    settings = _accepted(rendered.one("Deployment", "footlights-server"), monkeypatch).record
    free = {f"{name}_listen": "0.0.0.0:0" for name in ("http", "grpc", "agents", "peers", "admin")}
    elsewhere = {"kubernetes_agents": (), "kubernetes_ca": ""}
    settings = dataclasses.replace(settings, data_dir=tmp_path, database="", **free, **elsewhere)
    dialled = _argument(rendered.of("DaemonSet")[0], "--server").rpartition(":")[0]
    services = [service["metadata"]["name"] for service in rendered.of("Service")]
    names = [f"{name}.stages.svc" for name in services if not name.endswith("-peers")]

    async with serving(settings) as endpoints:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        context.set_alpn_protocols(["h2", "http/1.1"])
        ports = [int(endpoints[name].rpartition(":")[2]) for name in ("http", "grpc", "admin")]
        for port in ports:
            for name in (dialled, *names, "streams.example.com", "192.0.2.7", "10.1.2.3", "127.0.0.1"):
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
                writer.close()
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="other.example.com")

    assert dialled in names
    assert len(names) == 3


def test_tls_is_turned_off_in_words(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One value turns it off, for servers and all who call them; agents then wait for no authority.
    """
    settings = [f"{name}.enabled=true" for name in ("metrics.podMonitor", "metrics.serviceMonitor")]
    settings += [
        'ingress={"enabled": true, "host": "a.example.com", "grpc": {"enabled": true, "host": "b.example.com"}}'
    ]
    off = helm.render(CHART, settings=[*settings, "server.tls.enabled=false"])
    on = helm.render(CHART, settings=settings)
    deployment = off.one("Deployment", "footlights-server")
    server = _accepted(deployment, monkeypatch).record
    agent = _accepted(off.of("DaemonSet")[0], monkeypatch).record

    assert (server.insecure, server.needs_certificate, server.tls_names) == (True, False, ())
    assert (agent.insecure, agent.tls, agent.ca_file) == (True, False, None)
    assert _schemes(deployment) == {"HTTP"}
    assert _authorities(off) == [None, None]
    assert set(_protocols(off)) == {("http", "http"), ("grpc", "kubernetes.io/h2c"), ("agents", "https")}
    assert [_backend_protocol(ingress) for ingress in off.of("Ingress")] == ["HTTP", "GRPC"]
    assert [_backend_protocol(ingress) for ingress in on.of("Ingress")] == ["HTTPS", "GRPCS"]
    assert "TLS is off" in off.notes
    assert "TLS is off" not in on.notes


def test_services_find_their_pods(installation: Rendered) -> None:
    """
    Each Service selects pods, and each of its ports is one that those pods declare by name.
    """
    pods = [_template(workload) for workload in installation.of("Deployment", "DaemonSet")]
    for service in installation.of("Service"):
        found = [pod for pod in pods if _selects(service["spec"]["selector"], pod["metadata"]["labels"])]
        assert found, service["metadata"]["name"]
        for pod in found:
            declared = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
            for port in service["spec"]["ports"]:
                assert port["targetPort"] in declared
                assert service["spec"].get("clusterIP") != "None" or port["port"] == declared[port["targetPort"]]


def test_routes_lead_to_services(everything: Rendered) -> None:
    """
    Each Ingress and each route names a Service that there is, by a port that it has.
    """
    ports = {
        service["metadata"]["name"]: {
            key: port for port in service["spec"]["ports"] for key in (port["name"], port["port"])
        }
        for service in everything.of("Service")
    }
    backends = [
        (path["backend"]["service"]["name"], path["backend"]["service"]["port"]["name"])
        for ingress in everything.of("Ingress")
        for rule in ingress["spec"]["rules"]
        for path in rule["http"]["paths"]
    ] + [
        (backend["name"], backend["port"])
        for route in everything.of("HTTPRoute", "GRPCRoute")
        for rule in route["spec"]["rules"]
        for backend in rule["backendRefs"]
    ]

    assert len(backends) == 7
    for name, port in backends:
        assert port in ports[name]


def test_roles_are_all_there(installation: Rendered) -> None:
    """
    Each role runs somewhere and only once; agents are sent to links, clients to the API, browsers to the front door.
    """
    roles = {deployment["metadata"]["name"]: _roles(deployment) for deployment in installation.of("Deployment")}
    reached = {
        service["metadata"]["name"].rpartition("-")[2]: set.union(
            *(
                _roles(deployment)
                for deployment in installation.of("Deployment")
                if _selects(service["spec"]["selector"], _template(deployment)["metadata"]["labels"])
            )
        )
        for service in installation.of("Service")
    }

    assert sorted(role for each in roles.values() for role in each) == sorted(ROLES)
    assert "hub" in reached["hub"]
    assert {"api", "frontdoor"} <= reached["http"]
    assert "api" in reached["grpc"]
    assert reached["peers"] == ROLES


def test_agents_dial_the_hub(installation: Rendered) -> None:
    """
    Without a server of its own in the values, an agent dials the Service of the links in this release's namespace.
    """
    (agent,) = installation.of("DaemonSet")
    server = _argument(agent, "--server")
    replica = next(d for d in installation.of("Deployment") if "hub" in _argument(d, "--roles"))
    (hub,) = [service for service in installation.of("Service") if service["metadata"]["name"].endswith("-hub")]

    assert server == f"{hub['metadata']['name']}.stages.svc:{hub['spec']['ports'][0]['port']}"
    assert [port["targetPort"] for port in hub["spec"]["ports"]] == ["grpc", "agents"]
    # An enrolled agent is told the port, and has the host.
    assert hub["spec"]["ports"][1]["port"] == _port(replica, "agents")
    assert _port(replica, "agents") == int(_argument(replica, "--agents-listen").rpartition(":")[2])


def test_replicas_can_be_told_apart(default: Rendered) -> None:
    """
    Each replica tells its peers the address of its own pod.
    """
    container = _template(default.one("Deployment", "footlights-server"))["spec"]["containers"][0]
    environment = {entry["name"]: entry.get("valueFrom") for entry in container["env"]}

    assert "--peer-address=$(POD_IP):50053" in container["args"]
    assert environment["POD_IP"] == {"fieldRef": {"fieldPath": "status.podIP"}}


def test_replicas_are_probed_and_kept(installation: Rendered) -> None:
    """
    Start and life are asked of /livez, service of /readyz; upgrades and evictions take one replica at a time.
    """
    for deployment in installation.of("Deployment"):
        container = _template(deployment)["spec"]["containers"][0]
        paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
        assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
        assert all(container[f"{name}Probe"]["httpGet"]["port"] == "http" for name in paths)
        assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    for budget in installation.of("PodDisruptionBudget"):
        selector = budget["spec"]["selector"]["matchLabels"]
        guarded = [d for d in installation.of("Deployment") if _selects(selector, _template(d)["metadata"]["labels"])]
        assert len(guarded) == 1
        assert budget["spec"]["maxUnavailable"] == 1


def test_scaling_leaves_the_number_alone(everything: Rendered) -> None:
    """
    What scales by load names a Deployment that says no number of its own; the links' Deployment is not scaled.
    """
    (scaler,) = everything.of("HorizontalPodAutoscaler")
    web = everything.one("Deployment", scaler["spec"]["scaleTargetRef"]["name"])

    assert "replicas" not in web["spec"]
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, 9)
    assert everything.one("Deployment", "footlights-hub")["spec"]["replicas"] == 2


def test_agents_end_no_session_by_themselves(default: Rendered) -> None:
    """
    Nothing replaces or restarts an agent's pod but a person: no rolling update, no liveness probe, no eviction.
    """
    (agent,) = default.of("DaemonSet")
    spec, container = _template(agent)["spec"], _template(agent)["spec"]["containers"][0]

    assert agent["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert not container.keys() & {"livenessProbe", "startupProbe"}
    assert _template(agent)["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert "--drain-on-stop" in container["args"]
    assert spec["terminationGracePeriodSeconds"] >= 30


def test_agents_are_where_gpus_are(default: Rendered) -> None:
    """
    An agent runs on the machines that have GPUs, under the machine's name, on its network, seeing its processes.
    """
    spec = _template(default.of("DaemonSet")[0])["spec"]
    environment = {entry["name"]: entry for entry in spec["containers"][0]["env"]}

    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    assert (spec["hostNetwork"], spec["hostPID"], spec["runtimeClassName"]) == (True, True, "nvidia")
    assert environment["NVIDIA_VISIBLE_DEVICES"]["value"] == "all"
    assert environment["NODE_NAME"]["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}


def test_mounts_and_volumes_fit(installation: Rendered) -> None:
    """
    Every mount has its volume and every volume a mount; what programs write to is mounted.
    """
    for pod in _pods(installation):
        containers = [*pod.get("initContainers", ()), *pod["containers"]]
        mounts = [mount for container in containers for mount in container.get("volumeMounts", ())]
        assert {mount["name"] for mount in mounts} == {volume["name"] for volume in pod.get("volumes", ())}
        assert not mounts or {"/data", "/tmp"} <= {mount["mountPath"] for mount in mounts}


def test_everything_is_labelled(installation: Rendered) -> None:
    """
    Every object has Kubernetes' recommended labels and the release's namespace; no selector holds what changes.
    """
    recommended = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "version", "managed-by", "part-of")}
    for manifest in installation.manifests:
        assert recommended <= manifest["metadata"]["labels"].keys(), manifest
        is_in_one = not manifest["kind"].startswith("ClusterRole")
        assert manifest["metadata"].get("namespace") == ("stages" if is_in_one else None)
    for workload in installation.of("Deployment", "DaemonSet"):
        selector = workload["spec"]["selector"]["matchLabels"]
        assert selector.keys() == {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}
        assert _selects(selector, _template(workload)["metadata"]["labels"])


def test_policies_and_monitors_select_replicas(everything: Rendered) -> None:
    """
    The network policy and the monitors select every replica of the control plane and no agent.
    """
    policy, monitor = everything.of("NetworkPolicy")[0], everything.of("PodMonitor")[0]
    workloads = everything.of("Deployment", "DaemonSet")
    for selector in (policy["spec"]["podSelector"]["matchLabels"], monitor["spec"]["selector"]["matchLabels"]):
        found = {w["kind"] for w in workloads if _selects(selector, _template(w)["metadata"]["labels"])}
        assert found == {"Deployment"}
    services = everything.of("ServiceMonitor")[0]["spec"]["selector"]["matchLabels"]
    watched = [s for s in everything.of("Service") if _selects(services, s["metadata"]["labels"])]

    assert [service["metadata"]["name"] for service in watched] == ["footlights-peers"]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    replica = everything.of("Deployment")[0]
    assert _port(replica, "admin") == int(_argument(replica, "--admin-listen").rpartition(":")[2])
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "admin"
    assert monitor["spec"]["podMetricsEndpoints"][0]["relabelings"] == [
        {"targetLabel": "job", "replacement": "footlights"}
    ]


def test_alerts_and_dashboard_are_the_same_as_elsewhere(everything: Rendered) -> None:
    """
    The chart's rules are prometheus/alerts.yaml with the runbook's address of this installation, its dashboard ours.
    """
    rules = everything.of("PrometheusRule")[0]["spec"]
    ours = (
        (DEPLOY / "prometheus/alerts.yaml").read_text().replace("docs/runbook.md", "https://wiki.example.com/runbook")
    )
    dashboard = everything.one("ConfigMap", "footlights-dashboard")

    assert rules == yaml.safe_load(ours)
    assert json.loads(dashboard["data"]["footlights.json"]) == json.loads(
        (DEPLOY / "grafana/footlights.json").read_text()
    )
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_a_package_is_whole(helm: Helm, tmp_path: Path, everything: Rendered) -> None:
    """
    A packaged chart renders the same: what lies elsewhere in the repository is packed with it.
    """
    run = helm.run("package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("*.tgz")

    assert run.returncode == 0, run.stderr
    assert helm.render(package, INSTALLATIONS["everything"]).manifests == everything.manifests


def test_notes_are_true(installation: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is said after an installation can be typed: our CLI takes its commands, and what kubectl is told is there.
    """
    said = re.findall(r"(?:^|-- )\s*(footlights [^>#\n]*)", installation.notes, re.MULTILINE)
    for line in said:
        accept(monkeypatch, shlex.split(line.replace("NODE", "node-1")), {})
    names = {manifest["metadata"]["name"] for manifest in installation.manifests}
    named = re.findall(r"(?:deploy|svc)/([\w-]+)", installation.notes)

    assert len(said) >= 4
    assert named
    assert set(named) <= names


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("server.replicas=3", "replicas"),
        ("server.replicaCount=0", "replicaCount"),
        ('server.replicaCount="two"', "replicaCount"),
        ("server.autoscaling.maxReplicas=0", "maxReplicas"),
        ('server.image.digest="latest"', "digest"),
        ('server.publicUrl="streams.example.com"', "publicUrl"),
        ('server.turn.urls=["turn:a:3478"]', "existingSecret"),
        ('server.tls={"enabled": false, "existingSecret": "a"}', "existingSecret"),
        ('server.tls.names=["https://streams.example.com"]', "names"),
        ('server.iceServers=["relay.example.com"]', "iceServers"),
        ("server.podSecurityContext.runAsNonRoot=false", "runAsNonRoot"),
        ("server.securityContext.privileged=true", "privileged"),
        ('server.extraEnv=[{"nam": "A"}]', "extraEnv"),
        ('secret.existingSecret=""', "existingSecret"),
        ('agent.resources.limits={"nvidia.com/gpu": 1}', "nvidia.com/gpu"),
        ('server.minIsolation="NONE"', "minIsolation"),
        ('agent.server="control"', "server"),
        ('agent.devices="amd"', "devices"),
        ("agent.slotsPerDevice=65", "slotsPerDevice"),
        ("agent.firstPort=80", "firstPort"),
        ('agent.updateStrategy.type="Recreate"', "updateStrategy"),
        ('agent.token.hostPath="token"', "token"),
        ("ingress.enabled=true", "host"),
        ("gateway.enabled=true", "parentRefs"),
        ('metrics.podMonitor.interval="15"', "interval"),
        ("prometheus.enabled=true", "prometheus"),
    ],
)
def test_values_that_cannot_be_are_refused(helm: Helm, setting: str, says: str) -> None:
    """
    The schema refuses what is misspelt, of the wrong kind, or cannot work, and names it.
    """
    run = helm.run("template", "footlights", CHART, "--set-json", setting)

    assert run.returncode != 0
    assert "don't meet the specifications of the schema" in run.stderr
    assert says in run.stderr


def test_every_value_has_a_default() -> None:
    """
    The schema and values.yaml have the same keys, so that values.yaml shows all that can be set.
    """
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(part: dict[str, Any], given: dict[str, Any], where: str) -> None:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        if part.get("additionalProperties") is not False:
            return
        optional = {"global", "rollingUpdate", "initialDelaySeconds", "successThreshold", "limits"}
        assert part["properties"].keys() - optional == given.keys() - optional, where
        for key, value in given.items():
            if isinstance(value, dict):
                compare(part["properties"][key], value, f"{where}.{key}")

    compare(schema, values, "values")


def test_version_is_ours() -> None:
    """
    The chart installs the images of the version that it lies beside.
    """
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == footlights.__version__


def _template(workload: Manifest) -> Manifest:
    found: Manifest = workload["spec"]["template"]
    return found


def _pods(installation: Rendered) -> Iterator[Manifest]:
    for workload in installation.of("Deployment", "DaemonSet"):
        yield _template(workload)["spec"]
    for pod in installation.of("Pod"):
        yield pod["spec"]


def _containers(installation: Rendered) -> Iterator[Manifest]:
    for pod in _pods(installation):
        yield from (*pod.get("initContainers", ()), *pod["containers"])


def _selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def _argument(workload: Manifest, option: str) -> str:
    (found,) = [
        argument.partition("=")[2]
        for argument in _template(workload)["spec"]["containers"][0]["args"]
        if argument.startswith(f"{option}=")
    ]
    return str(found)


def _port(workload: Manifest, name: str) -> int:
    (found,) = [p for p in _template(workload)["spec"]["containers"][0]["ports"] if p["name"] == name]
    return int(found["containerPort"])


def _schemes(deployment: Manifest) -> set[str]:
    container = _template(deployment)["spec"]["containers"][0]
    return {container[f"{name}Probe"]["httpGet"]["scheme"] for name in ("startup", "liveness", "readiness")}


def _protocols(installation: Rendered) -> list[tuple[str, str]]:
    """What clients are told of the Services' ports."""
    ports = [port for service in installation.of("Service") for port in service["spec"]["ports"]]
    return [(port["name"], port["appProtocol"]) for port in ports if "appProtocol" in port]


def _backend_protocol(ingress: Manifest) -> str:
    return str(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"])


def _authorities(installation: Rendered) -> list[Any]:
    """Where the agents' authority is, if they are given one, and how each monitor verifies."""
    volumes = _template(installation.of("DaemonSet")[0])["spec"]["volumes"]
    found: list[Any] = [
        {kind: source for kind, source in volume.items() if kind != "name"}
        for volume in volumes
        if volume["name"] == "ca"
    ]
    for monitor in installation.of("PodMonitor", "ServiceMonitor"):
        (endpoint,) = monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]
        found.append(endpoint.get("tlsConfig"))
    return found


def _roles(deployment: Manifest) -> set[str]:
    return set(_argument(deployment, "--roles").split(","))


def _accepted(workload: Manifest, monkeypatch: pytest.MonkeyPatch) -> Accepted:
    """What a container's program would run with: its image's environment, its own, and what Kubernetes fills in."""
    container = _template(workload)["spec"]["containers"][0]
    image = "agent" if workload["kind"] == "DaemonSet" else "control-plane"
    environment = dict(re.findall(r"(FOOTLIGHTS_\w+)=(\S+)", (DEPLOY / f"docker/{image}.Dockerfile").read_text()))
    known = {"metadata.name": "pod-1", "spec.nodeName": "node-1.example.com", "status.podIP": "10.1.2.3"}
    known["status.hostIP"] = "10.0.0.9"
    filled: dict[str, str] = {}
    for entry in container["env"]:
        source = entry.get("valueFrom", {})
        filled[entry["name"]] = known[source["fieldRef"]["fieldPath"]] if "fieldRef" in source else entry["value"]
    for name in BY_FILE:
        if filled.pop(f"{name}_FILE", None):
            filled[name] = "a-secret"
    arguments = [re.sub(r"\$\((\w+)\)", lambda found: filled[found[1]], argument) for argument in container["args"]]
    ours = {name: value for name, value in filled.items() if name.startswith("FOOTLIGHTS_")}
    return accept(monkeypatch, ["footlights", *arguments], {**environment, **ours})
