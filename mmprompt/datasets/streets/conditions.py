"""Light and weather: the same surfaces as clear day, fog, night, rain or snow.

Nothing here sees a label. `Strength` holds every number that says how hard a condition is.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from mmprompt.datasets.streets import textures
from mmprompt.datasets.streets.render import Buffers

CONDITIONS = ('clear', 'fog', 'night', 'rain', 'snow')


@dataclass(frozen=True)
class Strength:
    """How strong the conditions are; pairs are ranges of a uniform draw per image."""

    haze: tuple = (0.0005, 0.003)  # extinction per metre on a clear day
    fog: tuple = (0.028, 0.07)  # extinction per metre; sight is about 3 / extinction
    fog_light: tuple = (0.62, 0.85)
    night_ambient: tuple = (0.05, 0.11)
    night_lamps: tuple = (0.5, 1.1)
    night_headlights: tuple = (0.35, 0.9)
    night_noise: tuple = (0.025, 0.05)
    night_glow: float = 0.8
    rain_light: tuple = (0.4, 0.62)
    rain_mirror: tuple = (0.45, 0.85)
    rain_haze: tuple = (0.006, 0.016)
    rain_streaks: tuple = (0.1, 0.24)
    rain_drops: tuple = (8, 30)
    snow_cover: tuple = (0.65, 1.0)
    snow_haze: tuple = (0.006, 0.02)
    snow_flakes: tuple = (0.3, 0.7)
    snow_light: tuple = (0.68, 0.88)


STRENGTH = Strength()


def apply(
    name: str, buffers: Buffers, rng: np.random.Generator, strength: Strength = STRENGTH
) -> np.ndarray:
    """Photograph the scene under a condition.

    Args:
        name: one of `CONDITIONS`.
        buffers: surfaces from `render.buffers`.
        rng: chance of the weather and the sensor.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    return _sensor(
        *{'clear': _clear, 'fog': _fog, 'night': _night, 'rain': _rain, 'snow': _snow}[name](
            buffers, rng, strength
        ),
        rng,
    )


def _draw(rng, span) -> float:
    return span[0] + (span[1] - span[0]) * rng.random()


def _warmth(value: float) -> np.ndarray:
    """RGB gain of a colour temperature: -1 blue, 0 neutral, 1 orange; (3, 1, 1)."""
    return np.array([1 + 0.18 * value, 1.0, 1 - 0.24 * value], np.float32)[:, None, None]


def _image(planes) -> np.ndarray:
    """(3, H, W) RGB to (H, W, 3) BGR float32."""
    return cv2.merge([np.ascontiguousarray(planes[k], np.float32) for k in (2, 1, 0)])


def _sky(b: Buffers, rng, top, low, cloud: float) -> np.ndarray:
    """A vertical gradient from ``top`` to ``low`` with clouds of amplitude ``cloud``; (3, H, W)."""
    height, width = b.sky.shape
    share = np.clip(np.arange(height, dtype=np.float32) / max(b.camera.horizon, 1), 0, 1)[:, None]
    top, low = (np.asarray(c, np.float32)[:, None, None] for c in (top, low))
    sky = top + (low - top) * share**1.3
    if cloud:
        noise = textures.window('cloud', (height, width), rng, scale=1.5 + 2 * rng.random())
        cover = np.clip(noise * 0.5 + 0.2, 0, 1) * cloud
        sky = sky + (np.float32(0.93) - sky) * cover
    return np.broadcast_to(sky, (3, height, width))


