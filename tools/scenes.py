"""The scenes that `render_examples.py` makes pictures of."""

from __future__ import annotations

from stage import Camera, Item, Lamp, Look, Room, Scene, Studio, Sun, Window

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


LEATHER_ARMCHAIR = Scene(
    name="leather_armchair",
    title="A buttoned leather armchair on a studio backdrop",
    items=(
        Item(
            "leather armchair",
            "winchesterArmchair",
            (0, 0),
            yaw=24,
            looks={"Feet": Look("wood"), "*": Look("leather")},
        ),
    ),
    camera=Camera(eye=(0.0, -4.4, 1.5), target=(0, 0, 0.4), lens=96),
    setting=Studio(color=(0.33, 0.36, 0.36), depth=2.0),
    lamps=(
        Lamp((-3.2, -2.6, 3.4), (0, 0, 0.4), (2.4, 2.4), 420, (1.0, 0.95, 0.88)),
        Lamp((3.4, -2.2, 1.8), (0, 0, 0.4), (2.4, 2.4), 90, (0.85, 0.92, 1.0)),
        Lamp((1.2, 2.6, 3.2), (0, 0, 0.5), (1.2, 1.2), 160),
    ),
    sky_strength=0.15,
    exposure=0.2,
)

LIVING_ROOM = Scene(
    name="living_room",
    title="A living room with a sofa, an armchair and a coffee table",
    items=(
        Item(
            "sofa",
            "couch",
            (-0.3, 1.2),
            looks={"Couch_Chrome": Look("metal"), "*": Look("fabric")},
        ),
        Item(
            "armchair",
            "modernArmchair",
            (1.12, 0.0),
            yaw=-48,
            looks={
                "Textile": Look("leather", (0.3, 0.12, 0.045)),
                "Cuir": Look("leather", (0.12, 0.05, 0.02)),
                "StainlMetal": Look("metal"),
            },
        ),
        Item("coffee table", "table", (-0.32, -0.1), yaw=2, scale=0.52),
        Item(
            "potted palm",
            "plant",
            (1.32, 1.2),
            looks={
                "grass_shader_1": Look("leaf"),
                "pot": Look("clay", (0.5, 0.42, 0.33)),
                "ground": Look("clay"),
            },
        ),
        Item("side table", "bedsideTable2", (-1.66, 1.3)),
        Item(
            "lamp",
            "desklamp",
            (-1.66, 1.26),
            on="side table",
            scale=1.5,
            looks={"Material.002": Look("shade", (0.8, 0.72, 0.6)), "Material": Look("metal")},
        ),
        Item(
            "trailing plant",
            "augalas",
            (-0.55, -0.1),
            yaw=20,
            on="coffee table",
        ),
        Item("basketball", "basketball", (0.5, -0.55), yaw=30),
    ),
    camera=Camera(eye=(-0.1, -2.6, 1.45), target=(-0.0, 0.6, 0.5), lens=28),
    setting=Room(
        low=(-2.4, -3.2),
        high=(2.15, 1.7),
        wall=(0.4, 0.47, 0.43),
        windows=(Window("left", (-1.4, 0.7), (0.7, 2.3)),),
        rug=(0.0, 0.1, 3.0, 2.0),
        rug_color=(0.1, 0.15, 0.2),
    ),
    lamps=(
        Lamp((-2.9, -0.35, 1.6), (0, 0.2, 0.5), (2.0, 1.5), 160, (0.9, 0.95, 1.0)),
        Lamp((0.6, -3.0, 2.2), (0, 0.5, 0.6), (2.0, 1.0), 22, (1.0, 0.95, 0.9)),
    ),
    sun=Sun((0.8, 0.35, -0.62), 18.0),
    exposure=0.45,
    size=(896, 672),
)

KIDS_ROOM = Scene(
    name="kids_room",
    title="A child's room with a bed, a cupboard and toys",
    items=(
        Item(
            "bed",
            "bed2",
            (0.9, 0.75),
            looks={"structure": Look("wood", (0.16, 0.07, 0.03)), "*": Look("fabric")},
        ),
        Item(
            "teddy bear",
            "teddyBear",
            (0.68, 0.5),
            yaw=-25,
            on="bed",
            scale=1.5,
            looks={"teddy": Look("plush"), "eyes": Look("gloss")},
        ),
        Item("bedside table", "bedsideTable2", (-0.2, 1.6)),
        Item(
            "lamp",
            "desklamp",
            (-0.2, 1.56),
            on="bedside table",
            scale=1.6,
            looks={"Material.002": Look("shade", (0.8, 0.72, 0.6)), "Material": Look("gloss")},
        ),
        Item("cupboard", "cupboard", (-1.18, 1.66)),
        Item(
            "rocking horse",
            "caballito",
            (-0.62, -0.12),
            yaw=12,
            looks={"*": Look("gloss")},
        ),
        Item("basketball", "basketball", (0.12, -0.55), yaw=-20, looks={"*": Look("satin")}),
        Item("toy crate", "box", (-1.32, 0.9), yaw=80, scale=0.75),
    ),
    camera=Camera(eye=(-0.4, -2.5, 1.5), target=(-0.02, 0.7, 0.56), lens=28.5),
    setting=Room(
        low=(-1.9, -3.1),
        high=(1.95, 1.88),
        floor="pale",
        wall=(0.62, 0.52, 0.33),
        windows=(Window("left", (-0.9, 0.85), (0.75, 2.2)),),
        rug=(-0.6, -0.15, 1.7, 1.3),
        rug_color=(0.24, 0.36, 0.42),
    ),
    lamps=(
        Lamp((-2.45, -0.1, 1.55), (0, 0.4, 0.4), (1.6, 1.3), 120, (0.92, 0.96, 1.0)),
        Lamp((0.6, -2.9, 2.2), (0, 0.5, 0.6), (2.0, 1.0), 22, (1.0, 0.95, 0.9)),
    ),
    sun=Sun((0.8, 0.1, -0.62), 14.0),
    exposure=0.2,
    size=(896, 672),
)

