"""Opens a stage of which no layer, payload, clip or texture lies outside the roots.

USD's resolver has no hook in Python. But a layer can be opened by itself, without what it refers to: so each is opened
so, every path in it that leads outside is taken out of the layer in memory, and then come the layers that it still
refers to. The stage is composed of these, since USD opens a layer once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from footlights.viewer.failure import FailureReason, ViewerFailure

if TYPE_CHECKING:
    from pathlib import Path

    from footlights.viewer.scene.roots import StageRoots

MOST_LAYERS: Final = 10_000


def open_confined(path: Path, roots: StageRoots) -> tuple[Any, list[str]]:
    """Open the stage at ``path``; return it and the paths that were left out.

    A path that is an expression is replaced by what it means in its own layer: the variables of another stage could
    make it lead elsewhere.

    Raises ViewerFailure where there are too many layers, or a path cannot be taken out; and what USD raises where it
    cannot open the stage.
    """
    from pxr import Sdf, Usd

    if roots.unlimited:
        return Usd.Stage.Open(str(path)), []
    left_out: list[str] = []
    first = Sdf.Layer.FindOrOpen(str(path))
    layers, waiting = {}, [] if first is None else [first]
    while waiting:
        layer = waiting.pop()
        if layer.identifier in layers:
            continue
        layers[layer.identifier] = layer  # kept until the stage is open: USD forgets a layer that nobody holds
        if len(layers) > MOST_LAYERS:
            raise ViewerFailure(
                FailureReason.STAGE_TOO_LARGE, f"the stage {path} has more than {MOST_LAYERS} layers: merge some"
            )
        waiting += _confine(layer, roots, left_out)
    return Usd.Stage.Open(str(path) if first is None else first), left_out


def _confine(layer: Any, roots: StageRoots, left_out: list[str]) -> list[Any]:
    """Take out of a layer what leads outside; return the layers that it still refers to."""
    from pxr import Sdf, UsdUtils

    def check(written: str) -> str:
        if not written or _admits(layer, written, roots):
            return written
        left_out.append(written)
        return ""

    UsdUtils.ModifyAssetPaths(layer, check)
    found = []
    for written in layer.GetCompositionAssetDependencies():
        if not _admits(layer, written, roots):
            # It could not be taken out, as in a package.
            raise ViewerFailure(
                FailureReason.STAGE_UNREADABLE,
                f"{layer.identifier} refers to {written}, which is not below a root that is allowed",
            )
        inner = _open(Sdf.ComputeAssetPathRelativeToLayer(layer, written))
        if inner is not None:
            found.append(inner)
    return found


def _open(path: str) -> Any:
    """Open a layer by itself; None where there is none, or none that USD can read: the stage says so."""
    from pxr import Sdf, Tf

    try:
        return Sdf.Layer.FindOrOpen(path)
    except Tf.ErrorException:
        return None


def _admits(layer: Any, written: str, roots: StageRoots) -> bool:
    """Whether what a layer writes leads to a place that is allowed."""
    from pxr import Ar, Sdf

    if written.startswith("`"):
        return False
    path, _ = Sdf.Layer.SplitIdentifier(Sdf.ComputeAssetPathRelativeToLayer(layer, written))
    resolver = Ar.GetResolver()
    found = str(resolver.Resolve(path) or "")
    if not found and not path.startswith("/"):
        # A name that is searched for and not there now, or an address: USD reads neither.
        return not path.partition(":")[2].startswith("//")
    outer = found or path
    while Ar.IsPackageRelativePath(outer):
        outer = Ar.SplitPackageRelativePathOuter(outer)[0]
    return roots.admits_file(outer)
