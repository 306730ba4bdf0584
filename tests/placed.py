"""Objects whose true shape and pose are known, and what is wrong with another pose of them."""

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from sam3d_nb.examples import Example
from sam3d_nb.frames import Pose, quaternion_from_matrix
from sam3d_nb.mesh import Mesh
from sam3d_nb.refine.motion import moved


class Offset(NamedTuple):
    """How far a pose is from the true one; lengths in longest sides of the object."""

    degrees: float
    shift: float
    scale: float  # |ln(ratio)|
    surface: float  # mean distance of a point of the true surface to the closest one of the other
    points: float  # mean distance of a point to itself


def true_object(example: Example, index: int) -> tuple[Mesh, Pose]:
    """The true mesh in its own frame, inside the unit cube, and its pose in the photo's camera."""
    mesh = example.true_mesh(index)
    assert mesh is not None
    entry = next(o for o in example.info["objects"] if o["index"] == index)
    turn = np.array(entry["pose"], dtype=float)[:3, :3]
    turn /= np.linalg.norm(turn, axis=0)
    local = mesh.vertices.astype(float) @ turn
    low, high = local.min(0), local.max(0)
    center, size = (low + high) / 2, float((high - low).max())
    x, y, z = (turn @ center).tolist()
    pose = Pose(quaternion_from_matrix(turn), (x, y, z), (size,) * 3)
    return Mesh((local - center) / size, mesh.faces), pose


def disturbed(
    pose: Pose, seed: int, degrees: float = 5.0, shift: float = 0.05, scale: float = 0.08
) -> Pose:
    """The pose turned about a random axis, moved a random way by `shift` sizes, and scaled."""
    generator = np.random.default_rng(seed)
    axis, way = generator.normal(size=(2, 3))
    turn = np.radians(degrees) * axis / np.linalg.norm(axis)
    move = shift * pose.scale[0] * way / np.linalg.norm(way)
    growth = np.log(1 + scale * generator.choice([-1, 1]))
    return moved(pose, np.array(pose.translation), turn, move, float(growth))


def offset(mesh: Mesh, pose: Pose, true: Pose) -> Offset:
    """How far `pose` of `mesh` is from `true`."""
    vertices = mesh.vertices[np.unique(mesh.faces)]
    vertices = vertices[:: max(1, len(vertices) // 3000)]
    found, wanted, size = pose.apply(vertices), true.apply(vertices), true.scale[0]
    turns = [Rotation.from_quat(p.rotation, scalar_first=True) for p in (pose, true)]
    return Offset(
        float(np.degrees((turns[0] * turns[1].inv()).magnitude())),
        float(np.linalg.norm(np.subtract(pose.translation, true.translation))) / size,
        float(abs(np.log(pose.scale[0] / size))),
        float(cKDTree(found).query(wanted)[0].mean()) / size,
        float(np.linalg.norm(found - wanted, axis=1).mean()) / size,
    )
