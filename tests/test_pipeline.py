"""The frame around every model: checked input, events in order, provenance, the zoo."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sam3d_nb import __version__, compare, contact_sheet, refine_layout
from sam3d_nb.errors import InputError
from sam3d_nb.events import (
    DepthEvent,
    DoneEvent,
    Event,
    MeshEvent,
    StageTimer,
    TextureEvent,
)
from sam3d_nb.examples import Example
from sam3d_nb.frames import Pose, default_intrinsics
from sam3d_nb.mesh import Mesh
from sam3d_nb.pipeline import Model, Reconstruction, Run
from sam3d_nb.request import Request, make_request, mask_index_of
from sam3d_nb.zoo import load_model

H, W = 60, 80


def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def disc() -> np.ndarray:
    v, u = np.mgrid[:H, :W] + 0.5
    return (u - 40) ** 2 + (v - 30) ** 2 < 20**2


def plane(depth: float = 2.0) -> np.ndarray:
    v, u = np.mgrid[:H, :W] + 0.5
    return np.dstack([(u - 40) / 90 * depth, (v - 30) / 90 * depth, np.full((H, W), depth)])


def example(pointmap: np.ndarray | None = None) -> Example:
    info = {"objects": [{"index": 7, "name": "ball"}]}
    return Example(Path("ball"), photo(), {7: disc()}, pointmap=pointmap, info=info)


def test_options_that_a_model_does_not_have_are_told_at_once() -> None:
    with pytest.raises(InputError, match="silhouette takes no options, but got steps"):
        load_model("silhouette").stream(photo(), disc(), steps=(1, 1))


def test_events_come_in_order_and_are_timed() -> None:
    seen: list[Event] = []
    result = load_model("silhouette").reconstruct(photo(), disc(), on_event=seen.append)
    stages: dict[str, list[float]] = {}
    for event in seen:
        stages.setdefault(event.stage, []).append(event.fraction)
    assert list(stages) == ["depth", "mesh", "texture", "done"]
    for stage, fractions in stages.items():
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1
        assert fractions[0] == 0 or stage == "done"
    assert isinstance(seen[-1], DoneEvent)
    assert seen[-1].result is result
    assert set(result.provenance.timings) == {"depth", "mesh", "texture"}
    assert all(seconds >= 0 for seconds in result.provenance.timings.values())


def test_provenance_says_how_to_make_it_again() -> None:
    model = load_model("silhouette")
    result = model.reconstruct(example(), 7, seed=5)
    source = result.provenance
    assert result.name == "ball"
    assert (source.model, source.model_version) == ("silhouette", "1")
    assert (source.package_version, source.mask_index, source.seed) == (__version__, 7, 5)
    expected = hashlib.sha256(b"(60, 80, 3)" + photo().tobytes()).hexdigest()
    assert source.image_sha256 == expected
    other_mask = model.reconstruct(photo(), np.roll(disc(), 3, axis=1)).provenance
    assert other_mask.image_sha256 == expected
    assert other_mask.mask_sha256 != source.mask_sha256
    assert other_mask.mask_index is None


def test_the_only_mask_of_an_example_need_not_be_named() -> None:
    model = load_model("silhouette")
    assert model.reconstruct(example()).provenance.mask_index == 7
    several = example().with_masks({1: disc(), 4: disc()}, {4: "cup"})
    with pytest.raises(InputError, match="say which mask: one of 1 object 1, 4 cup"):
        model.reconstruct(several)
    with pytest.raises(InputError, match="there is no mask yet"):
        model.reconstruct(example().with_masks({}))
    with pytest.raises(InputError, match="a mask is needed"):
        model.reconstruct(photo())


def test_the_mask_of_an_object_is_known_by_its_pixels() -> None:
    """Numbers of masks that were picked are others than those of the photo's own."""
    other = np.roll(disc(), 5, axis=1)
    room = example().with_masks({0: other, 1: disc()}, {1: "ball"})
    picked = room.with_masks({0: disc()})
    made = load_model("silhouette").reconstruct(picked, 0)
    assert mask_index_of(made, picked) == 0
    assert mask_index_of(made, room) == 1
    right, wrong = compare(made, room), compare(made, room, 0)
    pd.testing.assert_series_equal(right, compare(made, picked))
    assert right["silhouette IoU"] > wrong["silhouette IoU"]
    assert refine_layout(made, room)[1] == refine_layout(made, room, 1)[1]
    stranger = room.with_masks([other])
    for use in (compare, refine_layout, lambda result, example: contact_sheet(example, result)):
        with pytest.raises(InputError, match="mask 0 of ball is not the one that object 0 was"):
            use(made, stranger)
    by_array = load_model("silhouette").reconstruct(photo(), disc())
    assert mask_index_of(by_array, room) == 1
    assert mask_index_of(by_array, stranger) is None


def test_same_seed_same_bytes() -> None:
    model = load_model("silhouette")
    first, second = (model.reconstruct(photo(), disc(), seed=3) for _ in range(2))
    for name in ("vertices", "faces", "uv", "texture"):
        np.testing.assert_array_equal(getattr(first.mesh, name), getattr(second.mesh, name))
    assert first.pose == second.pose
    assert replace(first.provenance, timings={}) == replace(second.provenance, timings={})


@pytest.mark.parametrize("stage", [DepthEvent, MeshEvent, TextureEvent])
def test_an_exception_in_on_event_stops_the_run(stage: type[Event]) -> None:
    class StopHere(Exception):
        pass

    seen: list[Event] = []

    def cancel(event: Event) -> None:
        seen.append(event)
        if isinstance(event, stage):
            raise StopHere

    with pytest.raises(StopHere):
        load_model("silhouette").reconstruct(photo(), disc(), on_event=cancel)
    assert type(seen[-1]) is stage
    assert sum(type(e) is stage for e in seen) == 1


