"""Persons, riders, bicycles and motorcycles as flat figures that stand at one depth."""

import math
from random import Random

from mmprompt.datasets.streets import palette
from mmprompt.datasets.streets.canvas import Canvas, Surface
from mmprompt.datasets.streets.classes import BICYCLE, MOTORCYCLE, PERSON, RIDER
from mmprompt.datasets.streets.palette import span

DARK = Surface((0.07, 0.07, 0.08), 0.08, 20.0)


class Figure:
    """A billboard at depth z: points are (w, y) in metres, w mirrored and foreshortened."""

    def __init__(self, canvas: Canvas, x: float, z: float, turn: float = 1.0):
        self.canvas, self.x, self.z, self.turn = canvas, x, z, turn
        self.plane = canvas.camera.facing(z)
        self.metre = canvas.camera.focal / max(z, 0.3)

    def point(self, w: float, y: float):
        return self.canvas.camera.project(self.x + w * self.turn, y, self.z)

    def add(self, identity, surface: Surface, shade=(0.0, 0.0, 1.0)) -> int:
        return self.canvas.part(identity, surface, self.plane, shade=shade)

    def fill(self, part: int, points, **maps) -> None:
        self.canvas.fill(part, [self.point(*p) for p in points], **maps)

    def disc(
        self, part: int, w: float, y: float, rw: float, rh: float | None = None, **maps
    ) -> None:
        rh = rw if rh is None else rh
        self.fill(
            part,
            [(w + rw * math.cos(a), y + rh * math.sin(a)) for a in (i * 0.6283 for i in range(10))],
            **maps,
        )

    def limb(self, part: int, points, width: float, **maps) -> None:
        self.canvas.line(part, [self.point(*p) for p in points], width * self.metre, **maps)

    def ground(self, sun, half: float, height: float) -> None:
        camera, x, z = self.canvas.camera, self.x, self.z
        foot = [(x - half, z), (x + half, z)]
        far = [(px + height * sun[0], max(pz + height * sun[1], 1.0)) for px, pz in foot]
        self.canvas.cast([camera.project(px, 0, pz) for px, pz in foot + far])
        self.canvas.touch(
            [
                camera.project(x + a, 0, z + b)
                for a, b in ((-half, -0.15), (half, -0.15), (half, 0.2), (-half, 0.2))
            ]
        )


def person(canvas: Canvas, rng: Random, x: float, z: float, sun) -> None:
    """A standing or walking pedestrian, at times with a bag, a skirt or a coat."""
    size = span(rng, 0.92, 1.1) if rng.random() < 0.88 else span(rng, 0.6, 0.8)
    figure = Figure(canvas, x, z, 1 if rng.random() < 0.5 else -1)
    identity = canvas.identity(PERSON)
    figure.ground(sun, 0.25, 1.7 * size)
    top = figure.add(identity, Surface(palette.cloth(rng), 0.14, 14.0))
    legs = figure.add(identity, Surface(palette.cloth(rng), 0.14, 14.0))
    head = figure.add(identity, Surface(palette.skin(rng), 0.06, 20.0))
    hair = figure.add(identity, Surface(palette.hsv(0.08, 0.4, span(rng, 0.05, 0.6)), 0.1, 20.0))
    stride, wide, swing = span(rng, 0.02, 0.38), span(rng, 0.17, 0.26), span(rng, -0.25, 0.3)
    for s in (-1, 1):
        knee = s * stride * 0.45
        figure.limb(
            legs,
            [(s * 0.06, 0.85 * size), (knee, 0.45 * size), (s * stride * 0.8, 0.05)],
            0.15 * size,
        )
    if rng.random() < 0.2:
        figure.fill(
            top, [(-0.3, 0.5 * size), (0.3, 0.5 * size), (wide, 1.4 * size), (-wide, 1.4 * size)]
        )
    figure.fill(
        top,
        [
            (-wide * 0.8, 0.8 * size),
            (wide * 0.8, 0.8 * size),
            (wide, 1.38 * size),
            (wide * 0.6, 1.47 * size),
            (-wide * 0.6, 1.47 * size),
            (-wide, 1.38 * size),
        ],
    )
    sleeve = figure.add(identity, Surface(palette.scaled(canvas.rows[top][:3], 0.8), 0.14, 14.0))
    for s in (-1, 1):
        elbow = s * (wide + 0.04 + swing * 0.3), 1.08 * size
        hand = s * (wide + swing), 0.82 * size
        figure.limb(sleeve, [(s * wide, 1.36 * size), elbow, hand], 0.1 * size)
    figure.disc(head, 0, 1.6 * size, 0.1 * size, 0.13 * size)
    figure.disc(hair, -0.02, 1.67 * size, 0.105 * size, 0.075 * size)
    if rng.random() < 0.3:
        bag = figure.add(identity, Surface(palette.vivid(rng), 0.1, 14.0))
        low = span(rng, 0.55, 1.0) * size
        top_edge = low + 0.35 * size
        figure.fill(
            bag, [(wide, low), (wide + 0.25, low), (wide + 0.25, top_edge), (wide, top_edge)]
        )


