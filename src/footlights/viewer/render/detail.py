"""Coarser copies of a heavy scene: vertices of one cell of a grid become one of them.

A renderer on the CPU draws some 200,000 triangles in the time of a picture. What has more is drawn coarser while it
moves, before pictures are dropped, and in full once it rests.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from footlights.viewer.scene.scene import Batch, Scene

LEVELS: Final = (250_000, 60_000)
"""Triangles of the coarser copies, about."""


def coarser(scene: Scene) -> list[list[Batch]]:
    """The batches of each coarser copy that is worth it; what moves point by point stays as it is."""
    copies = []
    drawn = scene.triangle_count
    for triangles in LEVELS:
        if drawn < 1.4 * triangles:
            continue
        cell = _cell(scene, triangles)
        copy = [batch if batch.motion is not None else simplified(batch, cell) for batch in scene.batches]
        drawn = sum(len(batch.triangles) for batch in copy)
        copies.append(copy)
    return copies


def simplified(batch: Batch, cell: float) -> Batch:
    """One vertex in each cell, for each direction that the surface faces there and each part of its texture."""
    places = np.floor((batch.positions - batch.positions.min(axis=0)) / cell).astype(np.uint64)
    places = np.minimum(places, (1 << 18) - 1)
    keys = (places[:, 0] << np.uint64(39)) | (places[:, 1] << np.uint64(21)) | (places[:, 2] << np.uint64(3))
    keys |= (batch.normals > 0).astype(np.uint64) @ np.array([1, 2, 4], np.uint64)
    if batch.uvs is not None:
        spots = np.floor(batch.uvs * 16).astype(np.int64)
        _, parts = np.unique(spots[:, 0] * 1_000_003 + spots[:, 1], return_inverse=True)
        _, ids = np.unique(keys, return_inverse=True)
        keys = (ids.astype(np.uint64) << np.uint64(32)) | parts.astype(np.uint64)
    _, first, ids = np.unique(keys, return_index=True, return_inverse=True)
    triangles = ids.astype(np.int64)[batch.triangles]
    a, b, c = triangles.T
    triangles = triangles[(a != b) & (b != c) & (c != a)]
    kept = np.arange(len(triangles))
    if len(first) < 1 << 21:
        order = np.sort(triangles, axis=1).astype(np.uint64)
        packed = (order[:, 0] << np.uint64(42)) | (order[:, 1] << np.uint64(21)) | order[:, 2]
        _, kept = np.unique(packed, return_index=True)
    if not len(kept):  # it fits in one cell: too small to be simplified
        return batch
    return replace(
        batch,
        positions=batch.positions[first],
        normals=batch.normals[first],
        colors=batch.colors[first],
        uvs=None if batch.uvs is None else batch.uvs[first],
        triangles=triangles[kept].astype(np.int32),
    )


def _cell(scene: Scene, triangles: int) -> float:
    """The size of the cells that leave about so many triangles: a surface has two in each cell that it crosses."""
    area = 0.0
    for batch in scene.batches:
        a, b, c = (batch.positions[batch.triangles[:, k]] for k in range(3))
        area += 0.5 * float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
    return max(1.2 * math.sqrt(2 * area / triangles), 1e-9)
