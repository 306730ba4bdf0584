"""Gaussians of an object as plain arrays, and files of them: 3DGS `.ply` and `.splat`.

A file holds the gaussians in the frame in which they are: those of an object in the object frame,
as its GLB does, so that one pose places both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from sam3d_nb.errors import InputError
from sam3d_nb.files import write_file
from sam3d_nb.frames import Pose, rotation_matrix

SH_BAND_0 = 0.28209479177387814
"""The constant spherical harmonic: a color is 0.5 + SH_BAND_0 f_dc."""

PLY_PROPERTIES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
PLY_TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "uchar": "u1"}
MAX_HEADER = 10_000
SPLAT = np.dtype(
    [("center", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)]
)
NEARLY_OPAQUE = 1 - 2.0**-24
SMALLEST_OPACITY = 1e-12


@dataclass(frozen=True, eq=False)
class Gaussians:
    """K anisotropic 3D gaussians.

    centers: (K, 3). scales: (K, 3) standard deviations along the gaussian's own axes, positive.
    rotations: (K, 4) unit quaternions (w, x, y, z) that carry its axes into the frame of the
    centers. opacities: (K,) in [0, 1]. colors: (K, 3) sRGB as a screen shows them, which is how
    splats are blended; 0 to 1 is visible, and values outside are kept. All float32.

    Raises InputError where shapes do not agree or numbers are not finite.
    """

    centers: np.ndarray
    scales: np.ndarray
    rotations: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray

    def __repr__(self) -> str:
        """Say what is there instead of printing numbers."""
        return f"<{len(self.centers):,} gaussians>"

    def __post_init__(self) -> None:
        count = len(self.centers)
        widths = {"centers": 3, "scales": 3, "rotations": 4, "colors": 3}
        for field in fields(self):
            array = np.ascontiguousarray(getattr(self, field.name), dtype=np.float32)
            wanted = (count, widths[field.name]) if field.name in widths else (count,)
            if array.shape != wanted:
                raise InputError(f"gaussian {field.name} need shape {wanted}, not {array.shape}")
            if not np.isfinite(array).all():
                raise InputError(f"gaussian {field.name} of {count} are not all finite")
            object.__setattr__(self, field.name, array)

    def __len__(self) -> int:
        return len(self.centers)

    @property
    def axes(self) -> np.ndarray:
        """The gaussians' axes as columns, as long as their deviations, (K, 3, 3) float64."""
        return _rotation(self.rotations).as_matrix() * self.scales[:, None]

    def placed(self, pose: Pose) -> Gaussians:
        """Return the gaussians that `pose` carries into another frame: an object's into the camera.

        Under a scale that differs along the axes a gaussian stays one, with other axes.
        """
        centers = pose.apply(self.centers)
        if len(set(pose.scale)) == 1:
            turned = _multiply(pose.rotation, self.rotations)
            return self._moved(centers, self.scales * pose.scale[0], turned)
        linear = rotation_matrix(pose.rotation) * pose.scale  # (3, 3)
        directions, scales, _ = np.linalg.svd(linear @ self.axes)
        directions[np.linalg.det(directions) < 0, :, 2] *= -1
        turned = Rotation.from_matrix(directions).as_quat(scalar_first=True)
        return self._moved(centers, scales, turned)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write a 3DGS `.ply` or a `.splat`, as the suffix says; returns the path.

        A `.splat` holds 8 bits a color and rotation component, the most visible gaussians first.
        Raises InputError for another suffix or no gaussians, OutputError where the file exists and
        `overwrite` is false, or cannot be written.
        """
        path = Path(path)
        encode = {".ply": encode_ply, ".splat": encode_splat}.get(path.suffix.lower())
        if encode is None:
            raise InputError(f"{path.name!r} names no format of gaussians; use .ply or .splat")
        if not len(self):
            raise InputError("there are 0 gaussians, so there is nothing to save")
        return write_file(path, encode(self), overwrite=overwrite)

    def _moved(self, centers: np.ndarray, scales: np.ndarray, turned: np.ndarray) -> Gaussians:
        rotations = np.where(turned[:, :1] < 0, -turned, turned)  # w is not negative
        return Gaussians(centers, scales, rotations, self.opacities, self.colors)


def merge(sets: Sequence[Gaussians]) -> Gaussians:
    """Return all gaussians of `sets`, which must stand in one frame, one set after the other.

    Raises InputError for no set.
    """
    if not sets:
        raise InputError("no set of gaussians to merge; give at least one")
    names = [field.name for field in fields(Gaussians)]
    return Gaussians(*(np.concatenate([getattr(s, name) for s in sets]) for name in names))


def load_splats(path: str | Path) -> Gaussians:
    """Return the gaussians of a `.ply` in the 3DGS layout or a `.splat`; no change of axes.

    Colors that depend on the direction of view are left out. Raises InputError where the file is
    missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}; check the path")
    decode = {".ply": decode_ply, ".splat": decode_splat}.get(path.suffix.lower())
    if decode is None:
        raise InputError(f"{path.name!r} names no format of gaussians; use .ply or .splat")
    try:
        return decode(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def encode_ply(gaussians: Gaussians) -> bytes:
    """Return the bytes of a binary 3DGS file: 17 floats a gaussian, see `PLY_PROPERTIES`.

    Normals are zero, colors coefficients of the constant spherical harmonic, opacities logits,
    scales natural logarithms, rotations unit quaternions (w, x, y, z).
    """
    opacity = gaussians.opacities.astype(np.float64).clip(SMALLEST_OPACITY, NEARLY_OPAQUE)
    columns = (
        gaussians.centers,
        np.zeros_like(gaussians.centers),
        (gaussians.colors - np.float32(0.5)) / np.float32(SH_BAND_0),
        np.log(opacity / (1 - opacity))[:, None],
        np.log(gaussians.scales.clip(np.finfo(np.float32).tiny)),
        gaussians.rotations,
    )
    rows = np.concatenate(columns, axis=1).astype("<f4")  # (K, 17)
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}"]
    lines += [f"property float {name}" for name in PLY_PROPERTIES]
    return "\n".join([*lines, "end_header\n"]).encode() + rows.tobytes()


