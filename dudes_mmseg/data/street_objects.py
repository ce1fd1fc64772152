"""Things that stand in a drawn street, each painted at a place in the scene.

A place is (across, nearness): the offset from the middle of the road in heights of the picture, as seen at its bottom
edge, and how near it is, 0 at the horizon and 1 at the bottom edge. Sizes are in the same unit: the eye is about 0.57
high.
"""

from typing import NamedTuple

import numpy as np

from . import cityscapes_labels as ids
from .canvas import Canvas, Random

# corners of a regular 12-gon, from a table since a sine may differ in its last bit between machines
_HALF, _ROOT = 0.5, 0.8660254037844386
ROUND = np.array(
    [
        *((1, 0), (_ROOT, _HALF), (_HALF, _ROOT), (0, 1), (-_HALF, _ROOT), (-_ROOT, _HALF)),
        *((-1, 0), (-_ROOT, -_HALF), (-_HALF, -_ROOT), (0, -1), (_HALF, -_ROOT), (_ROOT, -_HALF)),
    ]
)
CLOTHES = ((40, 45, 60), (110, 60, 50), (60, 75, 110), (150, 140, 130), (90, 95, 90), (35, 35, 35), (170, 60, 60))
PAINTS = ((150, 30, 30), (60, 70, 100), (190, 190, 190), (40, 42, 45), (220, 220, 215), (100, 105, 110), (40, 70, 60))
METAL = (105, 105, 105)
GLASS = (55, 65, 75)
TYRE = (28, 28, 30)


def pick(random: Random, options):
    """One of several, each as likely."""
    return options[int(random.uniform() * len(options))]


def chance(random: Random, probability: float) -> bool:
    """True with that probability."""
    return random.uniform() < probability


def varied(random: Random, colour, spread: float = 18) -> np.ndarray:
    """A colour like that one: brighter or darker, and a little of another hue."""
    return np.clip(np.array(colour, dtype=float) + random.uniform(-spread, spread) + random.uniform(-6, 6, 3), 8, 250)


class View(NamedTuple):
    """How the scene falls onto a picture of `height` rows: rows of the horizon, column of the vanishing point."""

    height: float
    horizon: float
    vanishing: float

    def point(self, across: float, up: float, nearness: float) -> tuple[float, float]:
        """The pixel (x, y) of a point `up` above the ground."""
        ground = self.horizon + nearness * (self.height - self.horizon)
        return self.vanishing + across * nearness * self.height, ground - up * nearness * self.height

    def polygon(self, corners: np.ndarray, across: float, nearness: float) -> np.ndarray:
        """Upright corners (P, 2) of (offset, up) at a place, as pixels (P, 2)."""
        x, y = self.point(across, 0.0, nearness)
        size = nearness * self.height
        return np.stack([x + corners[:, 0] * size, y - corners[:, 1] * size], axis=1)


def rectangle(left: float, right: float, low: float, high: float, taper: float = 0.0) -> np.ndarray:
    """Upright corners (4, 2), the top narrower by `taper` on each side."""
    return np.array([(left, low), (right, low), (right - taper, high), (left + taper, high)])


