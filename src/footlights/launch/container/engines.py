"""Which container engine a node uses: the one that an operator chose, or the first that answers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from footlights.launch.container.docker import DockerEngine
from footlights.launch.container.engine import EngineError
from footlights.launch.container.podman import PodmanEngine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from footlights.launch.container.engine import Engine

DOCKER_SOCKET: Final = Path("/var/run/docker.sock")
PING_TIMEOUT_S: Final = 10.0


def choose_engines(choice: str, socket: str = "", *, environ: Mapping[str, str] = os.environ) -> tuple[Engine, ...]:
    """Make the engines that may be used, in order of preference. Raises ValueError.

    ``choice`` is ``docker``, ``podman``, ``auto`` (Docker where it answers, else podman) or ``none``; ``socket`` is
    Docker's, by default the one that DOCKER_HOST names, else ``/var/run/docker.sock``.
    """
    host = environ.get("DOCKER_HOST", "")
    path = socket or (host.removeprefix("unix://") if host.startswith("unix://") else "")
    docker, podman = DockerEngine(Path(path) if path else DOCKER_SOCKET), PodmanEngine()
    chosen: dict[str, tuple[Engine, ...]] = {
        "docker": (docker,),
        "podman": (podman,),
        "auto": (docker, podman),
        "none": (),
    }
    if choice not in chosen:
        raise ValueError(f"unknown container engine {choice!r}; choose from {', '.join(chosen)}")
    return chosen[choice]


class ContainerEngines:
    """The engines of a node. New containers are started by the first that answers; a container stays with its own."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.all = tuple(engines)
        self._current: Engine | None = None

    async def current(self) -> Engine:
        """Return the engine that new containers are started by. Raises EngineError where none answers."""
        if self._current is None and (problem := await self.check()):
            raise EngineError(problem)
        assert self._current is not None
        return self._current

    async def check(self) -> str:
        """Ask the engines afresh, and use the first that answers. Returns why none can be used; empty where one can."""
        problems = []
        for engine in self.all:
            try:
                async with asyncio.timeout(PING_TIMEOUT_S):
                    await engine.ping()
            except EngineError as error:
                problems.append(f"{engine.name}: {error.message}")
            except TimeoutError:
                problems.append(f"{engine.name}: it did not answer within {PING_TIMEOUT_S:g} s")
            else:
                self._current = engine
                return ""
        self._current = None
        return "; ".join(problems) or "none may be used (--container-engine none)"

    def named(self, name: str) -> Engine:
        """Return the engine of that name. Raises EngineError where the agent does not use it any more."""
        for engine in self.all:
            if engine.name == name:
                return engine
        raise EngineError(f"the container was started by {name}, which this agent does not use: see --container-engine")

    async def close(self) -> None:
        """Release every engine's connections."""
        for engine in self.all:
            await engine.close()
