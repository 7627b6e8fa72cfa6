"""Agents' pods that enroll by what Kubernetes says of them: a real server and agent, and a stand-in for its API."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from footlights.v1 import node_pb2

from footlights import errors
from footlights.agent.config import AgentConfig
from footlights.agent.main import run
from footlights.client import Client, Tls
from footlights.control.credentials.kubernetes import AUDIENCE, Kubernetes
from footlights.control.settings import ServerSettings
from tests.control.test_server import serving

ACCOUNTS = ("stages:footlights-agent",)
EXTRA = "authentication.kubernetes.io/"


@dataclass
class Standin:
    """What servers ask of Kubernetes: reviews of tokens, pods, and a ConfigMap."""

    directory: Path
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By token, the status of its review."""
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    config_map: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failing: bool = False
    url: str = ""

    def pod(self, name: str, node: str, *, account: str = "footlights-agent", uid: str = "uid-1", **more: Any) -> str:
        """Make a pod on a node; return its token."""
        self.pods[f"/api/v1/namespaces/stages/pods/{name}"] = {"metadata": {"uid": uid}, "spec": {"nodeName": node}}
        token = f"token of {name}"
        user = {
            "username": f"system:serviceaccount:stages:{account}",
            "extra": {f"{EXTRA}pod-name": [name], f"{EXTRA}pod-uid": [uid]},
        }
        self.tokens[token] = {"authenticated": True, "audiences": [AUDIENCE], "user": user, **more}
        return token

    def answer(self, method: str, path: str, body: Any, authorization: str) -> tuple[int, Any]:
        """Answer one request."""
        self.asked.append(f"{method} {path}")
        if self.failing or authorization != "Bearer of the server":
            return 403, {"kind": "Status"}
        if path == "/apis/authentication.k8s.io/v1/tokenreviews":
            assert body["spec"]["audiences"] == [AUDIENCE]
            return 201, {"status": self.tokens.get(body["spec"]["token"], {"authenticated": False})}
        if path == "/api/v1/namespaces/stages/configmaps/footlights-ca" and method == "PATCH":
            self.config_map |= body
            return 200, {}
        return (200, self.pods[path]) if path in self.pods else (404, {})


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[Standin]:
    """Kubernetes, as a server in the namespace ``stages`` sees it."""
    directory = tmp_path / "account"
    directory.mkdir()
    (directory / "token").write_text("of the server\n")
    (directory / "namespace").write_text("stages")
    found = Standin(directory)

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            status, answer = found.answer(self.command, self.path, body, self.headers.get("Authorization", ""))
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = _reply  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    yield found
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def kubernetes(standin: Standin) -> Kubernetes:
    return Kubernetes(standin.url, standin.directory)


async def test_a_pod_is_on_the_node_that_kubernetes_says(standin: Standin, kubernetes: Kubernetes) -> None:
    """Whatever the agent says."""
    assert await kubernetes.node_of(standin.pod("agent-x", "gpu-1"), ACCOUNTS) == "gpu-1"


@pytest.mark.parametrize(
    "case",
    [
        *("unknown", "another account", "another audience", "no pod's", "a user of that name"),
        *("a pod that is gone", "a pod of before"),
    ],
)
async def test_no_other_token_is_taken(standin: Standin, kubernetes: Kubernetes, case: str) -> None:
    """Such as one for Kubernetes itself, which any pod has, or of a pod that was replaced; all in the same words."""
    more: dict[str, Any] = {
        "another account": {"account": "default"},
        "another audience": {"audiences": ["https://kubernetes.default.svc"]},
        "a user of that name": {
            "user": {"username": ACCOUNTS[0], "extra": {f"{EXTRA}pod-name": ["agent-x"], f"{EXTRA}pod-uid": ["uid-1"]}}
        },
        "no pod's": {"user": {"username": f"system:serviceaccount:{ACCOUNTS[0]}"}},
    }
    token = "made up" if case == "unknown" else standin.pod("agent-x", "gpu-1", **more.get(case, {}))
    if case == "a pod that is gone":
        standin.pods.clear()
    if case == "a pod of before":
        standin.pods["/api/v1/namespaces/stages/pods/agent-x"]["metadata"]["uid"] = "uid-2"

    with pytest.raises(errors.Unauthenticated, match="not one of an agent's pod") as caught:
        await kubernetes.node_of(token, ACCOUNTS)

    assert token not in str(caught.value)


