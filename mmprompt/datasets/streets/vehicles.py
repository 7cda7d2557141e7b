"""Cars, trucks, buses and trams as extruded boxes that are projected in perspective."""

import math
from random import Random

from mmprompt.datasets.streets import palette
from mmprompt.datasets.streets.canvas import BACK, LEFT, RIGHT, UP, Canvas, Surface, ramp
from mmprompt.datasets.streets.classes import BUS, CAR, TRAIN, TRUCK
from mmprompt.datasets.streets.palette import span

GLASS = Surface((0.13, 0.16, 0.19), 0.05, 2.0, gloss=0.55)
RUBBER = Surface((0.05, 0.05, 0.055), 0.05, 20.0)


class Body:
    """A vehicle frame: ``t`` runs along its length from the near end, ``w`` to its right.

    Args:
        canvas: to paint on.
        identity: trainId and Cityscapes id of the object.
        x, z: ground position of the middle of the near end in metres.
        yaw: angle between the length axis and z, clockwise from above.
        length, width: metres.
    """

    def __init__(self, canvas: Canvas, identity, x, z, yaw, length, width):
        self.canvas, self.identity = canvas, identity
        self.x, self.z, self.length, self.half = x, z, length, width / 2
        self.t, self.n = (math.sin(yaw), math.cos(yaw)), (math.cos(yaw), -math.sin(yaw))
        middle = self.place(length / 2, 0)
        self.side = 1 if -(self.n[0] * middle[0] + self.n[1] * middle[1]) > 0 else -1
        self.side_faces = LEFT if self.side * self.n[0] < 0 else RIGHT
        near, far = self.place(0, self.side * self.half), self.place(length, self.side * self.half)
        self.side_plane = canvas.camera.upright(*near, *far)
        self.visible = min(near[1], far[1]) > 1.2

    def place(self, t: float, w: float):
        return (self.x + t * self.t[0] + w * self.n[0], self.z + t * self.t[1] + w * self.n[1])

    def point(self, t: float, w: float, y: float):
        x, z = self.place(t, w)
        return self.canvas.camera.project(x, y, z)

    def shell(self, profile, surface: Surface, roof_up: float = 0.8) -> None:
        """Paint a convex profile of (t, y, half-width factor), clockwise from the near bottom."""
        camera, faces = self.canvas.camera, []
        for (t1, y1, w1), (t2, y2, w2) in zip(profile, profile[1:]):
            x, z = self.place((t1 + t2) / 2, 0)
            along, up = -(y2 - y1), t2 - t1  # outward normal in the (t, y) plane
            facing = -along * (x * self.t[0] + z * self.t[1])
            if facing + up * (camera.height - (y1 + y2) / 2) > 0:
                faces.append((z, t1, y1, w1 * self.half, t2, y2, w2 * self.half, up, along))
        for z, t1, y1, w1, t2, y2, w2, up, along in sorted(faces, reverse=True):
            flat = abs(up) > abs(along)
            points = [
                self.point(t1, -w1, y1),
                self.point(t2, -w2, y2),
                self.point(t2, w2, y2),
                self.point(t1, w1, y1),
            ]
            paint = surface._replace(
                faces=UP if flat else BACK,
                upness=roof_up if flat else 0.05,
                gloss=surface.gloss + (0.15 if flat else 0),
            )
            self.canvas.quad(self.identity, paint, points, camera.facing(z), top=1.06, bottom=0.8)
        points = [self.point(t, self.side * self.half * w, y) for t, y, w in profile]
        paint = surface._replace(faces=self.side_faces)
        self.canvas.quad(self.identity, paint, points, self.side_plane, 1, top=1.06, bottom=0.72)

    def side_quad(self, surface, t1, t2, y1, y2, lean1=0.0, lean2=0.0, inset=1.0) -> None:
        """Rectangle on the visible side, its upper corners moved by ``lean`` along t."""
        w = self.side * self.half * inset
        points = [
            self.point(t1, w, y1),
            self.point(t2, w, y1),
            self.point(t2 + lean2, w, y2),
            self.point(t1 + lean1, w, y2),
        ]
        paint = surface._replace(faces=self.side_faces)
        self.canvas.quad(self.identity, paint, points, self.side_plane, 1)

    def end_quad(self, surface, w1, w2, y1, y2, t=0.0, lean=0.0) -> None:
        """Rectangle on the near end; ``w`` in half-widths."""
        a, b = w1 * self.half, w2 * self.half
        points = [
            self.point(t, a, y1),
            self.point(t, b, y1),
            self.point(t + lean, b, y2),
            self.point(t + lean, a, y2),
        ]
        self.canvas.quad(self.identity, surface, points, self.canvas.camera.facing(self.z))

    def wheels(self, positions, radius: float) -> None:
        rim = Surface((0.45, 0.45, 0.47), 0.1, 20.0)
        for surface, size in ((RUBBER, 1.0), (rim, 0.55)):
            part = self.canvas.part(
                self.identity, surface._replace(faces=self.side_faces), self.side_plane
            )
            for t in positions:
                circle = [
                    self.point(
                        t + size * radius * math.cos(a),
                        self.side * self.half,
                        radius + size * radius * math.sin(a),
                    )
                    for a in (i * 0.6283 for i in range(10))
                ]
                self.canvas.fill(part, circle)

    def ground(self, sun, height: float) -> None:
        """Contact darkness, a dark underside and the sun's shadow; ``sun`` = shadow per metre."""
        base = [
            self.place(t, w)
            for t, w in (
                (0, -self.half),
                (0, self.half),
                (self.length, self.half),
                (self.length, -self.half),
            )
        ]
        camera = self.canvas.camera
        spread = [
            self.place(t, w * 1.12)
            for t, w in (
                (-0.25, -self.half),
                (-0.25, self.half),
                (self.length + 0.2, self.half),
                (self.length + 0.2, -self.half),
            )
        ]
        self.canvas.touch([camera.project(x, 0, z) for x, z in spread])
        shifted = [(x + height * sun[0], z + height * sun[1]) for x, z in base]
        self.canvas.cast([camera.project(x, 0, max(z, 1.0)) for x, z in base + shifted])

    def lights(self, away: bool, y: float, spread: float, size: float) -> None:
        """Head or tail lights on the near end, and their glow at night."""
        colour = (0.75, 0.06, 0.05) if away else (0.95, 0.95, 0.85)
        surface = Surface(colour, 0.03, emit=0.9 if away else 1.6)
        for w in (-spread, spread):
            self.end_quad(surface, w - size, w + size, y - 0.07, y + 0.07)
            x, z = self.place(0, w * self.half)
            self.canvas.lamps.append((x, y, z, 0.05 if away else 0.45, colour))


