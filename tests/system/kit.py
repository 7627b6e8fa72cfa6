"""Kit's recipe with the stand-in for Kit, on nodes without a GPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

from footlights import recipes

APP: Final = "kit-108"
STANDIN_KIT: Final = Path(__file__).parents[1] / "launch" / "standin_kit.py"


def kit_without_gpu(
    root: Path, knobs: Mapping[str, str], *, before: str = "", offer_timeout_s: int | None = None
) -> dict[str, Any]:
    """Return the recipe as REST takes it, for a Kit that is laid out in ``root``.

    ``knobs`` are the stand-in's; ``before`` is a line of shell that is run first.
    """
    (root / "kit").mkdir()
    program = root / "kit" / "kit"
    program.write_text(f'#!/bin/sh\n{before}\nexec {sys.executable} -I -S {STANDIN_KIT} 108 "$@"\n')
    program.chmod(0o755)
    manifest = recipes.load(APP, {"KIT_ROOT": str(root)})
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
