"""Colours and surfaces. Classes share palettes on purpose: colour alone must not give the class."""
import colorsys
from random import Random

from mmprompt.datasets.streets.canvas import Surface


def pick(rng: Random, *options):
    """One of ``options``, drawn with `Random.random` alone, whose stream no version changes."""
    return options[int(rng.random() * len(options))]


def span(rng: Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def hsv(h: float, s: float, v: float):
    return colorsys.hsv_to_rgb(h % 1, s, v)


def stone(rng: Random, low: float = .25, high: float = .8):
    """Grey to beige, brown and bluish: asphalt, concrete, plaster, metal."""
    hue = pick(rng, .08, .1, .06, .6, .55, .02)
    return hsv(hue, span(rng, 0, .22), span(rng, low, high))


def vivid(rng: Random):
    return hsv(rng.random(), span(rng, .35, .9), span(rng, .25, .9))


def plaster(rng: Random):
    roll = rng.random()
    if roll < .5:
        return stone(rng, .35, .9)
    if roll < .8:  # brick reds, ochre
        return hsv(span(rng, 0, .13), span(rng, .25, .65), span(rng, .3, .8))
    return hsv(rng.random(), span(rng, .1, .45), span(rng, .4, .85))


def leaf(rng: Random):
    if rng.random() < .15:  # autumn
        return hsv(span(rng, .02, .14), span(rng, .4, .8), span(rng, .3, .6))
    return hsv(span(rng, .17, .38), span(rng, .25, .7), span(rng, .16, .48))


def paint(rng: Random):
    """Car paint: mostly white, black and grey, as on the street."""
    roll = rng.random()
    if roll < .25:
        return (span(rng, .75, .95),) * 3
    if roll < .45:
        return (span(rng, .05, .16),) * 3
    if roll < .65:
        return stone(rng, .3, .7)
    return vivid(rng)


def cloth(rng: Random):
    return pick(rng, vivid, stone, vivid)(rng) if rng.random() < .6 else (span(rng, .05, .25),) * 3


def skin(rng: Random):
    return hsv(span(rng, .04, .09), span(rng, .3, .6), span(rng, .3, .9))


def scaled(colour, gain: float):
    return tuple(min(c * gain, 1.) for c in colour)


def asphalt(rng: Random) -> Surface:
    return Surface(stone(rng, .2, .58), span(rng, .05, .16), span(rng, 6, 25), faces=0, upness=1.)


def pavement(rng: Random) -> Surface:
    colour = stone(rng, .25, .75) if rng.random() < .75 else plaster(rng)
    base = Surface(colour, span(rng, .05, .16), span(rng, 6, 20), faces=0, upness=1.)
    if rng.random() < .7:
        size = span(rng, .4, 1.5)
        base = base._replace(grid_w=size, grid_h=size * pick(rng, 1., .5, 2.),
                             grid_gain=span(rng, -.35, .12))
    return base


def grass(rng: Random) -> Surface:
    roll = rng.random()
    if roll < .65:
        colour = leaf(rng)
    elif roll < .85:  # dry grass, sand, soil
        colour = hsv(span(rng, .07, .16), span(rng, .25, .55), span(rng, .3, .65))
    else:
        colour = stone(rng, .3, .6)
    return Surface(colour, span(rng, .18, .4), span(rng, 8, 30), faces=0, upness=1.)


def masonry(rng: Random) -> Surface:
    """Facade or wall: bare, brick or panels."""
    base = Surface(plaster(rng), span(rng, .05, .18), span(rng, 3, 12))
    roll = rng.random()
    if roll < .35:
        width = span(rng, .3, .6)
        base = base._replace(grid_w=width, grid_h=width * .4, grid_gain=span(rng, -.35, .3))
    elif roll < .6:
        base = base._replace(grid_w=span(rng, 1, 3), grid_h=span(rng, .6, 3.),
                             grid_gain=span(rng, -.35, -.1))
    return base
