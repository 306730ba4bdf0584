"""The picker without a browser: what gestures do to masks, and what goes to the browser."""

import json
from pathlib import Path

import numpy as np
import pytest

import sam3d_nb as s3
from sam3d_nb.errors import InputError, OutputError
from sam3d_nb.masks.picker import GESTURES, MaskPicker
from sam3d_nb.masks.picture import LONGEST_SIDE
from sam3d_nb.masks.runs import decode_runs
from sam3d_nb.masks.segmenter import Prompt, Segment, Segmenter
from sam3d_nb.masks.target import MAX_NAME

H, W = 60, 80


def disk(x: float, y: float, radius: float, shape: tuple[int, int] = (H, W)) -> np.ndarray:
    v, u = np.mgrid[: shape[0], : shape[1]] + 0.5
    return (u - x) ** 2 + (v - y) ** 2 <= radius**2


class Disks(Segmenter):
    """Finds a disk around every point on the object, less those around points beside it."""

    name = "disks"

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []

    def masks(self, image: np.ndarray, prompt: Prompt) -> list[Segment]:
        self.prompts.append(prompt.checked((image.shape[0], image.shape[1])))
        prompt = self.prompts[-1]
        if prompt.text:
            return [Segment(disk(20, 20, 5), 0.7, prompt.text)] * (prompt.text != "nothing")
        mask = np.zeros(image.shape[:2], dtype=bool)
        if prompt.box is not None:
            x0, y0, x1, y1 = (int(side) for side in prompt.box)
            mask[y0:y1, x0:x1] = True
        for (x, y), positive in zip(prompt.points, prompt.labels, strict=True):
            mask = mask | disk(x, y, 8) if positive else mask & ~disk(x, y, 8)
        return [Segment(mask, 0.9)] if mask.any() else []

    def everything(self, image: np.ndarray, pointmap: np.ndarray | None = None) -> list[Segment]:
        if pointmap is not None:
            return [Segment(np.isfinite(pointmap[..., 0]), 0.5, "all that is near")]
        return [Segment(disk(20, 20, 5), 0.9, "ball"), Segment(disk(60, 40, 9), 0.8)]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


@pytest.fixture
def given() -> dict[int, np.ndarray]:
    """A small disk within a large one, and one apart."""
    return {0: disk(30, 30, 20), 1: disk(30, 30, 6), 7: disk(70, 10, 7)}


def gesture(picker: MaskPicker, do: str, /, **values: object) -> str:
    """Do what the browser does, and return the status line; raises what it shows as failed."""
    message = {"id": 5, "do": do, "with": values}
    picker._handle_custom_msg(json.loads(json.dumps(message)), [])
    assert picker._view["done"] == 5
    if picker._view["failed"]:
        raise InputError(picker._view["status"])
    return picker._view["status"]


def drawn(picker: MaskPicker, number: int) -> np.ndarray:
    """What the browser gets of an object, decoded."""
    _, _, width, height = picker._size
    runs = np.frombuffer(picker._view["objects"][number]["runs"], dtype="<u4")
    return decode_runs(runs, (height, width))


# Choosing among given masks


def test_nothing_is_picked_at_first(image: np.ndarray) -> None:
    picker = s3.MaskPicker(image, segmenter=None)
    assert picker.mask.shape == (H, W)
    assert not picker.mask.any()
    assert picker.masks == {}
    assert picker.tool == "brush"
    assert "nothing yet" in repr(picker)


def test_a_click_takes_a_mask_and_its_name(image: np.ndarray, given: dict[int, np.ndarray]) -> None:
    picker = MaskPicker(image, given, None)
    assert picker.tool == "select"
    assert [choice["name"] for choice in picker._choices] == ["mask 0", "mask 1", "mask 7"]
    gesture(picker, "take", candidate=1)
    assert np.array_equal(picker.mask, given[1])
    assert picker.names == {0: "mask 1"}
    gesture(picker, "take", candidate=0)  # as a second click at the same place does
    assert np.array_equal(picker.mask, given[0])
    assert picker.names == {0: "mask 0"}
    gesture(picker, "rename", number=0, name="  my\n plate ")
    gesture(picker, "take", candidate=1)
    assert picker.names == {0: "my plate"}