KITCHEN = Scene(
    name="kitchen",
    title="A kitchen with a round table laid for breakfast",
    items=(
        Item("table", "oakTable", (-0.45, -0.25)),
        Item("chair", "chairWithCushion", (0.42, -0.2), yaw=-84, looks={"Cloth": Look("fabric")}),
        Item("chair 2", "chairWithCushion", (-1.16, 0.5), yaw=50, looks={"Cloth": Look("fabric")}),
        Item("bread", "bread", (-0.2, -0.42), yaw=25, on="table", scale=1.3),
        Item("milk carton", "tetrapak", (-0.76, -0.26), yaw=15, on="table", scale=1.1),
        Item("flower pot", "littlePlant", (-0.46, -0.02), on="table", scale=1.15),
        Item("refrigerator", "largeFridge", (1.36, 1.25), looks={"metal": Look("brushed")}),
        Item("drawer cabinet", "drawersCabinet", (0.56, 1.36)),
        Item("cabinet", "lowerCabinet", (-0.042, 1.36)),
        Item(
            "coffee machine",
            "coffeeBrewer",
            (0.02, 1.26),
            yaw=10,
            on="cabinet",
            scale=1.3,
            looks={
                "Glass": Look("gloss", (0.08, 0.08, 0.08)),
                "Metal": Look("metal"),
                "*": Look("gloss"),
            },
        ),
    ),
    camera=Camera(eye=(-0.25, -2.42, 1.5), target=(0.04, 0.6, 0.61), lens=29),
    setting=Room(
        low=(-2.1, -3.0),
        high=(1.95, 1.7),
        floor="tiles",
        wall=(0.6, 0.58, 0.52),
        windows=(
            Window("back", (-1.65, 1.0), (-0.55, 2.05)),
            Window("left", (-1.5, 0.9), (0.6, 2.2)),
        ),
    ),
    lamps=(
        Lamp((-2.7, -0.4, 1.6), (0, 0.4, 0.6), (2.0, 1.3), 120, (0.95, 0.97, 1.0)),
        Lamp((0.8, -2.8, 2.3), (0, 0.5, 0.6), (2.0, 1.0), 24, (1.0, 0.95, 0.9)),
    ),
    sky_strength=2.5,
    sun=Sun((0.75, 0.2, -0.6), 14.0),
    exposure=0.2,
    size=(896, 672),
)

STUDY = Scene(
    name="study",
    title="A study with a desk, a chair and shelves",
    items=(
        Item("desk", "desk", (0.15, 1.2), looks={"Desk1": Look("wood"), "Biurko2": Look("wood")}),
        Item("chair", "armchair", (0.55, 0.36), yaw=-62, looks={"feet": Look("metal")}),
        Item(
            "shelves",
            "verticalShelves",
            (-0.95, 1.28),
        ),
        Item("table fan", "tableFan", (-0.3, 1.1), yaw=18, on="desk", scale=1.1),
        Item(
            "cactus",
            "cactus",
            (0.06, 1.06),
            on="desk",
            scale=1.5,
            looks={"cactus_green": Look("leaf"), "cactus_pot": Look("ceramic", (0.7, 0.66, 0.58))},
        ),
        Item(
            "briefcase",
            "briefcase",
            (-0.62, 0.5),
            yaw=22,
            looks={"Case": Look("leather", (0.16, 0.07, 0.03)), "Lock": Look("metal")},
        ),
        Item(
            "waste bin", "dustbin", (1.14, 0.85), looks={"CHROME": Look("brushed", (0.5, 0.5, 0.5))}
        ),
    ),
    camera=Camera(eye=(0.3, -2.2, 1.45), target=(0.02, 0.7, 0.66), lens=33),
    setting=Room(
        low=(-1.9, -2.8),
        high=(1.9, 1.5),
        floor="carpet",
        wall=(0.19, 0.28, 0.36),
        windows=(Window("right", (-0.9, 0.85), (0.6, 2.2)),),
    ),
    lamps=(
        Lamp((2.5, -0.15, 1.55), (0, 0.4, 0.5), (1.5, 1.3), 130, (0.95, 0.97, 1.0)),
        Lamp((-0.8, -2.6, 2.3), (0, 0.5, 0.6), (2.0, 1.0), 30, (1.0, 0.95, 0.9)),
    ),
    sun=Sun((-0.75, 0.3, -0.6), 14.0),
    exposure=0.3,
    size=(896, 672),
)

SCENES = (TEDDY, LEATHER_ARMCHAIR, LIVING_ROOM, KIDS_ROOM, KITCHEN, STUDY)
