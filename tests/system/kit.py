"""Applications of Kit whose Kit is the stand-in, on nodes with one GPU or none."""

from __future__ import annotations

import shlex
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

from footlights import recipes
from footlights.devices.fake_state import FakeGpu, FakeState
from tests.devices.standin import Standin, build
from tests.system.stack import Stack

APP: Final = "kit-108"
GPU: Final = "GPU-00000000-0000-0000-0000-000000000001"
STANDIN_KIT: Final = Path(__file__).parents[1] / "launch" / "standin_kit.py"


def lay_out(root: Path, generation: str = "108", *, before: str = "", **environment: str) -> Path:
    """Lay out a built application in ``root``, and return that.

    ``before`` is a line of shell that is run first; Kit has the variables of ``environment``, too.
    """
    program = root / "kit" / "kit"
    program.parent.mkdir(parents=True)
    variables = "".join(f"{name}={shlex.quote(value)} " for name, value in environment.items())
    program.write_text(f'#!/bin/sh\n{before}\n{variables}exec {sys.executable} -I -S {STANDIN_KIT} {generation} "$@"\n')
    program.chmod(0o755)
    return root


def machine(directory: Path) -> Standin:
    """Return a machine with one GPU."""
    made = Standin(build(), directory / "gpus.state")
    made.set(FakeState(gpus=(FakeGpu(uuid=GPU),)))
    return made


@asynccontextmanager
async def stack_with_gpu(directory: Path, *server_options: str) -> AsyncIterator[Stack]:
    """Run a server, and an agent that starts processes on the one GPU of its machine."""
    async with Stack(directory / "stack", server_options=server_options) as stack:
        await start_gpu_agent(stack, directory)
        yield stack


async def start_gpu_agent(stack: Stack, directory: Path) -> None:
    """Start an agent that starts processes on the one GPU of its machine."""
    options = ("--launchers", "process", "--devices", "nvml")
    await stack.start_agent("gpu-node", *options, environment=machine(directory).environment)


async def apply(stack: Stack, recipe: str, **variables: str) -> None:
    """Register an application by one of the recipes that ship with Footlights."""
    manifest = recipes.load(recipe, variables)
    await stack.put(f"/applications/{recipe}", MessageToDict(manifest, preserving_proto_field_name=True))


def kit_without_gpu(
    root: Path, knobs: Mapping[str, str], *, before: str = "", offer_timeout_s: int | None = None
) -> dict[str, Any]:
    """Return the recipe as REST takes it, for a Kit that is laid out in ``root``.

    ``knobs`` are the stand-in's; ``before`` is a line of shell that is run first.
    """
    manifest = recipes.load(APP, {"KIT_ROOT": str(lay_out(root, before=before))})
    [version] = [each for each in manifest.versions if each.version == manifest.releases["process"]]
    version.ClearField("needs")
    version.environment.update(knobs)
    if offer_timeout_s is not None:
        version.readiness.offer_timeout.CopyFrom(Duration(seconds=offer_timeout_s))
    del manifest.versions[:]
    manifest.versions.append(version)
    manifest.releases.clear()
    manifest.releases["default"] = version.version
    return MessageToDict(manifest, preserving_proto_field_name=True)
