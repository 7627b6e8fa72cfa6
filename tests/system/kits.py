"""A built application of Kit 108 whose Kit is the stand-in, and a machine with one GPU for it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from footlights.devices.fake_state import FakeGpu, FakeState
from tests.devices.standin import Standin, build

STANDIN_KIT = Path(__file__).parents[1] / "launch" / "standin_kit.py"


def lay_out(directory: Path, **environment: str) -> Path:
    """Return the root of the application, whose Kit has these variables too."""
    root = directory / "kit-app"
    (root / "kit").mkdir(parents=True)
    kit = root / "kit" / "kit"
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
    kit.write_text(f'#!/bin/sh\n{variables} exec {sys.executable} -I -S {STANDIN_KIT} 108 "$@"\n')
    kit.chmod(0o755)
    return root


def machine(directory: Path) -> Standin:
    """Return a machine with one GPU."""
    made = Standin(build(), directory / "gpus.state")
    made.set(FakeState(gpus=(FakeGpu(uuid="GPU-00000000-0000-0000-0000-000000000001"),)))
    return made
