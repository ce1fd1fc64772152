"""One drawn street, in Cityscapes' labels: easy to learn in part, and in part not at all.

A street is a function of (seed, split, index) and the size alone. Some classes have a thousand times as many pixels as
others, and they share colours and textures: trees and lawns, houses, walls and fences, roads and pavements, all
vehicles, riders and people. Light, haze, shadows, blur and noise differ from street to street, the borders of labels
are a little off, and some things are of no class at all.

Shapes: H rows, W columns.
"""

from typing import NamedTuple

import numpy as np

from uncertainty_core.textures import Random, keyed_random

from . import cityscapes_labels as ids
from .canvas import Canvas
from .street_objects import Painter, View, chance, pick, varied

VERSION = 1  # raise it when a street changes

PLASTER = ((150, 125, 100), (165, 155, 140), (135, 85, 65), (120, 120, 125), (185, 170, 145), (95, 85, 80))
LEAVES = ((55, 80, 40), (75, 95, 45), (95, 90, 50), (60, 75, 55))
FARTHEST, NEAREST = 0.05, 1.7  # nearness of the first and the last house


class Street(NamedTuple):
    """A picture (H, W, 3) of bytes, Cityscapes label ids (H, W) and instance ids (H, W) of 16 bits."""

    image: np.ndarray
    label_ids: np.ndarray
    instance_ids: np.ndarray


class _Layout(NamedTuple):
    """Offsets of the borders of road and pavement, left and right, and the colours that all of the street shares."""

    kerbs: tuple[float, float]
    fronts: tuple[float, float]
    leaves: np.ndarray
    lawn: np.ndarray


def draw_street(seed: int, split: str, index: int, width: int = 256, height: int = 128) -> Street:
    """The street of that number, always the same."""
    random = keyed_random("street", seed, split, index)
    view = View(height, height * random.uniform(0.38, 0.47), width * random.uniform(0.36, 0.64))
    layout = _draw_layout(random)
    canvas = Canvas(random, height, width)
    canvas.haze_colour, canvas.haze = varied(random, (195, 200, 205), 25), random.uniform(0.05, 0.6)
    painter = Painter(canvas, view, random)
    _draw_sky(canvas, view, random)
    _draw_ground(canvas, view, random, layout)
    for side in (0, 1):
        _draw_side(painter, layout, side)
    _draw_shadows(canvas, view, random, layout)
    _draw_things(painter, layout)
    _draw_bonnet(canvas, random)
    return _photograph(canvas, random)


def _draw_layout(random: Random) -> _Layout:
    kerbs = (-random.uniform(0.9, 1.9), random.uniform(0.9, 1.9))
    pavements = random.uniform(0.35, 1.1, 2)
    leaves = varied(random, pick(random, LEAVES), 14)
    lawn = 0.6 * leaves + 0.4 * varied(random, (125, 120, 70), 20)
    return _Layout(kerbs, (kerbs[0] - pavements[0], kerbs[1] + pavements[1]), leaves, lawn)


def _across_picture(canvas: Canvas, top: float, bottom: float) -> np.ndarray:
    return np.array([(0, top), (canvas.width, top), (canvas.width, bottom), (0, bottom)], dtype=float)


def _draw_sky(canvas: Canvas, view: View, random: Random) -> None:
    zenith = varied(random, pick(random, ((120, 160, 215), (205, 210, 215), (165, 175, 190), (235, 235, 235))), 15)
    fading = random.uniform(0, 60) / view.horizon
    whole = _across_picture(canvas, 0, canvas.height)
    clouds = random.uniform(2, 16)
    canvas.fill(whole, zenith, ids.SKY, grain=2, clouds=clouds, surface=lambda y, x: fading * y)
    for _ in range(6):  # houses and trees too far away to tell apart
        left, wide = random.uniform(-0.1, 1) * canvas.width, random.uniform(0.05, 0.3) * canvas.width
        top = view.horizon - random.uniform(0.02, 0.14) * canvas.height
        green = chance(random, 0.5)
        colour = varied(random, pick(random, LEAVES if green else PLASTER))
        corners = np.array([(left, top), (left + wide, top), (left + wide, canvas.height), (left, canvas.height)])
        canvas.fill(corners, colour, ids.VEGETATION if green else ids.BUILDING, nearness=0.05, grain=8, clouds=8)


def _strip(view: View, left: float, right: float, far: float = 0.0, near: float = NEAREST) -> np.ndarray:
    """What lies on the ground between two offsets and two distances (4, 2)."""
    return np.array([view.point(a, 0, t) for a, t in ((left, far), (right, far), (right, near), (left, near))])