def car(canvas: Canvas, rng: Random, x, z, yaw, sun, away: bool) -> None:
    """Sedan, hatchback, van or off-roader; ``z`` of the near end, ``away``: seen from behind."""
    kind = rng.random()
    length, width, height = span(rng, 3.8, 4.8), span(rng, 1.7, 1.9), span(rng, 1.4, 1.55)
    belt, boot, bonnet = span(rng, 0.85, 0.98), 0.14, 0.72
    if kind < 0.35:  # hatchback
        length, boot = length - 0.5, 0.02
    elif kind < 0.55:  # off-roader
        height, belt, boot = height + 0.25, belt + 0.12, 0.03
    elif kind < 0.68:  # van
        height, belt, boot, bonnet = height + span(rng, 0.3, 0.6), belt + 0.15, 0.01, 0.86
    body = Body(canvas, canvas.identity(CAR), x, z, yaw, length, width)
    if not body.visible:
        return
    body.ground(sun, height)
    colour = palette.paint(rng)
    metal = Surface(colour, 0.04, 3.0, gloss=0.12)
    spans = [boot, boot + 0.1, bonnet - 0.16, bonnet]  # cabin: base, roof, roof, base
    if not away:
        spans = [1 - s for s in reversed(spans)]
    low = 0.18
    body.shell(
        [
            (0, low, 1),
            (0, 0.62, 1),
            (length * 0.03, belt, 0.97),
            (length * 0.97, belt, 0.97),
            (length, 0.6, 1),
            (length, low, 1),
        ],
        metal,
    )
    t1, t2, t3, t4 = (s * length for s in spans)
    body.shell([(t1, belt, 0.95), (t2, height, 0.78), (t3, height, 0.78), (t4, belt, 0.95)], metal)
    if z < 60:
        _cabin_glass(body, (t1, t2, t3, t4), belt, height)
        body.wheels((0.2 * length, 0.8 * length), 0.33)
    body.lights(away, 0.68, 0.76, 0.16)
    if z < 30:
        body.end_quad(Surface((0.07, 0.07, 0.08), 0.05), -0.95, 0.95, 0.2, 0.36)
        body.end_quad(Surface((0.85, 0.85, 0.8), 0.05), -0.25, 0.25, 0.4, 0.52)