def bicycle(canvas: Canvas, rng: Random, x, z, sun, turn: float) -> Figure:
    """A bicycle; annotated filled, seen as rims, frame and bars. Returns its frame."""
    figure = Figure(canvas, x, z, turn)
    identity = canvas.identity(BICYCLE)
    figure.ground(sun, 0.7 * abs(turn), 0.9)
    frame = figure.add(identity, Surface(palette.vivid(rng), 0.08, 20.0))
    dark = figure.add(identity, DARK)
    figure.fill(
        frame, [(-0.55, 0.3), (0.55, 0.3), (0.48, 0.95), (0.3, 1.02), (-0.3, 0.95)], seen=False
    )
    for w in (-0.53, 0.53):
        figure.disc(dark, w, 0.34, 0.34, seen=False)
        rim = [
            figure.point(w + 0.32 * math.cos(a), 0.34 + 0.32 * math.sin(a))
            for a in (i * 0.5236 for i in range(12))
        ]
        canvas.line(dark, rim, max(0.055 * figure.metre, 1), closed=True)
    thick = max(0.06, 1.6 / figure.metre)
    figure.limb(
        frame, [(-0.53, 0.34), (-0.2, 0.82), (0.4, 0.8), (0.05, 0.32), (-0.53, 0.34)], thick
    )
    figure.limb(frame, [(0.05, 0.32), (-0.2, 0.82)], thick)
    figure.limb(frame, [(0.53, 0.34), (0.38, 0.95)], thick)
    figure.limb(dark, [(0.3, 1.02), (0.48, 1.0)], thick)
    figure.limb(dark, [(-0.32, 0.9), (-0.1, 0.9)], thick * 1.3)
    if rng.random() < 0.3:
        figure.fill(dark, [(0.4, 0.75), (0.75, 0.75), (0.75, 1.0), (0.4, 1.0)])
    return figure


def motorcycle(canvas: Canvas, rng: Random, x, z, sun, turn: float, away: bool) -> Figure:
    """A motorcycle or scooter with solid wheels and a tank. Returns its frame."""
    figure = Figure(canvas, x, z, turn)
    identity = canvas.identity(MOTORCYCLE)
    figure.ground(sun, 0.8 * abs(turn), 1.0)
    tank = figure.add(identity, Surface(palette.paint(rng), 0.06, 12.0, gloss=0.1))
    dark = figure.add(identity, DARK)
    metal = figure.add(identity, Surface((0.4, 0.4, 0.42), 0.2, 20.0))
    figure.fill(dark, [(-0.85, 0.35), (0.6, 0.3), (0.7, 0.7), (-0.7, 0.75)])
    for w in (-0.68, 0.68):
        figure.disc(dark, w, 0.32, 0.33)
        figure.disc(metal, w, 0.32, 0.16)
    figure.fill(metal, [(-0.3, 0.2), (0.3, 0.2), (0.25, 0.55), (-0.3, 0.55)])
    figure.fill(tank, [(-0.25, 0.6), (0.5, 0.62), (0.55, 0.9), (0.2, 1.0), (-0.2, 0.8)])
    figure.fill(tank, [(-0.9, 0.7), (-0.35, 0.62), (-0.3, 0.8), (-0.85, 0.86)])
    figure.fill(dark, [(-0.8, 0.8), (-0.15, 0.76), (-0.15, 0.88), (-0.8, 0.92)])
    figure.limb(metal, [(0.72, 0.35), (0.45, 1.05)], 0.08)
    figure.limb(dark, [(0.35, 1.1), (0.5, 1.05)], 0.1)
    if rng.random() < 0.5:
        figure.fill(tank, [(0.5, 0.7), (0.72, 0.75), (0.62, 1.2), (0.5, 1.2)])
    lamp = figure.add(
        identity, Surface((0.8, 0.08, 0.06) if away else (0.95, 0.95, 0.85), emit=1.2)
    )
    figure.disc(lamp, -0.88 if away else 0.68, 0.82, 0.09)
    x_lamp = x + (-0.88 if away else 0.68) * turn
    canvas.lamps.append((x_lamp, 0.82, z, 0.05 if away else 0.3, canvas.rows[lamp][:3]))
    return figure


def rider(canvas: Canvas, rng: Random, figure: Figure, seat: float) -> None:
    """Somebody on a bicycle or motorcycle whose seat is at ``seat`` metres."""
    identity = canvas.identity(RIDER)
    top = figure.add(identity, Surface(palette.cloth(rng), 0.14, 14.0))
    legs = figure.add(identity, Surface(palette.cloth(rng), 0.14, 14.0))
    head = figure.add(identity, Surface(palette.skin(rng), 0.06, 20.0))
    helmet = figure.add(identity, Surface(palette.vivid(rng), 0.06, 20.0))
    body = max(1.0, 0.3 / max(abs(figure.turn), 0.1) * 0.9)  # seen from behind nobody is thin
    lean, shoulder = span(rng, 0.05, 0.3), seat + span(rng, 0.5, 0.6)
    figure.limb(legs, [(-0.2, seat), (0.18, seat - 0.25), (0.0, seat - 0.62)], 0.15)
    figure.limb(legs, [(-0.2, seat), (0.25, seat - 0.15), (0.12, seat - 0.5)], 0.15)
    figure.fill(
        top,
        [
            (-0.2 - 0.14 * body, seat - 0.05),
            (-0.2 + 0.14 * body, seat - 0.05),
            (lean + 0.16 * body, shoulder - 0.06),
            (lean - 0.14 * body, shoulder + 0.02),
        ],
    )
    sleeve = figure.add(identity, Surface(palette.scaled(canvas.rows[top][:3], 0.8), 0.14, 14.0))
    figure.limb(
        sleeve, [(lean, shoulder - 0.06), (lean + 0.22, seat + 0.2), (0.4, seat + 0.15)], 0.1
    )
    middle = lean + 0.08
    figure.disc(head, middle, shoulder + 0.16, 0.1 * body, 0.13)
    figure.disc(
        helmet if rng.random() < 0.7 else head, middle - 0.01, shoulder + 0.22, 0.12 * body, 0.1
    )