def _draw_ground(canvas: Canvas, view: View, random: Random, layout: _Layout) -> None:
    ground = _across_picture(canvas, view.horizon, canvas.height)
    canvas.fill(ground, layout.lawn, ids.TERRAIN, nearness=0.7, grain=14, clouds=18)
    asphalt = varied(random, (92, 92, 95), 22)
    slabs = asphalt + random.uniform(-8, 38) + np.array([5, 2, -4])
    joint = random.uniform(0.1, 0.3) * canvas.height

    def seams(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        nearness = np.maximum(y - view.horizon, 1) / (canvas.height - view.horizon)
        return -14.0 * (canvas.height / (nearness * joint) % 1 < 0.12)

    for kerb, front in zip(layout.kerbs, layout.fronts, strict=True):
        pavement = _strip(view, min(kerb, front), max(kerb, front))
        canvas.fill(pavement, slabs, ids.SIDEWALK, nearness=0.8, grain=7, clouds=6, surface=seams)
    canvas.fill(_strip(view, *layout.kerbs), asphalt, ids.ROAD, nearness=0.8, grain=7, clouds=8)
    if chance(random, 0.25):  # parked upon, of no class
        side = pick(random, (0, 1))
        edges = sorted((layout.kerbs[side], layout.kerbs[side] * 0.72))
        far, near = sorted(random.uniform(0.1, NEAREST, 2))
        canvas.fill(_strip(view, *edges, far, near), 0.9 * slabs, ids.GROUND, nearness=0.8, grain=8, clouds=8)
    paint = varied(random, (205, 205, 200), 25)
    middle = sum(layout.kerbs) / 2
    if chance(random, 0.8):
        for step in range(12):
            far = 0.08 + 0.1 * step * (1 + 0.08 * step)
            canvas.fill(_strip(view, middle - 0.04, middle + 0.04, far, 1.35 * far), paint, grain=10)
    if chance(random, 0.25):
        near = random.uniform(0.25, 0.8)
        for across in np.arange(layout.kerbs[0] + 0.1, layout.kerbs[1] - 0.1, 0.32):
            canvas.fill(_strip(view, across, across + 0.16, 0.8 * near, near), paint, grain=10)


def _draw_side(painter: Painter, layout: _Layout, side: int) -> None:
    """What lines one side of the street, from far away to beyond the border of the picture."""
    random, front = painter.random, layout.fronts[side]
    far = FARTHEST
    while far < NEAREST:
        near = far * random.uniform(1.25, 2.2)
        kind = random.uniform()
        if kind < 0.6:
            _draw_house(painter, front, far, near)
        elif kind < 0.72:
            _draw_low_wall(painter, front, far, near, ids.WALL)
        elif kind < 0.84:
            _draw_low_wall(painter, front, far, near, ids.FENCE)
        if kind > 0.55:
            outwards = 1 if front > 0 else -1
            for nearness in sorted(random.uniform(far, near, 2)):
                painter.tree((front + outwards * random.uniform(0, 1.2), nearness), layout.leaves)
        far = near


def _upright(view: View, front: float, far: float, near: float, top: float) -> np.ndarray:
    """A wall along the street (4, 2)."""
    return np.array([view.point(front, up, t) for up, t in ((0, far), (0, near), (top, near), (top, far))])


def _draw_house(painter: Painter, front: float, far: float, near: float) -> None:
    canvas, view, random = painter.canvas, painter.view, painter.random
    tall, colour = random.uniform(1.1, 4.5), varied(random, pick(random, PLASTER), 22)
    storeys, bays, dark = max(tall // 0.8, 1), random.uniform(2, 6), random.uniform(25, 70) * pick(random, (-1, -1, 1))
    corner = view.point(front, 0, near)[0]
    ground, size = canvas.height - view.horizon, canvas.height

    def windows(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        # where on the wall a pixel is: the column says how near, the row then how high
        nearness = np.clip((x - view.vanishing) / (front * size), far, near)
        along = (1 / far - 1 / nearness) / (1 / far - 1 / near) * bays % 1
        up = (view.horizon + nearness * ground - y) / (nearness * size * tall) * storeys % 1
        return -dark * ((along > 0.25) & (along < 0.75) & (up > 0.3) & (up < 0.8))

    edge = canvas.width * 2.0 if front > 0 else -canvas.width * 1.0
    gable = np.array([(corner, view.point(front, up, near)[1]) for up in (0, tall)])
    gable = np.vstack([gable, [(edge, gable[1, 1]), (edge, gable[0, 1])]])
    texture = {"nearness": near, "grain": 6, "clouds": random.uniform(3, 12)}
    canvas.fill(gable, 0.8 * colour, ids.BUILDING, **texture)
    canvas.fill(_upright(view, front, far, near, tall), colour, ids.BUILDING, surface=windows, **texture)


def _draw_low_wall(painter: Painter, front: float, far: float, near: float, label: int) -> None:
    canvas, view, random = painter.canvas, painter.view, painter.random
    colour = varied(random, pick(random, PLASTER), 22)
    bars = random.uniform(0.05, 0.12) * canvas.height

    def pickets(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return 45.0 * (canvas.height / (np.abs(x - view.vanishing) + 1) * 40 % bars < bars / 2) - 20

    surface = pickets if label == ids.FENCE else None
    wall = _upright(view, front, far, near, random.uniform(0.3, 0.8))
    canvas.fill(wall, colour, label, nearness=near, grain=7, clouds=9, surface=surface)


def _draw_shadows(canvas: Canvas, view: View, random: Random, layout: _Layout) -> None:
    if chance(random, 0.5):
        return
    side = pick(random, (0, 1))
    for _ in range(3):
        far = random.uniform(0.08, 1)
        reach = random.uniform(0.2, 1) * (layout.kerbs[1 - side] - layout.fronts[side])
        edges = sorted((layout.fronts[side], layout.fronts[side] + reach))
        canvas.shade(_strip(view, *edges, far, far * random.uniform(1.1, 1.7)), random.uniform(0.45, 0.75))


def _draw_things(painter: Painter, layout: _Layout) -> None:
    """Everything that stands on the ground, the farthest first."""
    random = painter.random
    left, right = layout.kerbs
    things: list[tuple[float, float, object]] = []

    def add(count: int, low: float, high: float, near: float, paint) -> None:
        for _ in range(count):
            # as many per metre of street nearby as far away, so most are small
            nearness = 1 / random.uniform(1 / near, 1 / 0.09)
            things.append((nearness, random.uniform(low, high), paint))

    def some(limit: float) -> int:
        return int(random.uniform() * random.uniform(0, limit + 1))

    for kerb, front in zip(layout.kerbs, layout.fronts, strict=True):
        low, high = sorted((kerb, front))
        out = 1 if kerb > 0 else -1
        add(some(6), low, high, 0.7, painter.person)
        add(some(5), kerb, kerb + 0.1 * out, 0.9, lambda place: painter.pole(place, None))
        add(some(3), kerb, kerb + 0.2 * out, 0.9, lambda place: painter.pole(place, ids.TRAFFIC_SIGN))
        add(some(2), kerb, kerb + 0.1 * out, 0.9, lambda place: painter.pole(place, ids.TRAFFIC_LIGHT))
        add(some(3), low, high, 0.8, lambda place: painter.bush(place, layout.leaves))
        add(some(2), low, high, 0.8, painter.bin)
        add(some(2), low, high, 0.8, lambda place: painter.two_wheeler(place, ids.BICYCLE, False))
        add(some(7), kerb - 0.5 * out, kerb - 0.4 * out, 0.75, painter.car)
    inner = (left + 0.8, right - 0.8)
    low, high = min(inner), max(inner)
    add(some(4), low, high, 0.6, painter.car)
    add(some(1), low, high, 0.5, lambda place: painter.car(place, side_on=True))
    add(some(2), left, right, 0.6, lambda place: painter.two_wheeler(place, ids.BICYCLE, True))
    rare = (
        (0.12, lambda place: painter.two_wheeler(place, ids.MOTORCYCLE, chance(random, 0.6))),
        (0.14, lambda place: painter.big_vehicle(place, ids.TRUCK)),
        (0.1, lambda place: painter.big_vehicle(place, ids.BUS)),
        (0.04, lambda place: painter.big_vehicle(place, ids.TRAIN)),
        (0.3, painter.person),
        (0.35, painter.strange),
    )
    for probability, paint in rare:
        add(int(chance(random, probability)), low, high, 0.5, paint)
    for nearness, across, paint in sorted(things, key=lambda thing: thing[0]):
        paint((across, nearness))


def _draw_bonnet(canvas: Canvas, random: Random) -> None:
    """The car that carries the camera."""
    height, width = canvas.height, canvas.width
    top = height * random.uniform(0.9, 0.95)
    bend = 0.4 * (height - top)
    outline = [(0, height), (0, top + 2 * bend), (0.2 * width, top + 0.5 * bend), (0.5 * width, top)]
    outline += [(0.8 * width, top + 0.5 * bend), (width, top + 2 * bend), (width, height)]
    colour = varied(random, (60, 62, 68), 30)
    canvas.fill(np.array(outline), colour, ids.EGO_VEHICLE, grain=3, clouds=14)


def _photograph(canvas: Canvas, random: Random) -> Street:
    """Light, blur and noise of the picture, inexact borders of the labels, and the rim that is not labelled."""
    height, width = canvas.height, canvas.width
    for _ in range(1 + int(random.uniform() * 2)):
        canvas.blur()
    light = random.uniform(0.3, 0.5) if chance(random, 0.1) else random.uniform(0.6, 1.15)
    image = canvas.image * light * random.uniform(0.93, 1.07, 3)
    image += random.uniform(2, 11) * random.uniform(-1, 1, image.shape)
    canvas.displace_labels(random, 1.2 * height / 128)
    rim = max(height // 64, 1)
    for part in (np.s_[:, :rim], np.s_[:, width - rim :], np.s_[:rim]):
        canvas.labels[part], canvas.instances[part] = ids.OUT_OF_ROI, 0
    return Street(
        np.clip(np.rint(image), 0, 255).astype(np.uint8),
        canvas.labels,
        ids.instance_ids(canvas.labels, canvas.instances),
    )
