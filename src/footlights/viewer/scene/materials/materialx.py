"""MaterialX documents as USD layers: usd-core has no plugin that opens them.

The layer has what a reference to a `.mtlx` file expects: `/MaterialX/Materials/NAME`, each with its surface shader and
the node graphs that it uses. Of a document only this is read; its definitions, looks and includes are not.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

if TYPE_CHECKING:
    from collections.abc import Callable
    from xml.etree.ElementTree import Element

MOST_NODES: Final = 20_000

_TYPES: Final = {
    "float": "float", "integer": "int", "boolean": "bool", "string": "string", "filename": "asset", "color3": "color3f",
    "color4": "color4f", "vector2": "float2", "vector3": "vector3f", "vector4": "float4",
}  # fmt: skip


def as_layer(content: bytes, resolve: Callable[[str], str]) -> Any:
    """Return an anonymous layer of a document; `resolve` makes a path in it absolute.

    Raises ValueError where the document is none, or is too large.
    """
    from pxr import Sdf, Usd, UsdGeom

    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("a document with definitions of its own is not read")
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 - neither entities nor depth are expanded here
    except ElementTree.ParseError as error:
        raise ValueError(f"it is no XML: {error}") from error
    if sum(1 for _ in root.iter()) > MOST_NODES:
        raise ValueError(f"it has more than {MOST_NODES} elements")
    layer = Sdf.Layer.CreateAnonymous("materialx.usda")
    stage: Any = Usd.Stage.Open(layer)
    stage.SetDefaultPrim(stage.DefinePrim("/MaterialX"))
    UsdGeom.Scope.Define(stage, "/MaterialX/Materials")
    document = _MaterialXReader(root, stage, resolve)
    for element in root:
        if element.tag == "surfacematerial":
            document.material(element)
    return layer


class _MaterialXReader:
    def __init__(self, root: Element, stage: Any, resolve: Callable[[str], str]) -> None:
        self._stage, self._resolve = stage, resolve
        self._prefix = root.get("fileprefix", "")
        self._space = root.get("colorspace", "")
        self._top = {str(e.get("name")): e for e in root}

    def material(self, element: Element) -> None:
        from pxr import UsdShade

        path = f"/MaterialX/Materials/{_name(element.get('name'))}"
        material = UsdShade.Material.Define(self._stage, path)
        for given in element.iter("input"):
            surface = self._top.get(given.get("nodename") or "")
            if given.get("name") == "surfaceshader" and surface is not None:
                shader = self._node(surface, path, self._top, set())
                material.CreateSurfaceOutput("mtlx").ConnectToSource(shader.ConnectableAPI(), "out")

    def _node(self, element: Element, scope: str, beside: dict[str, Element], made: set[str]) -> Any:
        """Define a node and all that feeds it. `made` has those that are."""
        from pxr import UsdShade

        path = f"{scope}/{_name(element.get('name'))}"
        shader = UsdShade.Shader.Define(self._stage, path)
        if path in made:
            return shader
        made.add(path)
        shader.CreateIdAttr(f"ND_{element.tag}_{element.get('type', '')}")
        for given in element:
            if given.tag == "input":
                self._input(shader, given, scope, (beside, made))
        return shader

    def _input(self, shader: Any, given: Element, scope: str, around: tuple[dict[str, Element], set[str]]) -> None:
        from pxr import Sdf

        beside, made = around
        kind = _TYPES.get(given.get("type", ""))
        if kind is None:
            return
        port = shader.CreateInput(str(given.get("name")), Sdf.ValueTypeNames.Find(kind))
        source, inner, output = self._source(given, beside)
        if source is not None:
            place = scope if inner is beside else f"{scope}/{_name(given.get('nodegraph'))}"
            # The graph's own name keeps its nodes apart from others of the same name.
            port.ConnectToSource(self._node(source, place, inner, made).ConnectableAPI(), output)
            return
        text = given.get("value")
        if text is None:
            return
        if kind == "asset":
            port.Set(Sdf.AssetPath(self._file(text)))
            port.GetAttr().SetColorSpace(given.get("colorspace", self._space))
            return
        with contextlib.suppress(ValueError, IndexError):  # one value that is none does not take the others away
            port.Set(_parsed(text, kind))

    def _file(self, text: str) -> str:
        """The file of a name; the document's prefix counts where there is such a file."""
        from pxr import Ar

        prefixed = self._resolve(self._prefix + text)
        if self._prefix and ("<UDIM>" in text or Ar.GetResolver().Resolve(prefixed)):
            return prefixed
        return self._resolve(text)

    def _source(self, given: Element, beside: dict[str, Element]) -> tuple[Element | None, dict[str, Element], str]:
        """The node that feeds an input, those beside it, and which of its outputs."""
        if (name := given.get("nodename")) and (found := beside.get(name)) is not None:
            return found, beside, given.get("output", "out")
        graph = self._top.get(given.get("nodegraph") or "")
        if graph is None:
            return None, beside, ""
        inner = {str(e.get("name")): e for e in graph}
        outputs = [e for e in graph if e.tag == "output"]
        chosen = next((e for e in outputs if e.get("name") == given.get("output")), outputs[0] if outputs else None)
        if chosen is None:
            return None, beside, ""
        return inner.get(chosen.get("nodename") or ""), inner, chosen.get("output", "out")


def _name(text: str | None) -> str:
    plain = re.sub(r"\W", "_", text or "", flags=re.ASCII)
    return plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"


def _parsed(text: str, kind: str) -> Any:
    """A value as USD takes it. Raises ValueError or IndexError."""
    if kind == "string":
        return text
    if kind == "bool":
        return text.strip() == "true"
    numbers = [float(part) for part in re.split(r"[,\s]+", text.strip())]
    if kind == "int":
        return int(numbers[0])
    if kind == "float":
        return numbers[0]
    return tuple(numbers[k] for k in range(int(kind.rstrip("f")[-1])))
