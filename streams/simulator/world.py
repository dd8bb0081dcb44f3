"""What stands still in a scene, and the ray caster that turns it into a backdrop with depth.

Boxes (buildings, posts, kerbs), spheres (crowns of trees), a ground surface and a sky; lit by a sun that
casts shadows or by street lamps. Rendered once per scene with numpy, four rays per pixel.
"""

# ruff: noqa: PLR2004 (materials and light are described by numbers)

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.simulator.paint import Colour
from streams.simulator.perspective import Array, Viewpoint
from streams.simulator.surfaces import Mask, Surface, tinted, value_noise

Vector = tuple[float, float, float]

_SAMPLES = 2
_NO_HIT_M = 1e5
_SURFACE_OFFSET_M = 0.02


@dataclass(frozen=True, kw_only=True)
class Lighting:
    """`sun` points to the sun and is None at night; `lamps` are places of street lamps. Colours are 0..1.

    `haze_m`: the distance at which two thirds of a thing's colour are lost. `noise_levels`: the standard
    deviation of the sensor's noise, in levels of 0..255.
    """

    sun: Vector | None
    sun_strength: float = 0.75
    ambient: Colour = (0.50, 0.54, 0.60)
    sky_top: Colour = (0.36, 0.55, 0.82)
    sky_horizon: Colour = (0.80, 0.86, 0.91)
    clouds: float = 0.55
    haze_m: float = 260.0
    lamps: tuple[Vector, ...] = ()
    lamp_colour: Colour = (1.0, 0.82, 0.56)
    noise_levels: float = 1.0

    @property
    def is_night(self) -> bool:
        return self.sun is None


@dataclass(frozen=True, kw_only=True)
class Box:
    """Axis-aligned; `facade` (a surface of metres along and up) covers its sides, `colour` the rest.

    `windows`: metres from one window to the next; 0 for none. Some are lit at night. `glows`: gives light.
    """

    low: Vector
    high: Vector
    colour: Colour
    facade: Surface | None = None
    windows: float = 0.0
    glows: bool = False


@dataclass(frozen=True, kw_only=True)
class Sphere:
    centre: Vector
    radius: float
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class World:
    ground: Surface
    solids: tuple[Box | Sphere, ...]
    water: Surface | None = None
    """Where the ground is water: a surface whose first component is above 0.5 there."""


@dataclass(frozen=True)
class Backdrop:
    """`pixels` (height, width, 3) uint8; `depth` (height, width) in metres; `water` (height, width) 0..1."""

    pixels: NDArray[np.uint8]
    depth: Array
    water: Array


@dataclass
class _Hits:
    """Per ray: the nearest depth so far and what was found there."""

    depth: Array
    normal: Array
    reflectance: Array
    emission: Array


def render_backdrop(world: World, viewpoint: Viewpoint, lighting: Lighting) -> Backdrop:
    """Cast the rays. About two seconds of CPU for 640x360."""
    rays = viewpoint.rays(_SAMPLES)
    shape = rays.shape[1:]
    hits = _Hits(
        np.full(shape, _NO_HIT_M, np.float32), np.zeros_like(rays), np.zeros_like(rays), np.zeros_like(rays)
    )
    origin = np.array([0, viewpoint.height_m, 0], np.float32)
    is_water = _hit_ground(hits, rays, origin, world)
    for number, solid in enumerate(world.solids):
        for window in _screen_window(solid, viewpoint):
            _hit_solid(hits, rays, origin, window, solid, number, lighting)
    colours = _shade(hits, rays, origin, world, lighting)
    haze = 1 - np.exp(-np.square(hits.depth / lighting.haze_m))
    colours += (_sky(rays, lighting) - colours) * haze
    is_water &= hits.normal[1] > 0
    pixels = np.clip(_average(colours.transpose(1, 2, 0)) * 255, 0, 255).astype(np.uint8)
    depth = _average(hits.depth[..., None])[..., 0]
    return Backdrop(pixels, depth, _average(is_water[..., None].astype(np.float32))[..., 0])


