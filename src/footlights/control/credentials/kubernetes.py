"""The Kubernetes cluster that a server runs in: it says which node a pod is on, and keeps our authorities for agents.

An agent's pod shows a token of its service account, made for us alone: that is its audience. Kubernetes says whose it
is, and on which node that pod runs.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from footlights import errors

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from footlights.control.credentials.authorities import Authorities
    from footlights.supervision import Supervisor

log = structlog.get_logger(__name__)

AUDIENCE: Final = "footlights"
"""Whom the tokens of agents' pods are for."""

_DIRECTORY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S: Final = 10.0
_AT_ONCE: Final = 2
"""So many tokens are asked about at once: who shows one is not known yet, and each holds a thread."""
_MOST_BYTES: Final = 4 << 20
_EXTRA: Final = "authentication.kubernetes.io/"
_USER: Final = "system:serviceaccount:"


class Kubernetes:
    """Its API, called with the service account of this process."""

    def __init__(self, url: str, directory: Path = _DIRECTORY) -> None:
        """``directory`` has the account's ``token``, ``ca.crt`` and ``namespace``, as pods have them."""
        self._url, self._directory = url, directory
        self._asking = asyncio.Semaphore(_AT_ONCE)

    @classmethod
    def around(cls, environ: Mapping[str, str]) -> Kubernetes:
        """Return that of the pod that this process runs in. Raises InvalidArgument where it runs in none."""
        host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise errors.InvalidArgument("kubernetes_agents", "is for servers in pods, and this process is in none.")
        return cls(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")

    async def node_of(self, token: str, accounts: Collection[str]) -> str:
        """Return the node of the pod that a token is of.

        ``accounts`` are the service accounts, ``NAMESPACE:NAME``, whose pods are agents'.

        Raises Unauthenticated where it is no token of such a pod; Unavailable where Kubernetes does not answer.
        """
        async with self._asking:
            return await self._node_of(token, accounts)

    async def _node_of(self, token: str, accounts: Collection[str]) -> str:
        review = await self._call(
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [AUDIENCE]},
            },
        )
        status = review.get("status", {})
        user = status.get("user", {})
        username = str(user.get("username", ""))
        account = username.removeprefix(_USER) if username.startswith(_USER) else ""
        extra = {name: values[0] for name, values in user.get("extra", {}).items() if values}
        pod, uid = extra.get(f"{_EXTRA}pod-name", ""), extra.get(f"{_EXTRA}pod-uid", "")
        if not status.get("authenticated") or AUDIENCE not in status.get("audiences", ()) or account not in accounts:
            raise _refused()
        namespace = account.partition(":")[0]
        if not pod or not uid:
            raise _refused()
        # Newer versions say the node as well; the pod itself says it in all of them, and that it is still there.
        found = await self._call("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}")
        if found.get("metadata", {}).get("uid") != uid:
            raise _refused()
        return str(found.get("spec", {}).get("nodeName", ""))

    async def publish(self, config_map: str, certificates: bytes) -> None:
        """Write certificates as ``ca.crt`` into a ConfigMap of this namespace that is there already.

        Raises Unavailable where that fails.
        """
        namespace = await asyncio.to_thread((self._directory / "namespace").read_text)
        path = f"/api/v1/namespaces/{namespace.strip()}/configmaps/{config_map}"
        await self._call("PATCH", path, {"data": {"ca.crt": certificates.decode()}})

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            return await asyncio.to_thread(self._ask, method, path, body)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404 and method == "GET":  # the pod
                raise _refused() from error
            raise _unavailable(f"{method} {path.rpartition('/')[0]}: {error.code} {error.reason}") from error
        except (OSError, ValueError) as error:
            raise _unavailable(str(error)) from error

    def _ask(self, method: str, path: str, body: Any) -> dict[str, Any]:
        token = (self._directory / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if self._url.startswith("https:"):
            context = ssl.create_default_context(cafile=str(self._directory / "ca.crt"))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as answer:
            found = json.loads(answer.read(_MOST_BYTES))
        if not isinstance(found, dict):
            raise ValueError("the answer is no object")
        return found


class CaConfigMap:
    """Keeps the authorities in a ConfigMap, which agents' pods mount."""

    LOOP: Final = "kubernetes_ca"
    PERIOD_S: Final = 5.0

    def __init__(self, kubernetes: Kubernetes, name: str, known: Authorities) -> None:
        self._kubernetes, self._name, self._known = kubernetes, name, known
        self._published = b""

    async def run(self, supervisor: Supervisor) -> None:
        """Keep it until cancelled."""
        await supervisor.supervise(self.LOOP, self.once, every_s=self.PERIOD_S, expected=(errors.Unavailable,))

    async def once(self) -> None:
        """Write them where they have changed. Raises as ``Kubernetes.publish``."""
        if (certificates := self._known.certificates) != self._published:
            await self._kubernetes.publish(self._name, certificates)
            self._published = certificates
            log.info("authorities_published", config_map=self._name)


def _refused() -> errors.Unauthenticated:
    return errors.Unauthenticated(
        "The token is not one of an agent's pod of this control plane, or its pod is gone. Start the agent with a "
        f"token of its pod's service account for the audience {AUDIENCE}, and name the account in --kubernetes-agents.",
        reason=errors.Reason.INVITATION_INVALID,
    )


def _unavailable(why: str) -> errors.Unavailable:
    return errors.Unavailable(f"Kubernetes cannot be asked: {why}", reason=errors.Reason.KUBERNETES_UNAVAILABLE)
