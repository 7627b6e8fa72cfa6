"""The launchers there are, and what each one is like; `docs/adding.md` says what a new one takes.

Each launcher's module is imported only when it is used: the control plane, which reads only traits, loads none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from footlights.protocol.isolation import Isolation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from footlights.agent.v1.recipe_pb2 import Recipe
    from footlights.launch.caches import CacheStore
    from footlights.launch.launcher import Launcher, LaunchPlan
    from footlights.v1.application_pb2 import Version


ENTRYPOINTS: Final = "+entrypoint"
"""Follows the name of a launcher whose agent knows ``container.entrypoint``."""


@dataclass(frozen=True, slots=True)
class LauncherSettings:
    """What an operator may set of a node's launchers."""

    root: Path
    """Where launches have their directories."""
    protected: Path | None = None
    """What applications must not write to, such as the agent's data directory, which has ``root`` in it."""
    caches: Path | None = None
    """Where caches of versions are kept (`caches`)."""
    container_engine: str = "auto"
    container_socket: str = ""
    signal_host: str = ""
    """The node's address on which signalling ports of containers are published; empty: every one."""
    media_host: str = ""
    allowed_roots: tuple[str, ...] = ()
    """Directories of the node below which a version may have paths shown to its applications."""
    writable_roots: tuple[str, ...] = ()
    """Directories that its applications may write to (`writable`)."""
    shared_volumes: tuple[str, ...] = ()
    image_registries: tuple[str, ...] = ()
    image_digests: bool = False
    denied_networks: tuple[str, ...] = ()
    """Networks that applications do not reach, beside the node's loopback and link-local addresses."""
    container_subnets: str = "10.213.0.0/16"
    """The network that containers' own networks are parts of."""


class ApplicationAnswers(Protocol):
    """What is known of applications that cannot be asked themselves."""

    def is_ready(self, plan: LaunchPlan) -> bool:
        """Whether the launch can be connected to."""

    def viewers(self, plan: LaunchPlan) -> int | None:
        """How many viewers it has; None where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherTraits:
    """What the other packages have to know of a launcher."""

    name: str
    """As in ``--launchers``, in a node's facts and in placement."""
    open: Callable[[LauncherSettings], Launcher]
    isolation: Isolation
    """How far it separates an application from everything else on the node."""
    member: str = ""
    """The member of ``Version`` that asks for it; empty for the one that runs a plain command."""
    needs_command: bool = False
    pulls: bool = False
    """Whether preparing may download much: it is then shown as the stage PULLING, and is no part of the start."""
    own_files: bool = False
    """Whether applications see a file system of their own: PATH, HOME and commands are those of their image."""
    home: str = ""
    """The home of an application whose version sets none; empty: the launch's own, which its plan names."""
    entrypoints: bool = False
    """Whether a version may say what is run in place of its image's entry point."""
    own_user: bool = False
    """Whether applications run as another user than the agent: a process that cannot be looked into may be theirs."""
    own_network: bool = False
    """Whether applications have a network of their own, where the operator does not give them the node's."""
    asked_from: str = ""
    """The address that its applications are reached from on the node; empty: any. Others they do not answer."""
    shortcomings: Callable[[], tuple[str, ...]] = tuple
    """Says what this machine lacks of what the launcher promises elsewhere: sentences for an operator."""
    answers: Callable[[], ApplicationAnswers] | None = None
    """Who says whether an application is ready and watched; None where it is asked by its ports."""
    validate: Callable[[Version], None] = lambda _version: None
    """Checks ``member`` when a version is registered. Raises InvalidArgument."""

    def isolation_with(self, *, node_network: bool) -> Isolation:
        """How far it separates applications on one node: the node's network reaches the node's loopback."""
        return Isolation.NONE if self.own_network and node_network else self.isolation


def traits_of(version: Version | Recipe) -> LauncherTraits:
    """Which launcher a version is for."""
    for traits in LAUNCHERS.values():
        if traits.member and version.HasField(traits.member):  # type: ignore[arg-type]  # the names are the message's
            return traits
    return PROCESS


