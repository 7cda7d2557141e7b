"""Camera, road curve and the painter's canvas on which a scene is laid out.

World frame: x to the right and z forward in metres with the camera at x = z = 0, y up with the
ground at y = 0. Every painted polygon is a *part*: one row of surface parameters. The canvas keeps
two maps of part numbers, one for the label and one for what the eye sees there, since fences,
spokes and bare branches are annotated filled but are seen through.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np

from mmprompt.datasets.streets.classes import SKY, STATIC_ID, THINGS, instance_id

GROUND, SIDE, FRONT, SCREEN = range(4)  # how texture coordinates follow from the world position
UP, LEFT, RIGHT, BACK = range(4)  # where a surface faces; BACK looks at the camera


class Surface(NamedTuple):
    """How a part looks before light and weather; lengths in metres, colours RGB in [0, 1]."""

    colour: tuple = (0.5, 0.5, 0.5)
    noise: float = 0.12  # amplitude of value noise
    scale: float = 12.0  # noise texels per metre
    grid_w: float = 0.0  # brick or slab width, 0 for none
    grid_h: float = 0.0
    grid_gain: float = 0.0  # brightness of joints relative to the slab, minus one
    window: int = -1  # row of the window table
    faces: int = BACK
    upness: float = 0.0  # how much snow lies on it
    emit: float = 0.0  # self-luminous at night
    gloss: float = 0.0  # how much sky it mirrors


class Camera:
    """Pinhole camera with a horizontal optical axis; ``horizon`` moves the view up and down.

    Args:
        size: height and width in pixels.
        focal: focal length in pixels.
        height: of the camera above the ground in metres.
        horizon: row of the horizon.
    """

    def __init__(self, size, focal: float, height: float, horizon: float):
        self.size, self.focal, self.height, self.horizon = size, focal, height, horizon
        self.centre = size[1] / 2

    def project(self, x: float, y: float, z: float):
        """World metres to pixel ``(u, v)``; points behind 0.3 m are pulled to that depth."""
        scale = self.focal / max(z, 0.3)
        return self.centre + x * scale, self.horizon + (self.height - y) * scale

    # Planes as the coefficients of 1/z = a u + b v + c, which is exact for any plane.
    def level(self, y: float = 0.0):
        drop = self.height - y
        if abs(drop) < 0.05:
            drop = 0.05
        slope = 1 / (self.focal * drop)
        return 0.0, slope, -self.horizon * slope

    @staticmethod
    def facing(z: float):
        return 0.0, 0.0, 1 / max(z, 0.3)

    def upright(self, x1: float, z1: float, x2: float, z2: float):
        z1, z2 = max(z1, 0.3), max(z2, 0.3)
        u1, u2 = self.project(x1, 0, z1)[0], self.project(x2, 0, z2)[0]
        if abs(u2 - u1) < 1:
            return self.facing((z1 + z2) / 2)
        slope = (1 / z2 - 1 / z1) / (u2 - u1)
        return slope, 0.0, 1 / z1 - slope * u1


class Road:
    """Centre line x(z) = offset + slope z + bend z^2, the frame in which objects are placed."""

    def __init__(self, offset: float, slope: float, bend: float):
        self.offset, self.slope, self.bend = offset, slope, bend

    def x(self, z: float, d: float = 0.0) -> float:
        return self.offset + d + self.slope * z + self.bend * z * z

    def heading(self, z: float) -> float:
        return math.atan(self.slope + 2 * self.bend * z)


class Canvas:
    """Two part maps, the part table and the shadow masks.

    Args:
        camera: gives planes and size.
        sky: the surface of part 0, which fills both maps.
    """

    def __init__(self, camera: Camera, sky: Surface):
        self.camera = camera
        self.label = np.zeros(camera.size, np.int32)
        self.seen = np.zeros(camera.size, np.int32)
        self.shadow = np.zeros(camera.size, np.uint8)
        self.contact = np.zeros(camera.size, np.uint8)
        self.rows, self.train_ids, self.ids = [], [], []
        self.windows = []
        self.lamps = []  # (x, y, z, strength, rgb) lit at night
        self._count = {}
        self.part((SKY, instance_id(SKY, 0)), sky, (0.0, 0.0, 0.0), SCREEN)

    def identity(self, train_id: int):
        """A new object of a class: the pair (trainId, Cityscapes id) that its parts share."""
        number = self._count.get(train_id, 0)
        if train_id in THINGS:
            self._count[train_id] = number + 1
        return train_id, instance_id(train_id, number)

    @staticmethod
    def unlabelled(label_id: int = STATIC_ID):
        return 255, label_id

    def part(
        self, identity, surface: Surface, plane, kind: int = FRONT, shade=(0.0, 0.0, 1.0)
    ) -> int:
        """Add a row; ``shade`` = brightness as (a, b, c) of a u + b v + c."""
        self.train_ids.append(identity[0])
        self.ids.append(identity[1])
        self.rows.append((*surface.colour, *surface[1:], *plane, kind, *shade))
        return len(self.rows) - 1

    def fill(self, part: int, points, label: bool = True, seen: bool = True) -> None:
        polygon = _pixels(points)
        if label:
            cv2.fillPoly(self.label, [polygon], part)
        if seen:
            cv2.fillPoly(self.seen, [polygon], part)

    def line(
        self, part: int, points, width: float = 1, label: bool = True, closed: bool = False
    ) -> None:
        polygon, width = [_pixels(points)], max(int(width + 0.5), 1)
        if label:
            cv2.polylines(self.label, polygon, closed, part, width)
        cv2.polylines(self.seen, polygon, closed, part, width)

    def quad(
        self,
        identity,
        surface: Surface,
        points,
        plane,
        kind: int = FRONT,
        top: float = 1.0,
        bottom: float = 1.0,
    ) -> int:
        """Fill a polygon as a new part whose brightness runs from ``bottom`` to ``top``."""
        part = self.part(identity, surface, plane, kind, ramp(points, top, bottom))
        self.fill(part, points)
        return part

    def cast(self, ground, hull: bool = True) -> None:
        """Add a sun shadow, a polygon of pixels on the ground."""
        polygon = _pixels(ground)
        cv2.fillPoly(self.shadow, [cv2.convexHull(polygon) if hull else polygon], 255)

    def touch(self, ground) -> None:
        """Darken the ground under an object, whatever the light."""
        cv2.fillPoly(self.contact, [_pixels(ground)], 255)


def ramp(points, top: float, bottom: float):
    if top == bottom:
        return 0.0, 0.0, top
    rows = [p[1] for p in points]
    low, high = min(rows), max(rows)
    slope = (bottom - top) / max(high - low, 1.0)
    return 0.0, slope, top - slope * low


def _pixels(points) -> np.ndarray:
    # far outside pixels are cut to what OpenCV's fixed point arithmetic can hold
    return np.rint(np.minimum(np.maximum(np.array(points), -9000.0), 9000.0)).astype(np.int32)
