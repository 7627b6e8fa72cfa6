"""What the reason of a launch's end means: whose fault it is, whether another node is tried, what is left alone for it.

The one table of it. The derivation of states, the guard of placement, the history of devices, the metrics and what is
shown read only this. A reason that is not in it is the application's own, which it wrote itself: that counts against
nothing that others use.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from footlights.lifecycle.blocking import BackoffPolicy
from footlights.lifecycle.states import EndReason

if TYPE_CHECKING:
    from collections.abc import Mapping


class Fault(enum.StrEnum):
    """Whose fault the end of a launch is. What is at fault is what is left alone for a while."""

    NODE = "NODE"
    """The node, as far as the launcher goes: its engine, disk, memory or agent. Any version would fail there."""
    DEVICE = "DEVICE"
    """One device of the node; the node as well where several fail."""
    PLACE = "PLACE"
    """The version on this node, which lacks what it needs: its image, command or directories."""
    VERSION = "VERSION"
    """The version, or what the user gave it: the application ran, and did not become ready."""
    APPLICATION = "APPLICATION"
    """What the application says itself, which is mostly about its arguments."""
    NOBODY = "NOBODY"
    """It was asked to end, or its agent or machine went: nothing is learnt from it."""


class Retry(enum.StrEnum):
    """What a session does whose launch ended so before it was ready."""

    NEVER = "NEVER"
    """It ends: the application ran, or would run nowhere."""
    AGAIN = "AGAIN"
    """It is placed again, anywhere; a bounded number of times."""
    ELSEWHERE = "ELSEWHERE"
    """It is placed on another node; a bounded number of times. This one is left alone by it for a moment."""
    FREE = "FREE"
    """It is placed again, and not on this device for a moment, however often: nothing was tried."""


AT_ONCE: Final = BackoffPolicy(failures=1, window_s=60, first_s=30, longest_s=600)
SOON: Final = BackoffPolicy(failures=3, window_s=300, first_s=40, longest_s=600)
"""What may happen once or twice to anybody."""
EVERYWHERE: Final = BackoffPolicy(failures=6, window_s=900, first_s=40, longest_s=600)
"""For what is left alone on every node."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one reason means."""

    fault: Fault
    retry: Retry
    says: str
    """What has happened, for a person, where no message came with it."""
    end: EndReason = EndReason.LAUNCH_FAILED
    """Why the session ends where it is not placed again, or was too often."""
    back_off: BackoffPolicy | None = None
    """How often until what is at fault is left alone, and for how long; None where it never is."""
    given: bool = False
    """Whether what a user gave may be the cause: then different ones must fail before others are kept away."""


def _node(says: str, back_off: BackoffPolicy | None = AT_ONCE, retry: Retry = Retry.ELSEWHERE) -> Meaning:
    return Meaning(Fault.NODE, retry, says, EndReason.NODE_FAILED, back_off)


def _device(says: str, back_off: BackoffPolicy | None = SOON, retry: Retry = Retry.FREE) -> Meaning:
    return Meaning(Fault.DEVICE, retry, says, EndReason.NODE_FAILED, back_off)


def _place(says: str, *, given: bool = True) -> Meaning:
    return Meaning(Fault.PLACE, Retry.ELSEWHERE, says, EndReason.LAUNCH_FAILED, AT_ONCE, given)


def _version(says: str, end: EndReason = EndReason.LAUNCH_FAILED) -> Meaning:
    return Meaning(Fault.VERSION, Retry.NEVER, says, end, SOON, given=True)


def _nobody(says: str, end: EndReason, retry: Retry = Retry.NEVER) -> Meaning:
    return Meaning(Fault.NOBODY, retry, says, end)


