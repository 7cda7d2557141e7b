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


def stone(rng: Random, low: float = 0.25, high: float = 0.8):
    """Grey to beige, brown and bluish: asphalt, concrete, plaster, metal."""
    hue = pick(rng, 0.08, 0.1, 0.06, 0.6, 0.55, 0.02)
    return hsv(hue, span(rng, 0, 0.22), span(rng, low, high))


def vivid(rng: Random):
    return hsv(rng.random(), span(rng, 0.35, 0.9), span(rng, 0.25, 0.9))


def plaster(rng: Random):
    roll = rng.random()
    if roll < 0.5:
        return stone(rng, 0.35, 0.9)
    if roll < 0.8:  # brick reds, ochre
        return hsv(span(rng, 0, 0.13), span(rng, 0.25, 0.65), span(rng, 0.3, 0.8))
    return hsv(rng.random(), span(rng, 0.1, 0.45), span(rng, 0.4, 0.85))


def leaf(rng: Random):
    if rng.random() < 0.15:  # autumn
        return hsv(span(rng, 0.02, 0.14), span(rng, 0.4, 0.8), span(rng, 0.3, 0.6))
    return hsv(span(rng, 0.17, 0.38), span(rng, 0.25, 0.7), span(rng, 0.16, 0.48))


def paint(rng: Random):
    """Car paint: mostly white, black and grey, as on the street."""
    roll = rng.random()
    if roll < 0.25:
        return (span(rng, 0.75, 0.95),) * 3
    if roll < 0.45:
        return (span(rng, 0.05, 0.16),) * 3
    if roll < 0.65:
        return stone(rng, 0.3, 0.7)
    return vivid(rng)


def cloth(rng: Random):
    return (
        pick(rng, vivid, stone, vivid)(rng) if rng.random() < 0.6 else (span(rng, 0.05, 0.25),) * 3
    )


def skin(rng: Random):
    return hsv(span(rng, 0.04, 0.09), span(rng, 0.3, 0.6), span(rng, 0.3, 0.9))


def scaled(colour, gain: float):
    return tuple(min(c * gain, 1.0) for c in colour)


def asphalt(rng: Random) -> Surface:
    return Surface(
        stone(rng, 0.2, 0.58), span(rng, 0.05, 0.16), span(rng, 6, 25), faces=0, upness=1.0
    )


def pavement(rng: Random) -> Surface:
    colour = stone(rng, 0.25, 0.75) if rng.random() < 0.75 else plaster(rng)
    base = Surface(colour, span(rng, 0.05, 0.16), span(rng, 6, 20), faces=0, upness=1.0)
    if rng.random() < 0.7:
        size = span(rng, 0.4, 1.5)
        base = base._replace(
            grid_w=size, grid_h=size * pick(rng, 1.0, 0.5, 2.0), grid_gain=span(rng, -0.35, 0.12)
        )
    return base


def grass(rng: Random) -> Surface:
    roll = rng.random()
    if roll < 0.65:
        colour = leaf(rng)
    elif roll < 0.85:  # dry grass, sand, soil
        colour = hsv(span(rng, 0.07, 0.16), span(rng, 0.25, 0.55), span(rng, 0.3, 0.65))
    else:
        colour = stone(rng, 0.3, 0.6)
    return Surface(colour, span(rng, 0.18, 0.4), span(rng, 8, 30), faces=0, upness=1.0)


def masonry(rng: Random) -> Surface:
    """Facade or wall: bare, brick or panels."""
    base = Surface(plaster(rng), span(rng, 0.05, 0.18), span(rng, 3, 12))
    roll = rng.random()
    if roll < 0.35:
        width = span(rng, 0.3, 0.6)
        base = base._replace(grid_w=width, grid_h=width * 0.4, grid_gain=span(rng, -0.35, 0.3))
    elif roll < 0.6:
        base = base._replace(
            grid_w=span(rng, 1, 3), grid_h=span(rng, 0.6, 3.0), grid_gain=span(rng, -0.35, -0.1)
        )
    return base
