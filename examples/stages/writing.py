"""Bakes soft shadows into a model and writes it as a USD stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pxr import Gf, Sdf, Usd, UsdGeom, UsdShade, Vt

from examples.stages.modelling import KEY_LIGHT, Group, Material, Part, Points, Shot

if TYPE_CHECKING:
    from pathlib import Path

SKY_DIRECTIONS, KEY_DIRECTIONS = 40, 14
GRID = 420
"""Cells a side of a depth map."""


def write_stage(path: Path, root: Group, shot: Shot, about: str) -> None:
    """Write `root` and its camera to `path`, with baked occlusion."""
    path.unlink(missing_ok=True)
    stage = Usd.Stage.CreateNew(str(path))
    stage.SetMetadata("comment", about)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(shot.frames_per_second)
    stage.SetFramesPerSecond(shot.frames_per_second)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(shot.frames)
    world = UsdGeom.Xform.Define(stage, f"/{root.name}")
    stage.SetDefaultPrim(world.GetPrim())
    _write_camera(stage, f"/{root.name}/Camera", shot)
    materials: dict[str, Any] = {}
    _write_group(stage, f"/{root.name}", root, materials)
    stage.GetRootLayer().Save()


def _write_camera(stage: Any, path: str, shot: Shot) -> None:
    camera = UsdGeom.Camera.Define(stage, path)
    camera.GetFocalLengthAttr().Set(shot.focal_length)
    camera.GetHorizontalApertureAttr().Set(36.0)
    camera.GetVerticalApertureAttr().Set(20.25)
    eye, target = Gf.Vec3d(*shot.eye), Gf.Vec3d(*shot.target)
    camera.GetFocusDistanceAttr().Set((target - eye).GetLength())
    camera.AddTransformOp().Set(Gf.Matrix4d().SetLookAt(eye, target, Gf.Vec3d(0, 0, 1)).GetInverse())


def _write_group(stage: Any, path: str, group: Group, materials: dict[str, Any]) -> None:
    prim = UsdGeom.Xform.Define(stage, path)
    for name, value in group.motion:
        op = getattr(prim, f"Add{name}Op")()
        if isinstance(value, list):
            for time, keyed in value:
                op.Set(Gf.Vec3d(*keyed) if isinstance(keyed, tuple) else keyed, time)
        else:
            op.Set(Gf.Vec3d(*value) if isinstance(value, tuple) else value)
    for time, shown in group.visible or []:
        prim.GetVisibilityAttr().Set(UsdGeom.Tokens.inherited if shown else UsdGeom.Tokens.invisible, time)
    occlusion = _bake(group.parts)
    for part, shade in zip(group.parts, occlusion, strict=True):
        _write_mesh(stage, f"{path}/{part.name}", part, shade, materials)
    for child in group.groups:
        _write_group(stage, f"{path}/{child.name}", child, materials)


def _write_mesh(stage: Any, path: str, part: Part, shade: Points, materials: dict[str, Any]) -> None:
    mesh = UsdGeom.Mesh.Define(stage, path)
    points = part.solid.points.astype(np.float32)
    mesh.GetPointsAttr().Set(Vt.Vec3fArray.FromNumpy(points))
    mesh.GetFaceVertexCountsAttr().Set([len(polygon) for polygon in part.solid.polygons])
    mesh.GetFaceVertexIndicesAttr().Set([k for polygon in part.solid.polygons for k in polygon])
    mesh.GetSubdivisionSchemeAttr().Set(UsdGeom.Tokens.none)
    mesh.GetExtentAttr().Set(Vt.Vec3fArray.FromNumpy(np.stack([points.min(axis=0), points.max(axis=0)])))
    mesh.GetDoubleSidedAttr().Set(part.two_sided)
    primvars = UsdGeom.PrimvarsAPI(mesh)

    def primvar(name: str, kind: Any, values: Any) -> None:
        primvars.CreatePrimvar(name, kind, UsdGeom.Tokens.vertex).Set(values)

    primvar("occlusion", Sdf.ValueTypeNames.FloatArray, Vt.FloatArray.FromNumpy(np.round(shade, 2).astype(np.float32)))
    if part.colors is not None:
        colors = Vt.Vec3fArray.FromNumpy(part.colors.astype(np.float32))
        primvar("displayColor", Sdf.ValueTypeNames.Color3fArray, colors)
    if part.opacities is not None:
        primvar(
            "displayOpacity", Sdf.ValueTypeNames.FloatArray, Vt.FloatArray.FromNumpy(part.opacities.astype(np.float32))
        )
    if part.material.name not in materials:
        materials[part.material.name] = _write_material(stage, part.material)
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(materials[part.material.name])


def _write_material(stage: Any, look: Material) -> Any:
    types = Sdf.ValueTypeNames
    path = f"{stage.GetDefaultPrim().GetPath()}/Looks/{look.name}"
    material = UsdShade.Material.Define(stage, path)
    surface = UsdShade.Shader.Define(stage, f"{path}/Surface")
    surface.CreateIdAttr("UsdPreviewSurface")

    def reader(name: str, kind: str, port: Any, varname: str, fallback: Any) -> None:
        node = UsdShade.Shader.Define(stage, f"{path}/{name}")
        node.CreateIdAttr(f"UsdPrimvarReader_{kind}")
        node.CreateInput("varname", types.String).Set(varname)
        node.CreateInput("fallback", port.GetTypeName()).Set(fallback)
        port.ConnectToSource(node.CreateOutput("result", port.GetTypeName()))

    diffuse = surface.CreateInput("diffuseColor", types.Color3f)
    diffuse.Set(look.color)
    surface.CreateInput("roughness", types.Float).Set(look.roughness)
    surface.CreateInput("metallic", types.Float).Set(look.metallic)
    opacity = surface.CreateInput("opacity", types.Float)
    opacity.Set(look.opacity)
    surface.CreateInput("emissiveColor", types.Color3f).Set(look.emission)
    reader("Occlusion", "float", surface.CreateInput("occlusion", types.Float), "occlusion", 1.0)
    if look.painted:
        reader("Paint", "float3", diffuse, "displayColor", look.color)
    if look.faded:
        reader("Fade", "float", opacity, "displayOpacity", look.opacity)
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    return material


def _bake(parts: list[Part]) -> list[Points]:
    """How much light reaches each point of a rigid group: sky, and a soft key light, past its own parts.

    One depth map a direction, made of samples all over the surfaces: a point is lit from a direction if no sample
    in its cell lies nearer to the light.
    """
    if not parts:
        return []
    solid = [part for part in parts if part.occluding]
    samples = np.concatenate([_samples(part) for part in solid]) if solid else np.zeros((1, 3))
    points = np.concatenate([part.solid.points for part in parts])
    normals = np.concatenate([_point_normals(part) for part in parts])
    size = float(np.ptp(samples, axis=0).max()) or 1.0
    cell = 1.75 * size / GRID
    start = points + normals * cell * 1.5
    center = samples.mean(axis=0)

    def visible(direction: Points) -> Points:
        side = np.cross(direction, [0.3, 0.5, 0.81] if abs(direction[2]) > 0.9 else [0.0, 0.0, 1.0])
        side /= np.linalg.norm(side)
        over = np.cross(direction, side)

        def project(where: Points) -> tuple[Points, Points, Points]:
            local = where - center
            u, v = local @ side / cell, local @ over / cell
            clip = [np.clip(np.rint(w + GRID / 2), 0, GRID - 1).astype(int) for w in (u, v)]
            return clip[0], clip[1], local @ direction

        u, v, depth = project(samples)
        nearest = np.full((GRID, GRID), -np.inf)
        np.maximum.at(nearest, (u, v), depth)
        u, v, depth = project(start)
        seen: Points = depth >= nearest[u, v] - 2.5 * cell
        return seen

    sky, sky_weight = np.zeros(len(points)), np.full(len(points), 1e-6)
    for direction in _directions(SKY_DIRECTIONS):
        facing = np.clip(normals @ direction, 0, None)
        sky += facing * visible(direction)
        sky_weight += facing
    key, key_weight = np.zeros(len(points)), 0.0
    for offset in _directions(KEY_DIRECTIONS):
        direction = KEY_LIGHT + 0.16 * offset
        key += visible(direction / np.linalg.norm(direction))
        key_weight += 1
    lit = np.where(normals @ KEY_LIGHT > 0.05, key / key_weight, 1.0)
    shade = np.clip((0.36 + 0.72 * sky / sky_weight) * (0.62 + 0.40 * lit), 0, 1)
    return np.split(shade, np.cumsum([len(part.solid.points) for part in parts])[:-1])


def _directions(count: int) -> list[Points]:
    """Evenly over the upper half of the sphere (a Fibonacci spiral)."""
    found = []
    for k in range(count):
        z = 1 - (k + 0.5) / count * 1.15
        a = np.pi * (1 + 5**0.5) * k
        r = np.sqrt(max(0.0, 1 - z * z))
        found.append(np.array([r * np.cos(a), r * np.sin(a), z]))
    return found


def _triangles(part: Part) -> Points:
    fans = [(p[0], p[k], p[k + 1]) for p in part.solid.polygons for k in range(1, len(p) - 1)]
    return np.array(fans)


def _samples(part: Part) -> Points:
    """Points all over the surface, denser on larger triangles."""
    corners = part.solid.points[_triangles(part)]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    random = np.random.default_rng(7)
    count = int(np.clip(40 * len(corners), 4_000, 120_000))
    chosen = corners[random.choice(len(corners), count, p=area / area.sum())]
    u, v = random.random((2, count, 1))
    over = (u + v) > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    spread: Points = chosen[:, 0] + u * (chosen[:, 1] - chosen[:, 0]) + v * (chosen[:, 2] - chosen[:, 0])
    return spread


def _point_normals(part: Part) -> Points:
    triangles, points = _triangles(part), part.solid.points
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    total = np.zeros_like(points)
    for k in range(3):
        np.add.at(total, triangles[:, k], area)
    unit: Points = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
    return unit
