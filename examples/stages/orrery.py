"""A brass orrery on a walnut table: six planets, their moons, and the gears that drive them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from examples.stages.modelling import (
    Group,
    Material,
    Shot,
    annulus,
    ball,
    gear,
    joined,
    lathe,
    ring,
    rod,
    tube,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

    from examples.stages.modelling import Points, Solid

ABOUT = "A brass orrery. Built by examples/stages/orrery.py."

BRASS = Material("Brass", (0.83, 0.56, 0.20), roughness=0.22, metallic=1.0)
COPPER = Material("Copper", (0.86, 0.42, 0.26), roughness=0.30, metallic=1.0)
STEEL = Material("Steel", (0.62, 0.65, 0.70), roughness=0.25, metallic=1.0)
WALNUT = Material("Walnut", (0.20, 0.085, 0.038), roughness=0.34)
FELT = Material("Felt", (0.022, 0.085, 0.095), roughness=0.95)
SUN = Material("Sun", (1.0, 0.70, 0.25), emission=(1.0, 0.72, 0.30))
PLANET = Material("Planet", (0.5, 0.5, 0.5), roughness=0.32, painted=True)
RINGS = Material("Rings", (0.60, 0.47, 0.30), roughness=0.6, painted=True)

FRAMES = 1800

# name, arm length, radius, height of its arm, turns a loop, colours from pole to pole (linear)
PLANETS = [
    ("Mercury", 0.27, 0.030, 0.46, 13, [(0.34, 0.27, 0.22), (0.22, 0.18, 0.15), (0.36, 0.30, 0.25)]),
    ("Venus", 0.40, 0.046, 0.42, 8, [(0.80, 0.55, 0.25), (0.85, 0.66, 0.36), (0.72, 0.46, 0.20)]),
    ("Earth", 0.555, 0.052, 0.38, 5, [(0.80, 0.85, 0.9), (0.03, 0.16, 0.42), (0.04, 0.22, 0.40), (0.05, 0.20, 0.10),
                                      (0.8, 0.85, 0.9)]),
    ("Mars", 0.70, 0.040, 0.34, 3, [(0.75, 0.55, 0.45), (0.48, 0.13, 0.05), (0.40, 0.10, 0.04), (0.50, 0.16, 0.07)]),
    ("Jupiter", 0.92, 0.098, 0.30, 2, [(0.42, 0.28, 0.17), (0.74, 0.60, 0.44), (0.50, 0.26, 0.13), (0.80, 0.68, 0.52),
                                       (0.58, 0.34, 0.18), (0.76, 0.62, 0.46), (0.40, 0.27, 0.18)]),
    ("Saturn", 1.20, 0.082, 0.26, 1, [(0.52, 0.40, 0.22), (0.72, 0.58, 0.34), (0.62, 0.47, 0.25), (0.76, 0.62, 0.38)]),
]  # fmt: skip


def build(path: Path) -> None:
    """Write the stage."""
    root = Group("Orrery")
    _table(root)
    _sun(root)
    for index, (name, arm, radius, height, turns, colors) in enumerate(PLANETS):
        start = (150.0, 20.0, 292.0, 245.0, 52.0, 205.0)[index]
        spin = root.group(name, ("RotateZ", [(0, start), (FRAMES, start + 360.0 * turns)]))
        _arm(spin, index, arm, height, radius)
        _planet(spin, name, arm, height, radius, colors)
    _gear_train(root)
    write(path, root, Shot(eye=(0.95, -2.32, 1.12), target=(-0.02, 0.0, 0.34), focal_length=31, frames=FRAMES), ABOUT)


def _table(root: Group) -> None:
    top = [(0.0, -0.085), (1.30, -0.085), (1.36, -0.07), (1.385, -0.045), (1.37, -0.02), (1.345, -0.012), (1.33, 0.0)]
    top += [(float(r), 0.0) for r in np.linspace(1.32, 1.16, 6)]
    root.add("Table", lathe([*top, (1.155, 0.006)], 112), WALNUT)
    felt = [(float(r), 0.006) for r in (*np.linspace(1.155, 0.62, 7), *np.linspace(0.58, 0.28, 10))]
    root.add("Felt", lathe([*felt, (0.0, 0.006)], 96), FELT)
    orbits = [ring(arm, 0.0042, 96, 4, 0.5).at(z=0.007) for _, arm, *_ in PLANETS[1:5]]
    root.add("Orbits", joined(orbits), BRASS, occluding=False)
    root.add(
        "Inlay", joined([ring(1.158, 0.010, 128, 6, 0.7).at(z=0.006), ring(1.335, 0.006, 128, 4).at(z=-0.002)]), BRASS
    )
    ticks = []
    for k in range(72):
        length = 0.055 if k % 6 == 0 else 0.026
        radii = np.linspace(1.175, 1.175 + length, 3)
        path = np.column_stack([radii, np.zeros(3), np.full(3, 0.001)])
        ticks.append(tube(path, 0.0035 if k % 6 == 0 else 0.002, 6).turned("z", 5.0 * k))
    root.add("Scale", joined(ticks), BRASS)
    foot = [(0.30, 0.006), (0.30, 0.022), (0.285, 0.032), (0.20, 0.040), (0.125, 0.058), (0.085, 0.085), (0.062, 0.125),
            (0.056, 0.17), (0.062, 0.20), (0.050, 0.205), (0.030, 0.21), (0.030, 0.235)]  # fmt: skip
    root.add("Foot", lathe(foot, 96), BRASS)
    shaft = joined([rod(0.030 - 0.0032 * k, 0.235 + 0.04 * k, 0.285 + 0.04 * k, 48, 0.002) for k in range(6)])
    root.add("Shaft", joined([shaft, rod(0.010, 0.40, 0.56, 32)]), STEEL)


def _sun(root: Group) -> None:
    root.add("Sun", ball(0.115, 48).at(z=0.62), SUN)
    rays = []
    for k in range(24):
        reach = np.linspace(0.117, 0.205 if k % 2 == 0 else 0.165, 5)
        wave = 0.006 * np.sin((reach - 0.117) * 90) * (k % 2 == 0)
        path = np.column_stack([reach, np.zeros(5), wave])
        rays.append(tube(path, np.linspace(0.0075, 0.0012, 5), 8).turned("z", 15.0 * k))
    crown = joined([ring(0.1165, 0.006, 72, 10), *rays]).turned("x", 74.0).turned("z", 22.0)
    root.add("Crown", crown.at(z=0.62), BRASS, occluding=False)
    root.add("SunCup", lathe([(0.010, 0.49), (0.03, 0.50), (0.055, 0.512), (0.058, 0.52), (0.05, 0.522)], 48), BRASS)


def _arm(group: Group, index: int, arm: float, height: float, radius: float) -> None:
    collar = 0.052 - 0.0045 * index if index < 4 else 0.036
    hub = joined([rod(collar, height - 0.014, height + 0.014, 32), ring(collar, 0.005, 32, 8).at(z=height)])
    reach = np.linspace(0.02, arm, 8)
    beam = tube(np.column_stack([reach, np.zeros(8), np.full(8, height)]), 0.0075, 10)
    tail = tube(np.column_stack([-np.linspace(0.02, 0.16, 6), np.zeros(6), np.full(6, height)]), 0.0075, 12)
    weight = ball(0.026, 18).scaled(0.8, 1, 1).at(x=-0.17, z=height)
    post = rod(0.006, height, height + 0.11 - radius * 0.2, 16).at(x=arm)
    knob = ball(0.014, 12).at(x=arm, z=height)
    group.add("Arm", joined([hub, beam, tail, weight, post, knob]), BRASS if index % 2 == 0 else COPPER)


def _planet(
    group: Group, name: str, arm: float, height: float, radius: float, colors: list[tuple[float, float, float]]
) -> None:
    center = height + 0.11 + radius * 0.8
    place = group.group(
        f"{name}Ball",
        ("Translate", (arm, 0.0, center)),
        ("RotateX", 18.0),
        ("RotateZ", [(0, 0.0), (FRAMES, 360.0 * 24)]),
    )
    sphere = ball(radius, 44 if radius > 0.06 else 32)
    place.add(
        "Globe", sphere, PLANET, colors=_bands(sphere, radius, colors, rough=name in ("Earth", "Mars", "Mercury"))
    )
    if name == "Saturn":
        disc = lathe([(float(r), 0.0) for r in np.linspace(radius * 2.35, radius * 1.35, 10)], 80)
        place.add("Rings", disc, RINGS, colors=_ring_colors(disc, radius), two_sided=True)
    if name in ("Earth", "Jupiter"):
        for k, (distance, size, turns) in enumerate(
            [(0.095, 0.014, 30)] if name == "Earth" else [(0.15, 0.014, 20), (0.185, 0.018, 12)]
        ):
            moon = group.group(
                f"{name}Moon{k}",
                ("Translate", (arm, 0.0, center)),
                ("RotateZ", [(0, 70.0 * k), (FRAMES, 70.0 * k + 360.0 * turns)]),
            )
            moon.add(
                "Stick",
                tube(np.column_stack([np.linspace(0.0, distance, 6), np.zeros(6), np.zeros(6)]), 0.0028, 8),
                STEEL,
            )
            body = ball(size, 20).at(x=distance)
            moon.add("Globe", body, PLANET, colors=np.tile((0.48, 0.47, 0.45), (len(body.points), 1)))


def _gear_train(root: Group) -> None:
    module = 0.0062
    for k, (teeth, height, turns) in enumerate([(64, 0.085, 2), (52, 0.118, -3), (40, 0.150, 5)]):
        wheel = root.group(f"Wheel{k}", ("RotateZ", [(0, 0.0), (FRAMES, 360.0 * turns)]))
        wheel.add("Gear", _spoked(teeth, module, height), BRASS if k % 2 == 0 else COPPER)
    for k, (teeth, pair, height, angle) in enumerate(
        [(20, 64, 0.085, 320.0), (26, 52, 0.118, 250.0), (24, 40, 0.150, 205.0)]
    ):
        distance = (teeth + pair) * module / 2
        geared = -[2, -3, 5][k] * pair / teeth
        x, y = distance * float(np.cos(np.radians(angle))), distance * float(np.sin(np.radians(angle)))
        rate = float(np.rint(geared * teeth)) / teeth  # a whole number of teeth a loop closes it
        pinion = root.group(
            f"Pinion{k}", ("Translate", (x, y, 0.0)), ("RotateZ", [(0, 3.0), (FRAMES, 3.0 + 360.0 * rate)])
        )
        pinion.add("Gear", gear(teeth, module, height - 0.008, height + 0.008, 0.012), STEEL)
        pinion.add(
            "Axle", joined([rod(0.010, 0.02, height + 0.03, 24, 0.002), ball(0.014, 20).at(z=height + 0.03)]), BRASS
        )


def _spoked(teeth: int, module: float, height: float) -> Solid:
    pitch = teeth * module / 2
    low, high = height - 0.006, height + 0.006
    rim = gear(teeth, module, low, high, pitch * 0.78)
    hub = annulus(0.05, 0.075, low - 0.004, high + 0.004, 48)
    spokes = []
    for k in range(5):
        path = np.column_stack([np.linspace(0.06, pitch * 0.82, 4), np.zeros(4), np.full(4, height)])
        spokes.append(tube(path, 0.0055, 8).turned("z", 72.0 * k))
    return joined([rim, hub, *spokes])


def _bands(sphere: Solid, radius: float, colors: list[tuple[float, float, float]], *, rough: bool) -> Points:
    """Colours by latitude; rough planets get continents out of a few waves."""
    p = sphere.points / radius
    latitude = np.clip((1 - p[:, 2]) / 2, 0, 1)
    if rough:
        waves = (
            np.sin(3.1 * p[:, 0] + 2.0 * p[:, 1])
            + np.sin(4.3 * p[:, 1] - 2.6 * p[:, 2])
            + np.sin(5.2 * p[:, 2] + 3 * p[:, 0])
        )
        latitude = np.clip(latitude + 0.10 * waves * (1 - np.abs(p[:, 2])), 0, 1)
    else:
        latitude = np.clip(latitude + 0.012 * np.sin(9 * np.arctan2(p[:, 1], p[:, 0])) * (1 - np.abs(p[:, 2])), 0, 1)
    table = np.array(colors)
    stops = np.linspace(0, 1, len(table))
    return np.stack([np.interp(latitude, stops, table[:, c]) for c in range(3)], axis=1)


def _ring_colors(disc: Solid, radius: float) -> Points:
    r = np.linalg.norm(disc.points[:, :2], axis=1) / radius
    bright = 0.55 + 0.30 * np.sin(r * 17) + 0.15 * np.sin(r * 41)
    bright = np.where(np.abs(r - 1.98) < 0.05, 0.12, bright)
    colors: Points = np.clip(bright, 0.08, 1)[:, None] * np.array([0.80, 0.64, 0.42])
    return colors
