"""The interactive viewer of notebooks, by pythreejs (three.js r97): orbit with the mouse.

Light, camera and colors are those of `render`, so that viewer and picture look alike. three.js
works in linear light here: textures are decoded with gamma 2.2 and the result is encoded with it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pythreejs as three
from PIL import Image
from scipy.spatial.transform import Rotation

from sam3d_nb.mesh import Mesh
from sam3d_nb.view.camera import orbit_camera
from sam3d_nb.view.render import AMBIENT, LAMP, LIGHT, MARGIN
from sam3d_nb.view.shading import GREY, with_normals

FIELD_OF_VIEW = 30.0
LARGEST_TEXTURE = 2048


def build_viewer(
    parts: Sequence[three.Object3D],
    center: np.ndarray,
    radius: float,
    azimuth: float,
    elevation: float,
    size: int,
) -> three.Renderer:
    """Return a widget that shows `parts` (Y-up) from the same place as `render` does."""
    camera = _camera(azimuth, elevation)
    shift = -np.asarray(center, dtype=np.float64) / radius
    centered = three.Group(
        children=list(parts),
        position=tuple(shift.tolist()),
        scale=(1 / radius, 1 / radius, 1 / radius),
    )
    ambient = three.AmbientLight(color="#ffffff", intensity=AMBIENT)
    return three.Renderer(
        scene=three.Scene(children=[centered, ambient, camera], background=None),
        camera=camera,
        controls=[three.OrbitControls(controlling=camera, screenSpacePanning=True)],
        width=size,
        height=size,
        antialias=True,
        clearColor="#{:02x}{:02x}{:02x}".format(*LIGHT),
        gammaInput=True,
        gammaOutput=True,
        gammaFactor=2.2,
    )


def link_viewers(viewers: Sequence[three.Renderer]) -> None:
    """Let all viewers turn with the one that is dragged, when it is let go.

    The camera's place is what counts: the direction that the browser reports with it is that of the
    drag before.
    """

    def follow(leader: three.Renderer) -> None:
        place, target = leader.camera.position, leader.controls[0].target
        for other in viewers:
            theirs = (*other.camera.position, *other.controls[0].target)
            if not np.allclose(theirs, (*place, *target), atol=1e-9):
                other.controls[0].target = target
                other.camera.position = place
                other.camera.quaternion = looking_at(place, target)

    for viewer in viewers if len(viewers) > 1 else ():
        for part, trait in ((viewer.camera, "position"), (viewer.controls[0], "target")):
            part.observe(lambda _, leader=viewer: follow(leader), trait)


def looking_at(place: Sequence[float], target: Sequence[float]) -> tuple[float, ...]:
    """Return the turn (x, y, z, w) of a camera at `place` (3,) that looks at `target`, y up."""
    backward = np.subtract(place, target)
    backward = backward / max(float(np.linalg.norm(backward)), 1e-12)
    right = np.cross((0.0, 1.0, 0.0), backward)
    right = right / max(float(np.linalg.norm(right)), 1e-12)
    axes = np.stack([right, np.cross(backward, right), backward], axis=1)
    if np.linalg.det(axes) < 0.5:  # straight from above or below
        axes = Rotation.from_euler("x", -90 * np.sign(backward[1]), degrees=True).as_matrix()
    return tuple(Rotation.from_matrix(axes).as_quat().tolist())


def _camera(azimuth: float, elevation: float) -> three.PerspectiveCamera:
    """Return a camera that looks at a unit ball around the origin and carries the lamp."""
    view = orbit_camera(np.zeros(3), MARGIN, azimuth, elevation, field_of_view=FIELD_OF_VIEW)
    eye = view.position
    axes = (view.rotation * [[1], [-1], [-1]]).T  # three.js looks along -z with y up
    distance = float(np.linalg.norm(eye))
    x, y, z = (distance * share for share in LAMP)
    strength = 1 - AMBIENT
    lamp = three.PointLight(  # the power is set after the intensity, and wins
        color="#ffffff", intensity=strength, power=4 * np.pi * strength, position=(x, -y, -z)
    )
    return three.PerspectiveCamera(
        position=tuple(eye.tolist()),
        quaternion=tuple(Rotation.from_matrix(axes).as_quat().tolist()),  # x, y, z, w
        fov=FIELD_OF_VIEW,
        aspect=1,
        near=distance / 100,
        far=distance * 20,
        children=[lamp],
    )


def drawn_mesh(mesh: Mesh) -> three.Mesh:
    """Return the mesh with its texture, its vertex colors, or grey."""
    split, normals = with_normals(mesh)
    attributes = {
        "position": three.BufferAttribute(split.vertices, normalized=False),
        "normal": three.BufferAttribute(normals, normalized=False),
        "index": three.BufferAttribute(split.faces.astype(np.uint32).ravel(), normalized=False),
    }
    look = {"color": "#ffffff"}
    if split.texture is not None and split.uv is not None:
        attributes["uv"] = three.BufferAttribute(split.uv, normalized=False)
        look["map"] = three.ImageTexture(
            imageUri=_data_uri(split.texture),
            flipY=False,
            wrapS="RepeatWrapping",
            wrapT="RepeatWrapping",
        )
    elif split.colors is not None:
        attributes["color"] = three.BufferAttribute(split.colors, normalized=False)
        look["vertexColors"] = "VertexColors"
    else:
        look["color"] = "#" + f"{round(GREY * 255):02x}" * 3
    material = three.MeshPhongMaterial(specular="#000000", shininess=0, side="DoubleSide", **look)
    return three.Mesh(three.BufferGeometry(attributes=attributes), material)


def _data_uri(texture: np.ndarray) -> str:
    """Return `texture` (h, w, 3) uint8 as a JPEG that a browser can load from its address.

    Its sides become powers of two, which repeating textures need in WebGL 1.
    """
    height, width = (
        min(LARGEST_TEXTURE, 1 << (side - 1).bit_length()) for side in texture.shape[:2]
    )
    buffer = BytesIO()
    picture = Image.fromarray(texture).resize((width, height))
    picture.save(buffer, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
