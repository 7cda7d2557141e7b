"""What lines a street: buildings with windows, walls, fences, hedges and the far skyline."""

import math
from random import Random

from mmprompt.datasets.streets import palette
from mmprompt.datasets.streets.canvas import BACK, LEFT, RIGHT, SIDE, Canvas, Road, Surface
from mmprompt.datasets.streets.classes import BUILDING, FENCE, TERRAIN, VEGETATION, WALL
from mmprompt.datasets.streets.palette import pick, span
from mmprompt.datasets.streets.props import blob, foliage


class Stretch:
    """A vertical plane along the road at distance ``d`` (signed) between two depths."""

    def __init__(self, canvas: Canvas, road: Road, d: float, z1: float, z2: float):
        self.canvas, self.d, self.z1, self.z2 = canvas, d, z1, z2
        self.ends = ((road.x(z1, d), z1), (road.x(z2, d), z2))
        self.plane = canvas.camera.upright(*self.ends[0], *self.ends[1])
        self.faces = RIGHT if d < 0 else LEFT

    def point(self, share: float, y: float):
        (x1, z1), (x2, z2) = self.ends
        return self.canvas.camera.project(x1 + share * (x2 - x1), y, z1 + share * (z2 - z1))

    def quad(self, identity, surface: Surface, y1, y2, a=0.0, b=1.0, top=1.0, bottom=1.0) -> None:
        points = [self.point(a, y1), self.point(b, y1), self.point(b, y2), self.point(a, y2)]
        self.canvas.quad(
            identity, surface._replace(faces=self.faces), points, self.plane, SIDE, top, bottom
        )

    def shadow(self, height: float, sun) -> None:
        camera = self.canvas.camera
        base = [self.ends[0], self.ends[1]]
        far = [(x + height * sun[0], max(z + height * sun[1], 1.0)) for x, z in base]
        self.canvas.cast([camera.project(x, 0, max(z, 1.0)) for x, z in base + far])


def window_row(rng: Random) -> tuple:
    """Width, height, glazed shares, colour, lowest sill, lit share and pane seed of a facade."""
    tint = pick(
        rng,
        (0.12, 0.14, 0.17),
        (0.2, 0.25, 0.32),
        (0.35, 0.42, 0.5),
        (0.08, 0.08, 0.09),
        (0.55, 0.6, 0.65),
    )
    band = rng.random() < 0.15  # ribbon windows
    return (
        span(rng, 1.5, 3.4),
        span(rng, 2.7, 3.6),
        1.0 if band else span(rng, 0.35, 0.75),
        span(rng, 0.4, 0.65),
        *tint,
        span(rng, 0.4, 1.2),
        span(rng, 0.1, 0.5),
        rng.random(),
    )


def building(
    canvas: Canvas, rng: Random, road: Road, d: float, z1: float, z2: float, height: float, sun
) -> None:
    """A facade along the road, the end that looks at the camera, a shop floor and a roof."""
    identity, camera = canvas.identity(BUILDING), canvas.camera
    front = Stretch(canvas, road, d, z1, z2)
    wall = palette.masonry(rng)
    if rng.random() < 0.92:
        canvas.windows.append(window_row(rng))
        wall = wall._replace(window=len(canvas.windows) - 1, gloss=0.0)
    side = math.copysign(1, d)
    front.shadow(height, sun)
    depth = span(rng, 8, 14)
    x, roof = front.ends[0][0], palette.stone(rng, 0.2, 0.5)
    if rng.random() < 0.5:
        roof = palette.hsv(span(rng, 0, 0.07), span(rng, 0.3, 0.65), span(rng, 0.25, 0.55))
    rise = span(rng, 1.5, 4) if rng.random() < 0.55 else 0.0
    end = [
        camera.project(x, 0, z1),
        camera.project(x + side * depth, 0, z1),
        camera.project(x + side * depth, height, z1),
        camera.project(x + side * depth / 2, height + rise, z1),
        camera.project(x, height, z1),
    ]
    blind = wall if rng.random() < 0.5 else wall._replace(window=-1)
    if rise:
        tiles = Surface(roof, 0.2, 8.0, 0.5, 0.4, -0.2, upness=1.0)
        (xa, za), (xb, zb) = front.ends
        slope = [
            camera.project(xa, height, za),
            camera.project(xb, height, zb),
            camera.project(xb + side * depth / 2, height + rise, zb),
            camera.project(xa + side * depth / 2, height + rise, za),
        ]
        canvas.quad(identity, tiles._replace(faces=front.faces), slope, front.plane, SIDE)
    canvas.quad(identity, blind._replace(faces=BACK), end, camera.facing(z1), top=1.05, bottom=0.9)
    front.quad(identity, wall, 0, height, top=1.05, bottom=0.85)
    _trim(rng, front, identity, wall, height, z2 - z1)


