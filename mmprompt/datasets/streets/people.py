"""Persons, riders, bicycles and motorcycles as flat figures that stand at one depth."""
import math
from random import Random

from mmprompt.datasets.streets import palette
from mmprompt.datasets.streets.canvas import Canvas, Surface
from mmprompt.datasets.streets.classes import BICYCLE, MOTORCYCLE, PERSON, RIDER
from mmprompt.datasets.streets.palette import span

DARK = Surface((.07, .07, .08), .08, 20.)


class Figure:
    """A billboard at depth z: points are (w, y) in metres, w mirrored and foreshortened."""

    def __init__(self, canvas: Canvas, x: float, z: float, turn: float = 1.):
        self.canvas, self.x, self.z, self.turn = canvas, x, z, turn
        self.plane = canvas.camera.facing(z)
        self.metre = canvas.camera.focal / max(z, .3)

    def point(self, w: float, y: float):
        return self.canvas.camera.project(self.x + w * self.turn, y, self.z)

    def add(self, identity, surface: Surface, shade=(0., 0., 1.)) -> int:
        return self.canvas.part(identity, surface, self.plane, shade=shade)

    def fill(self, part: int, points, **maps) -> None:
        self.canvas.fill(part, [self.point(*p) for p in points], **maps)

    def disc(self, part: int, w: float, y: float, rw: float, rh: float | None = None,
             **maps) -> None:
        rh = rw if rh is None else rh
        self.fill(part, [(w + rw * math.cos(a), y + rh * math.sin(a))
                         for a in (i * .6283 for i in range(10))], **maps)

    def limb(self, part: int, points, width: float, **maps) -> None:
        self.canvas.line(part, [self.point(*p) for p in points], width * self.metre, **maps)

    def ground(self, sun, half: float, height: float) -> None:
        camera, x, z = self.canvas.camera, self.x, self.z
        foot = [(x - half, z), (x + half, z)]
        far = [(px + height * sun[0], max(pz + height * sun[1], 1.)) for px, pz in foot]
        self.canvas.cast([camera.project(px, 0, pz) for px, pz in foot + far])
        self.canvas.touch([camera.project(x + a, 0, z + b) for a, b in (
            (-half, -.15), (half, -.15), (half, .2), (-half, .2))])


def person(canvas: Canvas, rng: Random, x: float, z: float, sun) -> None:
    """A standing or walking pedestrian, at times with a bag, a skirt or a coat."""
    size = span(rng, .92, 1.1) if rng.random() < .88 else span(rng, .6, .8)
    figure = Figure(canvas, x, z, 1 if rng.random() < .5 else -1)
    identity = canvas.identity(PERSON)
    figure.ground(sun, .25, 1.7 * size)
    top = figure.add(identity, Surface(palette.cloth(rng), .14, 14.))
    legs = figure.add(identity, Surface(palette.cloth(rng), .14, 14.))
    head = figure.add(identity, Surface(palette.skin(rng), .06, 20.))
    hair = figure.add(identity, Surface(palette.hsv(.08, .4, span(rng, .05, .6)), .1, 20.))
    stride, wide, swing = span(rng, .02, .38), span(rng, .17, .26), span(rng, -.25, .3)
    for s in (-1, 1):
        knee = s * stride * .45
        figure.limb(legs, [(s * .06, .85 * size), (knee, .45 * size), (s * stride * .8, .05)],
                    .15 * size)
    if rng.random() < .2:
        figure.fill(top, [(-.3, .5 * size), (.3, .5 * size), (wide, 1.4 * size),
                          (-wide, 1.4 * size)])
    figure.fill(top, [(-wide * .8, .8 * size), (wide * .8, .8 * size), (wide, 1.38 * size),
                      (wide * .6, 1.47 * size), (-wide * .6, 1.47 * size), (-wide, 1.38 * size)])
    sleeve = figure.add(identity, Surface(palette.scaled(canvas.rows[top][:3], .8), .14, 14.))
    for s in (-1, 1):
        elbow = s * (wide + .04 + swing * .3), 1.08 * size
        hand = s * (wide + swing), .82 * size
        figure.limb(sleeve, [(s * wide, 1.36 * size), elbow, hand], .1 * size)
    figure.disc(head, 0, 1.6 * size, .1 * size, .13 * size)
    figure.disc(hair, -.02, 1.67 * size, .105 * size, .075 * size)
    if rng.random() < .3:
        bag = figure.add(identity, Surface(palette.vivid(rng), .1, 14.))
        low = span(rng, .55, 1.) * size
        top_edge = low + .35 * size
        figure.fill(bag, [(wide, low), (wide + .25, low), (wide + .25, top_edge),
                          (wide, top_edge)])


