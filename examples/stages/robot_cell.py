"""A robot cell: a six-axis arm takes parts from a conveyor and stacks them on a pallet."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from examples.stages.modelling import (
    Group,
    Material,
    Shot,
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

    from examples.stages.modelling import Key, Solid

ABOUT = "A robot cell. Built by examples/stages/robot_cell.py."

FLOOR = Material("Floor", (0.25, 0.27, 0.295), roughness=0.75)
LINES = Material("Lines", (0.80, 0.52, 0.03), roughness=0.7)
ORANGE = Material("Orange", (0.88, 0.20, 0.02), roughness=0.28)
GRAPHITE = Material("Graphite", (0.045, 0.05, 0.058), roughness=0.35)
STEEL = Material("Steel", (0.70, 0.72, 0.76), roughness=0.25, metallic=1.0)
WHITE = Material("White", (0.72, 0.74, 0.76), roughness=0.4)
BELT = Material("Belt", (0.045, 0.05, 0.055), roughness=0.8)
WOOD = Material("Wood", (0.42, 0.26, 0.12), roughness=0.8)
CARTON = Material("Carton", (0.50, 0.32, 0.16), roughness=0.85)
TAPE = Material("Tape", (0.02, 0.30, 0.42), roughness=0.3)
GLASS = Material("Glass", (0.55, 0.75, 0.80), roughness=0.05, opacity=0.16)
SCREEN = Material("Screen", (0.05, 0.8, 0.7), emission=(0.05, 0.55, 0.50))
GREEN = Material("Green", (0.1, 0.9, 0.3), emission=(0.08, 0.75, 0.22))
AMBER = Material("Amber", (0.9, 0.4, 0.02), roughness=0.3)

CYCLE = 180  # frames for one part
PARTS = 3  # placed in a loop, on top of as many that are already there
FRAMES = CYCLE * PARTS

SHOULDER = (0.16, 0.62)  # outwards, up
UPPER, LOWER, WRIST = 0.72, 0.78, 0.20  # lengths of the arm's members
SIZE = 0.24  # of a carton
PICK = (0.98, 0.0, 0.74)  # where the arm takes the top of a carton: yaw 0
PALLET = (-0.15, -1.02)
BELT_TOP = 0.50
ARRIVE, TAKE, LEAVE, PUT = 40, 58, 84, 128  # frames in a cycle


def build(path: Path) -> None:
    """Write the stage."""
    root = Group("RobotCell")
    _room(root)
    _conveyor(root)
    _pallet(root)
    _cabinet(root)
    _arm(root)
    write(path, root, Shot(eye=(2.75, -4.15, 2.35), target=(0.10, -0.20, 0.58), focal_length=36, frames=FRAMES), ABOUT)


def _room(root: Group) -> None:
    root.add("Floor", sheet(5.2, 4.4, 78, 66), FLOOR)
    root.add("Slab", box(5.2, 4.4, 0.06).at(z=-0.09), GRAPHITE)
    stripes = []
    for x, y, long_x, long_y in (
        (0, -1.85, 4.3, 0.06),
        (0, 1.85, 4.3, 0.06),
        (-2.15, 0, 0.06, 3.76),
        (2.15, 0, 0.06, 3.76),
    ):
        stripes.append(sheet(long_x, long_y, 24 if long_x > 1 else 1, 24 if long_y > 1 else 1).at(x, y, 0.003))
    root.add("Marking", joined(stripes), LINES, occluding=False)
    posts, bars, panes = [], [], []
    for k in range(5):
        x = -2.0 + k
        posts.append(joined([rod(0.028, 0, 1.35, 20), rod(0.07, 0, 0.02, 20)]).at(x, 1.75))
        if k < 4:
            bars += [
                tube(np.array([[x, 1.75, z], [x + 0.5, 1.75, z], [x + 1, 1.75, z]]), 0.014, 10) for z in (0.18, 1.3)
            ]
            panes.append(box(0.92, 0.008, 1.06).at(x + 0.5, 1.75, 0.21))
    root.add("FencePosts", joined(posts), AMBER)
    root.add("FenceBars", joined(bars), STEEL)
    root.add("FencePanes", joined(panes), GLASS, occluding=False)


def _conveyor(root: Group) -> None:
    x, length, width = PICK[0] + 0.10, 3.5, 0.46
    root.add("Belt", sheet(width, length, 6, 36).at(x, 0.15, BELT_TOP), BELT)
    rails = [
        box(0.045, length, 0.10, 1, 0.006).at(x + side * (width / 2 + 0.02), 0.15, BELT_TOP - 0.075) for side in (-1, 1)
    ]
    root.add("Rails", joined(rails), WHITE)
    legs = []
    for y in (-1.35, -0.15, 1.05):
        foot = joined([box(0.05, 0.05, BELT_TOP - 0.07), box(0.11, 0.11, 0.015)])
        legs += [foot.at(x + side * 0.22, y) for side in (-1, 1)]
        legs.append(box(0.44, 0.04, 0.04).at(x, y, 0.16))
    root.add("Legs", joined(legs), GRAPHITE)
    rollers = [
        rod(0.032, -0.225, 0.225, 16).turned("y", 90).at(x, -1.55 + 0.17 * k, BELT_TOP - 0.036) for k in range(21)
    ]
    root.add("Rollers", joined(rollers), STEEL)
    gate = [
        tube(np.array([[x + s * 0.30, 0.62, 0], [x + s * 0.30, 0.62, 0.5], [x + s * 0.30, 0.62, 1.0]]), 0.022, 12)
        for s in (-1, 1)
    ]
    root.add("Gate", joined([*gate, box(0.66, 0.07, 0.09, 1, 0.01).at(x, 0.62, 0.96)]), WHITE)
    root.add(
        "GateLamp", joined([ball(0.03, 20).at(x + 0.2, 0.585, 1.0), ball(0.03, 20).at(x - 0.2, 0.585, 1.0)]), GREEN
    )
    gap = 0.62
    for k in range(4):
        keys: list[Key] = []
        for cycle in range(PARTS):
            start = 0.0 if k == 0 else -k * gap
            begin, end = -start, -start - gap
            keys.append((cycle * CYCLE, (x, begin, BELT_TOP)))
            keys.append((cycle * CYCLE + CYCLE - ARRIVE if k else cycle * CYCLE + CYCLE - 1, (x, begin, BELT_TOP)))
            if k:
                keys.append((cycle * CYCLE + CYCLE - 1, (x, end, BELT_TOP)))
        shown = None
        if k == 0:
            shown = [(cycle * CYCLE + t, on) for cycle in range(PARTS) for t, on in ((0, True), (TAKE, False))]
        carton = root.group(f"Carton{k}", ("Translate", [(t, (PICK[0], y, z)) for t, (_, y, z) in keys]), visible=shown)
        _carton(carton)


def _carton(group: Group) -> None:
    group.add("Box", box(SIZE, SIZE, SIZE, 4, 0.006), CARTON)
    strip = joined([box(SIZE + 0.002, 0.05, SIZE + 0.002).at(z=-0.001)])
    group.add("Tape", strip, TAPE, occluding=False)
    group.add("Label", box(0.09, 0.0015, 0.06).at(0.045, -SIZE / 2 - 0.001, 0.13), WHITE, occluding=False)


def _pallet(root: Group) -> None:
    x, y = PALLET
    planks = [box(0.86, 0.11, 0.022, 6, 0.003).at(x, y - 0.30 + 0.15 * k, 0.11) for k in range(5)]
    blocks = [box(0.09, 0.66, 0.088).at(x + 0.36 * k, y, 0.02) for k in (-1, 0, 1)]
    root.add("Pallet", joined([*planks, *blocks]), WOOD)
    for k in range(2 * PARTS):
        px, py, pz = _slot(k)
        put = (k - PARTS) * CYCLE + PUT
        placed = root.group(
            f"Placed{k}", ("Translate", (px, py, pz - SIZE)), ("RotateZ", 3.0 * (k % 3 - 1)),
            visible=[(0, False), (put, True), (FRAMES - 1, True)] if put > 0 else None,
        )  # fmt: skip
        _carton(placed)


def _slot(k: int) -> tuple[float, float, float]:
    """Where the top of the k-th carton comes to lie."""
    x, y = PALLET
    return (x + (-0.27, 0.0, 0.27)[k % 3], y + 0.10 * (-1) ** (k // 3) * (k < 3), 0.132 + SIZE * (1 + k // 3))


def _cabinet(root: Group) -> None:
    body = box(0.62, 0.44, 1.18, 8, 0.02).at(-1.55, 1.28)
    root.add("Cabinet", joined([body, box(0.66, 0.48, 0.06, 1, 0.01).at(-1.55, 1.28)]), WHITE)
    root.add("CabinetDoor", joined([box(0.54, 0.012, 1.0).at(-1.55, 1.058, 0.10)]), GRAPHITE)
    root.add("Screen", box(0.34, 0.01, 0.22).at(-1.55, 1.05, 0.78), SCREEN, occluding=False)
    root.add("Stack", rod(0.025, 1.18, 1.28, 20).at(-1.35, 1.28), GRAPHITE)
    root.add("StackGreen", rod(0.032, 1.28, 1.36, 24).at(-1.35, 1.28), GREEN)
    root.add("StackAmber", rod(0.032, 1.362, 1.44, 24, 0.01).at(-1.35, 1.28), AMBER)


def _arm(root: Group) -> None:
    base = [
        (0.0, 0.0),
        (0.30, 0.0),
        (0.30, 0.03),
        (0.235, 0.045),
        (0.20, 0.10),
        (0.185, 0.20),
        (0.185, 0.24),
        (0.0, 0.24),
    ]
    root.add("ArmFoot", lathe(base, 64), GRAPHITE)
    bolts = [
        rod(0.016, 0.028, 0.05, 6).at(0.265 * np.cos(a), 0.265 * np.sin(a))
        for a in np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ]
    root.add("Bolts", joined(bolts), STEEL)
    yaw, shoulder, elbow, wrist = _motion()

    turret = root.group("Turret", ("RotateZ", yaw))
    column = lathe([(0.0, 0.243), (0.19, 0.243), (0.195, 0.30), (0.175, 0.42), (0.15, 0.46), (0.0, 0.46)], 56)
    block = box(0.26, 0.30, 0.34, 4, 0.03).at(SHOULDER[0] - 0.04, 0, 0.42)
    turret.add("Column", joined([column, block]), ORANGE)
    motor = rod(0.085, -0.24, 0.24, 40, 0.012).turned("x", 90).at(SHOULDER[0], 0, SHOULDER[1])
    turret.add("Motor", motor, GRAPHITE)

    upper = turret.group("UpperArm", ("Translate", (SHOULDER[0], 0.0, SHOULDER[1])), ("RotateY", shoulder))
    upper.add(
        "Casting", joined([_member(UPPER, 0.115, 0.085), rod(0.12, -0.15, 0.15, 40, 0.015).turned("x", 90)]), ORANGE
    )
    upper.add("Joint", rod(0.072, -0.19, 0.19, 36, 0.01).turned("x", 90).at(z=UPPER), GRAPHITE)
    lower = upper.group("Forearm", ("Translate", (0.0, 0.0, UPPER)), ("RotateY", elbow))
    lower.add(
        "Casting", joined([_member(LOWER, 0.09, 0.055), rod(0.10, -0.13, 0.13, 40, 0.012).turned("x", 90)]), ORANGE
    )
    cable = np.array(
        [[-0.11, 0.06, -0.02], [-0.15, 0.06, 0.12], [-0.14, 0.05, 0.30], [-0.10, 0.03, 0.50], [-0.075, 0.02, 0.66]]
    )
    lower.add("Cable", tube(_smooth(cable, 28), 0.017, 10), GRAPHITE)
    lower.add("Joint", rod(0.05, -0.10, 0.10, 32, 0.008).turned("x", 90).at(z=LOWER), GRAPHITE)
    hand = lower.group("Hand", ("Translate", (0.0, 0.0, LOWER)), ("RotateY", wrist))
    neck = lathe(
        [(0.0, -0.04), (0.05, -0.04), (0.058, 0.02), (0.042, 0.09), (0.06, 0.10), (0.06, 0.125), (0.0, 0.125)], 40
    )
    hand.add("Neck", neck, STEEL)
    hand.add("Gripper", box(0.19, 0.19, 0.03, 1, 0.006).at(z=0.125), GRAPHITE)
    cups = [
        lathe([(0.0, 0.15), (0.016, 0.155), (0.014, 0.175), (0.03, WRIST), (0.0, WRIST)], 24).at(a, b)
        for a in (-0.065, 0.065)
        for b in (-0.065, 0.065)
    ]
    hand.add("Cups", joined(cups), AMBER)
    hand.add("Collar", ring(0.06, 0.008, 40, 10).at(z=0.112), STEEL)
    shown = [(c * CYCLE + t, on) for c in range(PARTS) for t, on in ((0, False), (TAKE, True), (PUT, False))]
    # The hand points down when it holds a carton, so the carton hangs upside down from it.
    held = hand.group("Held", ("Translate", (0.0, 0.0, WRIST + SIZE)), ("RotateX", 180.0), visible=shown)
    _carton(held)


def _motion() -> tuple[list[Key], list[Key], list[Key], list[Key]]:
    """Keys of the four joints: over the part, down, up, across, down, up and back."""
    tracks: tuple[list[Key], list[Key], list[Key], list[Key]] = ([], [], [], [])
    rest = (0.86, 0.0, 1.12)
    for cycle in range(PARTS):
        slot = _slot(cycle + PARTS)
        stops = [(0, rest), (ARRIVE, (PICK[0], 0.0, PICK[2] + 0.22)), (TAKE - 4, PICK), (TAKE + 4, PICK),
                 (LEAVE, (0.80, 0.0, 1.22)), (108, (slot[0], slot[1], slot[2] + 0.40)), (PUT - 4, slot),
                 (PUT + 4, slot), (150, (slot[0], slot[1], slot[2] + 0.42)), (CYCLE, rest)]  # fmt: skip
        frames = range(0, CYCLE, 3)
        for frame in frames:
            for track, value in zip(tracks, _reach(_between(stops, frame)), strict=True):
                track.append((cycle * CYCLE + frame, value))
    for track in tracks:
        track.append((FRAMES, track[0][1]))
    return tracks


def _between(stops: list[tuple[int, tuple[float, float, float]]], frame: float) -> tuple[float, float, float]:
    """Eased, and around the base rather than through it: (radius, yaw, height)."""
    for (t0, a), (t1, b) in pairwise(stops):
        if frame <= t1:
            s = (frame - t0) / (t1 - t0)
            s = s * s * (3 - 2 * s)
            pa, pb = _polar(a), _polar(b)
            return (pa[0] + s * (pb[0] - pa[0]), pa[1] + s * (pb[1] - pa[1]), pa[2] + s * (pb[2] - pa[2]))
    return _polar(stops[-1][1])


def _polar(p: tuple[float, float, float]) -> tuple[float, float, float]:
    return (float(np.hypot(p[0], p[1])), float(np.degrees(np.arctan2(p[1], p[0]))), p[2])


def _reach(polar: tuple[float, float, float]) -> tuple[float, float, float, float]:
    """Yaw, shoulder, elbow and wrist (degrees, about Y) that bring the cups there, pointing down."""
    radius, yaw, height = polar
    x, z = radius - SHOULDER[0], height + WRIST - SHOULDER[1]
    distance = min(float(np.hypot(x, z)), UPPER + LOWER - 1e-3)
    at_shoulder = np.arccos((UPPER**2 + distance**2 - LOWER**2) / (2 * UPPER * distance))
    at_elbow = np.arccos((UPPER**2 + LOWER**2 - distance**2) / (2 * UPPER * LOWER))
    shoulder = float(np.degrees(np.arctan2(x, z) - at_shoulder))
    elbow = float(180.0 - np.degrees(at_elbow))
    return yaw, shoulder, elbow, 180.0 - shoulder - elbow


def _member(length: float, wide: float, narrow: float) -> Solid:
    """A cast arm member along Z."""
    heights = np.linspace(-0.02, length + 0.02, 14)
    swell = 1 - (heights / length) + 0.12 * np.sin(np.pi * np.clip(heights / length, 0, 1))
    widths = narrow + (wide - narrow) * np.clip(swell, 0, 1.1)
    profile = [
        (0.0, float(heights[0])),
        *((float(w), float(h)) for w, h in zip(widths, heights, strict=True)),
        (0.0, float(heights[-1])),
    ]
    return lathe(profile, 40).scaled(1.0, 0.85, 1.0)


def _smooth(points: np.ndarray, count: int) -> np.ndarray:
    """A curve through the points (Catmull-Rom)."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    found = []
    for t in np.linspace(0, len(points) - 1 - 1e-9, count):
        k, s = int(t), t - int(t)
        a, b, c, d = padded[k : k + 4]
        found.append(0.5 * (2 * b + (c - a) * s + (2 * a - 5 * b + 4 * c - d) * s**2 + (3 * b - a - 3 * c + d) * s**3))
    return np.array(found)
