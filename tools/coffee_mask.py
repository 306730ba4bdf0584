"""Makes the example `data/coffee`: scikit-image's CC0 photo with masks of cup, saucer and spoon.

The outlines were set by hand on the enlarged photo, as strokes that meet at corners; each stroke
is a smooth curve, moved by at most 2 pixels to the strongest edge of the photo nearby.
Run by hand: `python tools/coffee_mask.py`; see `tools/README.md`.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from folder import write_description, write_mask
from PIL import Image
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates
from skimage import data
from skimage.draw import polygon2mask

Stroke = list[tuple[float, float]]

STEP = 0.5  # pixels between two samples of a curve
REACH = 2.0  # pixels that a curve may be moved
SMOOTH = 3.0  # pixels over which a curve's shift is averaged

# Points (x, y) from the photo's upper left corner; pixel (u, v) has its center at + 0.5.
CUP_LEFT_AND_RIM: Stroke = [
    (218.5, 235.3), (212.5, 232), (206.3, 227.8), (201, 222.8), (196.5, 217.6), (192, 211),
    (188, 204.5), (184.6, 196.8), (181.5, 189.5), (178.8, 180), (176.2, 170), (174.3, 160),
    (172.6, 150), (171.6, 141), (171.6, 132), (172.4, 124), (172.9, 116), (172.9, 108),
    (173.2, 100), (174.4, 92.5), (176.9, 85), (181, 76.5), (185.5, 69.5), (190.5, 61),
    (199.3, 50), (210, 41), (225, 32.5), (240, 25.7), (255, 21), (268, 18.6), (283, 17.7),
    (300, 18.7), (315, 20.8), (330, 24.4), (350, 32.2), (370, 44.3), (382, 54.5), (390, 63.5),
    (396, 73.5), (400.5, 83), (404.3, 92), (407, 101.5), (408.6, 110), (409, 117), (409, 125),
    (408.6, 133), (408, 140), (406.5, 147), (404.5, 155), (402.2, 165), (400, 173), (398, 179),
    (395, 186), (392, 191), (390.5, 195),
]  # fmt: skip
CUP_BESIDE_HANDLE_OF_SPOON: Stroke = [
    (390.5, 195), (387.5, 199.2), (384.2, 203.8), (381.7, 207.9), (379.6, 212.5), (377.5, 215.8),
    (375, 218.5), (370.8, 223.3), (368.3, 225.8), (364.6, 229.2), (361.7, 233.3), (357.9, 236.7),
    (355, 240), (351.7, 242.7), (349.2, 245.4), (345, 248.8), (340.8, 251.4), (337.5, 254.6),
    (334.2, 257.9), (330.4, 260.7),
]  # fmt: skip
CUP_BASE: Stroke = [
    (330.4, 260.7), (327, 263), (322, 267.5), (315, 273), (307, 278.5), (298.5, 282), (290, 283.2),
    (281, 283.4), (270, 282.8), (262, 281.6), (257.8, 280.8),
]  # fmt: skip
CUP_HANDLE_INSIDE: Stroke = [
    (257.3, 277.4), (253.4, 283.3), (249.4, 288.3), (244.0, 293.6), (239.4, 298.1), (235.8, 300.9),
    (232.0, 303), (229, 305.2), (227, 307),
    (225, 308.3),
]  # fmt: skip
CUP_HANDLE_OUTSIDE: Stroke = [
    (225, 308.3), (222.3, 309), (218.6, 308.4), (214.1, 306.6), (208.6, 303.8), (203.2, 300.7),
    (199.1, 296.6), (196.8, 291.8), (195.8, 285.5), (196.3, 278.2), (197.6, 271.8), (200, 265.5),
    (203.2, 260), (207.7, 253.3), (212.3, 245.7), (215.5, 240), (218.5, 235.3),
]  # fmt: skip
CUP = [
    CUP_LEFT_AND_RIM,
    CUP_BESIDE_HANDLE_OF_SPOON,
    CUP_BASE,
    CUP_HANDLE_INSIDE,
    CUP_HANDLE_OUTSIDE,
]
SPOON_TIP: Stroke = [  # the end of its handle; what lies behind the cup is cut off
    (396.7, 73), (397.5, 70.6), (400, 68.8), (405, 67.3), (411.7, 66.9), (416.7, 68.3),
    (420.8, 70.8), (423.8, 74.2), (424.8, 77.9), (423.8, 81.7), (422.1, 87.5), (420.4, 94.2),
    (418.3, 100.8), (416.5, 107.9), (414.6, 114.2), (412.5, 120.8), (410.8, 126.7), (409.8, 130.8),
    (408.8, 135.5),
]  # fmt: skip
BEHIND_CUP: Stroke = [(408.8, 135.5), (400, 135), (392, 90), (396.7, 73)]
SPOON_RIGHT: Stroke = [
    (390.5, 195), (390, 197.5), (387.9, 205), (386.5, 210.8), (385.4, 215.8), (384.6, 221.7),
    (383.8, 227.5), (382.9, 233.3), (383.8, 238.3), (385.4, 242.1), (388.3, 247.1), (392.5, 251.3),
    (395.8, 255), (399.6, 259.2), (404.3, 266), (406.3, 275.4), (405.7, 285.6), (402.6, 295.9),
    (396.6, 306.1), (388.1, 314.7), (377.8, 321.5), (369.3, 324.6), (360.8, 325.8), (350.5, 324.4),
    (342, 320.1), (333.4, 311.3), (328.3, 301), (326.3, 290.8), (326.1, 280.5), (327.6, 272),
    (330.6, 263.5), (334.2, 259.2), (338.3, 254.6), (343.3, 251.3), (349.2, 248.3), (355, 246.3),
    (360, 243.3), (365, 239.6), (370, 235.4), (372, 232.8), (372.9, 228.3), (373.8, 222.5),
    (375, 219.2),
]  # fmt: skip
SPOON_BESIDE_CUP: Stroke = [
    (375, 218.5), (377.5, 215.8), (379.6, 212.5), (381.7, 207.9), (384.2, 203.8), (387.5, 199.2),
    (390.5, 195),
]  # fmt: skip
SAUCER: Stroke = [
    (184, 67.3), (172, 72.5), (160, 78.4), (145, 87), (130, 97.5), (112.5, 116), (100, 134),
    (90, 151),
    (81.3, 175), (77.3, 200), (76.8, 220), (78.8, 240), (82.8, 257.5), (90, 277.5), (102.5, 300),
    (120, 321), (140, 340), (160, 355), (190, 372.5), (210, 381), (240, 388), (270, 390.5),
    (300, 390), (320, 388), (340, 384.3), (360, 377.5), (380, 368), (400, 356.5), (420, 342.5),
    (437.5, 326), (450, 311), (462.5, 292.5), (471, 275), (476.5, 255), (479.2, 237.5),
    (479.4, 217.5), (477.5, 197.5), (473.6, 180), (466.3, 162.5), (458.8, 149), (450, 136),
    (440, 124.3), (430, 114.3), (420, 106.2), (410, 99),
]  # fmt: skip
SAUCER_BEHIND_CUP: Stroke = [(410, 99), (300, 40), (184, 67.3)]


def curve(stroke: Stroke) -> np.ndarray:
    """Return points (N, 2), STEP pixels apart, on a smooth curve through a stroke's points."""
    points = np.array(stroke)
    if len(points) < 4:
        return points
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    count = int(along[-1] / STEP) + 1
    return CubicSpline(along, points)(np.linspace(0, along[-1], count))


