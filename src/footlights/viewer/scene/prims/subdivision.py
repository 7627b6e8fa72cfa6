"""Subdivision surfaces: the cage's faces become four-sided ones, and its points move to where the surface is.

The rules are Catmull's and Clark's. Boundaries and creases stay sharp for as many rounds as their sharpness says, the
points of one face and corners stay where they are. `loop` surfaces are divided in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from footlights.viewer.scene.prims.primvars import array_of

if TYPE_CHECKING:
    from footlights.viewer.scene.prims.geometry import Index

MOST_FACES: Final = 24_000
"""Four-sided faces of one mesh after subdivision: it is divided twice, once or not at all within that."""
_ROUNDS: Final = 2


@dataclass(frozen=True, slots=True)
class Cage:
    """A polygon mesh with its sharp places."""

    points: np.ndarray  # (n, 3)
    counts: np.ndarray
    indices: np.ndarray
    edges: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))  # that are creases
    sharpness: np.ndarray = field(default_factory=lambda: np.zeros(0))  # of each
    fixed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # points that stay

    @property
    def starts(self) -> Index:
        """The first corner of each face."""
        starts: Index = np.cumsum(self.counts) - self.counts
        return starts

    @property
    def owners(self) -> Index:
        """The face of each corner."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def following(self) -> Index:
        """The next corner of the same face."""
        after = np.arange(len(self.indices)) + 1
        after[self.starts + self.counts - 1] = self.starts
        return after


@dataclass(slots=True)
class Subdivision:
    """A cage that has been divided, with what is needed to divide the values of its corners too."""

    cage: Cage
    faces: Index  # of each face of the cage, the authored one
    rounds: list[Cage] = field(default_factory=list)  # the cages before it, the authored one first

    def corners(self, values: np.ndarray) -> np.ndarray:
        """Values of the authored corners, (corners, width), as values of the new ones."""
        for cage in self.rounds:
            middles = np.add.reduceat(values, cage.starts, axis=0) / cage.counts[:, None]
            halves = (values + values[cage.following]) / 2
            before = np.empty_like(halves)
            before[cage.following] = halves
            values = np.stack([values, halves, middles[cage.owners], before], axis=1).reshape(-1, values.shape[1])
        return values


def subdivided(mesh: Any, time: Any, points: np.ndarray, counts: np.ndarray, indices: np.ndarray) -> Subdivision | None:
    """Divide a UsdGeomMesh; None where it is none that is to be divided, or has too many faces.

    Only a scheme that is authored counts: many files leave out that their polygons are meant as such, and are shown as
    polygons everywhere.
    """
    scheme = mesh.GetSubdivisionSchemeAttr()
    if not scheme.HasAuthoredValue() or str(scheme.Get()) not in ("catmullClark", "loop"):
        return None
    rounds = next((k for k in range(_ROUNDS, 0, -1) if len(indices) * 4 ** (k - 1) <= MOST_FACES), 0)
    if not rounds or counts.min() < 3:
        return None
    edges, sharpness = _creases(mesh, time, len(points))
    fixed = array_of(mesh.GetCornerIndicesAttr().Get(time), np.int64)
    fixed = fixed[(fixed >= 0) & (fixed < len(points))]
    cage = Cage(points.astype(np.float64), counts.astype(np.int64), indices.astype(np.int64), edges, sharpness, fixed)
    result = Subdivision(cage, np.arange(len(counts)))
    for _ in range(rounds):
        result.rounds.append(result.cage)
        result.faces = result.faces[result.cage.owners]
        result.cage = _divided(result.cage)
    return result