REASONS: Final[Mapping[str, Meaning]] = {
    # The node: any version would fail there.
    "AGENT_ERROR": _node("its agent met an error of its own"),
    "BAD_DIRECTORY": _node("its agent's directories are not as they were"),
    "ENGINE_UNAVAILABLE": _node("its container engine cannot be used"),
    "ISOLATION": _node("it isolates sessions less than is needed"),
    "JOURNAL_UNAVAILABLE": _node("its agent cannot write to its disk"),
    "NODE_RESOURCES": _node("it lacks disk, memory or open files"),
    "NO_CREDENTIALS": _node("its systemd cannot pass a session file"),
    "NO_LAUNCHER": _node("it does not offer the launcher of the version now"),
    "NO_NAMESPACE": _node("its systemd cannot make the application's view of the file system"),
    "NO_PORTS": _node("its ports are in use", SOON, Retry.FREE),
    "NO_SECCOMP": _node("its systemd cannot limit system calls"),
    "NO_USER": _node("its systemd has no user for the application"),
    "PORT_TAKEN": Meaning(Fault.NODE, Retry.AGAIN, "another program has a port of the application", back_off=SOON),
    "SHIM_FAILED": _node("its agent cannot start programs"),
    "START_FAILED": _node("its launcher cannot start applications"),
    "STATE_LEFT": _node("files of earlier sessions cannot be removed"),
    "SYSTEMD_REFUSED": _node("its systemd refuses units"),
    # A device of it.
    "DEVICE_NODES_UNKNOWN": _device("its files in /dev are not known", AT_ONCE, Retry.ELSEWHERE),
    "DEVICE_SILENT": _device("its driver does not answer"),
    "DEVICE_UNRESOLVABLE": _device("the container engine does not know it", AT_ONCE, Retry.ELSEWHERE),
    "ENCODER_FULL": _device("its video encoder takes no more"),
    "FOREIGN_PROCESS": _device("another program uses it"),
    "GPU_LOST": Meaning(Fault.DEVICE, Retry.NEVER, "it was lost", EndReason.GPU_LOST, AT_ONCE),
    "LOST": _device("it is lost"),
    "MEMORY": _device("it has too little free memory"),
    "MISSING": _device("it is not there"),
    "NO_ENCODER": _device("it has no hardware video encoder"),
    "NO_GRAPHICS": _device("it cannot draw"),
    "NO_HARDWARE": _device("it is not a GPU"),
    "NO_SLOT": _device("it has no such slot"),
    "SLOT_HELD": _device("a launch whose end is not proved has the slot"),
    "UNHEALTHY": _device("it is unhealthy"),
    "WRONG_DEVICE": Meaning(
        Fault.DEVICE, Retry.NEVER, "the application used another one", EndReason.WRONG_DEVICE, AT_ONCE
    ),
    # What the version needs is not there.
    "COMMAND_NOT_EXECUTABLE": _place("the command may not be executed there"),
    "COMMAND_NOT_FOUND": _place("the command is not there"),
    "CONTAINER_START_FAILED": _place("the container engine did not start it"),
    "IMAGE_NOT_FOUND": _place("the image is not there", given=False),
    "IMAGE_PULL_FAILED": _place("the image could not be pulled", given=False),
    "IMAGE_REFUSED": _place("the node does not allow the image", given=False),
    "MOUNT_REFUSED": _place("the node does not allow the mount"),
    "NO_OFFER": _place("the application is ready and offers no picture"),
    "PATH_NOT_ALLOWED": _place("the node does not show the path"),
    "PATH_NOT_FOUND": _place("the path is not there"),
    "PULL_TIMEOUT": _place("the image could not be pulled in time", given=False),
    "USER_REFUSED": _place("the node does not allow the user", given=False),
    "WORKING_DIRECTORY_NOT_FOUND": _place("the working directory is not there"),
    # The version, or what it was given.
    "": _version("the application failed to start"),
    "BAD_ASSIGNMENT": _version("the launch cannot be carried out"),
    "BAD_LAUNCH_ID": _version("the launch cannot be carried out"),
    "BAD_RECIPE": _version("the recipe cannot be carried out"),
    "EXITED_EARLY": _version("the application ended before it was ready"),
    "SHIM_LOST": _version("the application could not go on"),
    "STAGE_REFUSED": _version("the application did not take its stage"),
    "START_ERROR": _version("the application refused to start"),
    "START_TIMEOUT": _version("the application was not ready in time", EndReason.START_TIMEOUT),
    # Nobody.
    "ABANDONED": _nobody("the node had no link", EndReason.ABANDONED),
    "HAND_OVER_FAILED": _nobody(
        "an application that was started ahead did not take up the session", EndReason.LAUNCH_FAILED, Retry.AGAIN
    ),
    "AGENT_STOPPED": _nobody("the agent was stopped", EndReason.DRAINED, Retry.AGAIN),
    "NODE_RESTARTED": _nobody("the machine was restarted", EndReason.NODE_LOST),
    "STOPPED": _nobody("it was asked to end", EndReason.USER_TERMINATED),
    "TRACES_GONE": _nobody("every trace of it is gone", EndReason.NODE_LOST),
    "UNASSIGNED": _nobody("it is not assigned to its node any more", EndReason.NODE_LOST),
    "UNKNOWN_LAUNCH": _nobody("its agent does not know it", EndReason.NODE_LOST),
}
"""By the reason that an agent sends."""

ITS_OWN: Final = Meaning(Fault.APPLICATION, Retry.NEVER, "the application says why")
"""Of every other reason."""


def meaning(reason: str) -> Meaning:
    """Return what a reason means."""
    return REASONS.get(reason, ITS_OWN)


DEVICE_HISTORY: Final = frozenset(
    name for name, each in REASONS.items() if each.fault is Fault.DEVICE and each.back_off is AT_ONCE
)
"""The ends of launches that go into their device's history, by which it is left alone."""

COUNTED: Final = tuple(sorted(name for name, each in REASONS.items() if each.back_off is not None))
"""The ends of launches from which something is learnt."""