def _average(samples: Array) -> Array:
    height, width, channels = samples.shape
    cells = samples.reshape(height // _SAMPLES, _SAMPLES, width // _SAMPLES, _SAMPLES, channels)
    return np.asarray(cells.mean(axis=(1, 3)), np.float32)


def _hit_ground(hits: _Hits, rays: Array, origin: Array, world: World) -> Mask:
    below = rays[1] < -1e-4
    depth = -origin[1] / rays[1][below]
    x, z = rays[0][below] * depth, rays[2][below] * depth
    hits.depth[below] = depth
    hits.normal[1, below] = 1
    hits.reflectance[:, below] = world.ground(x, z)
    is_water = np.zeros(below.shape, bool)
    if world.water is not None:
        is_water[below] = world.water(x, z)[0] > 0.5
    return is_water


def _screen_window(solid: Box | Sphere, viewpoint: Viewpoint) -> Iterator[tuple[slice, slice]]:
    """The samples that a solid can cover; the whole picture if it reaches behind the lens."""
    corners = _corners(solid)
    height, width = viewpoint.height * _SAMPLES, viewpoint.width * _SAMPLES
    if not viewpoint.is_ahead(corners):
        yield slice(0, height), slice(0, width)
        return
    pixels = viewpoint.project(corners)[0] * _SAMPLES
    (left, top), (right, bottom) = _range(pixels)
    rows = slice(max(int(top), 0), min(int(bottom) + 1, height))
    columns = slice(max(int(left), 0), min(int(right) + 1, width))
    if rows.start < rows.stop and columns.start < columns.stop:
        yield rows, columns


def _hit_solid(
    hits: _Hits,
    rays: Array,
    origin: Array,
    window: tuple[slice, slice],
    solid: Box | Sphere,
    number: int,
    lighting: Lighting,
) -> None:
    area = (slice(None), *window)
    directions = rays[area]
    depth, axis = _enter(solid, origin[:, None, None], directions)
    nearer = depth < hits.depth[window]
    if not nearer.any():
        return
    depth, directions = depth[nearer], directions[:, nearer]
    points = origin[:, None] + directions * depth
    if isinstance(solid, Sphere):
        normal = (points - np.array(solid.centre, np.float32)[:, None]) / solid.radius
        leaves = value_noise(points[0] * 3 + points[2] * 2, points[1] * 3, number)
        reflectance, emission = tinted(solid.colour, 0.55 + 0.75 * leaves), np.zeros_like(points)
    else:
        normal = np.zeros_like(points)
        picked = axis[nearer]
        normal[picked, np.arange(picked.size)] = -np.sign(directions[picked, np.arange(picked.size)])
        reflectance, emission = _clad(solid, points, picked, number, lighting)
    hits.depth[window][nearer] = depth
    for target, values in ((hits.normal, normal), (hits.reflectance, reflectance), (hits.emission, emission)):
        target[area][:, nearer] = values


def _enter(solid: Box | Sphere, origin: Array, directions: Array) -> tuple[Array, NDArray[np.intp]]:
    """Where rays enter a solid (the ray parameter, or _NO_HIT_M), and for a box through which axis' face."""
    if isinstance(solid, Sphere):
        to_centre = np.array(solid.centre, np.float32).reshape(3, *[1] * (directions.ndim - 1)) - origin
        squared = (directions * directions).sum(axis=0)
        along = (directions * to_centre).sum(axis=0)
        discriminant = along**2 - squared * ((to_centre * to_centre).sum(axis=0) - solid.radius**2)
        entry = (along - np.sqrt(np.maximum(discriminant, 0))) / squared
        is_hit = (discriminant > 0) & (entry > 0)
        return np.where(is_hit, entry, _NO_HIT_M).astype(np.float32), np.zeros(entry.shape, np.intp)
    edge = (3, *[1] * (directions.ndim - 1))
    safe = np.where(np.abs(directions) < 1e-6, 1e-6, directions)
    one = (np.array(solid.low, np.float32).reshape(edge) - origin) / safe
    other = (np.array(solid.high, np.float32).reshape(edge) - origin) / safe
    entries, exits = np.minimum(one, other), np.maximum(one, other)
    entry = np.maximum(np.maximum(entries[0], entries[1]), entries[2])
    leave = np.minimum(np.minimum(exits[0], exits[1]), exits[2])
    axis = np.where(entry == entries[0], 0, np.where(entry == entries[1], 1, 2))
    is_hit = (entry < leave) & (entry > 0)
    return np.where(is_hit, entry, _NO_HIT_M).astype(np.float32), axis


def _clad(
    box: Box, points: Array, axis: NDArray[np.intp], number: int, lighting: Lighting
) -> tuple[Array, Array]:
    """Reflectance and emission of a box's faces: facade and windows on the sides, plain colour on top."""
    along, up = np.where(axis == 0, points[2], points[0]), points[1] - box.low[1]
    is_side = axis != 1
    reflectance = tinted(box.colour, np.ones_like(up))
    if box.facade is not None:
        reflectance[:, is_side] = box.facade(along[is_side], up[is_side])
    emission = tinted(box.colour, np.full_like(up, 0.9)) if box.glows else np.zeros_like(points)
    if box.windows:
        column, storey = np.floor(along / box.windows), np.floor(up / 3.2)
        in_column, in_storey = along / box.windows % 1, up / 3.2 % 1
        is_window = is_side & (np.abs(in_column - 0.5) < 0.3) & (np.abs(in_storey - 0.55) < 0.26)
        mood = value_noise(column * 7.0, storey * 5.0, number)
        glass = tinted((0.30, 0.38, 0.46), 0.7 + 0.5 * mood)
        reflectance[:, is_window] = glass[:, is_window]
        if lighting.is_night:
            is_lit = is_window & (mood > 0.66)
            emission[:, is_lit] = tinted((0.95, 0.78, 0.48), 0.35 + 0.6 * mood)[:, is_lit]
    return reflectance, emission


def _shade(hits: _Hits, rays: Array, origin: Array, world: World, lighting: Lighting) -> Array:
    is_hit = hits.depth < _NO_HIT_M
    normal = hits.normal[:, is_hit]
    points = origin[:, None] + rays[:, is_hit] * hits.depth[is_hit] + normal * _SURFACE_OFFSET_M
    light = tinted(lighting.ambient, 0.75 + 0.25 * normal[1])
    if lighting.sun is not None:
        sun = np.array(lighting.sun, np.float32) / np.linalg.norm(lighting.sun)
        towards = np.clip((normal * sun[:, None]).sum(axis=0), 0, 1)
        facing = towards > 0
        lit = _is_sunlit(points[:, facing], sun.astype(np.float32), world)
        towards[facing] *= lit
        light += tinted((1.0, 0.95, 0.86), lighting.sun_strength * towards)
    for lamp in lighting.lamps:
        offset = np.array(lamp, np.float32)[:, None] - points
        squared = (offset * offset).sum(axis=0)
        towards = np.clip((normal * offset).sum(axis=0), 0, None) / np.sqrt(squared)
        light += tinted(lighting.lamp_colour, 60 * towards / (squared + 22))
    colours = np.zeros_like(rays)
    colours[:, is_hit] = hits.reflectance[:, is_hit] * light + hits.emission[:, is_hit]
    return colours


def _is_sunlit(points: Array, sun: Array, world: World) -> Array:
    """1 where nothing stands between a point and the sun; crowns of trees let a third through."""
    light = np.ones(points.shape[1], np.float32)
    slope = (sun[[0, 2]] / sun[1])[:, None]
    x, z = points[[0, 2]] - points[1] * slope
    for solid in world.solids:
        corners = _corners(solid)
        (left, near), (right, far) = _range(corners[:, [0, 2]] - corners[:, 1:2] * slope.T)
        candidates = np.flatnonzero((x > left) & (x < right) & (z > near) & (z < far))
        origins = points[:, candidates]
        directions = np.broadcast_to(sun[:, None], origins.shape)
        shaded = candidates[_enter(solid, origins, directions)[0] < _NO_HIT_M]
        light[shaded] = np.minimum(light[shaded], 0.3 if isinstance(solid, Sphere) else 0.0)
    return light


def _corners(solid: Box | Sphere) -> Array:
    """The corners (8, 3) of the box around a solid."""
    if isinstance(solid, Box):
        low, high = np.array(solid.low), np.array(solid.high)
    else:
        low, high = np.array(solid.centre) - solid.radius, np.array(solid.centre) + solid.radius
    picks = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], bool)
    return np.where(picks, high, low).astype(np.float32)


def _range(points: Array) -> tuple[Array, Array]:
    return points.min(axis=0), points.max(axis=0)


def _sky(rays: Array, lighting: Lighting) -> Array:
    up = np.clip(rays[1] / np.sqrt((rays * rays).sum(axis=0)), 0, 1)
    blend = np.clip(up * 3.2, 0, 1) ** 0.7
    sky = tinted(lighting.sky_horizon, 1 - blend) + tinted(lighting.sky_top, blend)
    if lighting.clouds:
        height = np.maximum(rays[1], 0.03)
        x, z = rays[0] / height, rays[2] / height
        cover = value_noise(x * 0.9, z * 0.5, 11) * 0.6 + value_noise(x * 2.3, z * 1.3, 12) * 0.4
        cover = np.clip((cover - 0.48) * 4, 0, 1) * np.clip(up * 8, 0, 1) * lighting.clouds
        sky += (1.0 - sky) * cover
    return np.asarray(sky, np.float32)
