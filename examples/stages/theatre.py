"""A small theatre: red curtains, a row of footlights, three moving spotlights and a mobile turning on stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from examples.stages.modelling import (
    Group,
    Material,
    Shot,
    Solid,
    ball,
    box,
    joined,
    lathe,
    ring,
    rod,
    sheet,
    tube,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path

    from examples.stages.modelling import Points

ABOUT = "A small theatre. Built by examples/stages/theatre.py."

VELVET = Material("Velvet", (0.62, 0.020, 0.030), roughness=0.8)
BACKDROP = Material("Backdrop", (0.030, 0.045, 0.12), roughness=0.9, painted=True)
GOLD = Material("Gold", (0.88, 0.60, 0.20), roughness=0.28, metallic=1.0)
PLANKS = Material("Planks", (0.30, 0.16, 0.07), roughness=0.45, painted=True)
APRON = Material("Apron", (0.16, 0.035, 0.028), roughness=0.4)
IRON = Material("Iron", (0.03, 0.03, 0.034), roughness=0.4)
BULB = Material("Bulb", (1.0, 0.85, 0.5), emission=(1.0, 0.83, 0.48))
STAR = Material("Star", (0.85, 0.9, 1.0), emission=(0.75, 0.8, 0.95))
CHROME = Material("Chrome", (0.85, 0.87, 0.9), roughness=0.12, metallic=1.0)
TEAL = Material("Teal", (0.01, 0.32, 0.34), roughness=0.2)
CORAL = Material("Coral", (0.85, 0.14, 0.09), roughness=0.25)
IVORY = Material("Ivory", (0.80, 0.72, 0.56), roughness=0.35)
MARIGOLD = Material("Marigold", (0.92, 0.45, 0.03), roughness=0.25)

FRAMES = 720
WIDTH, DEPTH, HEIGHT = 6.4, 3.6, 3.7
RIG = 3.35

LAMPS = [
    ("Warm", -1.9, (1.0, 0.72, 0.38), (-0.5, 0.55, 0.0)),
    ("Cool", 0.0, (0.55, 0.78, 1.0), (0.1, 0.75, 0.33)),
    ("Rose", 1.9, (1.0, 0.45, 0.55), (0.6, 0.55, 0.66)),
]  # name, x on the rig, light, (x of the pool, its swing, phase)


def build(path: Path) -> None:
    """Write the stage."""
    root = Group("Theatre")
    _house(root)
    _curtains(root)
    _footlights(root)
    _spotlights(root)
    _mobile(root)
    write(path, root, Shot(eye=(1.15, -9.3, 2.3), target=(0.0, -0.2, 1.45), focal_length=38, frames=FRAMES), ABOUT)


def _house(root: Group) -> None:
    planks, colors = [], []
    random = np.random.default_rng(11)
    for k in range(20):
        plank = sheet(WIDTH / 20, DEPTH + 0.2, 2, 30).at(-WIDTH / 2 + (k + 0.5) * WIDTH / 20, 0.02)
        planks.append(plank)
        colors.append(np.tile(np.array([0.30, 0.155, 0.065]) * random.uniform(0.66, 1.2), (len(plank.points), 1)))
    root.add("Planks", joined(planks), PLANKS, colors=np.concatenate(colors))
    root.add("Floor", box(WIDTH, DEPTH, 0.03).at(y=0.1, z=-0.06), IRON)
    root.add("Front", joined([box(WIDTH + 0.9, 0.30, 0.62, 12, 0.02).at(y=-1.88, z=-0.64)]), APRON)
    root.add(
        "FrontTrim",
        joined([tube(np.array([[-3.6, -2.04, z], [0, -2.04, z], [3.6, -2.04, z]]), 0.022, 12) for z in (-0.08, -0.52)]),
        GOLD,
    )
    rosettes = [
        joined([ring(0.10, 0.014, 24, 6), ball(0.045, 12).scaled(1, 1, 0.5)]).turned("x", 90).at(-3.0 + k, -2.04, -0.30)
        for k in range(7)
    ]
    root.add("Rosettes", joined(rosettes), GOLD)
    back = sheet(WIDTH + 2.4, HEIGHT + 0.4, 30, 16).turned("x", 90).at(y=1.9, z=HEIGHT / 2)
    fade = np.clip(back.points[:, 2:3] / HEIGHT, 0, 1)
    root.add(
        "Backdrop",
        back,
        BACKDROP,
        colors=(1 - fade) * np.array([0.34, 0.10, 0.22]) + fade * np.array([0.012, 0.028, 0.11]),
    )
    random = np.random.default_rng(5)
    stars = [
        ball(float(s), 6).at(float(x), 1.87, float(z))
        for x, z, s in zip(
            random.uniform(-2.8, 2.8, 60), random.uniform(1.3, 3.3, 60), random.uniform(0.006, 0.016, 60), strict=True
        )
    ]
    root.add("Stars", joined(stars), STAR, occluding=False)
    for side in (-1, 1):
        name = "Left" if side < 0 else "Right"
        shaft = [(0.0, -0.03), (0.30, -0.03), (0.30, 0.10), (0.24, 0.16), (0.20, 0.24)]
        shaft += [(0.20 - 0.02 * t, 0.24 + 2.75 * t) for t in np.linspace(0.1, 0.9, 6)]
        shaft += [(0.18, 3.02), (0.24, 3.08), (0.20, 3.14), (0.30, 3.24), (0.30, 3.36), (0.0, 3.36)]
        root.add(f"Column{name}", lathe(shaft, 40).at(side * 3.35, -1.72), IVORY)
        rings = [
            ring(r, 0.022, 36, 7).at(side * 3.35, -1.72, z) for r, z in ((0.245, 0.16), (0.20, 3.02), (0.25, 3.10))
        ]
        root.add(f"ColumnTrim{name}", joined(rings), GOLD)
    root.add("Lintel", box(7.5, 0.42, 0.40, 10, 0.03).at(0, -1.72, 3.36), IVORY)
    root.add(
        "LintelTrim",
        joined([tube(np.array([[-3.75, -1.95, z], [0, -1.95, z], [3.75, -1.95, z]]), 0.024, 12) for z in (3.41, 3.72)]),
        GOLD,
    )
    crest = joined([ring(0.30, 0.035, 48, 8), ring(0.22, 0.014, 48, 6), ball(0.13, 24).scaled(1, 1, 0.6)]).turned(
        "x", 90
    )
    root.add("Crest", crest.at(0, -1.98, 3.62), GOLD)


def _curtains(root: Group) -> None:
    for side in (-1, 1):
        name = "Left" if side < 0 else "Right"
        root.add(f"Curtain{name}", _drape(side), VELVET, two_sided=True)
        tie = ring(0.26, 0.030, 40, 8).scaled(1.0, 0.62, 1.2).at(side * 2.80, -1.32, 1.30)
        root.add(f"Tie{name}", joined([tie, ball(0.05, 20).at(side * 2.6, -1.5, 1.24)]), GOLD)

    def swag(u: Points, v: Points) -> Points:
        fold: Points = 0.075 * np.sin(u * 34) * (0.4 + 0.6 * np.clip(v + 0.5, 0, 1))
        return fold

    cloth = sheet(6.3, 1.0, 150, 5, swag)
    points = cloth.points.copy()
    x, drop = points[:, 0], points[:, 1] + 0.5
    hang = 0.50 + 0.22 * np.abs(np.sin(x * np.pi / 2.1)) ** 0.8
    root.add(
        "Valance",
        type(cloth)(np.column_stack([x, -1.42 - points[:, 2], 3.42 - drop * hang]), cloth.polygons).flipped(),
        VELVET,
        two_sided=True,
    )
    u = np.linspace(-3.15, 3.15, 150)
    hem = 3.42 - (0.50 + 0.22 * np.abs(np.sin(u * np.pi / 2.1)) ** 0.8)
    root.add("Fringe", tube(np.column_stack([u, -1.44 - 0.075 * np.sin(u * 34), hem]), 0.020, 8), GOLD)


def _drape(side: int) -> Solid:
    """A curtain, gathered at its tie."""
    cloth = sheet(1.0, 1.0, 80, 22)
    u, v = cloth.points[:, 0] + 0.5, cloth.points[:, 1] + 0.5
    z = 0.02 + v * 3.4
    gather = np.exp(-(((z - 1.30) / 0.62) ** 2)) * np.where(z < 1.3, 0.85, 1.0)
    outer, inner = 3.25, 2.05 + 0.10 * v
    x = outer - (outer - inner) * u * (1 - 0.62 * gather)
    folds = (0.085 - 0.045 * gather) * np.sin(u * 58 + 0.5 * np.sin(z * 2.0)) + 0.03 * np.sin(u * 23 + 1.3)
    points = np.column_stack([side * x, -1.30 - folds, z])
    solid = type(cloth)(points, cloth.polygons)
    return solid if side < 0 else solid.flipped()


def _footlights(root: Group) -> None:
    shells, bulbs, halos, fades = [], [], [], []
    for k in range(15):
        x = -2.66 + 0.38 * k
        shell = lathe([(0.055, 0.0), (0.10, 0.03), (0.115, 0.09), (0.105, 0.09), (0.09, 0.035), (0.045, 0.008)], 18)
        shells.append(shell.turned("x", -28).at(x, -1.83, 0.0))
        bulbs.append(ball(0.06, 12).at(x, -1.80, 0.10))
        halo, fade = _glow(0.52)
        halos.append(halo.scaled(0.9, 1.15, 1.0).at(x, -1.14, 0.012))
        fades.append(fade * 0.55)
    root.add("Shells", joined(shells), GOLD)
    root.add("Bulbs", joined(bulbs), BULB)
    warm = Material("Footglow", (1.0, 0.66, 0.30), emission=(1.0, 0.66, 0.3), opacity=0.5, faded=True)
    root.add("Glow", joined(halos), warm, opacities=np.concatenate(fades), occluding=False)


def _spotlights(root: Group) -> None:
    bar = [
        tube(np.array([[-2.7, y, RIG + z], [0, y, RIG + z], [2.7, y, RIG + z]]), 0.022, 10)
        for y, z in ((-0.55, 0.0), (-0.75, 0.0), (-0.65, 0.16))
    ]
    struts = [
        tube(np.array([[x, -0.55, RIG], [x + 0.15, -0.65, RIG + 0.16], [x + 0.3, -0.75, RIG]]), 0.010, 6)
        for x in np.arange(-2.6, 2.5, 0.3)
    ]
    root.add("Truss", joined([*bar, *struts]), IRON)
    for name, x, light, (pool, swing, phase) in LAMPS:
        times = np.linspace(0, FRAMES, 61)
        turn = 2 * np.pi * (times / FRAMES + phase)
        spots = np.column_stack(
            [pool + swing * 1.5 * np.sin(turn), 0.05 + 0.55 * np.cos(2 * turn), np.full(61, 0.016 + 0.006 * phase)]
        )
        source = np.array([x, -0.65, RIG - 0.10])
        aims = spots - source
        pitch = np.degrees(np.arctan2(aims[:, 1], -aims[:, 2]))
        roll = np.degrees(np.arctan2(-aims[:, 0], np.hypot(aims[:, 1], aims[:, 2])))
        lamp = root.group(
            f"Spot{name}",
            ("Translate", tuple(source.tolist())),
            ("RotateX", [(float(t), float(a)) for t, a in zip(times, pitch, strict=True)]),
            ("RotateY", [(float(t), float(-a)) for t, a in zip(times, -roll, strict=True)]),
        )
        can = lathe(
            [(0.0, 0.20), (0.09, 0.19), (0.12, 0.10), (0.125, -0.16), (0.115, -0.16), (0.10, -0.05), (0.0, -0.04)], 36
        )
        lamp.add("Can", can, IRON)
        lamp.add("Lens", rod(0.098, -0.12, -0.10, 32), Material(f"Lens{name}", light, emission=light))
        beam, fade = _beam(0.10, 0.62, 3.25)
        look = Material(f"Beam{name}", light, emission=light, opacity=0.2, faded=True)
        lamp.add("Beam", beam, look, opacities=fade, occluding=False)
        disc, edge = _glow(0.72)
        keys = [(float(t), (float(s[0]), float(s[1]), float(s[2]))) for t, s in zip(times, spots, strict=True)]
        root.group(f"Pool{name}", ("Translate", keys)).add("Disc", disc, look, opacities=edge * 0.8, occluding=False)


def _beam(near: float, far: float, length: float) -> tuple[Solid, Points]:
    """An open cone of light along -Z, fading out."""
    steps = np.linspace(0, 1, 4)
    cone = lathe([(far + (near - far) * float(s), -0.12 - length * float(1 - s)) for s in steps], 28)
    reach = np.clip((-cone.points[:, 2] - 0.12) / length, 0, 1)
    return cone, 0.34 * (1 - reach) ** 1.2


def _glow(radius: float) -> tuple[Solid, Points]:
    """A disc of light, brightest in the middle."""
    rings = np.linspace(1, 0, 4)
    disc = lathe([(radius * float(r), 0.0) for r in rings], 20)
    away = np.linalg.norm(disc.points[:, :2], axis=1) / radius
    return disc, np.clip(1 - away, 0, 1) ** 1.4


def _mobile(root: Group) -> None:
    root.add(
        "Plinth",
        lathe([(0.0, 0.0), (0.72, 0.0), (0.72, 0.05), (0.66, 0.09), (0.66, 0.13), (0.60, 0.17), (0.0, 0.17)], 72).at(
            y=0.35
        ),
        APRON,
    )
    root.add(
        "PlinthTrim",
        joined([ring(0.70, 0.016, 56, 6).at(0, 0.35, 0.055), ring(0.63, 0.014, 56, 6).at(0, 0.35, 0.15)]),
        GOLD,
    )
    top = root.group("Mobile", ("Translate", (0.0, 0.35, 0.17)), ("RotateZ", [(0, 0.0), (FRAMES, 360.0)]))
    top.add(
        "Spindle",
        joined(
            [
                rod(0.03, 0.0, 1.25, 24, 0.006),
                ball(0.055, 24).at(z=1.27),
                lathe([(0.16, 0.0), (0.12, 0.05), (0.05, 0.09), (0.03, 0.14)], 40),
            ]
        ),
        GOLD,
    )
    for k, (radius, tilt, turns, look) in enumerate(
        [(0.98, 20.0, 1, CHROME), (0.76, -48.0, -2, GOLD), (0.55, 72.0, 3, CHROME)]
    ):
        hoop = top.group(
            f"Hoop{k}",
            ("Translate", (0.0, 0.0, 1.27)),
            ("RotateZ", [(0, 40.0 * k), (FRAMES, 40.0 * k + 360.0 * turns)]),
            ("RotateX", tilt),
        )
        hoop.add("Ring", ring(radius, 0.020, 96, 8), look)
        for j in range(3):
            body = (ball(0.105 - 0.02 * k, 32), _gem(0.13 - 0.02 * k), _star(0.14 - 0.02 * k))[(j + k) % 3]
            a = 2 * np.pi * j / 3 + k
            bead = hoop.group(
                f"Bead{j}",
                ("Translate", (radius * float(np.cos(a)), radius * float(np.sin(a)), 0.0)),
                ("RotateZ", [(0, 0.0), (FRAMES, 360.0 * 4)]),
            )
            bead.add("Shape", body, (TEAL, CORAL, IVORY, MARIGOLD)[(j + 2 * k) % 4])
    heart = top.group(
        "Heart", ("Translate", (0.0, 0.0, 1.27)), ("RotateZ", [(0, 0.0), (FRAMES, -360.0 * 3)]), ("RotateX", 24.0)
    )
    heart.add("Gem", _gem(0.26), CORAL)
    heart.add(
        "Cage",
        joined(
            [
                ring(0.30, 0.011, 40, 6),
                ring(0.30, 0.011, 40, 6).turned("x", 90),
                ring(0.30, 0.011, 40, 6).turned("y", 90),
            ]
        ),
        GOLD,
    )


def _gem(radius: float) -> Solid:
    """A faceted stone."""
    return lathe(
        [
            (0.0, -radius * 1.1),
            (radius * 0.55, -radius * 0.62),
            (radius, 0.0),
            (radius * 0.62, radius * 0.45),
            (0.0, radius * 0.55),
        ],
        8,
    )


def _star(radius: float) -> Solid:
    """A five-pointed star, thick in the middle."""
    rim = [(radius * (1.0 if k % 2 == 0 else 0.45), np.pi * k / 5) for k in range(10)]
    points = np.array(
        [[r * np.cos(a), 0.0, r * np.sin(a)] for r, a in rim] + [[0, -radius * 0.28, 0], [0, radius * 0.28, 0]]
    )
    polygons = [(10, k, (k + 1) % 10) for k in range(10)] + [(11, (k + 1) % 10, k) for k in range(10)]
    return Solid(points, polygons)
