"""Opens a stage of which no layer, payload, clip or texture lies outside the roots.

USD's resolver has no hook in Python. But a layer can be opened by itself, without what it refers to: so each is opened
so, every path in it that leads outside is taken out of the layer in memory, and then come the layers that it still
refers to. The stage is composed of these, since USD opens a layer once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from footlights.viewer.failure import FailureReason, ViewerFailure
from footlights.viewer.scene.assets import read_asset
from footlights.viewer.scene.materials.materialx import as_layer

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

    left_out: list[str] = []
    documents: dict[str, Any] = {}  # MaterialX, as layers
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
        waiting += _confine(layer, roots, left_out, documents)
    return Usd.Stage.Open(str(path) if first is None else first), left_out


def _confine(layer: Any, roots: StageRoots, left_out: list[str], documents: dict[str, Any]) -> list[Any]:
    """Take out of a layer what leads outside; return the layers that it still refers to.

    Documents of MaterialX are replaced by layers of the same.
    """
    from pxr import Sdf, UsdUtils

    def check(written: str) -> str:
        if not written:
            return ""
        if not _admits(layer, written, roots):
            left_out.append(written)
            return ""
        if written.endswith(".mtlx"):
            return _document(Sdf.ComputeAssetPathRelativeToLayer(layer, written), roots, documents) or written
        return written

    if not roots.unlimited or any(each.endswith(".mtlx") for each in layer.GetCompositionAssetDependencies()):
        UsdUtils.ModifyAssetPaths(layer, check)
    found = []
    for written in filter(None, layer.GetCompositionAssetDependencies()):
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


def _document(path: str, roots: StageRoots, documents: dict[str, Any]) -> str:
    """The name of the layer of a document of MaterialX; empty where it cannot be read, which USD then says."""
    from pxr import Ar

    if path not in documents:
        resolver = Ar.GetResolver()
        try:
            content = read_asset(str(resolver.Resolve(path) or path), roots)
            anchor = Ar.ResolvedPath(path)
            documents[path] = as_layer(content, lambda written: str(resolver.CreateIdentifier(written, anchor)))
        except Exception:  # whatever a decompressor, a parser or USD makes of a file that anybody may have written
            documents[path] = None
    return str(documents[path].identifier) if documents[path] is not None else ""


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

    if roots.unlimited:
        return True
    if written.startswith("`"):
        return False
    path, _ = Sdf.Layer.SplitIdentifier(Sdf.ComputeAssetPathRelativeToLayer(layer, written))
    resolver = Ar.GetResolver()
    found = str(resolver.Resolve(path) or "")
    if not found and not path.startswith("/"):
        # A name that is searched for and not there now, or an address: USD reads neither.
        return not path.partition(":")[2].startswith("//")
    if path.startswith("anon:"):
        return True
    outer = found or path
    while Ar.IsPackageRelativePath(outer):
        outer = Ar.SplitPackageRelativePathOuter(outer)[0]
    return roots.admits_file(outer)
