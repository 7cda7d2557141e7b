"""A street scene: who stands where. Labels, depth and materials; nothing about the weather."""

import math
from random import Random
from typing import NamedTuple

import numpy as np

from mmprompt.datasets.streets import frontage, palette, props
from mmprompt.datasets.streets.canvas import GROUND, SCREEN, Camera, Canvas, Road, Surface
from mmprompt.datasets.streets.classes import EGO_ID, ROAD, SIDEWALK, TERRAIN
from mmprompt.datasets.streets.palette import pick, span
from mmprompt.datasets.streets.traffic import people_items, traffic_items

FAR = 140.0  # metres; the road is drawn up to here


class Style(NamedTuple):
    """Weights of what lines the street, and how far back it stands."""

    kinds: tuple  # building, wall, fence, hedge, trees, gap
    setback: tuple
    trees: float
    tall: tuple


STYLES = {
    'city': Style((0.72, 0.07, 0.07, 0.04, 0.04, 0.06), (0.0, 1.5), 0.35, (8, 24)),
    'suburb': Style((0.26, 0.2, 0.2, 0.14, 0.1, 0.1), (0.0, 3.0), 0.6, (4.5, 9)),
    'park': Style((0.08, 0.16, 0.2, 0.2, 0.26, 0.1), (0.0, 4.0), 0.8, (6, 16)),
    'open': Style((0.1, 0.14, 0.22, 0.06, 0.18, 0.3), (1.0, 7.0), 0.4, (5, 14)),
}
STYLE_OF_TOWN = (
    ('city', 'city'),
    ('city', 'city'),
    ('city', 'suburb'),
    ('suburb', 'suburb'),
    ('suburb', 'park'),
    ('city', 'park'),
    ('open', 'open'),
    ('open', 'suburb'),
    ('park', 'park'),
)


class Street:
    """Measures of one street; distances in metres from the centre line."""

    def __init__(self, rng: Random, size):
        height, width = size
        focal = width * span(rng, 0.55, 0.85)
        horizon = height * span(rng, 0.36, 0.5)
        self.camera = Camera(size, focal, span(rng, 1.25, 2.1), horizon)
        lanes = pick(rng, 1, 1, 2, 2, 3)
        self.lane = span(rng, 2.8, 3.5)
        self.parking = [rng.random() < 0.6, rng.random() < 0.6]
        self.half = [
            lanes * self.lane / 2 + 0.4 + 2.1 * p + (0.0 if lanes > 1 else 1.4)
            for p in self.parking
        ]  # to the left and right kerb
        offset = -span(rng, 0.2, 0.8) * self.half[1] * 0.6
        bend = span(rng, -1, 1) ** 3 * 0.004
        self.road = Road(offset, span(rng, -0.1, 0.1), bend)
        self.walk = [span(rng, 1.4, 4.2), span(rng, 1.4, 4.2)]
        self.verge = [span(rng, 0.8, 3.0) if rng.random() < 0.35 else 0.0 for _ in range(2)]
        self.styles = [STYLES[s] for s in pick(rng, *STYLE_OF_TOWN)]
        self.crossing = span(rng, 14, 42) if rng.random() < 0.45 else None
        self.cross_half = span(rng, 3, 5.5)
        elevation, azimuth = math.radians(span(rng, 18, 62)), rng.random() * 2 * math.pi
        reach = 1 / math.tan(elevation)
        self.sun = (reach * math.sin(azimuth), reach * math.cos(azimuth))
        self.elevation = elevation
        self.near = focal * self.camera.height / (height - horizon) * 0.8

    def edge(self, side: int) -> float:
        """Signed distance of the kerb; ``side`` 0 left, 1 right."""
        return (-1, 1)[side] * self.half[side]

    def front(self, side: int) -> float:
        """Signed distance of the far side of the pavement."""
        return self.edge(side) + (-1, 1)[side] * (self.walk[side] + self.verge[side])

    def in_crossing(self, z: float, margin: float = 0.0) -> bool:
        return self.crossing is not None and abs(z - self.crossing) < self.cross_half + margin


class Scene(NamedTuple):
    """What `build` returns; the canvas holds the part maps and the table."""

    canvas: Canvas
    street: Street


