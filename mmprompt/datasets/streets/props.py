"""Street furniture and plants: trees, hedges, poles, lamps, traffic lights, signs, bins."""

import math
from random import Random

from mmprompt.datasets.streets import palette
from mmprompt.datasets.streets.canvas import Canvas, Surface, ramp
from mmprompt.datasets.streets.classes import LIGHT, POLE, SIGN, VEGETATION
from mmprompt.datasets.streets.palette import pick, span


def foliage(rng: Random) -> Surface:
    return Surface(palette.leaf(rng), span(rng, 0.3, 0.55), span(rng, 7, 14), upness=0.5)


def blob(
    canvas: Canvas, rng: Random, identity, surface: Surface, plane, centre, rx, ry, points: int = 15
) -> None:
    """An irregular leafy outline in pixels, brighter on top."""
    start = rng.random()
    outline = []
    for i in range(points):
        angle, reach = (i + start) * 2 * math.pi / points, span(rng, 0.74, 1.1)
        outline.append(
            (centre[0] + rx * reach * math.cos(angle), centre[1] + ry * reach * math.sin(angle))
        )
    canvas.quad(identity, surface, outline, plane, top=1.3, bottom=0.6)


def tree(canvas: Canvas, rng: Random, x: float, z: float, sun, height: float | None = None) -> None:
    """A trunk (vegetation in Cityscapes) with a leafy, conical or bare crown."""
    camera, identity = canvas.camera, canvas.identity(VEGETATION)
    height = span(rng, 4, 10) if height is None else height
    wide, crown = height * span(rng, 0.22, 0.38), height * span(rng, 0.3, 0.42)
    plane, metre = camera.facing(z), camera.focal / z
    brown = palette.hsv(span(rng, 0.04, 0.12), span(rng, 0.1, 0.45), span(rng, 0.15, 0.4))
    bark = Surface(brown, 0.3, 15.0)
    foot, neck = camera.project(x, 0, z), camera.project(x, height - crown * 1.4, z)
    half = max(height * 0.022 * metre, 1.0)
    canvas.quad(
        identity,
        bark,
        [
            (foot[0] - half, foot[1]),
            (foot[0] + half, foot[1]),
            (neck[0] + half * 0.7, neck[1]),
            (neck[0] - half * 0.7, neck[1]),
        ],
        plane,
    )
    shade = [
        camera.project(
            x + height * 0.7 * sun[0] + wide * math.cos(a),
            0,
            max(z + height * 0.7 * sun[1] + wide * math.sin(a), 1.0),
        )
        for a in (i * 0.6283 for i in range(10))
    ]
    canvas.cast(shade)
    top = camera.project(x, height - crown, z)
    leaves, roll = foliage(rng), rng.random()
    if roll < 0.1:
        _bare(canvas, rng, identity, bark, plane, neck, top, wide * metre, crown * metre)
    elif roll < 0.22:  # a conifer
        tip = camera.project(x, height, z)
        for i in range(3):
            low = height * (0.12 + 0.26 * i)
            v, w = camera.project(x, low, z)[1], wide * metre * (0.85 - 0.24 * i)
            canvas.quad(
                identity,
                leaves,
                [
                    (tip[0] - w, v),
                    (tip[0] + w, v),
                    (tip[0], tip[1] + (2 - i) * 0.15 * (v - tip[1])),
                ],
                plane,
                top=1.15,
                bottom=0.65,
            )
    else:
        rx, ry = wide * metre, crown * metre
        blob(canvas, rng, identity, leaves, plane, top, rx, ry)
        for _ in range(3 if z < 40 else 1):
            centre = (top[0] + rx * span(rng, -0.6, 0.6), top[1] + ry * span(rng, -0.5, 0.45))
            tint = leaves._replace(colour=palette.scaled(leaves.colour, span(rng, 0.75, 1.3)))
            blob(canvas, rng, identity, tint, plane, centre, rx * 0.55, ry * 0.55, 11)


def _bare(canvas: Canvas, rng: Random, identity, bark, plane, neck, top, rx, ry) -> None:
    part = canvas.part(identity, bark._replace(upness=0.3), plane)
    outline = [
        (top[0] + rx * 0.8 * math.cos(a), top[1] + ry * 0.9 * math.sin(a))
        for a in (i * 0.785 for i in range(8))
    ]
    canvas.fill(part, outline, seen=False)
    width = max(rx * 0.05, 1)
    for _ in range(9):
        angle, reach = span(rng, 0.1, 0.9) * math.pi, span(rng, 0.6, 1.0)
        end = (
            top[0] + rx * 0.85 * reach * math.cos(angle),
            top[1] - ry * 0.9 * reach * math.sin(angle) + ry * 0.25,
        )
        bend = ((neck[0] + end[0]) / 2, (neck[1] * 0.35 + end[1] * 0.65))
        canvas.line(part, [neck, bend, end], width)
        canvas.line(part, [bend, (end[0] + rx * span(rng, -0.3, 0.3), end[1])], width * 0.6)