def snap(points: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Move a curve (N, 2) along its normals to the strongest edge within REACH.

    strength: edge strength of every pixel, (H, W). The shifts with the largest sum of strength
    are found by dynamic programming, where neighbors differ by at most a quarter of a pixel.
    """
    if len(points) < 8:
        return points
    tangent = np.gradient(gaussian_filter1d(points, 2.0, axis=0, mode="nearest"), axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)  # (N, 2)
    shifts = np.arange(-REACH, REACH + 0.01, 0.25)  # (S,)
    where = points[:, None] + shifts[:, None] * normal[:, None]  # (N, S, 2)
    found = map_coordinates(strength, [where[..., 1] - 0.5, where[..., 0] - 0.5], order=1)
    found = found / strength.max() - 0.02 * (shifts / REACH) ** 2  # ties stay where they are
    total, choice = found[0], np.zeros(found.shape, int)
    for row in range(1, len(found)):
        padded = np.pad(total, 1, constant_values=-np.inf)
        options = np.stack([padded[:-2], padded[1:-1], padded[2:]])  # from shift - 1, same, + 1
        best = options.argmax(0)
        choice[row] = np.arange(len(shifts)) + best - 1
        total = options.max(0) + found[row]
    path = [int(total.argmax())]
    for row in range(len(found) - 1, 0, -1):
        path.append(int(choice[row, path[-1]]))
    shift = gaussian_filter1d(shifts[path[::-1]], SMOOTH / STEP, mode="nearest")
    return points + shift[:, None] * normal


def edge_strength(photo: np.ndarray) -> np.ndarray:
    """Return how steep the photo (H, W, 3) is at every pixel, (H, W); dark parts count more."""
    tone = np.sqrt(photo / 255.0)
    steepest = np.zeros(photo.shape[:2])
    for channel in range(3):
        x = gaussian_filter(tone[..., channel], 0.8, order=(0, 1))
        y = gaussian_filter(tone[..., channel], 0.8, order=(1, 0))
        steepest = np.maximum(steepest, np.hypot(x, y))
    return np.minimum(steepest, 0.12)  # a highlight does not outweigh a plain edge


def fill(strokes: list[Stroke], strength: np.ndarray, fixed: tuple[int, ...] = ()) -> np.ndarray:
    """Return the mask (H, W) inside closed strokes; those numbered in `fixed` are not moved."""
    curves = [curve(stroke) for stroke in strokes]
    moved = [c if i in fixed else snap(c, strength) for i, c in enumerate(curves)]
    outline = np.concatenate(moved)
    return polygon2mask(strength.shape, outline[:, ::-1] - 0.5)


def masks(photo: np.ndarray) -> dict[str, np.ndarray]:
    """Return the visible pixels of cup, saucer and spoon by name."""
    strength = edge_strength(photo)
    cup = fill(CUP, strength, fixed=(3,))
    tip = fill([SPOON_TIP, BEHIND_CUP], strength, fixed=(1,)) & ~cup
    bowl = fill([SPOON_RIGHT, SPOON_BESIDE_CUP], strength)
    spoon = tip | bowl
    cup &= ~bowl
    saucer = fill([SAUCER, SAUCER_BEHIND_CUP], strength, fixed=(1,)) & ~cup & ~spoon
    return {"coffee cup": cup, "saucer": saucer, "spoon": spoon}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("data/coffee"))
    target = parser.parse_args().output
    target.mkdir(parents=True, exist_ok=True)
    photo = data.coffee()
    Image.fromarray(photo).save(target / "image.png", optimize=True)
    found = masks(photo)
    for a, b in pairwise(found.values()):
        assert not (a & b).any()
    for index, mask in enumerate(found.values()):
        write_mask(target / f"{index}.png", photo, mask)
    description = {
        "title": "A cup of coffee on a wooden table",
        "objects": [
            {"index": i, "name": name, "license": "CC0-1.0", "pixels": int(mask.sum())}
            for i, (name, mask) in enumerate(found.items())
        ],
        "source": "Photo by Rachel Michetti, skimage.data.coffee() of scikit-image; masks by hand",
        "license": "CC0-1.0",
    }
    write_description(target / "example.json", description)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
