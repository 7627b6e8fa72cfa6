"""What gives an input of a shader its value: a constant, a primvar, or a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Final

from footlights.viewer.scene.materials.paint import AS_IT_IS, Layout
from footlights.viewer.scene.scene import Image, Wrap

DEEPEST: Final = 40
"""Nodes on the way from a surface to a value."""

_THROUGH: Final = ("in", "in1", "fg", "in2", "bg", "input", "value", "default")
"""Inputs that carry a value through a node of MaterialX, in order of preference."""

_WRAPS: Final[dict[str, Wrap]] = {
    "repeat": "repeat", "mirror": "mirror", "clamp": "clamp", "black": "black", "periodic": "repeat",
    "constant": "black", "useMetadata": "repeat",
    # As glTF, and the MDL modules for it, number them.
    "33071": "clamp", "33648": "mirror", "10497": "repeat", "0": "clamp", "1": "repeat", "2": "mirror", "3": "black",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageMap:
    """A picture, and how a surface lies in it."""

    image: Image
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    layout: Layout = AS_IT_IS


@dataclass(frozen=True, slots=True)
class Value:
    """What an input is given. Nothing, where nothing is said, or what is said is not understood."""

    constant: Any = None
    primvar: str | None = None
    map: ImageMap | None = None
    computed: bool = field(default=False, compare=False)  # by nodes that are only followed, not evaluated

    def __bool__(self) -> bool:
        return self.constant is not None or self.primvar is not None or self.map is not None

    @property
    def number(self) -> float | None:
        """The constant as a number; of a colour its mean."""
        return _number(self.constant)

    @property
    def color(self) -> tuple[float, float, float] | None:
        """The constant as a colour; of a number the grey."""
        return _color(self.constant)

    def scaled(self, factor: Any) -> Value:
        """The same, multiplied by a number or a colour; unchanged by what is neither."""
        by = _color(factor)
        if by is None or by == (1.0, 1.0, 1.0):
            return self
        if self.map is not None:
            image = self.map.image
            scale = tuple(a * b for a, b in zip(image.scale, (*by, by[0]), strict=True))
            bias = tuple(a * b for a, b in zip(image.bias, (*by, by[0]), strict=True))
            return replace(self, map=replace(self.map, image=replace(image, scale=scale, bias=bias)))
        mine = self.color
        if mine is None:
            return self
        product = tuple(a * b for a, b in zip(mine, by, strict=True))
        return replace(self, constant=product[0] if isinstance(self.constant, int | float) else product)


class _Walk:
    """One walk upstream: each node is asked once, and one that waits for itself gives nothing."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Value] = {}
        self._open: set[tuple[str, str]] = set()

    def visit(self, node: Any, output: str) -> Value:
        """What an output of a node gives."""
        key = (str(node.GetPath()), output)
        if key in self._open or len(self._open) > DEEPEST:
            return Value()
        if key not in self._found:
            self._open.add(key)
            self._found[key] = _node(node, output, self)
            self._open.discard(key)
        return self._found[key]


def value_of(shader: Any, *names: str) -> Value:
    """What the first of the inputs that has a value is given, through interfaces, node graphs and nodes.

    Nothing of no names.
    """
    walk = _Walk()
    for name in names:
        found = _input(shader, name, walk)
        if found:
            return found
    return Value()


def asset_of(shader: Any, name: str) -> str:
    """The file that an input names; empty where it names none."""
    return next((file for each in _attributes(shader, name) if (file := asset_of_attribute(each))), "")


def asset_of_attribute(attribute: Any) -> str:
    """The file that an attribute names; empty where it names none."""
    from pxr import Sdf

    value = attribute.Get() if attribute else None
    if not isinstance(value, Sdf.AssetPath) or not value.path:
        return ""
    # A file that is missing, and a name with <UDIM>, which is of many files, resolve to nothing.
    specs = attribute.GetPropertyStack()
    return str(value.resolvedPath or Sdf.ComputeAssetPathRelativeToLayer(specs[0].layer, value.path))


def has_input(shader: Any, name: str) -> bool:
    """Whether an input has a value or a connection."""
    port = shader.GetInput(name)
    return bool(port) and bool(port.GetAttr().HasAuthoredValue() or port.HasConnectedSource())


def pair(value: Any, default: tuple[float, float]) -> tuple[float, float]:
    """Two numbers as they are; the default for anything else."""
    try:
        u, v = (float(x) for x in value)
    except (TypeError, ValueError):
        return default
    return (u, v) if math.isfinite(u + v) else default


