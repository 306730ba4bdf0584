"""What `tiny` does on tensors and rows of a grid, once more in NumPy, point by point."""

import numpy as np
import torch
from scipy import ndimage

from sam3d_nb.frames import Pose, project
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_linear
from sam3d_nb.tiny.match import LEAST, ROUNDS
from sam3d_nb.tiny.observe import FEWEST, FINEST, REST, SLACK, SURE
from sam3d_nb.tiny.paint import BEHIND, CERTAIN, DECODED, FACING, GRAZING, REACH, SHADE
from sam3d_nb.tiny.sculpt import EDGE, GAIN, OTHERS, STEEP, THIN, WIDER
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import Raster, rasterize


def placed(points: np.ndarray, pose: Pose) -> np.ndarray:
    """Points (N, 3) of the view cube in the camera, N of them that all lie in the photo."""
    x, y, z = points.T
    return np.stack([x, -z, y], 1) * pose.scale[0] + np.asarray(pose.translation)


def pixel(points: np.ndarray, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (N,) of the pixels that points (N, 3) of the camera are in."""
    column, row = np.floor(project(points, camera)).astype(int).T
    return row, column


def reach(points: np.ndarray, camera: np.ndarray, spacing: float) -> float:
    """Pixels that `spacing` takes in the middle of the points, where no block is larger."""
    return float((camera[0, 0] + camera[1, 1]) / 2 * spacing / np.median(points[:, 2]))


def known(pointmap: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(pointmap[..., 2]), pointmap[..., 2], np.inf)


def observed(
    logits: np.ndarray, pose: Pose, pointmap: np.ndarray, mask: np.ndarray, camera: np.ndarray
) -> np.ndarray:
    """What `observe` makes of logits (R, R, R) with a given point map of small pixels."""
    count = len(logits)
    axis = (np.arange(count) + 0.5) / count - 0.5
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    points, voxel = placed(grid, pose), pose.scale[0] / count
    across = reach(points, camera, voxel)
    assert across < 3 * FINEST  # else pixels would be joined to blocks
    size = 2 * max(1, round(across * 0.75)) + 1
    at = pixel(points, camera)
    touched = ndimage.maximum_filter(mask, size)[at]
    nearest = ndimage.minimum_filter(known(pointmap), size)[at]
    depth = points[:, 2]
    empty = np.isfinite(nearest) & (depth < nearest - SLACK * voxel)
    empty |= ~touched & (depth < nearest)
    held = np.zeros(logits.shape, dtype=int)
    inner = ndimage.binary_erosion(mask)
    thin = mask & ~ndimage.maximum_filter(inner, 3)
    finite = np.isfinite(pointmap).all(2)
    assert (inner & finite).sum() > (thin & finite).sum()  # else all that is thin counts
    whole = pointmap[inner & finite]
    low, high = whole.min(0), whole.max(0)
    with np.errstate(invalid="ignore"):
        off = np.maximum(low - pointmap, pointmap - high).max(2)  # outside of the rest's box
        inner |= thin & (off <= REST * (high - low).max())
    for x, y, z in pointmap[inner] - np.asarray(pose.translation):
        if np.isfinite([x, y, z]).all():
            place = np.floor((np.array([x, z, -y]) / pose.scale[0] + 0.5) * count).astype(int)
            if (place >= 0).all() and (place < count).all():
                held[tuple(place)] += 1
    found = np.where(empty.reshape(logits.shape), -SURE, logits)
    return np.where(held >= FEWEST, SURE, found)


def sculpted_distances(
    grid: np.ndarray,  # (nx, ny, nz, 3)
    distance: np.ndarray,  # (nx, ny, nz)
    pose: Pose,
    pointmap: np.ndarray,
    mask: np.ndarray,
    camera: np.ndarray,
    *,
    exact: bool = True,
) -> np.ndarray:
    """What a `Sculptor` makes of distances where no block of pixels is larger than one."""
    points, side = placed(grid.reshape(-1, 3), pose), pose.scale[0]
    across = reach(points, camera, side / (len(grid) - 1))
    assert across < 3
    seen = known(pointmap)
    first = ndimage.minimum_filter(np.where(mask, seen, np.inf), 3)
    row, column = project(points, camera).T[::-1] - 0.5
    wider = WIDER * across * ~gaps(mask, max(1, round(across)))
    far, deep = (ndimage.distance_transform_edt(part) for part in (~mask, mask))
    away = np.where(mask, 0.5 - deep, far - 0.5) - wider  # pixels
    beyond = ndimage.map_coordinates(away, [row, column], order=1, mode="nearest")
    beyond *= points[:, 2] / camera[0, 0] / side
    at = pixel(points, camera)
    d, inside = distance.reshape(-1).astype(float), beyond <= 0
    free = ~inside
    if exact:  # but for what something before the mask may hide
        beside = ndimage.minimum_filter(np.where(mask, np.inf, seen), 3)
        with np.errstate(invalid="ignore"):
            hidden = mask & (seen - beside > OTHERS * side)
        spread(hidden, mask)
        free &= ((points[:, 2] - seen[at]) / side < OTHERS) | ~hidden[at]
    d = np.where(free, np.maximum(d, beyond * GAIN), d)
    own = np.where(mask, seen, np.nan)
    size = 2 * max(1, round(across)) + 1
    with np.errstate(invalid="ignore"):
        far = ndimage.maximum_filter(np.where(np.isfinite(own), own, -np.inf), size) - own
        close = own - ndimage.minimum_filter(np.where(np.isfinite(own), own, np.inf), size)
    deep = THIN + np.nan_to_num(np.minimum(far, close) / side).clip(0, STEEP)
    for image in (seen, first, deep):
        spread(image, mask if exact else mask & np.isfinite(pointmap[..., 2]))
        if not exact:
            image[:] = image.clip(points[:, 2].min(), points[:, 2].max())
    behind, front = (points[:, 2] - seen[at]) / side, (points[:, 2] - first[at]) / side
    if exact:
        free = inside & np.isfinite(front) & (front < 0)
        d = np.where(free, np.maximum(d, np.minimum(-front, 1) * GAIN), d)
        solid = (front >= 0) & ((front < THIN) | (np.abs(behind) < deep[at]))
    else:
        covered = np.zeros(mask.shape, dtype=bool)
        covered[tuple(index[d < 0] for index in at)] = True
        covered = ndimage.maximum_filter(covered, 2 * max(1, round(across / 2)) + 1)
        solid = (np.abs(behind) < THIN) & ~covered[at]
    d = np.where(inside & solid, np.minimum(d, -np.maximum(front, THIN / 10) * GAIN), d)
    d = np.where(inside, np.maximum(d, beyond * GAIN), d)
    labels, _ = ndimage.label(d.reshape(distance.shape) > 0)
    border = np.ones(labels.shape, dtype=bool)
    border[1:-1, 1:-1, 1:-1] = False
    hollow = (labels > 0) & ~np.isin(labels, labels[border])
    d = np.where(hollow, -1.0, d.reshape(distance.shape))
    return np.where(border, np.maximum(d, EDGE), d)


def gaps(mask: np.ndarray, radius: int) -> np.ndarray:
    """Pixels beside the mask that squares of 2 radius + 1 pixels beside it do not reach."""
    size = 2 * radius + 1
    padded = ndimage.maximum_filter(np.pad(mask, radius), size)
    closed = ndimage.minimum_filter(padded, size)[radius:-radius, radius:-radius]
    return closed & ~mask


def spread(image: np.ndarray, sure: np.ndarray) -> None:
    """Give every pixel of `image` the value of the nearest of `sure` pixels."""
    place = ndimage.distance_transform_edt(~sure, return_distances=False, return_indices=True)
    image[:] = image[tuple(place)]


def painted_colors(
    mesh: Mesh, pose: Pose, image: np.ndarray, mask: np.ndarray, camera: np.ndarray
) -> np.ndarray:
    """The linear colors (V, 3) that `paint` gives to a mesh, out of a photo with few pixels."""
    points, rotation = pose.apply(mesh.vertices), Pose(pose.rotation).matrix()[:3, :3]
    view = Camera(*mask.shape, camera)
    raster = rasterize(torch.tensor(points), torch.tensor(mesh.faces), view)
    first = raster.depth.numpy()
    first = ndimage.maximum_filter(np.where(np.isfinite(first), first, -np.inf), 3)
    at = pixel(points, camera)
    facing = -((mesh.normals @ rotation.T) * points).sum(1) / np.linalg.norm(points, axis=1)
    weight = ndimage.maximum_filter(mask, 3)[at]
    weight = weight * (2 - (points[:, 2] - first[at]) / pose.scale[0] / BEHIND).clip(0, 1)
    inside = [ndimage.binary_erosion(mask, iterations=n, border_value=1) for n in (1, 2)]
    depth = np.sum([mask, *inside], axis=0)
    solid = mask & (depth == ndimage.maximum_filter(depth, 9))
    nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    photo = image[tuple(nearest)] / 255
    row, column = project(points, camera).T[::-1] - 0.5
    found = [
        ndimage.map_coordinates(photo[..., c], [row, column], order=1, mode="nearest")
        for c in range(3)
    ]
    found = to_linear(np.stack(found, 1))
    sure = weight * ((facing - GRAZING) / 0.25).clip(0, 1) > CERTAIN
    mean = found[sure].mean(0)
    gain = (mean / mesh.colors[sure].mean(0).clip(0.02)).clip(0.3, 4)
    guess = mean + DECODED * ((mesh.colors * gain).clip(0, 1) - mean)
    carried, edges = carried_on(found, sure, mesh.faces, 2 * REACH)
    guess = guess + np.exp(-((edges / REACH) ** 2))[:, None] * (carried - guess)
    colors = guess + (weight * (facing / FACING).clip(0, 1))[:, None] * (found - guess)
    return matched_colors(colors, mesh.faces, raster, to_linear(unmixed(image / 255, mask)), mask)


def carried_on(
    colors: np.ndarray, known: np.ndarray, faces: np.ndarray, rings: int
) -> tuple[np.ndarray, np.ndarray]:
    """What `spread` returns, vertex by vertex."""
    before: dict[int, list[int]] = {vertex: [] for vertex in range(len(colors))}
    for a, b, c in faces:
        for start, end in ((a, b), (b, c), (c, a)):
            before[end].append(start)
    colors, edges = colors.copy(), np.where(known, 0.0, np.inf)
    for ring in range(1, rings + 1):
        for vertex in np.flatnonzero(np.isinf(edges)):
            near = [v for v in before[vertex] if edges[v] < ring]
            if near:
                colors[vertex], edges[vertex] = colors[near].mean(0), ring
    return colors, edges


def unmixed(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The photo (H, W, 3), its colors at the mask's border within those further inside."""
    inner, found = ndimage.minimum_filter(mask, 3), photo.copy()
    for row, column in np.argwhere(mask):
        around = np.s_[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        colors = photo[around][inner[around]]
        if len(colors):
            low, high = colors.min(0) - SHADE, colors.max(0) + SHADE
            found[row, column] = photo[row, column].clip(low, high)
    return found


def matched_colors(
    colors: np.ndarray, faces: np.ndarray, raster: Raster, photo: np.ndarray, mask: np.ndarray
) -> np.ndarray:
    """What `matched` makes of colors (V, 3), pixel by pixel."""
    seen = np.argwhere(mask & raster.covered.numpy())
    for _ in range(ROUNDS):
        step, total = np.zeros_like(colors), np.zeros(len(colors))
        for place in map(tuple, seen):
            corner = faces[int(raster.face[place])]
            share = raster.barycentric[place].numpy().astype(float)
            left = photo[place] - share @ colors[corner]
            for vertex, part in zip(corner, share, strict=True):
                step[vertex] += part * left
                total[vertex] += part
        colors = (colors + step / np.maximum(total, LEAST)[:, None]).clip(0, 1)
    return colors