def _cabin_glass(body: Body, ts, belt, height) -> None:
    t1, t2, t3, t4 = ts
    rise, roof = (t2 - t1) * 0.8, height - 0.07
    body.end_quad(GLASS, -0.78, 0.78, belt + 0.04, roof, t=t1 + (t2 - t1) * 0.05, lean=rise)
    middle = (t2 + t3) / 2
    body.side_quad(GLASS, t1 + 0.2, middle - 0.05, belt + 0.03, roof, lean1=rise * 0.9, inset=0.9)
    body.side_quad(
        GLASS, middle + 0.05, t4 - 0.2, belt + 0.03, roof, lean2=-(t4 - t3) * 0.8, inset=0.9
    )


def truck(canvas: Canvas, rng: Random, x, z, yaw, sun, away: bool) -> None:
    """A cab and a cargo box, flat bed or tank of another colour."""
    length, width, height = span(rng, 6, 10.5), span(rng, 2.2, 2.5), span(rng, 2.8, 3.8)
    body = Body(canvas, canvas.identity(TRUCK), x, z, yaw, length, width)
    if not body.visible:
        return
    body.ground(sun, height)
    cab_length, cab_height = span(rng, 1.7, 2.2), min(span(rng, 2.3, 3.0), height)
    cab = Surface(palette.paint(rng), 0.05, 3.0, gloss=0.08)
    cargo = Surface(palette.plaster(rng) if rng.random() < 0.5 else palette.paint(rng), 0.08, 4.0)
    if rng.random() < 0.4:  # corrugated or boarded sides
        cargo = cargo._replace(grid_w=span(rng, 0.25, 0.6), grid_h=9.0, grid_gain=-0.2)
    front = (0.0, cab_length) if not away else (length - cab_length, length)
    hold = (cab_length + 0.15, length) if not away else (0.0, length - cab_length - 0.15)
    box = height if rng.random() < 0.8 else span(rng, 1.4, 1.8)
    parts = [(hold, 1.0, box, cargo, 1.0), (front, 0.45, cab_height, cab, 0.96)]
    for (t1, t2), low, top, surface, w in parts if not away else parts[::-1]:
        body.shell([(t1, low, w), (t1, top, w), (t2, top, w), (t2, low, w)], surface)
    body.side_quad(Surface((0.12, 0.12, 0.13), 0.1), 0.2, length - 0.2, 0.45, 1.0)
    body.wheels((length * 0.12, length * 0.72, length * 0.86), 0.48)
    t1, t2 = front
    window = (t1 + 0.3, t2 - 0.5) if not away else (t1 + 0.5, t2 - 0.3)
    body.side_quad(GLASS, *window, cab_height * 0.6, cab_height - 0.3)
    if away:
        if box > 2.5 and z < 40:
            body.end_quad(Surface((0.1, 0.1, 0.1), 0.1), -0.02, 0.02, 1.05, box - 0.1)
        body.end_quad(Surface((0.1, 0.1, 0.1), 0.1), -0.95, 0.95, 0.6, 1.0)
    else:
        body.end_quad(GLASS, -0.85, 0.85, cab_height * 0.58, cab_height - 0.25)
        body.end_quad(Surface((0.1, 0.1, 0.11), 0.1), -0.7, 0.7, 0.7, 1.1)
    body.lights(away, 0.8, 0.75, 0.12)