def build(rng: Random, size) -> Scene:
    """Lay out one scene.

    Args:
        rng: the only source of chance.
        size: height and width in pixels.
    """
    street = Street(rng, size)
    canvas = Canvas(street.camera, Surface((0.5, 0.6, 0.75), 0.0))
    frontage.skyline(canvas, rng)
    ground(canvas, rng, street)
    items = []  # (depth key, paint): painted from far to near
    for side in range(2):
        items += side_items(canvas, rng, street, side)
        items += furniture_items(canvas, rng, street, side)
    if rng.random() < 0.3:
        z = span(rng, 70, 120)
        x = street.road.x(z)
        items.append(
            (
                z,
                lambda: frontage.far_building(
                    canvas, rng, x, z, span(rng, 15, 40), span(rng, 8, 20)
                ),
            )
        )
    items += traffic_items(canvas, rng, street)
    items += people_items(canvas, rng, street)
    for _, paint in sorted(items, key=lambda item: -item[0]):
        paint()
    if rng.random() < 0.4:
        _ego(canvas, rng, size)
    return Scene(canvas, street)


def _ego(canvas: Canvas, rng: Random, size) -> None:
    height, width = size
    low, bulge = height * span(rng, 0.01, 0.05), height * span(rng, 0.01, 0.05)
    arc = [(width * i / 12, height - low - bulge * math.sin(math.pi * i / 12)) for i in range(13)]
    hood = Surface(palette.paint(rng), 0.03, 2.0, gloss=0.3)
    canvas.quad(
        canvas.unlabelled(EGO_ID),
        hood,
        [(0, height), *arc, (width, height)],
        (0.0, 0.0, 1.0),
        SCREEN,
        top=1.1,
        bottom=0.8,
    )


def _strip(
    canvas: Canvas, street: Street, identity, surface: Surface, d1, d2, z1=None, z2=FAR, level=None
) -> None:
    """Fill the ground between two distances from the centre line."""
    camera, road = street.camera, street.road
    z1 = street.near if z1 is None else max(z1, street.near)
    if z2 <= z1:
        return
    count = 12 if road.bend and z2 - z1 > 20 else 2
    depths = [1 / (1 / z1 + (1 / z2 - 1 / z1) * i / (count - 1)) for i in range(count)]
    left = [camera.project(road.x(z, d1), 0, z) for z in depths]
    right = [camera.project(road.x(z, d2), 0, z) for z in reversed(depths)]
    part = canvas.part(identity, surface, camera.level(), GROUND)
    canvas.fill(part, left + right)


def ground(canvas: Canvas, rng: Random, street: Street) -> None:
    """Terrain or paving everywhere, then pavements, verges, the carriageway and its markings."""
    camera = street.camera
    height, width = camera.size
    for side in range(2):
        style = street.styles[side]
        paved = rng.random() < (0.75 if style is STYLES['city'] else 0.15)
        surface = palette.pavement(rng) if paved else palette.grass(rng)
        identity = canvas.identity(SIDEWALK if paved else TERRAIN)
        middle = camera.project(street.road.x(FAR), 0, FAR)[0]
        left, right = ((-10, middle), (middle, width + 10))[side]
        part = canvas.part(identity, surface, camera.level(), GROUND)
        foot = width / 2
        canvas.fill(
            part,
            [
                (left, camera.horizon),
                (right, camera.horizon),
                (right if side else foot, height),
                (left if not side else foot, height),
            ],
        )
    walk, verge = palette.pavement(rng), palette.grass(rng)
    tar = palette.asphalt(rng)
    walk_id, verge_id = canvas.identity(SIDEWALK), canvas.identity(TERRAIN)
    road_id = canvas.identity(ROAD)
    for side, sign in enumerate((-1, 1)):
        edge = street.edge(side)
        if rng.random() < 0.25:
            walk = palette.pavement(rng)
        _strip(canvas, street, walk_id, walk, edge, street.front(side))
        if street.verge[side]:
            _strip(
                canvas,
                street,
                verge_id,
                verge,
                edge + sign * 0.3,
                edge + sign * (0.3 + street.verge[side]),
            )
        kerb = Surface(palette.stone(rng, 0.4, 0.8), 0.1, 10.0, 1.0, 9.0, -0.3, faces=0, upness=1.0)
        _strip(canvas, street, walk_id, kerb, edge, edge + sign * 0.22)
    if street.crossing is not None:
        z1, z2 = street.crossing - street.cross_half, street.crossing + street.cross_half
        for margin, identity, surface in ((2.5, walk_id, walk), (0, road_id, tar)):
            _strip(canvas, street, identity, surface, -70, 70, z1 - margin, z2 + margin)
    _strip(canvas, street, road_id, tar, street.edge(0), street.edge(1))
    _markings(canvas, rng, street, road_id, tar)


