"""Which device nodes a launch gets: those of its own device and those that all share, and no other's.

They are read from a CDI specification where there is one that knows the device (``nvidia-ctk cdi generate``), and from
the driver's /proc/driver/nvidia otherwise. A MIG instance needs the specification.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from footlights.launch.launcher import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from footlights.launch.launcher import LaunchPlan

SPECIFICATIONS: Final = (Path("/etc/cdi"), Path("/var/run/cdi"))
SHARED: Final = ("nvidiactl", "nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools")
_LARGEST_SPECIFICATION: Final = 4 << 20
_UUID: Final = re.compile(r"^GPU UUID:\s*(\S+)", re.MULTILINE)
_MINOR: Final = re.compile(r"^Device Minor:\s*(\d+)", re.MULTILINE)


def nodes_of(
    plan: LaunchPlan, *, specifications: Sequence[Path] = SPECIFICATIONS, filesystem: Path = Path("/")
) -> tuple[str, ...]:
    """Return the paths of the nodes. Blocking. Raises LaunchError where the device needs some and they are not known.

    Args:
        plan: The launch.
        specifications: The folders of CDI specifications.
        filesystem: Where /proc and /dev lie.
    """
    if not plan.cdi_device:
        return ()
    nodes = _specified(plan.cdi_device, specifications) or _by_driver(plan.device_uuid, filesystem)
    if not nodes:
        text = (
            f"the device nodes of {plan.device_uuid} are not known: write a CDI specification with "
            "`nvidia-ctk cdi generate`, or check that the driver is loaded."
        )
        raise LaunchError("DEVICE_NODES_UNKNOWN", text, rejected=True)
    return tuple(sorted(nodes))


def _specified(device: str, folders: Sequence[Path]) -> set[str]:
    kind, _, name = device.partition("=")
    for specification in _specifications(folders):
        if specification.get("kind") != kind:
            continue
        for each in specification.get("devices") or ():
            if isinstance(each, dict) and str(each.get("name")) == name:
                return {*_node_paths(specification), *_node_paths(each)}
    return set()


def _specifications(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        for file in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"), *folder.glob("*.json"))):
            try:
                if file.stat().st_size > _LARGEST_SPECIFICATION:
                    continue
                value = yaml.safe_load(file.read_text(encoding="utf-8"))
            except (OSError, ValueError, yaml.YAMLError):
                continue
            if isinstance(value, dict):
                yield value


def _node_paths(part: dict[str, Any]) -> Iterator[str]:
    edits = part.get("containerEdits")
    for node in (edits.get("deviceNodes") or ()) if isinstance(edits, dict) else ():
        path = node.get("path") if isinstance(node, dict) else None
        if isinstance(path, str) and path.startswith("/dev/") and ".." not in path.split("/"):
            yield path


def _by_driver(uuid: str, filesystem: Path) -> set[str]:
    for information in filesystem.glob("proc/driver/nvidia/gpus/*/information"):
        try:
            text = information.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found, minor = _UUID.search(text), _MINOR.search(text)
        if found is None or minor is None or found.group(1) != uuid:
            continue
        dev = filesystem / "dev"
        nodes = {"/dev/" + name for name in (f"nvidia{minor.group(1)}", *SHARED) if (dev / name).exists()}
        for kind in ("render", "card"):
            link = dev / "dri" / "by-path" / f"pci-{information.parent.name}-{kind}"
            if link.exists():
                nodes.add(f"/dev/dri/{link.resolve().name}")
        return nodes
    return set()