def test_another_object_by_shift_and_click(image: np.ndarray, given: dict[int, np.ndarray]) -> None:
    picker = MaskPicker(image, given, None)
    gesture(picker, "take", candidate=0, new=True)  # the first object is still empty
    gesture(picker, "take", candidate=2, new=True)
    assert list(picker.masks) == [0, 1]
    assert np.array_equal(picker.masks[1], given[7])
    assert gesture(picker, "take", candidate=0) == "mask 0: selected"
    assert picker.session.active == 0
    assert len(picker.masks) == 2
    gesture(picker, "undo")
    assert list(picker.masks) == [0]


def test_masks_are_taken_by_their_index_and_said_with_the_number_of_the_object(
    image: np.ndarray, given: dict[int, np.ndarray]
) -> None:
    picker = MaskPicker(image, given, None)
    picker.take(7)
    assert np.array_equal(picker.masks[0], given[7])
    assert picker._view["status"] == "object 0 is mask 7"
    gesture(picker, "rename", number=0, name="plate")
    assert gesture(picker, "take", candidate=1) == "object 0 is plate (mask 1)"
    with pytest.raises(InputError, match="no mask 2 to choose; there are 0, 1, 7"):
        picker.take(2)


def test_an_example_brings_its_masks_and_names() -> None:
    example = s3.load_example("coffee")
    picker = MaskPicker(example, segmenter=None)
    picker.take(2)
    assert np.array_equal(picker.mask, example.mask(2))
    assert picker.names == {0: "spoon"}
    by_name = MaskPicker("coffee", segmenter=None)
    assert len(by_name._choices) == 3