async def test_kubernetes_that_does_not_answer_is_said(standin: Standin, kubernetes: Kubernetes) -> None:
    """Agents try again; the message has no secret."""
    token = standin.pod("agent-x", "gpu-1")
    standin.failing = True
    for cluster in (kubernetes, Kubernetes("http://127.0.0.1:1", standin.directory)):
        with pytest.raises(errors.Unavailable, match="Kubernetes cannot be asked") as caught:
            await cluster.node_of(token, ACCOUNTS)
        assert token not in str(caught.value)


async def test_tokens_that_anybody_shows_hold_no_thread_of_others(standin: Standin) -> None:
    """While Kubernetes answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster = Kubernetes(f"http://127.0.0.1:{silent.getsockname()[1]}", standin.directory)
        asked = [asyncio.create_task(cluster.node_of("made up", ACCOUNTS)) for _ in range(64)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(int), 5) == 0
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


def test_outside_of_a_pod_the_setting_is_refused() -> None:
    """It names the setting."""
    with pytest.raises(errors.InvalidArgument, match="in none"):
        Kubernetes.around({})
    assert Kubernetes.around({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"})._url == (
        "https://[fd00::1]:6443"
    )


async def test_a_pods_agent_links_with_nothing_set_up(tmp_path: Path, standin: Standin, kubernetes: Kubernetes) -> None:
    """
    One installation: servers write their authority where the pod mounts it, and the pod's agent gets its node's
    certificate. A pod that says another node's name does not; a revoked node stays out until it is invited again.
    """
    any_address = dict.fromkeys(("grpc_listen", "http_listen", "agents_listen"), "0.0.0.0:0")
    settings = ServerSettings(
        tmp_path / "server",
        kubernetes_agents=ACCOUNTS,
        kubernetes_ca="footlights-ca",
        **any_address,  # type: ignore[arg-type]
    )
    async with serving(settings, kubernetes) as at, asyncio.timeout(90):
        while "data" not in standin.config_map:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        ca = tmp_path / "ca.crt"
        ca.write_text(standin.config_map["data"]["ca.crt"])
        assert ca.read_bytes() == (tmp_path / "server" / "ca.pem").read_bytes()
        (tmp_path / "pod-token").write_text(standin.pod("agent-x", "gpu-1"))
        gpus = tmp_path / "gpus.json"
        gpus.write_text(json.dumps({"gpus": [{"uuid": "GPU-0"}]}))
        address = f"localhost:{at['grpc'].rpartition(':')[2]}"

        def config(name: str, node: str = "gpu-1") -> AgentConfig:
            return AgentConfig(
                data_dir=tmp_path / name,
                server=address,
                node=node,
                ca_file=ca,
                enroll_token_file=tmp_path / "pod-token",
                devices=f"fake:{gpus}",
                launchers=("fake",),
            )

        token = (tmp_path / "server" / "admin.token").read_text().strip()
        async with Client.connect(address, token, tls=Tls(ca=ca.read_bytes())) as client:
            node = await _linked(client, config("one"), 1)
            assert node.identity.HasField("enrolled_time")
            again = await _linked(client, config("two"), 2)
            assert again.identity.enrolled_time.ToNanoseconds() > node.identity.enrolled_time.ToNanoseconds()
            with pytest.raises(errors.FailedPrecondition, match=r"on node 'gpu-1', and this agent is 'gpu-2'"):
                await run(config("three", "gpu-2"), asyncio.Event())
            await client.enrollment.revoke("gpu-1")
            with pytest.raises(errors.FailedPrecondition, match="was revoked"):
                await run(config("four"), asyncio.Event())
            await client.enrollment.invite("gpu-1")
            await _linked(client, config("five"), 3)


async def _linked(client: Client, config: AgentConfig, epoch: int) -> node_pb2.Node:
    """Run an agent until it has its link; return its node."""
    stop = asyncio.Event()
    agent = asyncio.create_task(run(config, stop))
    try:
        while True:
            assert not agent.done(), agent
            try:
                node = await client.nodes.get(config.node)
            except errors.NotFound:
                node = node_pb2.Node()
            if node.epoch >= epoch:
                return node
            await asyncio.sleep(0.1)
    finally:
        stop.set()
        await asyncio.gather(agent, return_exceptions=True)
