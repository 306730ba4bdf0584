"""`show` in JupyterLab: WebGL draws the object, and the mouse turns it."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from lab import Notebook
from PIL import Image
from playwright.sync_api import Locator

CELL = """import sam3d_nb as s3
example = s3.load_example('living_room')
result = s3.load_model('silhouette').reconstruct(example, 1)
s3.show(result, size=320)"""


def pixels(canvas: Locator) -> np.ndarray:
    """Return what a canvas shows, (H, W, 3) as float, less its rim."""
    picture = Image.open(BytesIO(canvas.screenshot())).convert("RGB")
    return np.asarray(picture).astype(np.float32)[4:-4, 4:-4]


def test_the_viewer_draws_and_turns(
    open_notebook: Callable[..., Notebook], screenshot: Callable[[str], None]
) -> None:
    notebook = open_notebook(CELL)
    viewer = notebook.find(".jp-OutputArea canvas")
    wait_until_drawn(viewer)
    screenshot("before")
    before = pixels(viewer)
    box = viewer.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    notebook.page.mouse.move(x, y)
    notebook.page.mouse.down()
    notebook.page.mouse.move(x + 90, y, steps=10)
    notebook.page.mouse.up()
    screenshot("after")
    after = pixels(viewer)
    assert (np.abs(after - before).max(-1) > 20).mean() > 0.05
    assert share_drawn(after) > 0.05


def wait_until_drawn(canvas: Locator) -> None:
    """Wait until something stands before the background."""
    for _ in range(50):
        if share_drawn(pixels(canvas)) > 0.05:
            return
        canvas.page.wait_for_timeout(200)
    raise AssertionError("the viewer stayed blank")


def share_drawn(picture: np.ndarray) -> float:
    """Return the share of pixels (H, W, 3) that differ from the corner's."""
    return float((np.abs(picture - picture[0, 0]).max(-1) > 12).mean())