@pytest.mark.parametrize(
    ("masks", "sentence"),
    [
        ([np.ones((W, H), bool)], "60 x 80 pixels but the photo is 80 x 60"),
        ([np.ones((H, W, 3), bool)], "mask 0 is no mask"),
        ({4: "circle"}, "mask 4 is no mask"),
    ],
)
def test_masks_that_do_not_fit(image: np.ndarray, masks: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        MaskPicker(image, masks, None)


def test_a_photo_that_is_none() -> None:
    with pytest.raises(InputError, match="uint8"):
        MaskPicker(np.zeros((4, 4)), segmenter=None)


# Points and boxes


def test_points_on_and_beside_the_object(image: np.ndarray) -> None:
    segmenter = Disks()
    picker = MaskPicker(image, segmenter=segmenter)
    assert picker.tool == "point"
    gesture(picker, "point", x=20, y=20)
    assert np.array_equal(picker.mask, disk(20, 20, 8))
    gesture(picker, "point", x=40, y=20)
    gesture(picker, "point", x=44.5, y=20, positive=False)
    assert np.array_equal(picker.mask, (disk(20, 20, 8) | disk(40, 20, 8)) & ~disk(44.5, 20, 8))
    assert picker._view["objects"][0]["points"] == [
        [20, 20, True],
        [40, 20, True],
        [44.5, 20, False],
    ]
    gesture(picker, "undo")
    assert len(picker._view["objects"][0]["points"]) == 2


def test_a_box_and_a_point_in_it(image: np.ndarray) -> None:
    segmenter = Disks()
    picker = MaskPicker(image, segmenter=segmenter)
    gesture(picker, "box", x0=50, y0=40, x1=10, y1=-3)  # any corner first, cut at the edge
    assert picker._view["objects"][0]["box"] == [10, 0, 50, 40]
    gesture(picker, "point", x=20, y=20, positive=False)
    assert segmenter.prompts[-1].box == (10, 0, 50, 40)
    assert picker.mask.sum() == 40 * 40 - disk(20, 20, 8).sum()


def test_strokes_stay_when_a_point_is_added(image: np.ndarray) -> None:
    picker = MaskPicker(image, segmenter=Disks())
    gesture(picker, "point", x=20, y=20)
    gesture(picker, "stroke", points=[[70, 50]], radius=3)
    gesture(picker, "stroke", points=[[20, 20]], radius=2, erase=True)
    gesture(picker, "point", x=40, y=20)
    expected = disk(20, 20, 8) | disk(40, 20, 8) | disk(70, 50, 3)
    assert np.array_equal(picker.mask, expected & ~disk(20, 20, 2))


def test_what_finds_nothing_changes_nothing(image: np.ndarray) -> None:
    picker = MaskPicker(image, segmenter=Disks())
    with pytest.raises(InputError, match="begin with a point on the object"):
        gesture(picker, "point", x=20, y=20, positive=False)
    with pytest.raises(InputError, match="outside the photo"):
        gesture(picker, "point", x=W + 5, y=20)
    with pytest.raises(InputError, match="covers no pixel"):
        gesture(picker, "box", x0=5, y0=5, x1=5, y1=9)
    assert not picker._view["undo"]
    assert picker.masks == {}


def test_without_a_segmenter(image: np.ndarray, given: dict[int, np.ndarray]) -> None:
    """Points choose among the given masks, a box is the mask itself."""
    picker = MaskPicker(image, given, None)
    gesture(picker, "point", x=30, y=30)
    assert np.array_equal(picker.mask, given[1])
    gesture(picker, "point", x=30, y=15)
    assert np.array_equal(picker.mask, given[0])
    with pytest.raises(InputError, match="no given mask has these points"):
        gesture(picker, "point", x=70, y=10)
    gesture(picker, "add")
    gesture(picker, "box", x0=10, y0=20, x1=30, y1=25)
    assert picker.mask.sum() == 100
    with pytest.raises(InputError, match="has no segmenter"):
        gesture(picker, "suggest")


def test_a_segmenter_is_loaded_when_it_is_first_needed(
    image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(name: str) -> Segmenter:
        asked.append(name)
        return Disks()

    monkeypatch.setattr("sam3d_nb.masks.picker.load_segmenter", load)
    picker = MaskPicker(image)
    gesture(picker, "stroke", points=[[5, 5]], radius=3)
    assert asked == []
    gesture(picker, "point", x=20, y=20)
    gesture(picker, "point", x=30, y=20)
    assert asked == ["embedded"]


def test_suggestions_follow_the_given_masks(
    image: np.ndarray, given: dict[int, np.ndarray]
) -> None:
    picker = MaskPicker(image, given, Disks())
    gesture(picker, "suggest")
    assert [c["name"] for c in picker._choices][3:] == ["ball", "mask 9"]
    picker.take(9)
    picker.suggest("chair")  # replaces the earlier ones, not what was taken of them
    assert [c["name"] for c in picker._choices][3:] == ["chair"]
    assert np.array_equal(picker.mask, disk(60, 40, 9))
    assert picker._view["objects"][0]["choice"] is None
    with pytest.raises(InputError, match="no object was found"):
        picker.suggest("nothing")


def test_a_segmenter_gets_ready_before_the_first_click(image: np.ndarray) -> None:
    class Slow(Disks):
        ready: np.ndarray | None = None

        def prepare(self, image: np.ndarray) -> None:
            self.ready = image

    segmenter = Slow()
    picker = MaskPicker(image, segmenter=segmenter)
    gesture(picker, "prepare")
    assert segmenter.ready is image
    assert not picker._view["undo"]
    gesture(MaskPicker(image, segmenter=Disks()), "prepare")  # nothing to prepare is no error


def test_the_point_map_helps_to_suggest() -> None:
    picker = MaskPicker("leather_armchair", {}, Disks())
    gesture(picker, "suggest")
    assert [choice["name"] for choice in picker._choices] == ["all that is near"]


def test_a_segmenter_that_breaks_is_told(image: np.ndarray) -> None:
    class Broken(Disks):
        def masks(self, image: np.ndarray, prompt: Prompt) -> list[Segment]:
            raise ZeroDivisionError("no luck")

    picker = MaskPicker(image, segmenter=Broken())
    with pytest.raises(ZeroDivisionError):
        picker._on_message(picker, {"id": 3, "do": "point", "with": {"x": 5, "y": 5}}, [])
    assert picker._view["failed"]
    assert picker._view["done"] == 3
    assert "no luck" in picker._view["status"]


# Steps and objects


def test_every_step_can_be_undone_and_done_again(
    image: np.ndarray, given: dict[int, np.ndarray]
) -> None:
    """A walk of random gestures, back to the start and forward to the end."""
    picker = MaskPicker(image, given, Disks())
    rng = np.random.default_rng(3)
    session = picker.session
    seen = [(session.targets, session.active)]
    steps = [
        lambda: session.stroke(rng.uniform(0, 60, (3, 2)), 4, bool(rng.integers(2))),
        lambda: session.point(*rng.uniform(5, 55, 2)),
        lambda: session.add("more"),
        lambda: session.clear(),
        lambda: session.rename(session.active, f"n{rng.integers(99)}"),
        lambda: session.remove(int(rng.integers(len(session.targets)))),
        lambda: session.box(3, 4, 30, 40),
    ]
    for _ in range(40):
        steps[rng.integers(len(steps))]()
        seen.append((session.targets, session.active))
    masks = [[session.mask(t).copy() for t in targets] for targets, _ in seen]
    for state, before in zip(reversed(seen[:-1]), reversed(masks[:-1]), strict=True):
        session.undo()
        assert (session.targets, session.active) == state
        assert all(map(np.array_equal, before, [session.mask(t) for t in session.targets]))
    with pytest.raises(InputError, match="nothing to undo"):
        session.undo()
    for state in seen[1:]:
        session.redo()
        assert (session.targets, session.active) == state
    with pytest.raises(InputError, match="nothing to redo"):
        session.redo()


def test_a_new_step_forgets_what_was_undone(image: np.ndarray) -> None:
    picker = MaskPicker(image, segmenter=None)
    gesture(picker, "stroke", points=[[5, 5]], radius=3)
    gesture(picker, "undo")
    assert picker._view["redo"]
    gesture(picker, "stroke", points=[[50, 5]], radius=3)
    assert not picker._view["redo"]


def test_numbers_close_up_when_an_object_is_removed(
    image: np.ndarray, given: dict[int, np.ndarray]
) -> None:
    picker = MaskPicker(image, given, None)
    for candidate in range(3):
        gesture(picker, "take", candidate=candidate, new=True)
    gesture(picker, "remove", number=1)
    assert picker.names == {0: "mask 0", 1: "mask 7"}
    assert picker.session.active == 1
    gesture(picker, "remove", number=1)
    gesture(picker, "remove", number=0)
    assert picker.masks == {}
    assert len(picker._view["objects"]) == 1  # an empty one to go on with


def test_very_long_names_are_cut(image: np.ndarray) -> None:
    picker = MaskPicker(image, segmenter=None)
    gesture(picker, "rename", number=0, name="x" * 10_000)
    assert picker.session.name(0) == "x" * MAX_NAME


@pytest.mark.parametrize(
    "message",
    [
        None,
        "undo",
        {},
        {"do": "__init__"},
        {"do": "mask", "with": {}},
        {"do": "stroke", "with": {"points": [], "radius": 3}},
        {"do": "stroke", "with": {"points": [[1, 2]] * 6000, "radius": 3}},
        {"do": "stroke", "with": {"points": [[1, "x"]], "radius": 3}},
        {"do": "stroke", "with": {"points": [[1, float("nan")]], "radius": 3}},
        {"do": "stroke", "with": {"points": [[1, 1]], "radius": -3}},
        {"do": "take", "with": {"candidate": 99}},
        {"do": "take", "with": {"masks": 1}},
        {"do": "take", "with": [1]},
        {"do": "select", "with": {"number": -1}},
        {"do": "point", "with": {"x": float("nan"), "y": 1}},
    ],
)
def test_messages_that_make_no_sense_change_nothing(image: np.ndarray, message: object) -> None:
    picker = MaskPicker(image, segmenter=Disks())
    before = picker.session.targets
    picker._on_message(picker, message, [])
    assert picker._view["failed"]
    assert picker._view["status"]
    assert picker.session.targets is before


def test_every_gesture_is_a_method_of_the_session(image: np.ndarray) -> None:
    session = MaskPicker(image, segmenter=None).session
    assert all(callable(getattr(session, name)) for name in GESTURES)


# What goes to the browser


def test_only_small_things_are_synchronized() -> None:
    """A photo of 24 megapixels: the browser gets a scaled one, the mask keeps its size."""
    shape = (4000, 6000)
    photo = np.zeros((*shape, 3), dtype=np.uint8)
    photo[..., 0] = np.arange(6000) // 24
    mask = np.zeros(shape, dtype=bool)
    mask[1000:3000, 1501:4500] = True
    picker = MaskPicker(photo, {0: mask}, None)
    assert picker._size == [6000, 4000, LONGEST_SIDE, 1067]
    gesture(picker, "take", candidate=0)
    gesture(picker, "stroke", points=[[100, 100], [5900, 100]], radius=40)
    assert picker.mask.shape == shape
    assert np.array_equal(picker.mask[1000:], mask[1000:])
    assert abs(picker.mask[:1000].sum() / (80 * 5800 + np.pi * 40**2) - 1) < 1e-3
    small = drawn(picker, 0)
    assert small.shape == (1067, LONGEST_SIDE)
    assert abs(small.mean() / picker.mask.mean() - 1) < 0.01
    state = picker.get_state()
    sizes = [len(picker._photo), *(len(o["runs"]) for o in picker._view["objects"])]
    assert sum(sizes) < 1_000_000
    assert "image" not in state


def test_the_browser_sees_every_object(image: np.ndarray, given: dict[int, np.ndarray]) -> None:
    picker = MaskPicker(image, given, None)
    for candidate in range(3):
        gesture(picker, "take", candidate=candidate, new=True)
    for number, mask in enumerate(given.values()):
        assert np.array_equal(drawn(picker, number), mask)
        shown = picker._view["objects"][number]
        assert shown["pixels"] == mask.sum()
        assert mask[int(shown["place"][1]), int(shown["place"][0])], "its number stands on it"
    assert len({shown["color"] for shown in picker._view["objects"]}) == 3


def test_a_saved_notebook_shows_a_picture(image: np.ndarray, given: dict[int, np.ndarray]) -> None:
    picker = MaskPicker(image, given, None)
    picker.take(0)
    data, _ = picker._repr_mimebundle_()
    assert set(data) >= {"image/png", "text/plain", "application/vnd.jupyter.widget-view+json"}
    assert data["text/plain"] == "MaskPicker(80 x 60 pixels, picked: 0 mask 0)"


def test_the_mask_that_is_handed_out_is_a_copy(image: np.ndarray) -> None:
    picker = MaskPicker(image, segmenter=None)
    picker.mask[:] = True
    picker.masks.clear()
    gesture(picker, "stroke", points=[[40, 30]], radius=5)
    picker.masks[0][:] = True
    assert np.array_equal(picker.mask, disk(40, 30, 5))


# Saving


def test_what_was_picked_is_an_example(
    image: np.ndarray, given: dict[int, np.ndarray], tmp_path: Path
) -> None:
    picker = MaskPicker(image, given, None)
    picker.take(0)
    gesture(picker, "add")  # stays empty and is left out
    gesture(picker, "add")
    picker.take(7)
    gesture(picker, "rename", number=2, name="Löffel")
    saved = picker.save(tmp_path / "mine")
    assert list(saved.masks) == [0, 2]
    assert np.array_equal(saved.image, image)
    assert np.array_equal(saved.mask(2), given[7])
    assert saved.names == {0: "mask 0", 2: "Löffel"}
    assert s3.load_example(tmp_path / "mine").names == saved.names


def test_point_map_camera_and_license_go_along(tmp_path: Path) -> None:
    example = s3.load_example("leather_armchair")
    picker = MaskPicker(example, segmenter=None)
    picker.take(0)
    saved = picker.save(tmp_path / "chair")
    assert saved.pointmap is not None
    assert example.pointmap is not None
    assert np.array_equal(saved.pointmap, example.pointmap, equal_nan=True)
    assert np.array_equal(saved.intrinsics, example.intrinsics)
    assert saved.info["license"] == "CC0-1.0"
    assert saved.true_mesh(0) is None


def test_a_folder_is_replaced_only_on_demand(
    image: np.ndarray, given: dict[int, np.ndarray], tmp_path: Path
) -> None:
    picker = MaskPicker(image, given, None)
    with pytest.raises(InputError, match="nothing is picked"):
        picker.save(tmp_path)
    for candidate in range(2):
        gesture(picker, "take", candidate=candidate, new=True)
    picker.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    gesture(picker, "remove", number=0)
    with pytest.raises(OutputError, match="overwrite=True"):
        picker.save(tmp_path)
    assert list(s3.load_example(tmp_path).masks) == [0, 1]
    picker.save(tmp_path, overwrite=True)
    assert list(s3.load_example(tmp_path).masks) == [0], "no stale mask is left"
    assert (tmp_path / "notes.txt").exists()
    (tmp_path / "meshes").mkdir()
    with pytest.raises(OutputError, match="true meshes"):
        picker.save(tmp_path, overwrite=True)


def test_the_save_button_asks_before_it_replaces(
    image: np.ndarray, given: dict[int, np.ndarray], tmp_path: Path
) -> None:
    earlier = MaskPicker(image, given, None, folder=tmp_path)
    earlier.take(0)
    assert gesture(earlier, "save") == f"saved 1 object in {tmp_path}"
    assert gesture(earlier, "save") == f"saved 1 object in {tmp_path}"
    later = MaskPicker(image, given, None, folder=tmp_path)
    later.take(7)
    with pytest.raises(InputError, match="press Save again"):
        gesture(later, "save")
    assert np.array_equal(s3.load_example(tmp_path).mask(0), given[0])
    gesture(later, "save")
    assert np.array_equal(s3.load_example(tmp_path).mask(0), given[7])
    earlier.save(tmp_path / "other")
    later.folder = tmp_path / "other"
    with pytest.raises(InputError, match="press Save again"):
        gesture(later, "save")  # the answer was about another folder
    with pytest.raises(InputError, match="say where to save"):
        MaskPicker(image, given, None).save()


def test_masks_that_do_not_go_by_whole_numbers_are_refused(image: np.ndarray) -> None:
    whole = np.ones(image.shape[:2], dtype=bool)
    for wrong in ("cup", 1.5, True):
        with pytest.raises(InputError, match="whole numbers"):
            MaskPicker(image, {wrong: whole}, None)


def test_numbers_that_are_no_index_change_nothing(
    image: np.ndarray, given: dict[int, np.ndarray]
) -> None:
    picker = MaskPicker(image, given, None)
    for name, number in (("select", 0.0), ("select", True), ("remove", "0"), ("remove", None)):
        with pytest.raises(InputError, match="there is no object"):
            gesture(picker, name, number=number)
    with pytest.raises(InputError, match=r"no candidate 1\.0"):
        gesture(picker, "take", candidate=1.0)
    gesture(picker, "take", candidate=0)
    assert picker.mask.any(), "the picker is usable after them"


def test_what_is_picked_is_an_example(image: np.ndarray, given: dict[int, np.ndarray]) -> None:
    picker = MaskPicker(image, given, None)
    with pytest.raises(InputError, match="nothing is picked"):
        _ = picker.picked
    gesture(picker, "take", candidate=0)
    picked = picker.picked
    assert (picked.name, list(picked.masks), picked.names) == ("photo", [0], picker.names)
    assert (picked.mask(0) == picker.mask).all()
    assert (picked.image == image).all()
    room = MaskPicker("living_room", segmenter=None)
    room.take(1)
    assert room.picked.names == {0: "armchair"}
    assert room.picked.info["license"] == room.example.info["license"]
    with pytest.raises(InputError, match="no mask 1 among those picked or found on living_room"):
        room.picked.mask(1)
    assert room.picked.pointmap is room.example.pointmap
    assert room.picked.true_mesh(0) is None, "those of the room belong to its own masks"
    assert room.example.true_mesh(0) is not None


def test_a_box_of_one_pixel_is_one_pixel(image: np.ndarray) -> None:
    picker = MaskPicker(image, segmenter=None)
    for x in (1.0, 1.4, 1.5, 2.5, 2.9):
        gesture(picker, "box", x0=x, y0=x, x1=x + 1, y1=x + 1)
        assert picker.mask.sum() == 1


def test_a_mask_too_small_to_be_an_object_is_not_saved(image: np.ndarray, tmp_path: Path) -> None:
    picker = MaskPicker(image, segmenter=None)
    gesture(picker, "stroke", points=[[40, 30]], radius=1)
    with pytest.raises(InputError, match=r"object 0 \(mask 0\) has only"):
        picker.save(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