def _trim(rng: Random, front: Stretch, identity, wall: Surface, height, length) -> None:
    roll = rng.random()
    if roll < 0.45:  # shops: a dark glazed floor with signs above
        shop = Surface(palette.stone(rng, 0.1, 0.5), 0.15, 3.0, 2.5, 9.0, -0.4, gloss=0.3)
        front.quad(identity, shop, 0, 2.9)
        count = max(1, int(length / 6))
        for i in range(count):
            a, b = (i + 0.05) / count, (i + 0.95) / count
            front.quad(identity, Surface(palette.vivid(rng), 0.1, 5.0, emit=0.5), 2.6, 3.3, a, b)
    elif roll < 0.8:  # a plinth and a door
        front.quad(
            identity, Surface(palette.stone(rng, 0.2, 0.5), 0.15, 6.0), 0, span(rng, 0.5, 1.0)
        )
        a = span(rng, 0.1, 0.8)
        front.quad(identity, Surface(palette.vivid(rng), 0.1, 5.0), 0, 2.2, a, a + 1.3 / length)
    if rng.random() < 0.5:
        cornice = wall._replace(colour=palette.scaled(wall.colour, span(rng, 0.7, 1.3)), window=-1)
        front.quad(identity, cornice, height - 0.5, height)


def far_building(
    canvas: Canvas, rng: Random, x: float, z: float, width: float, height: float
) -> None:
    """A facade across the view."""
    camera, identity = canvas.camera, canvas.identity(BUILDING)
    wall = palette.masonry(rng)
    canvas.windows.append(window_row(rng))
    wall = wall._replace(window=len(canvas.windows) - 1)
    outline = [
        camera.project(x - width / 2, 0, z),
        camera.project(x + width / 2, 0, z),
        camera.project(x + width / 2, height, z),
    ]
    if rng.random() < 0.4:
        outline.append(camera.project(x, height + span(rng, 1, 4), z))
    outline.append(camera.project(x - width / 2, height, z))
    canvas.quad(identity, wall, outline, camera.facing(z), top=1.05, bottom=0.9)


def wall(canvas: Canvas, rng: Random, road: Road, d, z1, z2, sun) -> None:
    """A free-standing wall without windows, with coping, at times with graffiti."""
    identity, height = canvas.identity(WALL), span(rng, 1.1, 3.4)
    front = Stretch(canvas, road, d, z1, z2)
    surface = palette.masonry(rng)
    front.shadow(height, sun)
    camera, x = canvas.camera, front.ends[0][0]
    side = math.copysign(0.35, d)
    end = [
        camera.project(x + a * side, b * height, z1) for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]
    canvas.quad(identity, surface, end, camera.facing(z1))
    front.quad(identity, surface, 0, height, top=1.05, bottom=0.82)
    tint = palette.scaled(surface.colour, span(rng, 0.7, 1.3))
    front.quad(identity, Surface(tint, 0.1, 6.0, upness=0.9), height - 0.14, height)
    if rng.random() < 0.3:
        a = span(rng, 0.1, 0.6)
        front.quad(identity, Surface(palette.vivid(rng), 0.4, 6.0), 0.3, height * 0.7, a, a + 0.15)