def _markings(canvas: Canvas, rng: Random, street: Street, road_id, tar: Surface) -> None:
    """Patches, lane lines and zebra crossings, all of them road."""
    wear = span(rng, 0.55, 1.0)
    white = tuple(c + (0.88 - c) * wear for c in tar.colour)
    line = Surface(white, 0.15, 14.0, faces=0, upness=1.0)
    for side in range(2):
        if street.parking[side] and rng.random() < 0.5:
            lay = palette.asphalt(rng)
            edge = street.edge(side)
            _strip(canvas, street, road_id, lay, edge, edge - (-1, 1)[side] * 2.1)
    for _ in range(int(rng.random() * 6)):  # repairs and manholes
        d, z = span(rng, street.edge(0), street.edge(1) - 1), span(rng, 4, 35)
        patch = tar._replace(colour=palette.scaled(tar.colour, span(rng, 0.65, 1.25)))
        _strip(
            canvas, street, road_id, patch, d, d + span(rng, 0.5, 2.5), z, z + span(rng, 0.6, 12)
        )
    dash, gap = span(rng, 1.5, 4), span(rng, 2, 6) if rng.random() < 0.75 else 0.0
    if rng.random() < 0.8:
        for d in (0.0, street.lane, -street.lane) if min(street.half) > 6 else (0.0,):
            z = street.near
            while z < 75:
                _strip(canvas, street, road_id, line, d - 0.07, d + 0.07, z, z + dash)
                z += dash + gap
    if rng.random() < 0.45:
        for side, sign in enumerate((-1, 1)):
            d = street.edge(side) - sign * (0.35 + 2.1 * street.parking[side])
            _strip(canvas, street, road_id, line, d, d + 0.12)
    zebra = None
    if street.crossing is not None and rng.random() < 0.7:
        zebra = street.crossing - street.cross_half - 3.2
    elif rng.random() < 0.2:
        zebra = span(rng, 7, 25)
    if zebra is not None:
        d = street.edge(0) + 0.3
        while d < street.edge(1) - 0.4:
            _strip(canvas, street, road_id, line, d, d + 0.5, zebra, zebra + 2.8)
            d += 1.0


def side_items(canvas: Canvas, rng: Random, street: Street, side: int) -> list:
    """Buildings, walls, fences, hedges and trees along one side, with a second row behind gaps."""
    sign, style = (-1, 1)[side], street.styles[side]
    items, z = [], span(rng, 1.6, 5)
    base = street.front(side) + sign * span(rng, *style.setback)
    height = span(rng, *style.tall)
    while z < 115:
        kind = _draw(rng, style.kinds)
        length = span(rng, 7, 20) if kind == 0 else span(rng, 5, 16)
        end = z + length
        if (
            street.crossing is not None
            and z < street.crossing + street.cross_half + 3
            and (end > street.crossing - street.cross_half - 3)
        ):
            if end - (street.crossing - street.cross_half - 3) > 0 and (
                street.crossing - street.cross_half - 3 - z > 4
            ):
                end = street.crossing - street.cross_half - 3
            else:
                z = street.crossing + street.cross_half + 3
                continue
        height = height * 0.5 + 0.5 * span(rng, *style.tall)
        items += _segment(canvas, rng, street, kind, base, z, end, height, style)
        z = end + (span(rng, 0.5, 4) if rng.random() < 0.3 else 0)
    return items


def _draw(rng: Random, weights) -> int:
    roll = rng.random() * sum(weights)
    for i, weight in enumerate(weights):
        roll -= weight
        if roll < 0:
            return i
    return len(weights) - 1


