"""Small USD stages for the tests of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pxr import Sdf, Usd, UsdGeom, UsdShade

from footlights.viewer.scene.stage import load_scene

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from footlights.viewer.scene.scene import Batch, Scene

SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


class StageMaker:
    """Writes a stage and loads it as the viewer does."""

    def __init__(self, path: Path, *, up: str = "Z", metres_per_unit: float = 1.0) -> None:
        self.path = path
        self.stage: Any = Usd.Stage.CreateNew(str(path))
        UsdGeom.SetStageUpAxis(self.stage, up)
        UsdGeom.SetStageMetersPerUnit(self.stage, metres_per_unit)

    def mesh(self, path: str, points: Any = SQUARE, counts: Any = (4,), indices: Any = (0, 1, 2, 3)) -> Any:
        """A mesh; by default one square in the plane z = 0 that faces up."""
        mesh = UsdGeom.Mesh.Define(self.stage, path)
        mesh.GetPointsAttr().Set(points)
        mesh.GetFaceVertexCountsAttr().Set(list(counts))
        mesh.GetFaceVertexIndicesAttr().Set(list(indices))
        mesh.GetSubdivisionSchemeAttr().Set(UsdGeom.Tokens.none)
        return mesh

    def material(self, name: str, **inputs: Any) -> Any:
        """A UsdPreviewSurface. Colours are triples, everything else is a float."""
        material = UsdShade.Material.Define(self.stage, f"/Looks/{name}")
        shader = UsdShade.Shader.Define(self.stage, f"/Looks/{name}/Surface")
        shader.CreateIdAttr("UsdPreviewSurface")
        for key, value in inputs.items():
            kind = Sdf.ValueTypeNames.Color3f if isinstance(value, tuple) else Sdf.ValueTypeNames.Float
            shader.CreateInput(key, kind).Set(value)
        material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
        return material

    def bind(self, prim: Any, material: Any) -> None:
        """Bind a material."""
        UsdShade.MaterialBindingAPI.Apply(prim.GetPrim()).Bind(material)

    def load(self) -> Scene:
        """The scene that the viewer makes of it."""
        self.stage.GetRootLayer().Save()
        return load_scene(self.path)


def only(scene: Scene) -> Batch:
    """The one batch of a scene."""
    (batch,) = scene.batches
    return batch


def winding(batch: Batch) -> np.ndarray[Any, Any]:
    """The unit normals that the triangles' order gives."""
    import numpy as np

    a, b, c = (batch.positions[batch.triangles[:, k]].astype(float) for k in range(3))
    normal = np.cross(b - a, c - a)
    return np.asarray(normal / np.linalg.norm(normal, axis=1, keepdims=True))