def bus(canvas: Canvas, rng: Random, x, z, yaw, sun, away: bool) -> None:
    """One box with a window band, doors and a lit line sign."""
    length, width, height = span(rng, 9, 14), span(rng, 2.4, 2.6), span(rng, 2.9, 3.3)
    double = rng.random() < 0.12
    height = height + 1.2 if double else height
    body = Body(canvas, canvas.identity(BUS), x, z, yaw, length, width)
    if not body.visible:
        return
    body.ground(sun, height)
    colour = palette.vivid(rng) if rng.random() < 0.7 else palette.paint(rng)
    metal = Surface(colour, 0.05, 3.0, gloss=0.08)
    _coach(body, rng, metal, length, height, sign=True, away=away)
    if double:
        body.side_quad(GLASS, 0.3, length - 0.3, height - 1.1, height - 0.3)
        body.end_quad(GLASS, -0.88, 0.88, height - 1.1, height - 0.3)
    body.wheels((length * 0.2, length * 0.75), 0.48)
    body.lights(away, 0.75, 0.8, 0.1)


def tram(canvas: Canvas, rng: Random, x, z, yaw, sun, away: bool) -> None:
    """A low, long coach of two or three sections with a sloped nose and a pantograph."""
    width, height, section = span(rng, 2.3, 2.65), span(rng, 3.3, 3.7), span(rng, 7.5, 10)
    count = 2 + (rng.random() < 0.5)
    identity = canvas.identity(TRAIN)
    stripe = Surface(palette.vivid(rng), 0.05, 3.0)
    metal = Surface(
        palette.paint(rng) if rng.random() < 0.5 else palette.vivid(rng), 0.05, 3.0, gloss=0.08
    )
    for i in reversed(range(count)):
        start = i * (section + 0.5)
        body = Body(
            canvas,
            identity,
            x + start * math.sin(yaw),
            z + start * math.cos(yaw),
            yaw,
            section,
            width,
        )
        if not body.visible:
            continue
        body.ground(sun, height)
        nose = 0.9 if i == 0 else 0.0
        profile = [
            (0, 0.15, 1),
            (0, 1.1, 1),
            (nose, height, 0.9),
            (section, height, 0.9),
            (section, 0.15, 1),
        ]
        body.shell(profile, metal)
        body.side_quad(GLASS, nose + 0.5, section - 0.3, 1.2, 2.5)
        for t in (0.3, 0.7):
            body.side_quad(metal, section * t - 0.06, section * t + 0.06, 1.2, 2.5)
        body.side_quad(stripe, 0.1, section, 0.3, 0.75)
        if i == 0:
            body.end_quad(GLASS, -0.85, 0.85, 1.25, 2.6, t=0.1, lean=0.5)
            body.end_quad(stripe, -1.0, 1.0, 0.3, 0.8)
            body.end_quad(Surface((0.9, 0.75, 0.3), 0.05, emit=0.8), -0.4, 0.4, 2.75, 3.0, t=0.7)
            body.lights(away, 1.0, 0.7, 0.1)
        base = canvas.part(identity, RUBBER, canvas.camera.facing(body.z), shade=ramp([], 1, 1))
        tip = body.point(section * 0.5, 0, height + 1.1)
        canvas.line(
            base,
            [body.point(section * 0.4, 0, height), tip, body.point(section * 0.65, 0, height)],
            1,
        )


def _coach(body: Body, rng: Random, metal: Surface, length, height, sign, away) -> None:
    body.shell([(0, 0.3, 1), (0, height, 0.97), (length, height, 0.97), (length, 0.3, 1)], metal)
    low, top = 1.15, min(height, 3.3) - 0.5
    body.side_quad(GLASS, 0.3, length - 0.3, low, top)
    gaps = int(length / 1.6)
    for i in range(1, gaps):
        t = 0.3 + i * (length - 0.6) / gaps
        body.side_quad(metal, t - 0.05, t + 0.05, low, top)
    if rng.random() < 0.6:
        body.side_quad(Surface(palette.vivid(rng), 0.05), 0.1, length - 0.1, 0.45, 0.8)
    if rng.random() < 0.4:
        body.side_quad(GLASS, length * 0.4, length * 0.4 + 1.2, 0.4, top)
    body.end_quad(GLASS, -0.88, 0.88, low + (0.35 if away else -0.1), top - 0.05)
    if sign:
        glow = Surface(
            (0.1, 0.08, 0.05) if rng.random() < 0.5 else (0.85, 0.6, 0.2), 0.05, emit=0.7
        )
        body.end_quad(glow, -0.55, 0.55, top + 0.05, top + 0.35)
    body.end_quad(Surface((0.08, 0.08, 0.08), 0.05), -0.95, 0.95, 0.3, 0.5)