def test_the_example_gives_point_map_and_intrinsics() -> None:
    class Recorder(Model):
        name, version = "recorder", "1"

        def run(self, request: Request) -> Run:
            self.request = request
            yield MeshEvent(fraction=1.0)
            return Reconstruction(Mesh(np.eye(3), np.array([[0, 1, 2]])), Pose())

    recorder = Recorder()
    recorder.reconstruct(example(plane()), 7)
    assert recorder.request.pointmap is not None
    assert recorder.request.intrinsics[0, 0] == pytest.approx(90)
    recorder.reconstruct(example(plane()), disc(), pointmap=plane(3.0))
    assert recorder.request.pointmap[0, 0, 2] == 3
    recorder.reconstruct(example(), 7)
    assert recorder.request.pointmap is None
    np.testing.assert_allclose(recorder.request.intrinsics, default_intrinsics(H, W))


def test_masks_of_numbers_are_split_at_half() -> None:
    soft = np.where(disc(), 200, 40).astype(np.uint8)
    for mask in (soft, soft / 255, disc().astype(np.int64)):
        np.testing.assert_array_equal(make_request(photo(), mask).mask, disc())


def test_unknown_points_become_nan() -> None:
    points = plane()
    points[0, 0, 1] = np.inf
    points[0, 1] = 0
    points[0, 2, 2] = -1
    request = make_request(photo(), disc(), points)
    assert request.pointmap is not None
    assert request.pointmap.dtype == np.float32
    assert np.isnan(request.pointmap[0, :3]).all()
    assert np.isfinite(request.pointmap[1:]).all()
    assert np.isfinite(points[0, 1]).all()  # the caller's array is left alone


EMPTY = np.zeros((H, W), dtype=bool)
ONE_PIXEL = EMPTY.copy()
ONE_PIXEL[4, 5] = True
BAD_REQUESTS = {
    "image is no array": ({"image": "photo.png"}, "uint8 array .* but got str"),
    "image is float": ({"image": np.zeros((H, W, 3))}, r"uint8 \(H, W, 3\) but got float64"),
    "image is grey": ({"image": np.zeros((H, W), np.uint8)}, r"but got uint8 \(60, 80\)"),
    "image has alpha": ({"image": np.zeros((H, W, 4), np.uint8)}, r"\(60, 80, 4\)"),
    "mask is a bool": ({"mask": True}, "bool array .* but got bool"),
    "mask is None": ({"mask": None}, "but got NoneType"),
    "mask is text": ({"mask": np.full((H, W), "x")}, "finite numbers but got <U1"),
    "mask is NaN": ({"mask": np.full((H, W), np.nan)}, "finite numbers"),
    "mask of another size": ({"mask": np.ones((H, W + 1), bool)}, "mask is .*80"),
    "mask lies on its side": ({"mask": disc().T}, "EXIF"),
    "empty mask": ({"mask": EMPTY}, "empty"),
    "empty mask of numbers": ({"mask": EMPTY.astype(float)}, "empty"),
    "one pixel": ({"mask": ONE_PIXEL}, "only 1 pixel"),
    "point map of another size": ({"pointmap": np.zeros((H, W))}, r"\(60, 80\) but the image"),
    "point map without points": ({"pointmap": plane() * np.nan}, "no finite point"),
    "point map behind the camera": ({"pointmap": -plane()}, "behind the camera"),
    "intrinsics of another shape": ({"intrinsics": np.eye(4)}, r"\(3, 3\) but got \(4, 4\)"),
    "intrinsics with NaN": ({"intrinsics": np.eye(3) * np.nan}, "pixels with positive"),
    "intrinsics of no pinhole": ({"intrinsics": np.ones((3, 3))}, "pixels with positive"),
    "negative focal length": ({"intrinsics": np.diag([-1, 1, 1])}, "positive focal"),
    "seed is a fraction": ({"seed": 0.5}, "whole number .* but got 0.5"),
    "seed is negative": ({"seed": -1}, "but got -1"),
    "seed is too large": ({"seed": 2**63}, "whole number"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_input_gets_a_sentence(case: str) -> None:
    change, sentence = BAD_REQUESTS[case]
    with pytest.raises(InputError, match=sentence):
        make_request(**({"image": photo(), "mask": disc()} | change))


def test_an_index_needs_an_example_that_has_it() -> None:
    with pytest.raises(InputError, match="needs an example"):
        load_model("silhouette").reconstruct(photo(), 0)
    with pytest.raises(InputError, match=r"no mask 3 .* exist: 7"):
        load_model("silhouette").reconstruct(example(), 3)
    with pytest.raises(InputError, match="but got True"):
        load_model("silhouette").reconstruct(example(), True)


def test_unknown_models_and_devices_get_a_sentence() -> None:
    with pytest.raises(InputError, match=r"no model 'sillhouette'; choose from .*silhouette"):
        load_model("sillhouette")
    with pytest.raises(InputError, match=r"no device 'gpu'; choose from auto, cuda, mps, cpu"):
        load_model("silhouette", device="gpu")


def test_the_timer_adds_up_stages_and_waits_for_the_device() -> None:
    waits: list[int] = []
    timer = StageTimer(synchronize=lambda: waits.append(1))
    for fraction in (0.0, 0.5, 1.0, 0.0, 1.0):
        timer(MeshEvent(fraction=fraction))
    timer(DepthEvent(fraction=0.0))
    assert set(timer.seconds) == {"mesh"}  # depth has not ended
    assert len(waits) == 5  # not for the event in the middle


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the device")
def test_a_device_that_is_not_there_is_told_whatever_the_model():
    with pytest.raises(InputError, match="no device 'cuda'"):
        load_model("silhouette", device="cuda")
