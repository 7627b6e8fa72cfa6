"""Reads each material of a stage once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from footlights.viewer.scene.materials.surfaces import read_material

if TYPE_CHECKING:
    from footlights.viewer.scene.left_out import LeftOut
    from footlights.viewer.scene.materials.paint import Paint


class Palette:
    """The paints of a stage's materials."""

    def __init__(self, left_out: LeftOut) -> None:
        self._left_out = left_out
        self._read: dict[str, Paint | None] = {}

    def of(self, prim: Any) -> Paint | None:
        """The paint bound to a prim or a subset; None where there is none that is understood."""
        from pxr import UsdShade

        binding = UsdShade.MaterialBindingAPI(prim)
        material, _ = binding.ComputeBoundMaterial(UsdShade.Tokens.preview)
        if not material:
            material, _ = binding.ComputeBoundMaterial(UsdShade.Tokens.full)
        if not material:
            return None
        path = str(material.GetPath())
        if path not in self._read:
            try:
                self._read[path] = read_material(material, self._left_out)
            except Exception as error:  # USD's bindings raise errors of their own kinds, by what a file has
                self._read[path] = None
                self._left_out.add(
                    "materials that cannot be read: their prims have their own colour", f"{path}: {error}"
                )
        return self._read[path]
