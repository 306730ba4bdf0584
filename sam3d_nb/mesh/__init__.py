"""Triangle meshes: the type, and files of it."""

from sam3d_nb.mesh.mesh import Mesh

__all__ = ["Mesh"]