def _lit(
    b: Buffers, sun: float, ambient: float, warmth: float, sky_colour, shadow: float = 1.0
) -> np.ndarray:
    """Albedo under sun and sky light, with mirrored sky on glossy surfaces; (3, H, W)."""
    street = b.scene.street
    reach = np.hypot(*street.sun)
    flat = np.sin(street.elevation)
    to_sun = -np.array(street.sun) / max(reach, 1e-6) * np.cos(street.elevation)
    # up, a face that looks left, right, and at the camera
    facing = np.array([flat, max(-to_sun[0], 0), max(to_sun[0], 0), max(-to_sun[1], 0)])
    direct = (facing * 0.75 + 0.25).astype(np.float32)[b.faces]
    direct *= 1 - shadow * b.shadow * 0.85
    dark = 1 - 0.6 * b.contact
    light = (direct * sun) * _warmth(warmth) + ambient * _warmth(-warmth * 0.5)
    out = b.albedo * (light * dark)
    sky_colour = np.asarray(sky_colour, np.float32)[:, None, None]
    return out + (sky_colour - out) * (b.gloss * 0.6)


def _veil(planes, depth, extinction: float, airlight) -> np.ndarray:
    """Koschmieder's law: what is not transmitted over ``depth`` metres is air light."""
    through = np.exp(-extinction * depth)
    airlight = np.asarray(airlight, np.float32)
    airlight = airlight[:, None, None] if airlight.ndim == 1 else airlight
    return airlight + (planes - airlight) * through


def _day_sky(rng):
    roll = rng.random()
    if roll < 0.55:
        blue = (0.3 + 0.25 * rng.random(), 0.52 + 0.15 * rng.random(), 0.82)
        return blue, (0.78, 0.85, 0.92), rng.random()
    if roll < 0.8:  # overcast
        grey = 0.6 + 0.3 * rng.random()
        return (grey * 0.92, grey * 0.95, grey), (grey, grey, grey), 0.5
    return (0.5, 0.55, 0.72), (0.95, 0.8 + 0.1 * rng.random(), 0.65), 0.6 * rng.random()


def _clear(b: Buffers, rng, k: Strength):
    top, low, cloud = _day_sky(rng)
    overcast = rng.random() < 0.25
    sun, ambient = (
        (0.25, 0.75) if overcast else (0.5 + 0.4 * rng.random(), 0.35 + 0.2 * rng.random())
    )
    out = _lit(b, sun, ambient, 1.4 * rng.random() - 0.5, low, 0.25 if overcast else 1.0)
    out = _veil(out, b.depth, _draw(rng, k.haze), low)
    out = np.where(b.sky, _sky(b, rng, top, low, cloud), out)
    out = out * (0.82 + 0.36 * rng.random())
    return _image(out), 0.012 + 0.012 * rng.random(), 0.5


def _fog(b: Buffers, rng, k: Strength):
    light = _draw(rng, k.fog_light)
    air = light * np.array([0.97 + 0.03 * rng.random(), 0.99, 1.02])
    out = _lit(b, 0.15, 0.62, -0.15, air, 0.05)
    thick = textures.window('cloud', b.sky.shape, rng, 3.0) * 0.12 + 1
    out = _veil(out, b.depth * thick, _draw(rng, k.fog), air)
    return _image(out), 0.015, 0.8


def _night(b: Buffers, rng, k: Strength):
    cast = np.array([0.75, 0.85, 1.25] if rng.random() < 0.6 else [1.15, 0.9, 0.6], np.float32)
    light = _draw(rng, k.night_ambient) * cast[:, None, None] + _lamplight(b, rng, k)
    out = b.albedo * light * (1 - 0.5 * b.contact)
    dark = 0.02 + 0.06 * rng.random()
    out = np.where(b.sky, _sky(b, rng, dark * cast, dark * 1.8 * cast, 0.0), out)
    shine = b.emit * (1 - 0.1 * rng.random())
    glowing = (b.albedo * 0.5 + 0.5 * np.array([1, 0.82, 0.5], np.float32)[:, None, None]) * shine
    glow = _glow(b, _image(glowing))
    return _image(out + glowing) + glow * k.night_glow, _draw(rng, k.night_noise), 0.8


