"""What a model is asked for: photo, mask and camera, checked before any work starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from sam3d_nb.errors import InputError
from sam3d_nb.examples import Example
from sam3d_nb.frames import default_intrinsics, intrinsics_from_pointmap
from sam3d_nb.images import check_mask
from sam3d_nb.object3d import Object3D
from sam3d_nb.whole import is_whole


@dataclass(frozen=True, eq=False)
class Request:
    """One object to reconstruct, checked.

    image: (H, W, 3) uint8 RGB. mask: (H, W) bool, not empty. pointmap: (H, W, 3) float32 in the
    camera frame, NaN where unknown, or None. intrinsics: K (3, 3) in pixels, always given here:
    the caller's, else fitted to the point map, else a 50 degree field of view. mask_index: of the
    example that the mask comes from, if it does.
    """

    image: np.ndarray
    mask: np.ndarray
    pointmap: np.ndarray | None
    intrinsics: np.ndarray
    seed: int
    name: str = "object"
    mask_index: int | None = None

    def image_sha256(self) -> str:
        """Hash of height, width and RGB bytes."""
        return _sha256(self.image)

    def mask_sha256(self) -> str:
        """Hash of height, width and one byte a pixel."""
        return _sha256(self.mask)


def _sha256(array: np.ndarray) -> str:
    digest = hashlib.sha256(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def resolve_request(
    image: np.ndarray | Example,
    mask: np.ndarray | int | None,
    pointmap: np.ndarray | None = None,
    intrinsics: np.ndarray | None = None,
    seed: int = 0,
) -> Request:
    """Return the checked request of a photo or an example, and a mask or the index of one.

    Without a mask, the example's only one. Point map and intrinsics default to the example's.
    Raises InputError.
    """
    name, index = "object", None
    if isinstance(mask, bool):
        raise InputError(f"a mask is an index or a bool array (H, W) but got {mask}")
    if isinstance(image, Example):
        pointmap = image.pointmap if pointmap is None else pointmap
        intrinsics = image.intrinsics if intrinsics is None else intrinsics
        mask = _only_mask(image) if mask is None else mask
        if isinstance(mask, int | np.integer):
            index = int(mask)
            mask = image.mask(index)
            name = image.names[index]
        image = image.image
    if mask is None:
        raise InputError("a mask is needed: a bool array (H, W)")
    if isinstance(mask, int | np.integer):
        raise InputError(f"a mask index needs an example, but the image is an array: {mask!r}")
    request = make_request(image, mask, pointmap, intrinsics, seed)
    return replace(request, name=name, mask_index=index)


def mask_index_of(result: Object3D, example: Example) -> int | None:
    """Return the index in `example` of the mask that an object was made from, None if unknown.

    Masks are told apart by their pixels, since the object may come from other masks of the photo.
    Raises InputError where it is none of the example's.
    """
    source = result.provenance
    if not source.mask_sha256:
        return source.mask_index
    indices = sorted(example.masks, key=lambda index: index != source.mask_index)
    for index, mask in example.readable_masks(indices):
        if _sha256(mask) == source.mask_sha256:
            return index
    if source.mask_index is None:
        return None
    raise InputError(
        f"mask {source.mask_index} of {example.name} is not the one that {result.name} was made "
        "from; give the example that it was made from, such as MaskPicker.picked"
    )


def _only_mask(example: Example) -> int:
    """Return the index of the example's only mask; raises InputError where it is not certain."""
    if len(example.masks) == 1:
        return next(iter(example.masks))
    there = ", ".join(f"{index} {name}" for index, name in example.names.items())
    raise InputError(
        f"say which mask: one of {there}"
        if there
        else "there is no mask yet: give one, or pick it with MaskPicker"
    )


def make_request(
    image: np.ndarray,
    mask: np.ndarray,
    pointmap: np.ndarray | None = None,
    intrinsics: np.ndarray | None = None,
    seed: int = 0,
) -> Request:
    """Check what belongs together and fill in the intrinsics; raises InputError.

    A mask of numbers is true above half of its largest value. Points that are not finite or not
    in front of the camera count as unknown.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image is a uint8 array (H, W, 3) but got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"an image is uint8 (H, W, 3) but got {image.dtype} {image.shape}")
    inside = _boolean(mask)
    check_mask(inside, (image.shape[0], image.shape[1]))
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise InputError(f"a seed is a whole number from 0 to 2^63 - 1 but got {seed!r}")
    points = None if pointmap is None else _known_points(pointmap, image.shape)
    if intrinsics is not None:
        camera = _checked_intrinsics(intrinsics)
    else:
        fitted = None if points is None else intrinsics_from_pointmap(points)
        camera = default_intrinsics(*image.shape[:2]) if fitted is None else fitted
    return Request(image, inside, points, camera, int(seed))


def _boolean(mask: np.ndarray) -> np.ndarray:
    """Return a mask of any number type as bool."""
    if not isinstance(mask, np.ndarray):
        raise InputError(f"a mask is a bool array (H, W) but got {type(mask).__name__}")
    if mask.dtype == np.bool_:
        return mask
    if mask.dtype.kind not in "iuf" or not np.isfinite(mask).all():
        raise InputError(f"a mask is bool (H, W) or finite numbers but got {mask.dtype}")
    return mask > max(mask.max(initial=0) / 2, 0)


def _known_points(pointmap: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the point map (H, W, 3) float32 with NaN at every pixel whose point is unknown."""
    if np.shape(pointmap) != shape:
        raise InputError(f"the point map is {np.shape(pointmap)} but the image is {shape}")
    points = np.array(pointmap, dtype=np.float32)
    x, y, z = (np.isfinite(points[..., i]) for i in range(3))  # one by one: `all(-1)` is slow
    finite = x & y & z
    known = finite & (points[..., 2] > 0)
    if not known.any():
        state = "lies behind the camera" if finite.any() else "has no finite point"
        raise InputError(
            f"the point map {state}; it needs x right, y down and z forward (OpenCV), or leave it "
            "out"
        )
    np.copyto(points, np.nan, where=~known[..., None])
    return points


def _checked_intrinsics(intrinsics: np.ndarray) -> np.ndarray:
    """Return K (3, 3) float64 if it is one of a pinhole camera in pixels."""
    if np.shape(intrinsics) != (3, 3):
        raise InputError(f"intrinsics are (3, 3) but got {np.shape(intrinsics)}")
    camera = np.array(intrinsics, dtype=np.float64)
    if not (np.isfinite(camera).all() and min(camera[0, 0], camera[1, 1]) > 0) or not np.allclose(
        camera[2], (0, 0, 1)
    ):
        raise InputError(
            "intrinsics are [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels with positive focal "
            f"lengths but got {camera.tolist()}"
        )
    return camera
