"""podman by its command: its Docker-compatible socket ignores device requests, the command does not.

Works with and without root. Shapes: podman-create(1), podman-inspect(1), podman-logs(1) of podman 4 and 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from footlights.launch.container import log_lines
from footlights.launch.container.engine import (
    ContainerSpec,
    ContainerState,
    EngineError,
    ImageFacts,
    by_name,
    understanding,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CALL_TIMEOUT_S = 60.0
LOG_BYTES = "8mb"
_IPV6 = Path("/proc/sys/net/ipv6")
_SECRET = "-secret-"  # noqa: S105  # a part of its name
"""After a container's name, before the number of a secret of it."""
_ABSENT = ("no such container", "no container with name or id")


class PodmanEngine:
    """Keeps the `container.Engine` protocol."""

    name = "podman"

    def __init__(self, *, program: str = "podman") -> None:
        self._program = program
        self._secrets: dict[str, list[str]] = {}
        """The secrets that podman keeps for a container until it is started, by its name."""
        self.user_namespace = False

    async def ping(self) -> None:
        """Have podman open its storage and find its runtime, and ask which limits it can keep."""
        said = await self._must("info", "--format", "json")
        with understanding(self.name):
            host = _json(said)["host"]
            self.user_namespace = bool(host["security"]["rootless"])
            lacking = [] if host["security"]["seccompEnabled"] else ["seccomp"]
            v2 = host["cgroupVersion"] == "v2"
            controllers = set(host.get("cgroupControllers") or ())
        if v2:
            lacking += sorted({"cpu", "memory", "pids"} - controllers)
        elif self.user_namespace:
            lacking.append("limits without root: those need cgroup v2")
        if lacking:
            raise EngineError(f"it lacks {', '.join(lacking)}", status=500)

    async def image(self, image: str) -> ImageFacts | None:
        """Run ``podman image inspect``."""
        code, _, complaint = await self._run("image", "exists", image)
        _check(code in (0, 1), complaint)
        if code == 1:
            return None
        said = await self._must("image", "inspect", image)
        with understanding(self.name):
            return ImageFacts.of(_json(said)[0].get("Config"))

    async def pull(self, image: str) -> None:
        """Run ``podman pull``."""
        # Without a deadline here: a Kit image is tens of gigabytes. The caller has one.
        await self._must("pull", "--quiet", image, timeout_s=None)

    async def create(self, spec: ContainerSpec) -> None:
        """Run ``podman create``, unless there is a container of that name."""
        if await self.inspect(spec.name) is not None:
            return
        network = "host"
        if spec.network is not None:
            network = "" if self.user_namespace else await self._make_network(spec.name, spec.network.own)
        secrets = {
            f"{spec.name}{_SECRET}{number}": (name, value)
            for number, (name, value) in enumerate(spec.secret_environment)
            if value  # podman knows no empty secret
        }
        self._secrets[spec.name] = list(secrets)
        for secret, (_, value) in secrets.items():
            await self._run("secret", "rm", secret)  # of an attempt that was cut off
            await self._must("secret", "create", secret, "-", given=value.encode("utf-8", "surrogateescape"))
        await self._must(*create_arguments(spec, network, {name: secret for secret, (name, _) in secrets.items()}))

    async def start(self, name: str) -> None:
        """Run ``podman start``; from then on its variables are its own, and podman keeps none of their secrets."""
        await self._must("start", name)
        if secrets := self._secrets.pop(name, None):
            await self._run("secret", "rm", *secrets)

    async def inspect(self, name: str) -> ContainerState | None:
        """Run ``podman container inspect``."""
        code, said, complaint = await self._run("container", "inspect", name)
        if code != 0 and _is_absent(complaint):
            return None
        _check(code == 0, complaint)
        with understanding(self.name):
            state = ContainerState.of(_json(said)[0]["State"])
        # podman has states of its own on the way: a container that was never started is any of these.
        status = "created" if state.status in ("configured", "initialized") else state.status
        return replace(state, status=status, running=state.running or status in ("stopping", "paused"))

    async def stop(self, name: str, grace_s: int) -> None:
        """Run ``podman stop``."""
        await self._must("stop", "--ignore", "--time", str(grace_s), name, timeout_s=grace_s + CALL_TIMEOUT_S)

    async def kill(self, name: str) -> None:
        """Run ``podman kill``; a container that does not run is no error."""
        code, _, complaint = await self._run("kill", "--signal", "KILL", name)
        stopped = _is_absent(complaint) or "not running" in complaint or "exited" in complaint
        _check(code == 0 or stopped, complaint)

    async def logs(self, name: str, *, since_s: int, tail: int) -> Sequence[str]:
        """Run ``podman logs``; the two streams come on the command's two streams."""
        arguments = ["logs", "--timestamps"]
        if since_s:
            arguments += ["--since", datetime.fromtimestamp(since_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")]
        if tail:
            arguments += ["--tail", str(tail)]
        code, said, complaint = await self._run(*arguments, name)
        _check(code == 0, complaint, status=404 if _is_absent(complaint) else 500)
        return log_lines.merge(_lines(said), _lines(complaint))

    async def remove(self, name: str) -> None:
        """Run ``podman rm --force``."""
        code, _, complaint = await self._run("rm", "--force", "--ignore", "--volumes", "--time", "0", name)
        _check(code == 0 or _is_absent(complaint), complaint)
        self._secrets.pop(name, None)
        listed = await self._must("secret", "ls", "--noheading", "--format", "{{.Name}}")
        if secrets := [each for each in listed.split() if each.startswith(f"{name}{_SECRET}")]:
            await self._run("secret", "rm", *secrets)
        if not self.user_namespace:
            code, _, complaint = await self._run("network", "rm", "--force", name)
            _check(code == 0 or "not found" in complaint, complaint)

    async def list(self, labels: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        """Run ``podman ps --all``."""
        filters = [part for name, value in labels.items() for part in ("--filter", f"label={name}={value}")]
        said = await self._must("ps", "--all", *filters, "--format", "json")
        with understanding(self.name):
            return by_name(_json(said or "[]"))

    async def close(self) -> None:
        """Nothing is held."""

    async def _make_network(self, name: str, subnet: str) -> str:
        """Make the container's own network: containers of one network would reach each other."""
        options = ("--opt", "isolate=true", "--disable-dns", "--subnet", subnet)
        code, _, complaint = await self._run("network", "create", *options, name)
        _check(code == 0 or "already exists" in complaint, complaint)
        return name

    async def _must(self, *arguments: str, timeout_s: float | None = CALL_TIMEOUT_S, given: bytes | None = None) -> str:
        code, said, complaint = await self._run(*arguments, timeout_s=timeout_s, given=given)
        _check(code == 0, complaint or f"podman {arguments[0]} ended with status {code}")
        return said

    async def _run(
        self, *arguments: str, timeout_s: float | None = CALL_TIMEOUT_S, given: bytes | None = None
    ) -> tuple[int, str, str]:
        """Run the command; returns its status and its two outputs. EngineError with status 0 where it cannot be.

        ``given`` is what it reads.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise EngineError(f"{self._program}: {error.strerror}") from None
        try:
            async with asyncio.timeout(timeout_s):
                said, complaint = await process.communicate(given)
        except TimeoutError:
            raise EngineError(f"podman {arguments[0]} did not end within {timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())
        assert process.returncode is not None
        return process.returncode, said.decode("utf-8", "replace"), complaint.decode("utf-8", "replace").strip()


def create_arguments(spec: ContainerSpec, network: str, secrets: Mapping[str, str] | None = None) -> list[str]:
    """Write the command line of ``podman create``; ``network`` is empty for podman's own without root.

    ``secrets`` has the names by which podman knows the values of the spec's secret environment, by variable.
    """
    arguments = [
        "create",
        *("--name", spec.name),
        "--init",
        *("--cap-drop", "all"),
        *("--security-opt", "no-new-privileges"),
        "--read-only",
        "--read-only-tmpfs=false",
        *("--ipc", "private"),
        *("--memory", f"{spec.memory_bytes}b"),
        *("--memory-swap", f"{spec.memory_bytes}b"),
        *("--pids-limit", str(spec.tasks)),
        *("--pull", "never"),  # `prepare` has pulled it
        *("--restart", "no"),
        *("--stop-signal", "SIGTERM"),
        *("--stop-timeout", str(spec.stop_grace_s)),
        *("--log-driver", "k8s-file"),
        *("--log-opt", f"max-size={LOG_BYTES}"),
        "--http-proxy=false",  # podman hands the agent's proxies on by default
    ]
    for name, value in spec.labels.items():
        arguments += ["--label", f"{name}={value}"]
    for name, value in spec.environment:
        arguments += ["--env", f"{name}={value}"]
    known = secrets or {}
    for name, value in spec.secret_environment:
        # By podman's own environment it would be read from there by podman as well, which is root.
        secret = ("--secret", f"{known[name]},type=env,target={name}") if value else ("--env", f"{name}=")
        arguments += secret
    for mount in spec.mounts:
        arguments += ["--volume", mount]
    for directory in spec.directories:
        options = f"rw,nosuid,nodev,exec,size={spec.directory_bytes},mode=1777,notmpcopyup"
        arguments += ["--tmpfs", f"{directory}:{options}"]
    if network:
        arguments += ["--network", network]
    if network not in ("", "host") and _IPV6.exists():
        # Its network has no IPv6, but the kernel would give it an address by which it reaches the node.
        arguments += ["--sysctl", "net.ipv6.conf.eth0.disable_ipv6=1"]
    for port in spec.ports:
        arguments += ["--publish", f"{port.host}:{port.number}:{port.number}/{port.protocol}".removeprefix(":")]
    if spec.processors:
        arguments += ["--cpus", f"{spec.processors:g}"]
    if spec.device:
        arguments += ["--device", spec.device]
    if spec.user:
        arguments += ["--user", spec.user]
    if spec.program:
        # As JSON, of which it may be a part otherwise.
        arguments += ["--entrypoint", json.dumps([spec.program])]
    if spec.working_directory:
        arguments += ["--workdir", spec.working_directory]
    if spec.shm_size_bytes:
        arguments += ["--shm-size", f"{spec.shm_size_bytes}b"]
    return [*arguments, spec.image, *spec.command]


def _check(good: bool, complaint: str, *, status: int = 500) -> None:
    if not good:
        raise EngineError(complaint, status=status)


def _lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n") if text else []


def _is_absent(complaint: str) -> bool:
    return any(text in complaint.lower() for text in _ABSENT)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise EngineError(f"podman's answer is not JSON: {text[:200]!r}", status=500) from None