def bicycle(canvas: Canvas, rng: Random, x, z, sun, turn: float) -> Figure:
    """A bicycle; annotated filled, seen as rims, frame and bars. Returns its frame."""
    figure = Figure(canvas, x, z, turn)
    identity = canvas.identity(BICYCLE)
    figure.ground(sun, .7 * abs(turn), .9)
    frame = figure.add(identity, Surface(palette.vivid(rng), .08, 20.))
    dark = figure.add(identity, DARK)
    figure.fill(frame, [(-.55, .3), (.55, .3), (.48, .95), (.3, 1.02), (-.3, .95)], seen=False)
    for w in (-.53, .53):
        figure.disc(dark, w, .34, .34, seen=False)
        rim = [figure.point(w + .32 * math.cos(a), .34 + .32 * math.sin(a))
               for a in (i * .5236 for i in range(12))]
        canvas.line(dark, rim, max(.055 * figure.metre, 1), closed=True)
    thick = max(.06, 1.6 / figure.metre)
    figure.limb(frame, [(-.53, .34), (-.2, .82), (.4, .8), (.05, .32), (-.53, .34)], thick)
    figure.limb(frame, [(.05, .32), (-.2, .82)], thick)
    figure.limb(frame, [(.53, .34), (.38, .95)], thick)
    figure.limb(dark, [(.3, 1.02), (.48, 1.)], thick)
    figure.limb(dark, [(-.32, .9), (-.1, .9)], thick * 1.3)
    if rng.random() < .3:
        figure.fill(dark, [(.4, .75), (.75, .75), (.75, 1.), (.4, 1.)])
    return figure


def motorcycle(canvas: Canvas, rng: Random, x, z, sun, turn: float, away: bool) -> Figure:
    """A motorcycle or scooter with solid wheels and a tank. Returns its frame."""
    figure = Figure(canvas, x, z, turn)
    identity = canvas.identity(MOTORCYCLE)
    figure.ground(sun, .8 * abs(turn), 1.)
    tank = figure.add(identity, Surface(palette.paint(rng), .06, 12., gloss=.1))
    dark = figure.add(identity, DARK)
    metal = figure.add(identity, Surface((.4, .4, .42), .2, 20.))
    figure.fill(dark, [(-.85, .35), (.6, .3), (.7, .7), (-.7, .75)])
    for w in (-.68, .68):
        figure.disc(dark, w, .32, .33)
        figure.disc(metal, w, .32, .16)
    figure.fill(metal, [(-.3, .2), (.3, .2), (.25, .55), (-.3, .55)])
    figure.fill(tank, [(-.25, .6), (.5, .62), (.55, .9), (.2, 1.), (-.2, .8)])
    figure.fill(tank, [(-.9, .7), (-.35, .62), (-.3, .8), (-.85, .86)])
    figure.fill(dark, [(-.8, .8), (-.15, .76), (-.15, .88), (-.8, .92)])
    figure.limb(metal, [(.72, .35), (.45, 1.05)], .08)
    figure.limb(dark, [(.35, 1.1), (.5, 1.05)], .1)
    if rng.random() < .5:
        figure.fill(tank, [(.5, .7), (.72, .75), (.62, 1.2), (.5, 1.2)])
    lamp = figure.add(identity, Surface((.8, .08, .06) if away else (.95, .95, .85), emit=1.2))
    figure.disc(lamp, -.88 if away else .68, .82, .09)
    x_lamp = x + (-.88 if away else .68) * turn
    canvas.lamps.append((x_lamp, .82, z, .05 if away else .3, canvas.rows[lamp][:3]))
    return figure


def rider(canvas: Canvas, rng: Random, figure: Figure, seat: float) -> None:
    """Somebody on a bicycle or motorcycle whose seat is at ``seat`` metres."""
    identity = canvas.identity(RIDER)
    top = figure.add(identity, Surface(palette.cloth(rng), .14, 14.))
    legs = figure.add(identity, Surface(palette.cloth(rng), .14, 14.))
    head = figure.add(identity, Surface(palette.skin(rng), .06, 20.))
    helmet = figure.add(identity, Surface(palette.vivid(rng), .06, 20.))
    body = max(1., .3 / max(abs(figure.turn), .1) * .9)  # seen from behind nobody is thin
    lean, shoulder = span(rng, .05, .3), seat + span(rng, .5, .6)
    figure.limb(legs, [(-.2, seat), (.18, seat - .25), (.0, seat - .62)], .15)
    figure.limb(legs, [(-.2, seat), (.25, seat - .15), (.12, seat - .5)], .15)
    figure.fill(top, [(-.2 - .14 * body, seat - .05), (-.2 + .14 * body, seat - .05),
                      (lean + .16 * body, shoulder - .06), (lean - .14 * body, shoulder + .02)])
    sleeve = figure.add(identity, Surface(palette.scaled(canvas.rows[top][:3], .8), .14, 14.))
    figure.limb(sleeve, [(lean, shoulder - .06), (lean + .22, seat + .2), (.4, seat + .15)], .1)
    middle = lean + .08
    figure.disc(head, middle, shoulder + .16, .1 * body, .13)
    figure.disc(helmet if rng.random() < .7 else head, middle - .01, shoulder + .22, .12 * body, .1)
