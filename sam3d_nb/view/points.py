"""The interactive viewer of gaussians, by pythreejs: a solid round point for each of them.

WebGL blends in the order in which things are drawn, and three.js does not sort them anew when the
view turns. So each gaussian is drawn solid, as far out as it is at least as opaque as a level of
its own: one of many, evenly spread, so that together they cover as much as they would blended.
Points of one material have one size, so there is a material for each class of sizes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pythreejs as three
from PIL import Image

from sam3d_nb.splats import Gaussians

LEVELS = (0.1, 0.6)
GOLDEN = (np.sqrt(5) - 1) / 2
CLASSES = 12
GAMMA = 2.2
"""With which the viewer encodes colors."""
DISC = 64
"""Pixels a side of the picture of a point."""


def drawn_gaussians(
    gaussians: Gaussians, radius: float, field_of_view: float
) -> Iterator[three.Points]:
    """Yield the gaussians, in the frame in which they are, for a three.js scene.

    radius: of the ball that the scene is scaled by, since sizes of points are not scaled with it.
    field_of_view: of the camera, in degrees.
    """
    chosen, reach = solid_parts(gaussians)
    middle, largest = np.sort(gaussians.scales[chosen], axis=1)[:, 1:].T
    size = 2 * reach * np.sqrt(middle * largest) / radius  # diameter of a disc of equal area
    color = gaussians.colors[chosen].clip(0, 1) ** np.float32(GAMMA)
    disc = three.ImageTexture(imageUri=_disc())
    for members in _classes(size):
        attributes = {
            "position": three.BufferAttribute(gaussians.centers[chosen[members]], normalized=False),
            "color": three.BufferAttribute(color[members], normalized=False),
        }
        mean = float(np.sqrt((size[members] ** 2).mean()))
        material = three.PointsMaterial(
            size=mean / np.tan(np.radians(field_of_view) / 2),
            sizeAttenuation=True,
            vertexColors="VertexColors",
            map=disc,
            alphaTest=0.5,
        )
        yield three.Points(three.BufferGeometry(attributes=attributes), material)


def solid_parts(gaussians: Gaussians) -> tuple[np.ndarray, np.ndarray]:
    """Return which gaussians are drawn, (N,) indices, and how far out in deviations, (N,)."""
    low, high = LEVELS
    level = low + (high - low) * (np.arange(len(gaussians)) * GOLDEN % 1)
    chosen = np.flatnonzero(gaussians.opacities > level)
    ratio = gaussians.opacities[chosen] / level[chosen]
    return chosen, np.sqrt(2 * np.log(ratio)).astype(np.float32)


def _classes(size: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the places (n,) of points of about one size; the few largest and smallest together."""
    if not len(size):
        return
    low, high = np.log(np.quantile(size, (0.02, 0.98)).clip(1e-12))
    share = (np.log(size.clip(1e-12)) - low) / max(high - low, 1e-6)
    place = (share * CLASSES).astype(int).clip(0, CLASSES - 1)
    for number in range(CLASSES):
        members = np.flatnonzero(place == number)
        if len(members):
            yield members


def _disc() -> str:
    """Return the picture of a white disc on nothing, as an address."""
    side = np.arange(DISC) + 0.5 - DISC / 2
    inside = side[:, None] ** 2 + side**2 <= (DISC / 2) ** 2
    picture = np.dstack([np.full((DISC, DISC, 3), 255), inside * 255]).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