def _creases(mesh: Any, time: Any, points: int) -> tuple[np.ndarray, np.ndarray]:
    """The edges of a mesh that are sharp, and how sharp."""
    indices = array_of(mesh.GetCreaseIndicesAttr().Get(time), np.int64)
    lengths = array_of(mesh.GetCreaseLengthsAttr().Get(time), np.int64)
    values = array_of(mesh.GetCreaseSharpnessesAttr().Get(time), np.float64)
    nothing = np.zeros((0, 2), np.int64), np.zeros(0)
    if not len(lengths) or lengths.min() < 2 or int(lengths.sum()) != len(indices) or not len(values):
        return nothing
    if indices.min() < 0 or indices.max() >= points:
        return nothing
    inside = np.ones(len(indices) - 1, bool)
    inside[np.cumsum(lengths)[:-1] - 1] = False
    edges = np.stack([indices[:-1], indices[1:]], axis=1)[inside]
    if len(values) == len(edges):
        return edges, values
    if len(values) == len(lengths):
        return edges, np.repeat(values, lengths - 1)
    return edges, np.full(len(edges), float(values[0]))


def _divided(cage: Cage) -> Cage:
    points, counts, indices = cage.points, cage.counts, cage.indices
    n, owners, following = len(points), cage.owners, cage.following
    pairs = np.sort(np.stack([indices, indices[following]], axis=1), axis=1)
    edges, edge_of = np.unique(pairs[:, 0] * n + pairs[:, 1], return_inverse=True)
    edge_of = edge_of.reshape(-1)
    ends = np.stack([edges // n, edges % n], axis=1)
    uses = np.bincount(edge_of, minlength=len(edges))
    left = _looked_up(cage, edges, n)
    sharp = (uses != 2) | (left > 0)

    middles = np.add.reduceat(points[indices], cage.starts, axis=0) / counts[:, None]
    halves = points[ends].mean(axis=1)
    around = _summed(edge_of, middles[owners], len(edges))
    new_edges = np.where(sharp[:, None], halves, (points[ends].sum(axis=1) + around) / 4)

    valence = np.maximum(np.bincount(indices, minlength=n), 1)[:, None]
    faces_mean = _summed(indices, middles[owners], n) / valence
    touching = np.maximum(np.bincount(ends.reshape(-1), minlength=n), 1)[:, None]
    edges_mean = _summed(ends.reshape(-1), np.repeat(halves, 2, axis=0), n) / touching
    smooth = (faces_mean + 2 * edges_mean + (valence - 3) * points) / valence
    sharp_ends = ends[sharp]
    sharp_count = np.bincount(sharp_ends.reshape(-1), minlength=n)
    across = _summed(sharp_ends[:, ::-1].reshape(-1), points[sharp_ends.reshape(-1)], n)
    curve = 0.75 * points + across / 8
    new_points = np.where((sharp_count == 2)[:, None], curve, smooth)
    stays = (sharp_count > 2) | (np.bincount(indices, minlength=n) <= 1)
    stays[cage.fixed] = True
    new_points[stays] = points[stays]

    before = np.empty_like(edge_of)
    before[following] = edge_of
    quads = np.stack([indices, n + edge_of, n + len(edges) + owners, n + before], axis=1)
    kept = np.nonzero(left > 1)[0]
    creases = np.concatenate([np.stack([ends[kept, k], n + kept], axis=1) for k in range(2)])
    return Cage(
        np.concatenate([new_points, new_edges, middles]),
        np.full(len(quads), 4, np.int64),
        quads.reshape(-1),
        creases,
        np.tile(left[kept] - 1, 2),
        cage.fixed,
    )


def _looked_up(cage: Cage, edges: np.ndarray, points: int) -> np.ndarray:
    """The sharpness of each edge."""
    result = np.zeros(len(edges))
    low, high = np.sort(cage.edges, axis=1).T if len(cage.edges) else (np.zeros(0, np.int64),) * 2
    keys = low * points + high
    places = np.searchsorted(edges, keys)
    found = (places < len(edges)) & (edges[np.minimum(places, len(edges) - 1)] == keys)
    result[places[found]] = cage.sharpness[found]
    return result


def _summed(where: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    return np.stack([np.bincount(where, values[:, k], count) for k in range(values.shape[1])], axis=1)