def _attributes(shader: Any, name: str) -> list[Any]:
    from pxr import UsdShade

    port = shader.GetInput(name)
    return list(UsdShade.Utils.GetValueProducingAttributes(port)) if port else []


def _input(shader: Any, name: str, walk: _Walk) -> Value:
    from pxr import Sdf, UsdShade

    attributes = _attributes(shader, name)
    if not attributes:
        return Value()
    attribute = attributes[0]
    if UsdShade.Utils.GetType(attribute.GetName()) != UsdShade.AttributeType.Output:
        value = attribute.Get()
        if not isinstance(value, Sdf.AssetPath):
            return Value(constant=value)
        file = asset_of(shader, name)
        return Value(map=ImageMap(Image(file))) if file else Value()
    node = UsdShade.Shader(attribute.GetPrim())
    return walk.visit(node, str(attribute.GetBaseName())) if node else Value()


def _node(node: Any, output: str, walk: _Walk) -> Value:
    """What an output of a node gives."""
    kind = str(node.GetIdAttr().Get() or "")
    plain = kind.removeprefix("ND_")
    if plain.startswith(("UsdPrimvarReader", "geompropvalue", "geomcolor")):
        return _primvar(node, plain, walk)
    if plain.startswith("UsdUVTexture"):
        return _preview_texture(node, output, walk)
    if plain.startswith(("image_", "tiledimage_", "gltf_image", "gltf_colorimage", "hextiledimage")):
        return _materialx_image(node, output, walk)
    if plain.startswith(("multiply", "modulate", "gltf_multiply")):
        return _product(node, walk)
    if plain.startswith("mix"):
        return _mixed(node, walk)
    if plain.startswith(("extract", "separate", "swizzle")):
        return _extracted(node, plain, output, walk)
    return _through(node, walk)


def _primvar(node: Any, plain: str, walk: _Walk) -> Value:
    if plain.startswith("geomcolor"):
        return Value(primvar="displayColor")
    name, otherwise = ("geomprop", "default") if plain.startswith("geomprop") else ("varname", "fallback")
    return Value(constant=_constant(node, otherwise, walk), primvar=_text(node, name, walk) or None)


def _preview_texture(node: Any, output: str, walk: _Walk) -> Value:
    file = asset_of(node, "file")
    fallback = _constant(node, "fallback", walk)
    # Black is what the specification has where nothing is said, and of a texture that is there it says nothing.
    constant = tuple(fallback)[:3] if fallback is not None and any(tuple(fallback)[:3]) else None
    if not file:
        return Value(constant=constant)
    image = Image(
        file,
        channel=_channel(output),
        scale=_four(_constant(node, "scale", walk), 1.0),
        bias=_four(_constant(node, "bias", walk), 0.0),
        raw=str(_constant(node, "sourceColorSpace", walk) or "") == "raw",
    )
    wrap = tuple(_wrap(_constant(node, name, walk)) for name in ("wrapS", "wrapT"))
    return Value(constant=constant, map=ImageMap(image, (wrap[0], wrap[1]), _layout(node, "st", walk)))


def _materialx_image(node: Any, output: str, walk: _Walk) -> Value:
    file = asset_of(node, "file")
    default = _constant(node, "default", walk)
    if not file:
        return Value(constant=default)
    layout = _layout(node, "texcoord", walk)
    tiling, offset = _constant(node, "uvtiling", walk), _constant(node, "uvoffset", walk)
    if tiling is not None or offset is not None:
        layout = replace(layout, scale=pair(tiling, (1.0, 1.0)), translation=pair(offset, (0.0, 0.0)))
    wrap = tuple(_wrap(_constant(node, name, walk)) for name in ("uaddressmode", "vaddressmode"))
    image = Image(file, channel=_channel(output), raw=_is_raw(node))
    return Value(map=ImageMap(image, (wrap[0], wrap[1]), layout)).scaled(_constant(node, "factor", walk))


def _product(node: Any, walk: _Walk) -> Value:
    one, other = _input(node, "in1", walk), _input(node, "in2", walk)
    for first, second in ((one, other), (other, one)):
        if second.map is None and second.primvar is None:
            if second.constant is not None and (first.map is not None or first.constant is not None):
                return first.scaled(second.constant)
            if first:
                return first
    return replace(one or other, computed=True)


def _mixed(node: Any, walk: _Walk) -> Value:
    front, back = _input(node, "fg", walk), _input(node, "bg", walk)
    share = _input(node, "mix", walk).number
    if share is None:
        share = 0.5
    a, b = front.color, back.color
    if front.map is None and back.map is None and a is not None and b is not None:
        return Value(constant=tuple(x * share + y * (1 - share) for x, y in zip(a, b, strict=True)))
    pictured = [each for each in (front, back) if each.map is not None]
    chosen = front if share >= 0.5 else back
    return replace(chosen if chosen.map is not None or not pictured else pictured[0], computed=True)