def fence(canvas: Canvas, rng: Random, road: Road, d, z1, z2, sun) -> None:
    """Bars, mesh, planks or a guard rail: annotated filled, seen through between its parts."""
    identity, height = canvas.identity(FENCE), span(rng, 0.9, 2.2)
    front = Stretch(canvas, road, d, z1, z2)
    colour = palette.stone(rng, 0.1, 0.8) if rng.random() < 0.7 else palette.vivid(rng)
    surface = Surface(colour, 0.1, 8.0, faces=front.faces)
    part = canvas.part(identity, surface, front.plane, SIDE)
    outline = [front.point(a, y) for a, y in ((0, 0.03), (1, 0.03), (1, height), (0, height))]
    kind = rng.random()
    if kind < 0.2:  # planks hide what is behind
        planks = surface._replace(grid_w=span(rng, 0.12, 0.3), grid_h=9.0, grid_gain=-0.45)
        front.quad(identity, planks, 0.05, height, top=1.05, bottom=0.9)
        return
    if kind < 0.32:  # guard rail
        rail = [front.point(a, y) for a, y in ((0, 0.3), (1, 0.3), (1, 0.85), (0, 0.85))]
        canvas.fill(part, rail)
        pitch, rails = 2.0, ()
    else:
        canvas.fill(part, outline, seen=False)
        pitch = pick(rng, 0.14, 0.22, 0.35, 1.2) * (1 + z1 / 40)
        rails = (0.06, 0.96) if pitch < 1 else (0.06, 0.35, 0.65, 0.96)
    metre = canvas.camera.focal / max(z1, 3.0)
    for share in rails:
        canvas.line(
            part,
            [front.point(0, height * share), front.point(1, height * share)],
            min(max(0.05 * metre, 1), 3),
            label=False,
        )
    length = z2 - z1
    for i in range(min(int(length / pitch) + 1, 60)):
        share = i * pitch / length
        thick = 0.05 * canvas.camera.focal / max(z1 + share * length, 2.0)
        canvas.line(
            part,
            [front.point(share, 0), front.point(share, height)],
            min(max(thick, 1), 5),
            label=False,
        )


def hedge(canvas: Canvas, rng: Random, road: Road, d, z1, z2, sun) -> None:
    """A clipped or rough hedge."""
    identity, height = canvas.identity(VEGETATION), span(rng, 0.8, 2.6)
    front = Stretch(canvas, road, d, z1, z2)
    surface = foliage(rng)
    front.shadow(height, sun)
    count = max(3, int((z2 - z1) / 1.5))
    upper = [front.point(i / count, height * span(rng, 0.88, 1.1)) for i in range(count, -1, -1)]
    canvas.quad(
        identity,
        surface._replace(faces=front.faces),
        [front.point(0, 0), front.point(1, 0), *upper],
        front.plane,
        SIDE,
        1.25,
        0.6,
    )


def skyline(canvas: Canvas, rng: Random) -> None:
    """Hills, a tree line or the roofs of a town behind everything."""
    camera, width = canvas.camera, canvas.camera.size[1]
    kind, z = rng.random(), span(rng, 160, 320)
    plane = camera.facing(z)
    if kind < 0.35:
        identity = canvas.identity(VEGETATION if rng.random() < 0.7 else TERRAIN)
        surface = foliage(rng) if identity[0] == VEGETATION else palette.grass(rng)
        phase, tall = rng.random() * 7, span(rng, 0.02, 0.09) * camera.size[0]
        ridge = [
            (
                u,
                camera.horizon
                - tall * (1 + 0.5 * math.sin(phase + u / width * 5) + 0.15 * rng.random()),
            )
            for u in range(0, width + 1, max(width // 32, 1))
        ]
        outline = [(0, camera.horizon + 3), *ridge, (width, camera.horizon + 3)]
        canvas.quad(identity, surface._replace(scale=0.5), outline, plane, top=1.1, bottom=0.8)
    elif kind < 0.6:
        surface = foliage(rng)._replace(scale=1.0)
        identity, u = canvas.identity(VEGETATION), 0.0
        while u < width:
            size = span(rng, 0.03, 0.09) * width
            blob(
                canvas,
                rng,
                identity,
                surface,
                plane,
                (u, camera.horizon - size * 0.3),
                size,
                size * 0.6,
                9,
            )
            u += size
    elif kind < 0.9:
        x = -z * width / camera.focal / 2
        while x < z * width / camera.focal / 2:
            wide = span(rng, 12, 35)
            far_building(canvas, rng, x + wide / 2, z, wide, span(rng, 8, 34))
            x += wide * span(rng, 0.9, 1.6)