def decode_ply(content: bytes) -> Gaussians:
    """Return the gaussians in the bytes of a binary 3DGS file; raises InputError."""
    table = _read_ply(content)
    needed = set(PLY_PROPERTIES) - {"nx", "ny", "nz"}
    missing = needed - set(table.dtype.names or ())
    if missing:
        raise InputError(f"this PLY holds no gaussians: {', '.join(sorted(missing))} are missing")

    def columns(*names: str) -> np.ndarray:
        return np.stack([table[name].astype(np.float32) for name in names], axis=1)

    return Gaussians(
        columns("x", "y", "z"),
        np.exp(columns("scale_0", "scale_1", "scale_2")),
        _unit(columns("rot_0", "rot_1", "rot_2", "rot_3")),
        1 / (1 + np.exp(-table["opacity"].astype(np.float64))),
        0.5 + SH_BAND_0 * columns("f_dc_0", "f_dc_1", "f_dc_2"),
    )


def _read_ply(content: bytes) -> np.ndarray:
    """Return the vertices of a binary PLY file as a structured array."""
    head, end, body = content.partition(b"end_header\n")
    lines = head[:MAX_HEADER].decode("latin-1").split("\n")
    if lines[0].strip() != "ply" or not end or len(head) > MAX_HEADER:
        raise InputError("this is no PLY file, or its header is damaged")
    words = [line.split() for line in lines[1:] if line.split()[:1] not in ([], ["comment"])]
    kind = " ".join(words[0]) if words else ""
    if kind != "format binary_little_endian 1.0":
        raise InputError(f"only binary_little_endian PLY can be read, not {kind!r}")
    elements = [w for w in words if w[0] == "element"]
    if [w[:2] for w in elements] != [["element", "vertex"]] or not elements[0][-1].isdecimal():
        raise InputError("a PLY file of gaussians has one element, 'vertex'")
    properties = [w[1:] for w in words if w[0] == "property"]
    unknown = [" ".join(p) for p in properties if len(p) != 2 or p[0] not in PLY_TYPES]
    if unknown or len({p[-1] for p in properties}) != len(properties):
        raise InputError(f"the PLY file has properties that gaussians do not have: {unknown}")
    layout = np.dtype([(name, PLY_TYPES[kind]) for kind, name in properties])
    count = int(elements[0][-1])
    if len(body) < count * layout.itemsize:
        raise InputError(f"the PLY file is cut off: {count} gaussians take more than it has")
    return np.frombuffer(body, layout, count)


def encode_splat(gaussians: Gaussians) -> bytes:
    """Return the bytes of a `.splat` file: 32 a gaussian, the most visible ones first."""
    volume = gaussians.scales.astype(np.float64).prod(axis=1)
    order = np.argsort(-volume * gaussians.opacities, kind="stable")
    rows = np.zeros(len(gaussians), SPLAT)
    rows["center"] = gaussians.centers[order]
    rows["scale"] = gaussians.scales[order]
    rgba = np.column_stack([gaussians.colors, gaussians.opacities])[order]
    rows["color"] = np.round(rgba.clip(0, 1) * 255)
    rows["rotation"] = np.round(_unit(gaussians.rotations[order]) * 128 + 128).clip(0, 255)
    return rows.tobytes()


def decode_splat(content: bytes) -> Gaussians:
    """Return the gaussians in the bytes of a `.splat` file; raises InputError."""
    if not content or len(content) % SPLAT.itemsize:
        raise InputError(f"a .splat file has 32 bytes a gaussian, but this one has {len(content)}")
    rows = np.frombuffer(content, SPLAT)
    color = rows["color"].astype(np.float32) / 255
    rotation = _unit((rows["rotation"].astype(np.float32) - 128) / 128)
    return Gaussians(rows["center"], rows["scale"], rotation, color[:, 3], color[:, :3])


def _rotation(quaternions: np.ndarray) -> Rotation:
    return Rotation.from_quat(quaternions, scalar_first=True)


def _multiply(first: tuple[float, float, float, float], quaternions: np.ndarray) -> np.ndarray:
    """Return the unit quaternions (K, 4) of turning by `quaternions` and then by `first`."""
    w, x, y, z = first
    product = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return _unit(quaternions.astype(np.float64) @ product.T)


def _unit(quaternions: np.ndarray) -> np.ndarray:
    """Return quaternions (K, 4) of length 1; (1, 0, 0, 0) where all four numbers are 0."""
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    identity = np.array([1, 0, 0, 0], dtype=quaternions.dtype)
    return np.where(length > 0, quaternions / np.where(length > 0, length, 1), identity)