def ellipse(x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
    """Upright corners (12, 2)."""
    return ROUND * np.array([half_width, half_height]) + np.array([x, y])


class Painter:
    """Paints things into a canvas, counting those that Cityscapes counts."""

    def __init__(self, canvas: Canvas, view: View, random: Random) -> None:
        self.canvas, self.view, self.random = canvas, view, random
        self._count = 0

    def _paint(self, corners: np.ndarray, place: tuple[float, float], colour, label: int, counted=True, **texture):
        across, nearness = place
        self.canvas.fill(
            self.view.polygon(corners, across, nearness),
            colour,
            label,
            instance=self._count if counted else 0,
            nearness=nearness,
            **texture,
        )

    def _shadow(self, width: float, place: tuple[float, float]) -> None:
        across, nearness = place
        self.canvas.shade(self.view.polygon(ellipse(0, 0, 0.6 * width, 0.05), across, nearness), 0.55)

    def _thin(self, width: float, nearness: float) -> float:
        """`width`, or what 1.2 pixels are there."""
        return max(width, 1.2 / (nearness * self.view.height))

    def person(self, place: tuple[float, float], label: int = ids.PERSON, up: float = 0.0) -> None:
        """Somebody who stands, or sits at a height."""
        random = self.random
        self._count += 1
        tall = random.uniform(0.58, 0.74)
        coat, legs = (varied(random, pick(random, CLOTHES)) for _ in range(2))
        lean, stride = random.uniform(-0.04, 0.04), random.uniform(0.02, 0.07)
        if up == 0:
            self._shadow(0.25, place)
            for side in (-1, 1):
                foot = side * stride
                leg = np.array([(foot - 0.03, 0), (foot + 0.03, 0), (0.06, 0.5 * tall), (-0.06, 0.5 * tall)])
                self._paint(leg, place, legs, label)
        trunk = rectangle(lean - 0.09, lean + 0.09, up + (0.42 * tall if up == 0 else 0), up + 0.84 * tall, 0.02)
        self._paint(trunk, place, coat, label, clouds=6)
        skin = varied(random, (190, 150, 125), 35)
        self._paint(ellipse(lean, up + 0.91 * tall, 0.05, 0.065), place, skin, label)

    def two_wheeler(self, place: tuple[float, float], label: int, ridden: bool) -> None:
        """A bicycle or a motorcycle seen from the side or nearly from behind, with its rider or without."""
        random = self.random
        self._count += 1
        long = random.uniform(0.12, 0.36)
        colour = varied(random, pick(random, PAINTS), 25)
        self._shadow(long, place)
        radius = 0.13 if label == ids.BICYCLE else 0.11
        for side in (-1, 1):
            wheel = ellipse(side * long / 2, radius, radius * min(1, 0.3 + 2 * long), radius)
            self._paint(wheel, place, varied(random, TYRE, 12), label)
        thick = 0.06 if label == ids.BICYCLE else 0.17
        frame = rectangle(-long / 2, long / 2, 0.16, 0.16 + thick, 0.05)
        self._paint(frame, place, colour, label)
        self._paint(rectangle(-0.04, 0.04, 0.14, 0.4), place, colour, label)
        if ridden:
            self.person(place, ids.RIDER, up=0.22)

    def car(self, place: tuple[float, float], side_on: bool = False) -> None:
        """A car from behind, from the front or from the side."""
        random = self.random
        self._count += 1
        wide, tall = (1.5, 0.55) if side_on else (random.uniform(0.66, 0.78), random.uniform(0.52, 0.68))
        half, paint = wide / 2, varied(random, pick(random, PAINTS), 30)
        self._shadow(wide, place)
        for side in (-1, 1):
            at = side * (0.6 * half if side_on else 0.8 * half)
            self._paint(ellipse(at, 0.08, 0.12 if side_on else 0.08, 0.1), place, TYRE, ids.CAR)
        self._paint(rectangle(-half, half, 0.07, 0.6 * tall, 0.03), place, paint, ids.CAR, clouds=5)
        taper = 0.3 if side_on else 0.1
        self._paint(rectangle(-0.92 * half, 0.92 * half, 0.58 * tall, tall, taper), place, 0.9 * paint, ids.CAR)
        window = rectangle(-0.8 * half, 0.8 * half, 0.62 * tall, 0.92 * tall, taper)
        self._paint(window, place, varied(random, GLASS, 25), ids.CAR, clouds=8)
        if not side_on:
            lamp = pick(random, ((190, 40, 35), (235, 230, 200)))
            for side in (-1, 1):
                self._paint(ellipse(side * 0.82 * half, 0.45 * tall, 0.06, 0.04), place, lamp, ids.CAR)

    def big_vehicle(self, place: tuple[float, float], label: int) -> None:
        """A bus, a truck or a tram: boxes of the same paints, that differ in their windows."""
        random = self.random
        self._count += 1
        wide = random.uniform(0.95, 1.15)
        half, tall, paint = wide / 2, random.uniform(1.15, 1.45), varied(random, pick(random, PAINTS), 30)
        if label == ids.BUS:
            paint = varied(random, pick(random, ((200, 180, 60), (180, 50, 45), (205, 205, 200), (60, 90, 130))), 15)
        self._shadow(wide, place)
        for side in (-1, 1):
            self._paint(ellipse(side * 0.78 * half, 0.1, 0.1, 0.12), place, TYRE, label)
        self._paint(rectangle(-half, half, 0.1, tall, 0.01), place, paint, label, clouds=7)
        low, high = {ids.BUS: (0.45, 0.85), ids.TRAIN: (0.5, 0.92), ids.TRUCK: (0.12, 0.3)}[label]
        self._paint(
            rectangle(-0.88 * half, 0.88 * half, low * tall, high * tall), place, varied(random, GLASS, 20), label
        )
        if label == ids.TRAIN:
            self._paint(rectangle(-half, half, 0.3 * tall, 0.36 * tall), place, (210, 60, 50), label)

    def pole(self, place: tuple[float, float], bears: int | None) -> None:
        """A pole that bears a traffic light, a traffic sign, or a lamp that counts as the pole."""
        random = self.random
        tall = random.uniform(1.1, 1.5) if bears else random.uniform(1.5, 2.4)
        half = self._thin(random.uniform(0.025, 0.045), place[1]) / 2
        metal = varied(random, METAL, 35)
        self._paint(rectangle(-half, half, 0, tall), place, metal, ids.POLE, counted=False)
        size = self._thin(random.uniform(0.1, 0.16), place[1])
        if bears == ids.TRAFFIC_LIGHT:
            self._paint(rectangle(-0.6 * size, 0.6 * size, tall - 2.4 * size, tall), place, (30, 32, 32), bears, False)
            lamp = int(random.uniform() * 3)
            colour = ((230, 50, 40), (235, 180, 50), (60, 220, 140))[lamp]
            at = tall - size * (0.45 + 0.75 * lamp)
            self._paint(ellipse(0, at, 0.35 * size, 0.35 * size), place, colour, bears, False)
        elif bears == ids.TRAFFIC_SIGN:
            colour = pick(random, ((200, 45, 45), (45, 80, 170), (225, 215, 90), (225, 225, 225)))
            outline = pick(random, (ROUND, ROUND[::4], ROUND[[1, 4, 7, 10]]))
            self._paint(outline * size + np.array([0, tall]), place, varied(random, colour, 15), bears, False)
            self._paint(ROUND * 0.5 * size + np.array([0, tall]), place, (215, 215, 215), bears, False)
        elif chance(random, 0.7):
            arm = pick(random, (-1, 1)) * random.uniform(0.2, 0.5)
            thin = self._thin(0.03, place[1])
            self._paint(rectangle(min(0, arm), max(0, arm), tall - thin, tall), place, metal, ids.POLE, counted=False)

    def tree(self, place: tuple[float, float], leaves: np.ndarray) -> None:
        """A trunk and a crown of several balls."""
        random = self.random
        tall, half = random.uniform(1.2, 2.2), self._thin(random.uniform(0.06, 0.12), place[1]) / 2
        bark = varied(random, (80, 68, 55), 15)
        self._paint(rectangle(-half, half, 0, tall, 0.2 * half), place, bark, ids.VEGETATION, counted=False)
        for _ in range(4):
            x, y = random.uniform(-0.35, 0.35), tall + random.uniform(-0.35, 0.35)
            ball = ellipse(x, y, *random.uniform(0.25, 0.55, 2)) + random.uniform(-0.06, 0.06, (12, 2))
            light = random.uniform(0.75, 1.15)
            self._paint(ball, place, light * leaves, ids.VEGETATION, counted=False, grain=16, clouds=22)

    def bush(self, place: tuple[float, float], leaves: np.ndarray) -> None:
        """A low ball of leaves."""
        random = self.random
        size = random.uniform(0.12, 0.35)
        ball = ellipse(0, 0.6 * size, size, size) + random.uniform(-0.04, 0.04, (12, 2))
        light = random.uniform(0.8, 1.1)
        self._paint(ball, place, light * leaves, ids.VEGETATION, counted=False, grain=14, clouds=18)

    def bin(self, place: tuple[float, float]) -> None:
        """Street furniture that no class is for."""
        random = self.random
        colour = varied(random, pick(random, ((70, 85, 75), (90, 80, 70), (60, 60, 65), (140, 90, 50))), 20)
        wide, tall = random.uniform(0.08, 0.2), random.uniform(0.2, 0.5)
        self._shadow(2 * wide, place)
        self._paint(rectangle(-wide, wide, 0, tall), place, colour, ids.STATIC, counted=False)

    def strange(self, place: tuple[float, float]) -> None:
        """Something that is in no street: a spotted, striped or checked blot of any colour."""
        random = self.random
        size, colour = random.uniform(0.15, 0.5), random.uniform(30, 240, 3)
        corners = ROUND * random.uniform(0.5, 1.2, (12, 1)) * size + np.array([0, size])
        step = max(place[1] * self.view.height * random.uniform(0.05, 0.12), 1.5)
        strength, kind = random.uniform(40, 90), int(random.uniform() * 3)

        def surface(y: np.ndarray, x: np.ndarray) -> np.ndarray:
            columns, rows = np.floor(x / step) % 2, np.floor(y / step) % 2
            return strength * ((columns * rows, np.abs(columns - rows), columns)[kind] - 0.5)

        self._shadow(2 * size, place)
        label = pick(random, (ids.UNLABELLED, ids.DYNAMIC))
        self._paint(corners, place, colour, label, counted=False, surface=surface)
