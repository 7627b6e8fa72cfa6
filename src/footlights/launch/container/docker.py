"""Docker's Engine API over its Unix socket, by aiodocker. Shapes: Docker Engine API 1.44 and later."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from footlights.launch.container.engine import (
    ContainerSpec,
    ContainerState,
    EngineError,
    ImageFacts,
    by_name,
    understanding,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

CALL_TIMEOUT_S = 30.0
LOG_FILE_BYTES, LOG_FILES = "1m", "8"
NETWORK = "footlights-sessions"
"""The network of all containers that have not the node's. On it they reach the outside, but not each other."""
_APART = {"com.docker.network.bridge.enable_icc": "false"}
_NOT_FOUND, _CONFLICT, _NOT_MODIFIED = 404, 409, 304


class DockerEngine:
    """Docker's `Engine`. Credentials are those in ``auth_file``, Docker's ``config.json``; no helpers are asked."""

    name = "docker"

    def __init__(self, socket: Path, *, auth_file: Path | None = None) -> None:
        self.socket = socket
        folder = os.environ.get("DOCKER_CONFIG", "")
        self._auth_file = auth_file or (Path(folder) if folder else Path.home() / ".docker") / "config.json"
        self._client: Any = None
        self.user_namespace = False

    async def ping(self) -> None:
        """Ask what the engine can do. It would ignore a limit that it cannot keep."""
        async with self._asking() as docker:
            info = await docker.system.info()
        with understanding(self.name):
            lacking = [name for name in ("MemoryLimit", "CpuCfsQuota", "PidsLimit") if not info.get(name)]
            options = [option.split(",") for option in info.get("SecurityOptions") or ()]
        if not any(name == "name=seccomp" and "profile=unconfined" not in rest for name, *rest in options):
            lacking.append("a seccomp profile")
        if lacking:
            raise EngineError(f"it lacks {', '.join(lacking)}", status=500)
        self.user_namespace = any(name in ("name=userns", "name=rootless") for name, *_ in options)

    async def image(self, image: str) -> ImageFacts | None:
        """Inspect the image."""
        async with self._asking(ignored=(_NOT_FOUND,)) as docker:
            found = await docker.images.inspect(image)
            with understanding(self.name):
                return ImageFacts.of(found.get("Config"))
        return None

    async def pull(self, image: str) -> None:
        """Pull the image, with the registry's credentials."""
        # Without a deadline here: a Kit image is tens of gigabytes. The caller has one.
        async with self._asking(timeout_s=None) as docker:
            await docker.images.pull(image, auth=self._auth(image))

    async def create(self, spec: ContainerSpec) -> None:
        """Create the container; a conflict means that it is there already."""
        if spec.network is not None:
            await self._make_network(spec.network.shared)
        async with self._asking(ignored=(_CONFLICT,)) as docker:
            await docker.containers.create(container_config(spec), name=spec.name)

    async def start(self, name: str) -> None:
        """Start the container."""
        async with self._asking() as docker:
            await docker.containers.container(name).start()

    async def inspect(self, name: str) -> ContainerState | None:
        """Read the container's state."""
        found = None
        async with self._asking(ignored=(_NOT_FOUND,)) as docker:
            found = await docker.containers.container(name).show()
        if found is None:
            return None
        with understanding(self.name):
            return ContainerState.of(found["State"])

    async def stop(self, name: str, grace_s: int) -> None:
        """Stop the container; one that is gone or stopped is no error."""
        async with self._asking(timeout_s=grace_s + CALL_TIMEOUT_S, ignored=(_NOT_FOUND, _NOT_MODIFIED)) as docker:
            await docker.containers.container(name).stop(t=grace_s)

    async def kill(self, name: str) -> None:
        """Send SIGKILL; a container that does not run is no error."""
        async with self._asking(ignored=(_NOT_FOUND, _CONFLICT)) as docker:  # 409: it does not run any more
            await docker.containers.container(name).kill(signal="SIGKILL")

    async def logs(self, name: str, *, since_s: int, tail: int) -> Sequence[str]:
        """Read both streams, in the order of their times."""
        async with self._asking() as docker:
            pieces: list[str] = await docker.containers.container(name).log(
                stdout=True, stderr=True, timestamps=True, since=since_s, tail=str(tail) if tail else "all"
            )
        return "".join(pieces).removesuffix("\n").split("\n") if pieces else []

    async def remove(self, name: str) -> None:
        """Remove the container by force."""
        async with self._asking(ignored=(_NOT_FOUND, _CONFLICT)) as docker:  # 409: its removal is under way
            await docker.containers.container(name).delete(force=True, v=True)

    async def list(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """List containers by their labels."""
        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        async with self._asking() as docker:
            found = await docker.containers.list(all=True, filters=json.dumps(filters))
        with understanding(self.name):
            return by_name({key: one[key] for key in ("Id", "Names", "Labels")} for one in found)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    @contextlib.asynccontextmanager
    async def _asking(
        self, timeout_s: float | None = CALL_TIMEOUT_S, ignored: Sequence[int] = ()
    ) -> AsyncIterator[Any]:
        """Give the client; what goes wrong in the block becomes an EngineError, except for ``ignored`` statuses."""
        if self._client is None:
            import aiodocker

            self._client = aiodocker.Docker(url=f"unix://{self.socket}")
        try:
            async with asyncio.timeout(timeout_s):
                yield self._client
        except _docker_error() as error:
            if error.status in ignored:
                return
            # aiodocker says 900 where there was no answer at all, and 0 for an error inside a stream that began well.
            raise EngineError(str(error.message), status=0 if error.status == 900 else error.status or 500) from None
        except TimeoutError:
            raise EngineError(f"it did not answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise EngineError(str(error) or type(error).__name__) from None

    async def _make_network(self, subnet: str) -> None:
        async with self._asking(ignored=(_CONFLICT,)) as docker:
            if not await docker.networks.list(filters={"name": [f"^{NETWORK}$"]}):
                wanted = {"Name": NETWORK, "CheckDuplicate": True, "Driver": "bridge", "Options": _APART}
                await docker.networks.create({**wanted, "IPAM": {"Driver": "default", "Config": [{"Subnet": subnet}]}})
        async with self._asking() as docker:
            network = await (await docker.networks.get(NETWORK)).show()
        if network.get("Driver") != "bridge" or not _APART.items() <= (network.get("Options") or {}).items():
            text = f"its network {NETWORK!r} does not keep containers apart: remove it, then it is made again"
            raise EngineError(text, status=500)
        with understanding(self.name):
            found = [each["Subnet"] for each in network["IPAM"]["Config"]]
        if found != [subnet]:
            text = f"its network {NETWORK!r} has the addresses {', '.join(found)}, not {subnet} (--container-subnets): "
            raise EngineError(f"{text}remove it, then it is made again", status=500)

    def _auth(self, image: str) -> dict[str, str] | None:
        """Find the credentials for an image's registry, as ``docker login`` keeps them."""
        registry, slash, _ = image.partition("/")
        if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
            return None  # a name without a registry: the engine's default one
        try:
            known = json.loads(self._auth_file.read_bytes()).get("auths", {})
            encoded = (known.get(registry) or known.get(f"https://{registry}") or {}).get("auth", "")
            user, _, password = base64.b64decode(encoded).decode().partition(":")
        except (OSError, ValueError, AttributeError, binascii.Error):
            return None
        return {"username": user, "password": password, "serveraddress": registry} if user else None


def container_config(spec: ContainerSpec) -> dict[str, object]:
    """Write the body of ``POST /containers/create``."""
    published = {
        f"{port.number}/{port.protocol}": [{"HostIp": port.host, "HostPort": str(port.number)}] for port in spec.ports
    }
    return {
        "Image": spec.image,
        # With an entry point of the request's own, the image's command is left out as well.
        **({"Entrypoint": [spec.program]} if spec.program else {}),
        "Cmd": list(spec.command) or None,
        "Env": [f"{name}={value}" for name, value in (*spec.environment, *spec.secret_environment)],
        "User": spec.user,
        "WorkingDir": spec.working_directory,
        "Labels": dict(spec.labels),
        "ExposedPorts": {port: {} for port in published},
        "Tty": False,
        "OpenStdin": False,
        "StopSignal": "SIGTERM",
        "StopTimeout": spec.stop_grace_s,
        "HostConfig": {
            "Binds": list(spec.mounts),
            "NetworkMode": "host" if spec.network is None else NETWORK,
            "PortBindings": published,
            "IpcMode": "private",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Tmpfs": dict.fromkeys(spec.directories, _directory_options(spec)),
            "Memory": spec.memory_bytes,
            "MemorySwap": spec.memory_bytes,
            "NanoCpus": round(spec.processors * 1e9),
            "PidsLimit": spec.tasks,
            "Init": True,
            "AutoRemove": False,
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_FILE_BYTES, "max-file": LOG_FILES}},
            "ShmSize": spec.shm_size_bytes,
            "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": [spec.device]}] if spec.device else [],
        },
    }


def _directory_options(spec: ContainerSpec) -> str:
    """Say how a directory in memory is mounted: as the user's, for runc gives it the mode of one that the image has."""
    user, _, group = spec.user.partition(":")
    owner = "".join(f",{name}={each}" for name, each in (("uid", user), ("gid", group)) if each.isdigit())
    return f"rw,nosuid,nodev,exec,size={spec.directory_bytes},mode=1777{owner}"


def _docker_error() -> type[Any]:
    """Aiodocker's exception; imported late, for it belongs to an extra."""
    import aiodocker

    error: type[Any] = aiodocker.DockerError
    return error
