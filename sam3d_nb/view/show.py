"""`show`: look at objects in a notebook, interactively and as a picture that stays."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image

from sam3d_nb.errors import InputError
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D
from sam3d_nb.scene import Scene
from sam3d_nb.view.render import render
from sam3d_nb.view.thin import thinned
from sam3d_nb.view.world import Frame, Item, ball, photo_direction, upright

BUDGET = 300_000
"""Triangles a viewer gets at most; a larger mesh is shown by a coarser copy."""
HELP = "drag to turn, scroll to zoom, right-drag to move"


class View(ipywidgets.Box):
    """What `show` returns: viewers and pictures side by side.

    Notebooks without widgets (GitHub, nbviewer, a printed page) show the picture, others the text.
    """

    def __init__(self, panels: Sequence[ipywidgets.Widget], still: np.ndarray, text: str) -> None:
        layout = ipywidgets.Layout(flex_flow="row wrap", grid_gap="12px", overflow="visible")
        super().__init__(children=list(panels), layout=layout)
        self.still = still
        self.text = text

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Offer widget, picture and text; a notebook takes the first that it can display."""
        bundle = dict(super()._repr_mimebundle_(**kwargs) or {})
        return bundle | {
            "image/png": base64.b64encode(_png(self.still)).decode(),
            "text/plain": self.text,
        }


@dataclass(frozen=True, eq=False)
class _Subject:
    """One thing to look at: meshes in a Y-up world, seen from azimuth and elevation in degrees."""

    title: str
    meshes: list[Mesh]
    azimuth: float
    elevation: float

    @cached_property
    def coarse(self) -> list[Mesh]:
        """The meshes with no more triangles than a viewer can take."""
        share = BUDGET / max(self.count, 1)
        return [thinned(mesh, int(share * len(mesh.faces))) for mesh in self.meshes]

    @property
    def count(self) -> int:
        """Number of triangles."""
        return sum(len(mesh.faces) for mesh in self.meshes)

    @property
    def drawn(self) -> str:
        """How many triangles there are and, where they are fewer, how many the viewer shows."""
        shown = sum(len(mesh.faces) for mesh in self.coarse)
        copy = f", the viewer shows a copy of {shown:,}" if shown < self.count else ""
        return f"{self.count:,} triangles{copy}"

    @property
    def text(self) -> str:
        """What the picture shows, in words."""
        boxes = [mesh.bounds for mesh in self.meshes if len(mesh.faces)]
        low, high = np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
        width, height, depth = high - low
        size = f"{width:.2f} wide, {height:.2f} high, {depth:.2f} deep"
        return f"{self.title}: {self.count:,} triangles, {size}"


def show(
    *items: Item | Sequence[Item],
    size: int = 380,
    azimuth: float = 30.0,
    elevation: float = 15.0,
    frame: Frame | None = None,
    titles: Sequence[str] | None = None,
) -> View:
    """Show objects in a notebook: a viewer to turn with the mouse, and beside it a picture.

    items: each an object, a mesh, a scene, or a list of them that is shown together. A single
    object stands in its own frame, a scene in its world. Several items, such as `show(obj, truth)`,
    stand side by side as the photo's camera has them, and turn together; azimuth 0, elevation 0 is
    then, and for a scene, the direction of the photo. frame: what the vertices of plain meshes
    mean, "object" or "camera"; see `upright`. size: pixels a side. titles: one an item, instead of
    the objects' names. More than 300,000 triangles are shown by a coarser copy, and the line below
    says so.

    Raises InputError where there is nothing to show, or another number of titles than of items.
    """
    if not items:
        raise InputError("show needs something to show: an object, a mesh or a list of them")
    if titles is not None and len(titles) != len(items):
        raise InputError(f"{len(items)} items need as many titles but got {len(titles)}")
    together = len(items) > 1
    subjects = [_subject(item, together, azimuth, elevation, frame) for item in items]
    if together:
        around, above = subjects[0].azimuth, subjects[0].elevation
        subjects = [replace(s, azimuth=around, elevation=above) for s in subjects]
    if titles is not None:
        subjects = [replace(s, title=t) for s, t in zip(subjects, titles, strict=True)]
    stills = [render(s.meshes, s.azimuth, s.elevation, size, frame="object") for s in subjects]
    viewers = _viewers(subjects, size)
    panels = [
        _panel(*parts, size, narrow=together)
        for parts in zip(subjects, viewers, stills, strict=True)
    ]
    text = "; ".join(subject.text for subject in subjects)
    return View(panels, np.concatenate(stills, axis=1), text)


def _subject(
    item: Item | Sequence[Item],
    together: bool,
    azimuth: float,
    elevation: float,
    frame: Frame | None,
) -> _Subject:
    """Bring one item into its world and find the direction to look from."""
    alone = isinstance(item, Object3D | Mesh)
    scene = [item] if isinstance(item, Object3D | Mesh) and together else item
    meshes = upright(scene, frame)
    if (together or not alone or frame == "camera") and frame != "object":
        eye = item.world.translation if isinstance(item, Scene) else (0.0, 0.0, 0.0)
        around, above = photo_direction(ball(meshes)[0], eye)
        azimuth, elevation = azimuth + around, float(np.clip(elevation + above, -85, 85))
    return _Subject(_title(item), meshes, azimuth, elevation)


def _viewers(subjects: Sequence[_Subject], size: int) -> list[ipywidgets.Widget]:
    """Return the interactive parts; the one place that knows which library draws them."""
    from sam3d_nb.view.three import build_viewer, link_viewers

    viewers = [
        build_viewer(s.coarse, *ball(s.meshes), s.azimuth, s.elevation, size) for s in subjects
    ]
    link_viewers(viewers)
    return viewers


def _panel(
    subject: _Subject, viewer: ipywidgets.Widget, still: np.ndarray, size: int, *, narrow: bool
) -> ipywidgets.Widget:
    """Return title, viewer, picture (beside it, or below where it is narrow) and a line of text."""
    picture = base64.b64encode(_png(still)).decode()
    image = (
        f'<img width="{size}" height="{size}" style="display: block; margin: 0" '
        f'alt="{html.escape(subject.text)}" src="data:image/png;base64,{picture}">'
    )
    pair = ipywidgets.Box(
        [viewer, ipywidgets.HTML(image)],
        layout=ipywidgets.Layout(flex_flow="column" if narrow else "row", grid_gap="8px"),
    )
    title = ipywidgets.HTML(f"<b>{html.escape(subject.title)}</b>")
    about = html.escape(f"{subject.drawn}; {HELP}")
    note = ipywidgets.HTML(
        f'<small style="display: block; line-height: 1.3">{about}</small>',
        layout=ipywidgets.Layout(width=f"{size}px" if narrow else "auto"),
    )
    return ipywidgets.VBox([title, pair, note])


def _title(item: Item | Sequence[Item]) -> str:
    if isinstance(item, Mesh):
        return "mesh"
    if isinstance(item, Object3D):
        return item.name
    if isinstance(item, Scene):
        return f"scene of {len(item)} object{'s' * (len(item) != 1)}"
    return _title(item[0]) if len(item) == 1 else f"{len(item)} objects"


def _png(picture: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