def bush(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    camera = canvas.camera
    size, metre = span(rng, 0.5, 1.4), camera.focal / z
    blob(
        canvas,
        rng,
        canvas.identity(VEGETATION),
        foliage(rng),
        camera.facing(z),
        camera.project(x, size * 0.45, z),
        size * 1.1 * metre,
        size * 0.6 * metre,
        11,
    )


def post(
    canvas: Canvas,
    rng: Random,
    x: float,
    z: float,
    height: float,
    width: float,
    sun,
    low: float = 0.0,
) -> int:
    """A pole of ``width`` metres, never under 1.6 pixels within 40 m. Returns its part."""
    camera = canvas.camera
    colour = palette.stone(rng, 0.15, 0.7) if rng.random() < 0.85 else palette.vivid(rng)
    part = canvas.part(canvas.identity(POLE), Surface(colour, 0.08, 10.0), camera.facing(z))
    half = max(width * camera.focal / z / 2, 0.8 if z < 40 else 0.5)
    (u, v1), (_, v2) = camera.project(x, low, z), camera.project(x, height, z)
    canvas.fill(part, [(u - half, v1), (u + half - 0.6, v1), (u + half - 0.6, v2), (u - half, v2)])
    end = camera.project(x + height * sun[0], 0, max(z + height * sun[1], 1.0))
    canvas.cast([camera.project(x - 0.07, 0, z), camera.project(x + 0.07, 0, z), end], hull=False)
    return part


def street_lamp(canvas: Canvas, rng: Random, x: float, z: float, toward: float, sun) -> None:
    """A tall lamp pole with an arm ``toward`` the road (+1 right)."""
    height, reach = span(rng, 5, 8), span(rng, 0.8, 2.2)
    part = post(canvas, rng, x, z, height, span(rng, 0.13, 0.2), sun)
    camera, metre = canvas.camera, canvas.camera.focal / z
    arm = [camera.project(x, height, z), camera.project(x + toward * reach, height + 0.25, z)]
    canvas.line(part, arm, max(0.1 * metre, 1))
    head = canvas.part(
        canvas.identity(POLE), Surface((0.75, 0.73, 0.65), 0.05, emit=2.2), camera.facing(z)
    )
    canvas.line(
        head,
        [arm[1], camera.project(x + toward * (reach + 0.5), height + 0.25, z)],
        max(0.16 * metre, 1.6),
    )
    warm = pick(rng, (1.0, 0.75, 0.4), (1.0, 0.85, 0.6), (0.9, 0.95, 1.0))
    canvas.lamps.append((x + toward * (reach + 0.3), height, z, 1.0, warm))


def traffic_light(canvas: Canvas, rng: Random, x: float, z: float, toward: float, sun) -> None:
    """One or two boxes on a pole, at times one more over the road; some seen from behind."""
    height = span(rng, 2.9, 3.6)
    part = post(canvas, rng, x, z, height, 0.14, sun)
    state, behind = int(rng.random() * 3), rng.random() < 0.15
    _signal_head(canvas, rng, x, height - 0.5, z, state, behind)
    if rng.random() < 0.25:
        _signal_head(canvas, rng, x + 0.35 * toward, height - 0.6, z, state, behind)
    if rng.random() < 0.35:
        reach, top = span(rng, 2.5, 5), span(rng, 5, 5.8)
        camera = canvas.camera
        bend = [
            camera.project(x, 0, z),
            camera.project(x, top, z),
            camera.project(x + toward * reach, top + 0.15, z),
        ]
        canvas.line(part, bend, max(0.15 * camera.focal / z, 1.6))
        _signal_head(canvas, rng, x + toward * reach, top - 0.2, z, state, behind)


def _signal_head(canvas: Canvas, rng: Random, x, y, z, state: int, behind: bool) -> None:
    camera, identity = canvas.camera, canvas.identity(LIGHT)
    wide, tall, plane = span(rng, 0.19, 0.25), span(rng, 0.5, 0.62), camera.facing(z)
    colour = pick(rng, (0.06, 0.07, 0.06), (0.08, 0.08, 0.09), (0.07, 0.12, 0.09), (0.5, 0.4, 0.08))
    box = [
        camera.project(x + a * wide, y + b * tall, z)
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    canvas.quad(identity, Surface(colour, 0.08, 10.0), box, plane)
    if behind:
        return
    for i, tint in enumerate(((0.95, 0.12, 0.08), (0.98, 0.7, 0.1), (0.15, 0.9, 0.5))):
        on = i == state
        part = canvas.part(
            identity,
            Surface(tint if on else palette.scaled(tint, 0.25), 0.03, emit=1.8 if on else 0.0),
            plane,
        )
        u, v = camera.project(x, y + tall * 0.62 * (1 - i), z)
        r = max(wide * 0.72 * camera.focal / z, 1.0)
        canvas.fill(
            part,
            [(u + r * math.cos(a), v + r * math.sin(a)) for a in (k * 0.785 for k in range(8))],
        )
        if on:
            canvas.lamps.append((x, y, z - 0.1, 0.06, tint))


SHAPES = {
    'round': [(math.cos(k * 0.5236), math.sin(k * 0.5236)) for k in range(12)],
    'warning': [(-1, -0.8), (1, -0.8), (0, 1)],
    'yield': [(-1, 0.8), (1, 0.8), (0, -1)],
    'square': [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    'diamond': [(-1.1, 0), (0, -1.1), (1.1, 0), (0, 1.1)],
    'stop': [(math.cos(0.3927 + k * 0.7854), math.sin(0.3927 + k * 0.7854)) for k in range(8)],
    'board': [(-1.8, -0.9), (1.8, -0.9), (1.8, 0.9), (-1.8, 0.9)],
    'tall': [(-0.6, -1.1), (0.6, -1.1), (0.6, 1.1), (-0.6, 1.1)],
}
RED, BLUE, WHITE, YELLOW, GREEN = (
    (0.75, 0.08, 0.08),
    (0.1, 0.25, 0.65),
    (0.88, 0.88, 0.86),
    (0.9, 0.7, 0.12),
    (0.08, 0.4, 0.25),
)
FACES = {  # rim and plate
    'round': ((RED, WHITE), (BLUE, BLUE), (RED, BLUE), (WHITE, RED)),
    'warning': ((RED, WHITE), (RED, YELLOW)),
    'yield': ((RED, WHITE),),
    'square': ((WHITE, BLUE), (BLUE, WHITE)),
    'diamond': ((WHITE, YELLOW), (YELLOW, YELLOW)),
    'stop': ((WHITE, RED), (RED, RED)),
    'board': ((WHITE, BLUE), (WHITE, GREEN), (YELLOW, YELLOW), (WHITE, WHITE)),
    'tall': ((WHITE, WHITE), (WHITE, BLUE), (RED, WHITE)),
}


def sign(canvas: Canvas, rng: Random, x: float, z: float, sun, high: float | None = None) -> None:
    """One or two plates on a pole; one in eight shows its grey back (annotated as sign too)."""
    top = span(rng, 2.2, 3.2) if high is None else high
    if high is None:
        post(canvas, rng, x, z, top + 0.1, 0.1, sun)
    size = span(rng, 0.33, 0.55)
    _plate(canvas, rng, x, top - size, z, size)
    if rng.random() < 0.25:
        _plate(canvas, rng, x, top - 2.7 * size, z, size * 0.7)


def _plate(canvas: Canvas, rng: Random, x, y, z, size) -> None:
    camera, identity = canvas.camera, canvas.identity(SIGN)
    name = pick(rng, *SHAPES)
    rim, plate = pick(rng, *FACES[name])
    if rng.random() < 0.12:
        rim = plate = palette.stone(rng, 0.4, 0.6)
    gain, plane = span(rng, 0.7, 1.05), camera.facing(z)
    for colour, reach in ((rim, 1.0), (plate, 0.74)):
        outline = [
            camera.project(x + a * size * reach, y + b * size * reach, z) for a, b in SHAPES[name]
        ]
        part = canvas.part(
            identity,
            Surface(palette.scaled(colour, gain), 0.05, 8.0),
            plane,
            shade=ramp(outline, 1.05, 0.95),
        )
        canvas.fill(part, outline)
    ink = canvas.part(
        identity, Surface((0.1, 0.1, 0.1) if sum(plate) > 1.6 else WHITE, 0.05), plane
    )
    if z < 25:
        for _ in range(1 + int(rng.random() * 2)):
            w, h = span(rng, 0.1, 0.4) * size, span(rng, -0.3, 0.3) * size
            canvas.line(
                ink,
                [camera.project(x - w, y + h, z), camera.project(x + w, y + h, z)],
                max(0.12 * size * camera.focal / z, 1),
            )


def bin_or_box(canvas: Canvas, rng: Random, x: float, z: float, sun) -> None:
    """Something without a class: a bin, a cabinet or a bollard, to be ignored."""
    camera = canvas.camera
    half, height = span(rng, 0.15, 0.6), span(rng, 0.7, 1.5)
    surface = Surface(palette.vivid(rng) if rng.random() < 0.5 else palette.stone(rng), 0.1, 8.0)
    points = [
        camera.project(x + a * half, b * height, z) for a, b in ((-1, 0), (1, 0), (1, 1), (-1, 1))
    ]
    canvas.quad(canvas.unlabelled(), surface, points, camera.facing(z), top=1.1, bottom=0.7)
    far = [(x + a * half + height * sun[0], max(z + height * sun[1], 1.0)) for a in (-1, 1)]
    canvas.cast([points[0], points[1]] + [camera.project(px, 0, pz) for px, pz in far])