def _segment(canvas, rng, street, kind, base, z1, z2, height, style) -> list:
    road, sun, items = street.road, street.sun, []
    sign = math.copysign(1, base)
    if kind == 0:
        d = base + sign * (span(rng, 0, 2) if rng.random() < 0.3 else 0)
        items.append((z2, lambda: frontage.building(canvas, rng, road, d, z1, z2, height, sun)))
    elif kind <= 3:
        paint = (frontage.wall, frontage.fence, frontage.hedge)[kind - 1]
        items.append((z2, lambda: paint(canvas, rng, road, base, z1, z2, sun)))
    if kind in (1, 2, 3, 5) and rng.random() < 0.6:  # a house behind
        back = base + sign * span(rng, 5, 14)
        low, rear = span(rng, *style.tall), z2 - span(rng, 0, 3)
        items.append(
            (
                z2 + 0.5,
                lambda: frontage.building(canvas, rng, road, back, z1, max(rear, z1 + 3), low, sun),
            )
        )
    if kind and rng.random() < style.trees + 0.2 * (kind == 4):
        for _ in range(1 + int(rng.random() * (4 if kind == 4 else 2))):
            d, z = base + sign * span(rng, 0.8, 7), span(rng, max(z1, 6), max(z2, 7))
            items.append(_tree(canvas, rng, street, d, z, z2 + 0.2))
    if kind in (4, 5):
        for _ in range(int(rng.random() * 4)):
            x, z = road.x(z1, base + sign * span(rng, 0, 5)), span(rng, max(z1, 5), max(z2, 6))
            items.append((z, lambda x=x, z=z: props.bush(canvas, rng, x, z)))
    return items


def _tree(canvas, rng, street, d, z, key=None) -> tuple:
    x = street.road.x(z, d)
    return (z if key is None else key, lambda: props.tree(canvas, rng, x, z, street.sun))


def furniture_items(canvas: Canvas, rng: Random, street: Street, side: int) -> list:
    """Street trees, lamps, signs, traffic lights and bins between kerb and front."""
    sign, items, road, sun = (-1, 1)[side], [], street.road, street.sun
    edge = street.edge(side)

    def put(paint, d, z, *rest):
        if not street.in_crossing(z, 1.0):
            x = road.x(z, d)
            items.append((z, lambda: paint(canvas, rng, x, z, *rest)))

    if rng.random() < street.styles[side].trees:
        z, pitch, d = span(rng, 5, 14), span(rng, 7, 14), edge + sign * span(rng, 0.7, 1.3)
        while z < 80:
            if rng.random() < 0.8:
                put(props.tree, d, z, sun, span(rng, 4, 8))
            z += pitch
    if rng.random() < 0.6:
        z, pitch = span(rng, 6, 20), span(rng, 14, 28)
        while z < 80:
            put(props.street_lamp, edge + sign * 0.5, z, -sign, sun)
            z += pitch
    for _ in range(int(rng.random() * 3.2)):
        put(props.sign, edge + sign * span(rng, 0.4, 0.9), 5 + 22 * rng.random() ** 1.5, sun)
    if street.crossing is not None and rng.random() < 0.75:
        z = street.crossing - street.cross_half - 1.5
        put(props.traffic_light, edge + sign * 0.6, z, -sign, sun)
    elif rng.random() < 0.25:
        put(props.traffic_light, edge + sign * 0.6, span(rng, 8, 24), -sign, sun)
    for _ in range(int(rng.random() * 2)):
        put(
            props.bin_or_box, edge + sign * span(rng, 0.5, street.walk[side]), span(rng, 6, 30), sun
        )
    for _ in range(int(rng.random() * 2.2)):
        z = span(rng, 6, 30)
        items.append(
            (
                z,
                lambda z=z: props.post(
                    canvas, rng, road.x(z, edge + sign * 0.4), z, span(rng, 0.9, 6), 0.13, sun
                ),
            )
        )
    return items


def seeded(seed: int, split: str, index: int, stream: str) -> np.random.SeedSequence:
    """Independent chance for each (seed, split, index) and purpose."""
    words = [b for text in (split, stream) for b in (len(text), *text.encode())]
    return np.random.SeedSequence([seed, index, *words])


def scene_random(seed: int, split: str, index: int) -> Random:
    state = seeded(seed, split, index, 'layout').generate_state(4, np.uint64)
    return Random(int.from_bytes(state.tobytes(), 'little'))
