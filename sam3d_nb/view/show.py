"""`show`: look at objects in a notebook, interactively and as a picture that stays."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any, Literal

import ipywidgets
import numpy as np
from PIL import Image

from sam3d_nb.errors import InputError
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D
from sam3d_nb.scene import Scene
from sam3d_nb.splats import Gaussians
from sam3d_nb.view.subject import Splats, Subject, Surfaces
from sam3d_nb.view.world import (
    Frame,
    Item,
    ball,
    ball_of_gaussians,
    photo_direction,
    upright,
    upright_gaussians,
)

Kind = Literal["mesh", "gaussians"]
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


def show(
    *items: Item | Gaussians | Sequence[Item | Gaussians],
    size: int = 380,
    azimuth: float = 30.0,
    elevation: float = 15.0,
    frame: Frame | None = None,
    titles: Sequence[str] | None = None,
    kind: Kind | None = None,
) -> View:
    """Show objects in a notebook: a viewer to turn with the mouse, and beside it a picture.

    items: each an object, a mesh, gaussians, a scene, or a list of them that is shown together. A
    single object stands in its own frame, a scene in its world. Several items, such as
    `show(obj, truth)`, stand side by side as the photo's camera has them, and turn together;
    azimuth 0, elevation 0 is then, and for a scene, the direction of the photo. frame: what plain
    meshes and gaussians stand in, "object" or "camera"; see `upright`. size: pixels a side.
    titles: one an item, instead of the objects' names. kind: "mesh" or "gaussians", what to show
    of objects and scenes that have both; by default the mesh where there is one.

    More than 50,000 triangles, or 60,000 gaussians, in all viewers together are shown by a coarser
    copy, so that notebooks stay small, and the line below says so. Pictures show meshes whole.

    Raises InputError where there is nothing to show, or another number of titles than of items.
    """
    if not items:
        raise InputError("show needs something to show: an object, a mesh or a list of them")
    if titles is not None and len(titles) != len(items):
        raise InputError(f"{len(items)} items need as many titles but got {len(titles)}")
    together = len(items) > 1
    if kind not in (None, "mesh", "gaussians"):
        raise InputError(f"a kind is 'mesh' or 'gaussians' but got {kind!r}")
    subjects = _shared(
        [_subject(item, together, azimuth, elevation, frame, kind) for item in items]
    )
    if together:
        around, above = subjects[0].azimuth, subjects[0].elevation
        subjects = [replace(s, azimuth=around, elevation=above) for s in subjects]
    if titles is not None:
        subjects = [replace(s, title=t) for s, t in zip(subjects, titles, strict=True)]
    stills = [subject.still(size) for subject in subjects]
    viewers = _viewers(subjects, size)
    panels = [
        _panel(*parts, size, narrow=together)
        for parts in zip(subjects, viewers, stills, strict=True)
    ]
    text = "; ".join(subject.text for subject in subjects)
    return View(panels, np.concatenate(stills, axis=1), text)


def _subject(
    item: Any,
    together: bool,
    azimuth: float,
    elevation: float,
    frame: Frame | None,
    kind: Kind | None,
) -> Subject:
    """Bring one item into its world and find the direction to look from."""
    alone = isinstance(item, Object3D | Mesh | Gaussians)
    scene = [item] if alone and together else item
    if (kind or _best_kind(item)) == "gaussians":
        gaussians = upright_gaussians(scene, frame)
        center = ball_of_gaussians(gaussians)[0]
    else:
        gaussians, meshes = None, upright(scene, frame)
        center = ball(meshes)[0]
    if (together or not alone or frame == "camera") and frame != "object":
        eye = item.world.translation if isinstance(item, Scene) else (0.0, 0.0, 0.0)
        around, above = photo_direction(center, eye)
        azimuth, elevation = azimuth + around, float(np.clip(elevation + above, -85, 85))
    if gaussians is not None:
        return Splats(_title(item), azimuth, elevation, 1.0, gaussians)
    return Surfaces(_title(item), azimuth, elevation, 1.0, meshes)


def _best_kind(item: Any) -> Kind:
    """Return what to show where nothing is said: gaussians only where no mesh is."""
    if isinstance(item, Scene):
        item = list(item)
    parts = item if isinstance(item, Sequence) and not isinstance(item, str) else [item]
    splats = [isinstance(i, Gaussians) or getattr(i, "gaussians", None) is not None for i in parts]
    surfaces = [
        len(mesh.faces) > 0
        for mesh in (i if isinstance(i, Mesh) else getattr(i, "mesh", None) for i in parts)
        if mesh is not None
    ]
    return "gaussians" if any(splats) and not any(surfaces) else "mesh"


def _shared(subjects: Sequence[Subject]) -> list[Subject]:
    """Give each subject its share of what viewers can take, by what it has."""
    result: list[Subject] = list(subjects)
    for kind in (Surfaces, Splats):
        counts = [s.count if isinstance(s, kind) else 0 for s in subjects]
        for place, count in enumerate(counts):
            if count:
                result[place] = replace(result[place], share=count / sum(counts))
    return result


def _viewers(subjects: Sequence[Subject], size: int) -> list[ipywidgets.Widget]:
    """Return the interactive parts, which turn together."""
    from sam3d_nb.view.three import link_viewers

    viewers = [subject.viewer(size) for subject in subjects]
    link_viewers(viewers)
    return viewers


def _panel(
    subject: Subject, viewer: ipywidgets.Widget, still: np.ndarray, size: int, *, narrow: bool
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


def _title(item: Any) -> str:
    if isinstance(item, Mesh):
        return "mesh"
    if isinstance(item, Gaussians):
        return "gaussians"
    if isinstance(item, Object3D):
        return item.name
    if isinstance(item, Scene):
        return f"scene of {len(item)} object{'s' * (len(item) != 1)}"
    return _title(item[0]) if len(item) == 1 else f"{len(item)} objects"


def _png(picture: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