def placed_by(version: Version) -> str:
    """Return the launcher that a node must offer for a version, with what its agent must know of it.

    An agent of the release before would run the image's own entry point, with a command that is not for that.
    """
    own = version.HasField("container") and version.container.HasField("entrypoint")
    return traits_of(version).name + (ENTRYPOINTS if own else "")


def _caches(settings: LauncherSettings) -> CacheStore | None:
    from footlights.launch.caches import CacheStore

    return None if settings.caches is None else CacheStore(settings.caches)


def _open_process(settings: LauncherSettings) -> Launcher:
    from footlights.launch.process.launcher import ProcessLauncher

    return ProcessLauncher(settings.root, protected=settings.protected, caches=_caches(settings))


def _process_shortcomings() -> tuple[str, ...]:
    from footlights.launch.process.launcher import shortcomings

    return shortcomings()


def _open_container(settings: LauncherSettings) -> Launcher:
    from footlights.launch.container.engines import choose_engines
    from footlights.launch.container.launcher import ContainerLauncher
    from footlights.launch.container.rules import ContainerRules

    rules = ContainerRules(
        signal_host=settings.signal_host,
        media_host=settings.media_host,
        allowed_roots=settings.allowed_roots,
        writable_roots=settings.writable_roots,
        shared_volumes=settings.shared_volumes,
        image_registries=settings.image_registries,
        image_digests=settings.image_digests,
        subnets=settings.container_subnets,
    )
    engines = choose_engines(settings.container_engine, settings.container_socket)
    return ContainerLauncher(settings.root, engines, rules, caches=_caches(settings))


def _validate_container(version: Version) -> None:
    from footlights.launch.container.recipe import validate

    validate(version)


def _open_systemd(settings: LauncherSettings) -> Launcher:
    from footlights.launch.systemd.launcher import SystemdLauncher
    from footlights.launch.systemd.manager import SystemBus
    from footlights.launch.systemd.unit_journal import UnitJournal

    return SystemdLauncher(
        settings.root,
        SystemBus(),
        UnitJournal(),
        allowed_roots=settings.allowed_roots,
        writable_roots=settings.writable_roots,
        caches=_caches(settings),
        # They are on the node's network, where containers are reached at their own addresses, past published ports.
        denied_networks=(settings.container_subnets, *settings.denied_networks),
    )


def _validate_systemd(version: Version) -> None:
    from footlights.launch.systemd.recipe import validate

    validate(version)


def _open_fake(settings: LauncherSettings) -> Launcher:
    from footlights.launch.fake import FakeLauncher

    return FakeLauncher(settings.root)


def _validate_fake(version: Version) -> None:
    from footlights.launch.fake import validate

    validate(version)


def _fake_answers() -> ApplicationAnswers:
    from footlights.launch import fake

    return fake


PROCESS: Final = LauncherTraits(
    name="process",
    open=_open_process,
    isolation=Isolation.NONE,
    needs_command=True,
    shortcomings=_process_shortcomings,
)
CONTAINER: Final = LauncherTraits(
    name="container",
    member="container",
    open=_open_container,
    isolation=Isolation.CONTAINER,
    validate=_validate_container,
    pulls=True,
    own_files=True,
    entrypoints=True,
    home="/run/footlights/home",
    own_user=True,
    own_network=True,
)
SYSTEMD: Final = LauncherTraits(
    name="systemd",
    member="systemd",
    open=_open_systemd,
    isolation=Isolation.PROCESS,
    validate=_validate_systemd,
    needs_command=True,
    own_files=True,
    home="/home/session",
    own_user=True,
    # An address of the loopback network that nothing else has: all others are closed to them.
    asked_from="127.70.76.1",
)
FAKE: Final = LauncherTraits(
    name="fake",
    member="fake",
    open=_open_fake,
    isolation=Isolation.CONTAINER,  # it starts nothing
    validate=_validate_fake,
    answers=_fake_answers,
    own_user=True,
)
LAUNCHERS: Final[Mapping[str, LauncherTraits]] = {traits.name: traits for traits in (PROCESS, SYSTEMD, CONTAINER, FAKE)}
