"""Who is on the street: parked and moving vehicles, cyclists, pedestrians."""

import math
from random import Random

from mmprompt.datasets.streets import people, vehicles
from mmprompt.datasets.streets.canvas import GROUND, Canvas, Surface
from mmprompt.datasets.streets.classes import ROAD
from mmprompt.datasets.streets.palette import pick, span

# chance that a scene gets at least one of these where it can be seen
TRUCKS, BUSES, TRAMS, MOTORCYCLES, BICYCLES = 0.36, 0.4, 0.34, 0.48, 0.6


def traffic_items(canvas: Canvas, rng: Random, street) -> list:
    """Vehicles: a tram on rails, lanes with a gap rule, parked rows, cross traffic."""
    items, taken = [], {0: [], 1: []}  # occupied depths of the left and right lane

    def put(paint, d, z, away, length, yaw=0.0):
        x, heading = street.road.x(z, d), street.road.heading(z) + yaw + span(rng, -0.03, 0.03)
        items.append(
            (
                z + min(length * 0.3, 2.0),
                lambda: paint(canvas, rng, x, z, heading, street.sun, away),
            )
        )

    def lane(side):
        half = street.half[side] - 2.1 * street.parking[side]
        return (-1, 1)[side] * max(half * 0.5, 1.3)

    if rng.random() < TRAMS:
        _tram(canvas, rng, street, items, taken, lane)
    for paint, chance, length in ((vehicles.truck, TRUCKS, 10), (vehicles.bus, BUSES, 14)):
        if rng.random() < chance:
            side, z = int(rng.random() * 2), 9 + 26 * rng.random()
            if rng.random() < 0.25 and street.crossing is not None:
                _across(canvas, rng, street, items, paint, length)
            elif street.parking[side] and rng.random() < 0.4:
                put(paint, street.edge(side) * 0.99 - (-1, 1)[side] * 1.5, z, side == 1, length)
                taken[side].append((z - 2, z + length, True))
            else:
                put(paint, lane(side), z, side == 1, length)
                taken[side].append((z - 3, z + length, False))
    for side in range(2):
        _cars(rng, street, side, taken[side], put, lane)
    if street.crossing is not None and rng.random() < 0.4:
        _across(canvas, rng, street, items, vehicles.car, 4.5)
    return items


def _cars(rng: Random, street, side, taken, put, lane) -> None:
    def free(z, parked):
        return all(not a < z < b and not a < z + 4.5 < b for a, b, p in taken if p == parked)

    if street.parking[side]:
        z, density = span(rng, 3.5, 9), span(rng, 0.2, 0.95)
        while z < 75:
            if rng.random() < density and free(z, True) and not street.in_crossing(z + 2, 5):
                put(
                    vehicles.car,
                    street.edge(side) - (-1, 1)[side] * 1.15,
                    z,
                    (side == 1) == (rng.random() < 0.9),
                    4.5,
                )
            z += span(rng, 5.2, 7)
    z = span(rng, 7, 30)
    pace = pick(rng, 9, 14, 25, 50)
    while z < 90:
        if free(z, False):
            put(vehicles.car, lane(side) + span(rng, -0.3, 0.3), z, side == 1, 4.5)
        z += span(rng, 6, 6 + pace)


def _rails(canvas: Canvas, street, d: float) -> None:
    camera, road = street.camera, street.road
    steel = Surface((0.33, 0.31, 0.3), 0.2, 14.0, faces=0, upness=0.6)
    part = canvas.part(canvas.identity(ROAD), steel, camera.level(), GROUND)
    for offset in (-0.72, 0.72):
        z = street.near
        while z < 110:
            far = z * 1.35
            corners = ((z, -0.05), (z, 0.05), (far, 0.05), (far, -0.05))
            canvas.fill(
                part, [camera.project(road.x(zz, d + offset + w), 0, zz) for zz, w in corners]
            )
            z = far


def _tram(canvas: Canvas, rng: Random, street, items, taken, lane) -> None:
    if street.crossing is not None and rng.random() < 0.3:
        _across(canvas, rng, street, items, vehicles.tram, 18)
        return
    side, z = int(rng.random() * 2), 9 + 22 * rng.random()
    d = lane(side) * 0.85
    _rails(canvas, street, d)
    x, heading = street.road.x(z, d), street.road.heading(z + 8)
    taken[side].append((z - 4, z + 32, False))
    items.append((z + 2, lambda: vehicles.tram(canvas, rng, x, z, heading, street.sun, side == 1)))


def _across(canvas: Canvas, rng: Random, street, items, paint, length) -> None:
    """A vehicle that crosses the view on the side street."""
    right = rng.random() < 0.5
    z = street.crossing + (1.6 if right else -1.6)
    start = street.road.x(z) + span(rng, -12, 6) * (1 if right else -1)
    yaw = (1 if right else -1) * (math.pi / 2 + span(rng, -0.05, 0.05))
    items.append((z, lambda: paint(canvas, rng, start, z, yaw, street.sun, True)))


def people_items(canvas: Canvas, rng: Random, street) -> list:
    """Pedestrians on pavements and crossings, cyclists and motorcyclists, parked two-wheelers."""
    items, road, sun = [], street.road, street.sun

    def stand(d, z, paint, *rest):
        x = road.x(z, d)
        items.append((z, lambda: paint(canvas, rng, x, z, sun, *rest)))

    busy = pick(rng, 0, 1, 3, 6)
    for side, sign in enumerate((-1, 1)):
        for _ in range(int(rng.random() * (busy + 1))):
            z = 5.5 + 34 * rng.random() ** 1.6
            inward = 0.6 + street.verge[side] + span(rng, 0, street.walk[side])
            d = street.edge(side) + sign * inward
            for k in range(1 + (rng.random() < 0.3) + (rng.random() < 0.1)):
                stand(d + 0.55 * k * sign, z + 0.2 * k, people.person)
    if rng.random() < 0.35:
        z = street.crossing - street.cross_half - 1.8 if street.crossing else span(rng, 7, 25)
        for _ in range(1 + int(rng.random() * 4)):
            stand(span(rng, street.edge(0), street.edge(1)), z + span(rng, -1, 1), people.person)

    def two_wheeler(paint, mounted, seat):
        side = int(rng.random() * 2)
        sign, z = (-1, 1)[side], 5.5 + 20 * rng.random() ** 1.4
        turn = (span(rng, 0.3, 0.6) if rng.random() < 0.5 else span(rng, 0.6, 1.0)) * pick(
            rng, -1, 1
        )
        inset = 2.1 * street.parking[side] * (rng.random() < 0.8)
        d = (
            street.edge(side) - sign * (0.9 + inset)
            if mounted
            else (
                street.edge(side) + sign * span(rng, 0.35, street.walk[side] + street.verge[side])
            )
        )
        items.append(
            (
                z - 0.05,
                lambda: _mount(
                    canvas, rng, road.x(z, d), z, sun, turn, paint, mounted, seat, side == 1
                ),
            )
        )

    for paint, chance, seat in (
        (people.bicycle, BICYCLES, 0.95),
        (people.motorcycle, MOTORCYCLES, 0.85),
    ):
        while rng.random() < chance:
            two_wheeler(paint, rng.random() < 0.55, seat)
            if rng.random() < 0.5:
                break
    return items


def _mount(canvas, rng, x, z, sun, turn, paint, mounted, seat, away) -> None:
    rest = (turn, away) if paint is people.motorcycle else (turn,)
    figure = paint(canvas, rng, x, z, sun, *rest)
    if mounted:
        people.rider(canvas, rng, figure, seat)