def _extracted(node: Any, plain: str, output: str, walk: _Walk) -> Value:
    found = _input(node, "in", walk)
    index = 0
    if plain.startswith("extract"):
        index = int(_input(node, "index", walk).number or 0)
    elif plain.startswith("swizzle"):
        index = "rgba".find((_text(node, "channels", walk) or "r").replace("x", "r").replace("y", "g")[:1])
    elif output in ("outr", "outg", "outb", "outa"):
        index = "rgba".index(output[-1])
    index = max(0, min(3, index))
    if found.map is not None:
        return replace(found, map=replace(found.map, image=replace(found.map.image, channel="rgba"[index])))
    color = found.color
    return Value(constant=color[min(index, 2)]) if color is not None and found.primvar is None else found


def _through(node: Any, walk: _Walk) -> Value:
    """The value that a node passes on, or works on: of the usual inputs, then a picture of any."""
    names = [str(port.GetBaseName()) for port in node.GetInputs()]
    names.sort(key=lambda name: _THROUGH.index(name) if name in _THROUGH else len(_THROUGH))
    found = [_input(node, name, walk) for name in names]
    chosen = next((f for f in found if f.map is not None), next((f for f in found if f), Value()))
    return replace(chosen, computed=True)


def _layout(node: Any, name: str, walk: _Walk) -> Layout:
    """How texture coordinates come about, upstream of the node that takes them."""
    from pxr import UsdShade

    result = Layout()
    for _ in range(DEEPEST):
        attributes = _attributes(node, name)
        source = UsdShade.Shader(attributes[0].GetPrim()) if attributes else None
        if not source or source.GetPath() == node.GetPath():
            return result
        node, plain = source, str(source.GetIdAttr().Get() or "").removeprefix("ND_")
        if plain.startswith("UsdPrimvarReader"):
            return replace(result, primvar=_text(node, "varname", walk))
        if plain.startswith("geompropvalue"):
            return replace(result, primvar=_text(node, "geomprop", walk))
        if plain.startswith("UsdTransform2d"):
            turn, name = _constant(node, "rotation", walk), "in"
            scale, move = _constant(node, "scale", walk), _constant(node, "translation", walk)
            result = replace(
                result, scale=pair(scale, (1, 1)), degrees=_number(turn) or 0.0, translation=pair(move, (0, 0))
            )
        elif plain.startswith("place2d"):
            turn, name = _constant(node, "rotate", walk), "texcoord"
            x, y = pair(_constant(node, "scale", walk), (1, 1))
            u, v = pair(_constant(node, "offset", walk), (0, 0))
            result = replace(
                result, scale=(1 / x if x else 1, 1 / y if y else 1), degrees=_number(turn) or 0.0, translation=(-u, -v)
            )
        elif plain.startswith("multiply"):
            by, name = _constant(node, "in2", walk), "in1"
            result = replace(result, scale=pair(by if not isinstance(by, float) else (by, by), (1, 1)))
        else:
            name = next((n for n in ("in", "in1", "texcoord", "st") if node.GetInput(n)), "")
            if not name:
                return result
    return result


def _channel(output: str) -> str:
    return output if output in ("r", "g", "b", "a") else "rgb"


def _wrap(value: Any) -> Wrap:
    return _WRAPS.get(str(value), "repeat")


def _is_raw(node: Any) -> bool:
    """Whether a file says that its colours are linear."""
    port = node.GetInput("file")
    space = str(port.GetAttr().GetColorSpace() or "") if port else ""
    return space.startswith(("raw", "lin_", "none", "data"))


def _constant(node: Any, name: str, walk: _Walk) -> Any:
    return _input(node, name, walk).constant


def _text(node: Any, name: str, walk: _Walk) -> str:
    value = _constant(node, name, walk)
    return str(value) if value is not None else ""


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    color = _color(value)
    return None if color is None else sum(color) / 3


def _color(value: Any) -> tuple[float, float, float] | None:
    if isinstance(value, int | float):
        return (float(value),) * 3 if math.isfinite(value) else None
    try:
        r, g, b = (float(v) for v in tuple(value)[:3])
    except (TypeError, ValueError):
        return None
    return (r, g, b) if math.isfinite(r + g + b) else None


def _four(value: Any, default: float) -> tuple[float, ...]:
    try:
        four = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        four = ()
    return four if len(four) == 4 and all(math.isfinite(v) for v in four) else (default,) * 4
