"""From a raw mesh to one for other programs: closed, light, textured, as far as is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import numpy as np

from sam3d_nb.errors import InputError, ReconstructionError
from sam3d_nb.events import FinishingEvent, OnEvent, tell
from sam3d_nb.mesh.bake import bake, check_colors
from sam3d_nb.mesh.crumbs import without_crumbs
from sam3d_nb.mesh.mesh import Mesh
from sam3d_nb.mesh.repair import fill_holes as close_holes
from sam3d_nb.mesh.repair import make_watertight
from sam3d_nb.mesh.simplify import FEWEST, check_count, fitted_colors, reduced
from sam3d_nb.mesh.unwrap import LARGEST, SMALLEST, check_size, unwrap
from sam3d_nb.object3d import Object3D
from sam3d_nb.splats import Gaussians

Finished = TypeVar("Finished", Mesh, Object3D)

ATTEMPTS = 4  # at closing a simplified mesh without going over the number of triangles


def finish(
    mesh: Finished,
    *,
    triangles: int | None = None,
    fill_holes: bool = False,
    watertight: bool = False,
    texture: int | None = None,
    gaussians: Gaussians | None = None,
    charts: str = "auto",
) -> Finished:
    """Return the mesh with what is asked for; without options, as it is.

    mesh: or an object, which is returned with such a mesh; where its mesh has no colors to bake,
    those of its gaussians are.
    fill_holes: a lid on every hole. watertight: closed surfaces that face outward, see
    `make_watertight`, without crumbs: a part of less than 0.1 % of the largest part's volume goes,
    unless its box has a tenth of the mesh's longest side, as a thin leg has. Both put lids on what
    is open on purpose, too: narrow gaps that `tiny` opened where the photo looks through the
    object, as between slats, are closed again. triangles: at most so many, see `simplify`.
    texture: pixels a side of a texture baked from the colors of the full mesh, so that
    simplification costs no color detail; the result has no vertex colors, and its vertices are
    doubled along seams. gaussians: in the frame of the mesh; their colors are baked in place of the
    mesh's own. charts: see `unwrap`.

    A textured mesh stays textured: if its triangles change and `texture` is not given, its
    texture is baked anew at its size.

    Raises InputError for anything but a mesh or an object, for options that are out of range or
    contradict each other, and where there are no colors to bake; ReconstructionError where the mesh
    cannot be closed.
    """
    Finishing(triangles, fill_holes, watertight, texture)  # checks them
    if isinstance(mesh, Object3D):
        if texture is not None and gaussians is None and not mesh.mesh.has_colors:
            gaussians = mesh.gaussians
        made = finish(
            mesh.mesh,
            triangles=triangles,
            fill_holes=fill_holes,
            watertight=watertight,
            texture=texture,
            gaussians=gaussians,
            charts=charts,
        )
        return replace(mesh, mesh=made)
    if not isinstance(mesh, Mesh):
        raise InputError(
            f"finish takes a Mesh or an Object3D but got a {type(mesh).__name__}; scenes have a "
            "method `finished`"
        )
    if texture is not None:
        check_colors(mesh if gaussians is None else gaussians)
    elif gaussians is not None:
        raise InputError("colors of gaussians are baked into a texture; give its size as `texture`")
    closed = close_holes(mesh) if fill_holes else mesh
    closed = _solid(closed) if watertight else closed
    shape = _simplified(closed, triangles, watertight)
    if texture is None and mesh.texture is not None and shape.texture is None:
        texture = min(max(*mesh.texture.shape[:2], SMALLEST), LARGEST)
    if texture is not None:
        # Lids have vertex colors from their rims; a texture is sharper than those.
        own = closed if mesh.texture is None else mesh
        unwrapped = unwrap(shape, texture, method=charts)
        return bake(unwrapped, own if gaussians is None else gaussians, texture)
    if shape is closed:
        return closed
    return Mesh(shape.vertices, shape.faces, fitted_colors(closed, shape))


@dataclass(frozen=True)
class Finishing:
    """What `finish` is to do with each of many objects; by default nothing.

    triangles, fill_holes, watertight, texture: as `finish` takes them. Raises InputError for
    numbers out of range, and for what is neither true nor false.
    """

    triangles: int | None = None
    fill_holes: bool = False
    watertight: bool = False
    texture: int | None = None

    def __post_init__(self) -> None:
        if self.triangles is not None:
            check_count(self.triangles)
            object.__setattr__(self, "triangles", int(self.triangles))
        if self.texture is not None:
            check_size(self.texture)
            object.__setattr__(self, "texture", int(self.texture))
        for name in ("fill_holes", "watertight"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise InputError(f"{name} is True or False but got {value!r}")
            object.__setattr__(self, name, bool(value))

    def __bool__(self) -> bool:
        return self != AS_MADE

    def apply(self, made: Object3D, on_event: OnEvent | None = None) -> Object3D:
        """Return the object with its mesh finished, as it is where it has no triangles.

        on_event: called with a `FinishingEvent` before and after, where there is something to do.
        Raises what `finish` does.
        """
        if not self or not len(made.mesh.faces):
            return made
        tell(on_event, FinishingEvent(name=made.name))
        result = finish(made, **asdict(self))
        tell(on_event, FinishingEvent(1.0, made.name))
        return result


AS_MADE = Finishing()


def check_finishing(finishing: Finishing) -> None:
    """Raise InputError for anything else, such as a dict of options."""
    if not isinstance(finishing, Finishing):
        raise InputError(
            f"finishing is such as Finishing(triangles=5_000, texture=1024) but got {finishing!r}"
        )


def _solid(mesh: Mesh) -> Mesh:
    return without_crumbs(make_watertight(mesh))


def _simplified(mesh: Mesh, triangles: int | None, watertight: bool) -> Mesh:
    """Return the mesh with at most so many triangles, without colors unless it is as it was.

    Raises ReconstructionError where it cannot be both: so small and watertight.
    """
    if triangles is None or len(mesh.faces) <= triangles:
        return mesh
    wanted = triangles
    for _ in range(ATTEMPTS):
        shape = Mesh(*reduced(mesh.vertices, mesh.faces, wanted))
        shape = _solid(shape) if watertight else shape
        extra = len(shape.faces) - triangles
        if extra <= 0:
            return shape
        wanted = max(wanted - extra, FEWEST)
    raise ReconstructionError(
        f"the mesh of {len(mesh.faces)} triangles cannot be closed with {triangles}; ask for more"
    )