def _lamplight(b: Buffers, rng, k: Strength) -> np.ndarray:
    """Light of street lamps, other vehicles and the own headlights, at quarter size; (3, H, W)."""
    x, y, z = (a[::4, ::4] for a in (b.x, b.y, b.depth))
    pools = np.zeros((*x.shape, 3), np.float32)
    power = _draw(rng, k.night_lamps)
    for lx, ly, lz, strength, colour in sorted(b.lamps, key=lambda lamp: lamp[2])[:14]:
        reach = (x - lx) ** 2 + (y - ly) ** 2 + (z - lz) ** 2 + 2.0
        pools += (strength * power * 13 / reach)[..., None] * np.array(colour, np.float32)
    own = (
        _draw(rng, k.night_headlights)
        * np.exp(-((x / (2 + 0.22 * z)) ** 2))
        * 40
        / ((z + 2) ** 2 + 40)
        * np.clip(1.5 - y * 0.45, 0.15, 1)
    )
    pools += own[..., None] * np.array([1, 0.96, 0.85], np.float32)
    pools = cv2.resize(pools, b.sky.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.minimum(pools, 1.3).transpose(2, 0, 1)


def _glow(b: Buffers, bright) -> np.ndarray:
    """Halos around what shines: visible lamps and the (H, W, 3) BGR image ``bright``."""
    small = cv2.resize(bright, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    for x, y, z, strength, colour in b.lamps:
        u, v = (int(n // 4) for n in b.camera.project(x, y, z))
        if 0 <= v < height and 0 <= u < width and b.depth[v * 4, u * 4] > z - 2:
            small[v, u] += np.array(colour[::-1], np.float32) * min(40 * strength / z, 6)
    halo = cv2.GaussianBlur(small, (0, 0), 1.2) + cv2.GaussianBlur(small, (0, 0), 5.0) * 1.5
    return cv2.resize(halo, b.sky.shape[::-1])


def _rain(b: Buffers, rng, k: Strength):
    light = _draw(rng, k.rain_light)
    grey = np.array([0.92, 0.97, 1.04]) * light
    # water darkens what it soaks
    soaked = b._replace(albedo=b.albedo * (1 - 0.35 * b.upness))
    out = _lit(soaked, 0.12, light * 1.1, -0.35, grey, 0.05)
    sky = _sky(b, rng, grey * 0.8, grey * 1.15, 0.15)
    out = np.where(b.sky, sky, _veil(out, b.depth, _draw(rng, k.rain_haze), grey))
    image = _image(out)
    image = _mirror(b, image, rng, _draw(rng, k.rain_mirror))
    image = _streaks(image, rng, _draw(rng, k.rain_streaks))
    return _drops(image, rng, int(_draw(rng, k.rain_drops))), 0.018, 0.6


def _mirror(b: Buffers, image, rng, share: float) -> np.ndarray:
    """The wet ground mirrors what stands above the horizon, smeared down the image."""
    height = image.shape[0]
    rows = np.clip(2 * int(b.camera.horizon) - np.arange(height), 0, height - 1)
    flipped = cv2.blur(image[rows], (3, 21))
    flipped += 0.8 * cv2.blur(np.maximum(image[rows] - 0.5, 0), (3, 61))
    noise = textures.lookup('cloud', b.x * 14 + rng.random() * 512, b.depth * 9)
    grazing = np.clip(b.depth / 25, 0.35, 1)
    weight = b.ground * share * grazing * np.clip(0.75 + 0.5 * noise, 0.15, 1.25)
    return image + (flipped - image) * weight[..., None]


def _streaks(image, rng, strength: float) -> np.ndarray:
    """Thin slanted streaks, longer and blurred where they are near."""
    height, width = image.shape[:2]
    sheet = np.zeros((height, width), np.uint8)
    slant, total = 0.5 * rng.random() - 0.25, height * width // 200
    starts = rng.random((total, 4)).tolist()
    for v, u, length, tone in starts:
        reach = (0.02 + 0.07 * length * length) * height
        v, u, tone = v * height, u * width, int(60 + 195 * tone * tone)
        end = int(u + slant * reach), int(v + reach)
        cv2.line(sheet, (int(u), int(v)), end, tone, 1)
    alpha = cv2.blur(sheet, (2, 3)).astype(np.float32) * (strength * 4 / 255)
    return image + (np.float32(0.82) - image) * np.minimum(alpha, 0.7)[..., None]


def _drops(image, rng, count: int) -> np.ndarray:
    """Drops on the lens show a small, blurred, upside-down piece of the picture."""
    height, width = image.shape[:2]
    for _ in range(count):
        radius = int(rng.integers(2, 8))
        v, u = int(rng.integers(radius, height - radius)), int(rng.integers(radius, width - radius))
        box = image[v - radius : v + radius, u - radius : u + radius]
        reach = 3 * radius
        piece = image[max(v - reach, 0) : v + reach, max(u - reach, 0) : u + reach]
        lens = cv2.resize(piece[::-1, ::-1], box.shape[1::-1], interpolation=cv2.INTER_AREA)
        mask = np.zeros(box.shape[:2], np.float32)
        cv2.ellipse(mask, (radius, radius), (max(radius - 1, 1), radius), 0, 0, 360, 1.0, -1)
        box += (lens * 0.9 + 0.05 - box) * (cv2.blur(mask, (3, 3)) * 0.85)[..., None]
    return image


def _snow(b: Buffers, rng, k: Strength):
    cover, light = _draw(rng, k.snow_cover), _draw(rng, k.snow_light)
    noise = textures.lookup('cloud', b.x * 9 + rng.random() * 512, b.depth * 6)
    fine = textures.window('surface', b.sky.shape, rng)
    # wheel tracks: the ground is barer along the road than beside it
    track = np.cos((b.x - b.scene.street.road.offset - b.scene.street.road.slope * b.depth) * 3.2)
    lane = np.abs(b.x) < max(b.scene.street.half)
    bare = b.ground * lane * np.clip(track * 0.5 + 0.1, 0, 1) * (0.5 + 0.5 * rng.random())
    amount = b.upness * cover * 1.5 + 0.3 * noise * (b.upness > 0.2) + 0.12 * fine - bare
    amount = np.clip(amount * 1.3 - 0.35, 0, 0.96) * (b.upness > 0.1)
    amount = np.maximum(amount, np.clip(0.16 * cover * (fine - 0.6), 0, 0.35) * ~b.sky)
    white = np.array([0.86, 0.89, 0.95], np.float32)[:, None, None] * (1 + 0.04 * fine)
    b = b._replace(albedo=b.albedo + (white - b.albedo) * amount)
    grey = np.array([0.97, 0.99, 1.02]) * light
    out = _lit(b, 0.18, light * 0.85, -0.2, grey, 0.1)
    out = np.where(
        b.sky,
        _sky(b, rng, grey * 0.88, grey, 0.1),
        _veil(out, b.depth, _draw(rng, k.snow_haze), grey),
    )
    return _flakes(_image(out), rng, _draw(rng, k.snow_flakes)), 0.015, 0.7


def _flakes(image, rng, density: float) -> np.ndarray:
    """Three sizes of falling flakes, near ones larger and blurred."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.float32)
    for size, count, tone in ((1, 420, 0.55), (2, 130, 0.6), (4, 26, 0.5)):
        total = int(count * density)
        rows, columns = rng.integers(0, height, total), rng.integers(0, width, total)
        sheet = np.zeros_like(layer)
        for v, u in zip(rows.tolist(), columns.tolist()):
            cv2.circle(sheet, (u, v), size, 1.0, -1)
        layer = np.maximum(layer, cv2.blur(sheet, (size, 2 * size)) * tone * 1.5)
    return image + (np.float32(0.95) - image) * np.minimum(layer, 0.85)[..., None]


def _sensor(image, noise: float, blur: float, rng) -> np.ndarray:
    """Lens blur, noise that grows in the dark, vignette and 8 bits; (H, W, 3) uint8 BGR."""
    image = cv2.GaussianBlur(image, (3, 3), blur)
    height, width = image.shape[:2]
    image += textures.window('grain', (height, width), rng) * noise
    v = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    u = np.linspace(-1, 1, width, dtype=np.float32)[None] ** 2
    image *= (255 * (1 - 0.12 * rng.random() * (u + v)))[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)
