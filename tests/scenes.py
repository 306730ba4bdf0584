"""A small example folder for tests: meshes seen by a camera, with exact masks and ground truth."""

import json
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image

from sam3d_nb.examples import Example, load_example
from sam3d_nb.mesh import Mesh
from sam3d_nb.view.camera import Camera
from sam3d_nb.view.raster import rasterize

SIZE = 128
K = np.array([[150.0, 0, SIZE / 2], [0, 150.0, SIZE / 2], [0, 0, 1.0]])


def write_scene(folder: Path, meshes: list[Mesh], *, truth: bool = True) -> Example:
    """Write and load an example of `meshes` (camera frame); nearer ones hide what is behind."""
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    vertices = np.concatenate([m.vertices for m in meshes])
    faces = np.concatenate([m.faces + n for m, n in zip(meshes, offsets, strict=False)])
    face = rasterize(torch.tensor(vertices), torch.tensor(faces), Camera(SIZE, SIZE, K)).face
    owner = np.searchsorted(np.cumsum([len(m.faces) for m in meshes]), face.numpy(), side="right")
    owner[face.numpy() < 0] = -1

    folder.mkdir(parents=True)
    colors = np.array([[60, 60, 70], [210, 90, 40], [50, 140, 200], [90, 180, 90]], dtype=np.uint8)
    Image.fromarray(colors[(owner + 1) % 4]).save(folder / "image.png")
    for index, mesh in enumerate(meshes):
        Image.fromarray(((owner == index) * 255).astype(np.uint8)).save(folder / f"{index}.png")
        if truth:
            (folder / "meshes").mkdir(exist_ok=True)
            shape = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
            (folder / "meshes" / f"{index}.glb").write_bytes(shape.export(file_type="glb"))
    names = [{"index": i, "name": f"thing {i}"} for i in range(len(meshes))]
    info = {"objects": names, "camera": {"K": K.tolist()}, "frame": "opencv"}
    (folder / "example.json").write_text(json.dumps(info))
    return load_example(folder)
