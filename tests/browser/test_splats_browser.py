"""Gaussians in JupyterLab: WebGL draws them where the mesh is, and the mouse turns both."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from lab import Notebook
from playwright.sync_api import Locator
from test_show_browser import pixels, share_drawn, wait_until_drawn

TESTS = Path(__file__).resolve().parent.parent
CELL = f"""import sys
sys.path.insert(0, {str(TESTS)!r})
import sam3d_nb as s3
from dataclasses import replace
from placed import true_object
from splat_objects import splat_object
example = s3.load_example("teddy_bear")
shape, pose = true_object(example, 0)
truth = example.true_mesh(0)
shape = replace(truth, vertices=shape.vertices)
thing = splat_object(shape, 100_000, pose, with_mesh=False)
s3.show(thing, truth, size=300, titles=["gaussians", "mesh"])"""


def test_gaussians_stand_where_the_mesh_does_and_turn(
    open_notebook: Callable[..., Notebook], screenshot: Callable[[str], None]
) -> None:
    notebook = open_notebook(CELL)
    viewers = notebook.page.locator(".jp-OutputArea canvas")
    notebook.find(".jp-OutputArea canvas")
    assert viewers.count() == 2
    splats, mesh = viewers.nth(0), viewers.nth(1)
    wait_until_drawn(splats)
    wait_until_drawn(mesh)
    notebook.page.wait_for_timeout(500)
    screenshot("before")
    first = pixels(splats), pixels(mesh)
    agree(*first)
    turn(notebook, splats, mesh)
    screenshot("after")
    turned = pixels(splats), pixels(mesh)
    assert changed(turned[0], first[0])
    agree(*turned)
    turn(notebook, mesh, splats)
    screenshot("after the other was dragged")
    again = pixels(splats), pixels(mesh)
    assert changed(again[1], turned[1])
    agree(*again)


def turn(notebook: Notebook, dragged: Locator, other: Locator) -> None:
    """Drag one viewer with the mouse, and wait until the other one follows."""
    before, box = pixels(other), dragged.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    notebook.page.mouse.move(x, y)
    notebook.page.mouse.down()
    notebook.page.mouse.move(x + 90, y + 20, steps=10)
    notebook.page.mouse.up()
    for _ in range(50):
        if changed(pixels(other), before):
            return
        notebook.page.wait_for_timeout(200)
    raise AssertionError("the other viewer stays as it was")


def changed(picture: np.ndarray, before: np.ndarray) -> bool:
    """Tell whether many pixels of (H, W, 3) are others."""
    return bool((np.abs(picture - before).max(-1) > 20).mean() > 0.05)


def agree(splats: np.ndarray, mesh: np.ndarray) -> None:
    """Check that two pictures (H, W, 3) show the same outline, and much the same colors."""
    drawn = [np.abs(p - p[2, 2]).max(-1) > 12 for p in (splats, mesh)]
    assert share_drawn(splats) > 0.1
    assert (drawn[0] & drawn[1]).sum() > 0.85 * (drawn[0] | drawn[1]).sum()  # discs stick out
    both = drawn[0] & drawn[1]
    assert np.abs(splats[both].mean(0) - mesh[both].mean(0)).max() < 60  # one is lit
