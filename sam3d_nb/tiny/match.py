"""Colors of vertices that make the photo's view of a mesh look like the photo.

A vertex takes the color of one point of the photo, but a pixel shows a mixture of three vertices,
and at a border, or where few vertices are, that is another color. What is left over is given back
to the vertices, by their shares, a few times (simultaneous iterative reconstruction, Gilbert 1972).
"""

from __future__ import annotations

from torch import Tensor

from sam3d_nb.engine.sums import sums
from sam3d_nb.view.raster import Raster

ROUNDS = 4
LEAST = 1.0  # pixels of which a vertex is seen in, from which on it takes the whole difference


def matched(
    colors: Tensor,  # (V, 3) float64, linear
    faces: Tensor,  # (F, 3)
    raster: Raster,  # of the photo's view, (h, w)
    photo: Tensor,  # (h, w, 3) linear
    shown: Tensor,  # (h, w) bool: pixels that count
) -> Tensor:
    """Return other colors (V, 3) in [0, 1], by which `shown` pixels are nearer to the photo."""
    chosen = shown & raster.covered
    corner = faces[raster.face[chosen]].long()  # (n, 3)
    share = raster.barycentric[chosen].to(colors)[..., None]  # (n, 3, 1)
    wanted, index = photo[chosen], corner.view(-1)
    weight = sums(share.view(-1, 1), index, len(colors)).clamp(min=LEAST)  # (V, 1)
    for _ in range(ROUNDS):
        left = wanted - (colors[corner] * share).sum(1)  # (n, 3)
        step = sums((share * left[:, None]).view(-1, 3), index, len(colors))
        colors = (colors + step / weight).clamp(0, 1)
    return colors
