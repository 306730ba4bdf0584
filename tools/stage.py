"""Words that a scene is described with: items, camera, room or studio, light.

World frame (Blender's): x right, y away from the camera, z up; metres; the floor is z = 0.
An item at yaw 0 shows its front towards -y, that is to a camera that looks along +y.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Color = tuple[float, float, float]
"""Linear RGB."""

RUG_THICKNESS = 0.006  # metres


@dataclass(frozen=True)
class Look:
    """How a material is shaded. kind: a function of `shaders`; color: linear RGB or the MTL's."""

    kind: str = "satin"
    color: Color | None = None


@dataclass(frozen=True)
class Item:
    """One object of a scene.

    at: x and y of its footprint's middle; yaw: degrees, counter-clockwise from above.
    on: name of the item that carries it, None for the floor; lift: metres above what carries it.
    tilt: degrees about the item's own x (nodding forward) and then front axis (rolling).
    looks: material name to `Look`; "*" stands for all others.
    """

    name: str
    model: str
    at: tuple[float, float]
    yaw: float = 0.0
    on: str | None = None
    lift: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    looks: dict[str, Look] = field(default_factory=dict)


@dataclass(frozen=True)
class Camera:
    """eye, target: world; lens: focal length in millimetres on a sensor 36 mm wide."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    lens: float = 35.0


@dataclass(frozen=True)
class Lamp:
    """A rectangular area light. at, target: world; size: width and height in metres; watts."""

    at: tuple[float, float, float]
    target: tuple[float, float, float]
    size: tuple[float, float]
    watts: float
    color: Color = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Window:
    """An opening in a wall. wall: "left", "right" or "back"; low, high: along the wall and z."""

    wall: str
    low: tuple[float, float]
    high: tuple[float, float]
    bars: tuple[int, int] = (2, 2)


@dataclass(frozen=True)
class Room:
    """A box from `low` to `high` in x and y with a floor, four walls, skirting and a ceiling."""

    low: tuple[float, float]
    high: tuple[float, float]
    height: float = 2.6
    floor: str = "planks"
    wall: Color = (0.72, 0.7, 0.66)
    windows: tuple[Window, ...] = ()
    rug: tuple[float, float, float, float] | None = None  # x, y, width, depth
    rug_color: Color = (0.35, 0.3, 0.25)


@dataclass(frozen=True)
class Studio:
    """A seamless backdrop: a floor that bends up into a wall `depth` metres behind the middle."""

    color: Color = (0.6, 0.6, 0.6)
    depth: float = 1.0


@dataclass(frozen=True)
class Corner:
    """A floor, a back wall at y = `back` and a wall at x = `side`, far wider than what is seen.

    floor, wall: colors; planks: a wooden floor instead of a plain one. reach: how far all go on.
    """

    back: float
    side: float
    reach: float
    floor: Color = (0.4, 0.38, 0.35)
    wall: Color = (0.72, 0.7, 0.66)
    planks: bool = False


@dataclass(frozen=True)
class Sun:
    """direction: from the sun to the scene; strength: W/m²; angle: degrees, softness of shadows."""

    direction: tuple[float, float, float]
    strength: float
    angle: float = 1.0
    color: Color = (1.0, 0.92, 0.8)


@dataclass(frozen=True)
class Scene:
    """Everything that a picture is made of. size: width, height in pixels at full size."""

    name: str
    title: str
    items: tuple[Item, ...]
    camera: Camera
    setting: Room | Studio | Corner
    lamps: tuple[Lamp, ...] = ()
    sun: Sun | None = None
    sky: Color = (0.7, 0.82, 1.0)
    sky_strength: float = 1.0
    exposure: float = 0.0
    size: tuple[int, int] = (768, 768)
