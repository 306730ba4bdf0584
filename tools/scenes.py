"""The scenes that `render_examples.py` makes pictures of."""

from __future__ import annotations

from stage import Camera, Item, Lamp, Look, Scene, Studio

TEDDY = Scene(
    name="teddy_bear",
    title="A teddy bear on a studio backdrop",
    items=(
        Item(
            "teddy bear",
            "teddyBear",
            (0, 0),
            yaw=-18,
            looks={"teddy": Look("plush"), "eyes": Look("gloss")},
        ),
    ),
    camera=Camera(eye=(0.0, -1.4, 0.3), target=(0, 0, 0.148), lens=100),
    setting=Studio(color=(0.5, 0.46, 0.4), depth=0.6),
    lamps=(
        Lamp((-1.1, -1.0, 1.5), (0, 0, 0.1), (0.9, 0.9), 34, (1.0, 0.95, 0.88)),
        Lamp((1.4, -0.7, 0.9), (0, 0, 0.15), (1.2, 1.2), 9, (0.85, 0.92, 1.0)),
        Lamp((0.5, 1.0, 1.5), (0, 0, 0.2), (0.5, 0.5), 14),
    ),
    sky_strength=0.15,
    exposure=0.5,
)

SCENES = (TEDDY,)
