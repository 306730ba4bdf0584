"""SAM 3D Objects from photo and mask to object, small, with stand-in weights, on the CPU."""

import random
import time
import traceback
import weakref
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from gltf import assert_valid_glb
from harness import Golden
from torch import Tensor

from sam3d_nb.engine import load, memory
from sam3d_nb.engine import stages as engine
from sam3d_nb.engine.memory import Pace, choose_plan, is_out_of_memory
from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.engine.options import FEW_STEPS, Options
from sam3d_nb.engine.results import gaussians_of, mesh_of, object_frame, pose_of
from sam3d_nb.errors import (
    InputError,
    OutOfMemoryError,
    ReconstructionError,
    WeightsError,
)
from sam3d_nb.events import (
    DepthEvent,
    DoneEvent,
    Event,
    GaussiansEvent,
    LayoutEvent,
    MeshEvent,
    SparseStructureEvent,
    StructuredLatentEvent,
)
from sam3d_nb.examples import Example
from sam3d_nb.mesh.color import to_srgb
from sam3d_nb.mesh.export import load_object
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.config import SMALL_VISION, SplatDecoderConfig, StructureDecoderConfig
from sam3d_nb.model.coords import Voxels
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.gaussian_scene import place
from sam3d_nb.model.layout import Layout, matrix_from_quaternion, place_points
from sam3d_nb.model.preprocess import flip_frame, pointmap_tensor
from sam3d_nb.object3d import Object3D
from sam3d_nb.pipeline import load_model
from sam3d_nb.weights.config import SMALL
from sam3d_nb.weights.parts import PARTS
from sam3d_nb.weights.store import StandInStore
from sam3d_nb.weights.write import write_stand_in

T = TypeVar("T")
H, W = 60, 80
STAGES = (
    *("depth", "conditioning", "sparse structure", "layout"),
    *("structured latent", "gaussians", "mesh", "done"),
)


def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def disc(u0: float = 40, v0: float = 30, radius: float = 20) -> np.ndarray:
    v, u = np.mgrid[:H, :W] + 0.5
    return (u - u0) ** 2 + (v - v0) ** 2 < radius**2


def plane(depth: float = 2.0) -> np.ndarray:
    """A wall that comes nearer to the right, with a hole."""
    v, u = np.mgrid[:H, :W] + 0.5
    z = depth - 0.3 * u / W
    points = np.dstack([(u - 40) / 90 * z, (v - 30) / 90 * z, z]).astype(np.float32)
    points[:5, :5] = np.nan
    return points


class CountingStore(StandInStore):
    """Remembers which networks were got and not released, now and at any time together."""

    def __init__(self) -> None:
        super().__init__()
        self.held: set[str] = set()
        self.together: set[frozenset[str]] = set()

    def get(self, name: str, device: Any = None) -> Any:
        self.held.add(name)
        self.together.add(frozenset(self.held))
        return super().get(name, device)

    def release(self, name: str) -> None:
        self.held.discard(name)
        super().release(name)


@pytest.fixture(scope="module")
def store() -> StandInStore:
    return StandInStore()


@pytest.fixture(scope="module")
def model(store: StandInStore) -> Sam3dObjects:
    return Sam3dObjects(store)


@pytest.fixture(scope="module")
def whole(model: Sam3dObjects) -> tuple[Object3D, list[Event], float]:
    """One run with all that is default: object, events, seconds."""
    events: list[Event] = []
    started = time.perf_counter()
    made = model.reconstruct(photo(), disc(), on_event=events.append)
    return made, events, time.perf_counter() - started


QUICK: dict[str, Any] = {"steps": (2, 2), "pointmap": plane()}


def arrays(made: Object3D) -> dict[str, np.ndarray]:
    """Everything in the result that is a number."""
    assert made.gaussians is not None
    pose = np.array([*made.pose.rotation, *made.pose.translation, *made.pose.scale])
    mesh = {name: getattr(made.mesh, name) for name in ("vertices", "faces", "colors")}
    return mesh | vars(made.gaussians) | {"pose": pose}


def assert_same(first: Object3D, second: Object3D) -> None:
    """Bit for bit."""
    for (name, a), (_, b) in zip(arrays(first).items(), arrays(second).items(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


# The whole path


def test_a_photo_becomes_an_object_in_seconds(whole: tuple[Object3D, list[Event], float]) -> None:
    made, _, seconds = whole
    assert seconds < 5
    assert len(made.mesh.faces) > 100
    assert np.abs(made.mesh.vertices).max() <= 0.5 + 1 / 64
    assert made.gaussians is not None
    assert np.abs(made.gaussians.centers).max() < 0.6
    assert made.intrinsics is not None
    assert made.intrinsics.shape == (3, 3)


def test_events_come_in_order_with_steps_and_previews(
    whole: tuple[Object3D, list[Event], float],
) -> None:
    made, events, _ = whole
    fractions: dict[str, list[float]] = {}
    for event in events:
        fractions.setdefault(event.stage, []).append(event.fraction)
    assert tuple(fractions) == STAGES
    for stage, values in fractions.items():
        assert values == sorted(values)
        assert values[-1] == 1
        assert values[0] == 0 or stage == "done"
    for kind in (SparseStructureEvent, StructuredLatentEvent):
        told = [e for e in events if isinstance(e, kind)]
        assert list(dict.fromkeys(e.step for e in told)) == list(range(26))
        assert {e.steps for e in told} == {25}

    *sampling, decoded = (e for e in events if isinstance(e, SparseStructureEvent))
    assert all(e.voxels is None and e.fraction < 1 for e in sampling)
    assert decoded.voxels is not None
    assert decoded.resolution == 16
    per_voxel = SMALL.splat_decoder.gaussians.per_voxel
    assert len(made.gaussians or ()) == per_voxel * len(decoded.voxels)
    depth = next(e for e in events if isinstance(e, DepthEvent) and e.fraction == 1)
    assert depth.pointmap is not None
    assert depth.pointmap.shape == (H, W, 3)
    np.testing.assert_array_equal(depth.intrinsics, made.intrinsics)
    assert [e.pose for e in events if isinstance(e, LayoutEvent)] == [None, made.pose]
    assert isinstance(events[-1], DoneEvent)
    assert events[-1].result is made
    assert set(made.provenance.timings) == {*STAGES} - {"done"}


def test_provenance_says_stand_in_and_how_to_make_it_again(
    whole: tuple[Object3D, list[Event], float], model: Sam3dObjects
) -> None:
    source = whole[0].provenance
    assert source.model == "sam-3d-objects with stand-in weights"
    assert source.model_version == "stand-in seed 0"
    expected = {"stage1_steps": 25, "stage2_steps": 25, "few_step": False, "weights": "stand-in"}
    expected |= {"precision": "float32", "device": "cpu", "point_map": "estimated"}
    assert source.settings.items() >= expected.items()
    few = model.reconstruct(photo(), disc(), pointmap=plane(), few_step=True).provenance.settings
    assert (few["stage1_steps"], few["stage2_steps"]) == FEW_STEPS
    assert few["few_step"]
    assert few["point_map"] == "given"


def test_files_of_an_object(whole: tuple[Object3D, list[Event], float], tmp_path: Path) -> None:
    made, _, _ = whole
    path = made.save(tmp_path / "thing.glb")
    assert_valid_glb(path)
    back = load_object(path)
    assert back.pose == made.pose
    assert back.provenance == made.provenance
    assert made.save_splats(tmp_path / "thing.ply").stat().st_size > 68 * len(made.gaussians or ())


def test_parity_with_the_released_stage_1(request: pytest.FixtureRequest) -> None:
    """The golden's photo, mask, point map and seed give its voxels and its pose."""
    golden = Golden(request.config.getoption("--golden"), "stage1/stage1_pipeline")
    image, mask = golden["in.rgb"].numpy(), golden["in.mask"].numpy().astype(bool)
    points = pointmap_tensor(golden["in.pointmap"], mask.shape).permute(1, 2, 0)
    for name, widths, few_step in (("cfg", (32, 16, 8), False), ("shortcut", (32, 12), True)):
        config = replace(
            SMALL,
            structure_flow=replace(SMALL.structure_flow, resolution=16),
            structure_decoder=StructureDecoderConfig(widths=widths),
        )
        run = golden.config["runs"][name]
        stream = Sam3dObjects(StandInStore(config)).stream(
            image,
            mask,
            pointmap=flip_frame(points).numpy(),
            seed=golden.config["seed"],
            steps=(run["steps"], 1),
            few_step=few_step,
        )
        voxels, pose = None, None
        with closing(stream):
            for event in stream:
                if isinstance(event, SparseStructureEvent):
                    voxels = event.voxels
                if isinstance(event, LayoutEvent) and event.pose:
                    pose = event.pose
                    break
        assert voxels is not None
        ours = {tuple(row) for row in voxels.tolist()}
        official = {tuple(row[1:]) for row in golden[f"{name}.coords"].tolist()}
        assert len(ours & official) / len(ours | official) >= 0.999
        local = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) - 0.5
        keys = ("rotation", "translation", "scale")
        placed = place_points(local, Layout(*(golden[f"{name}.{key}"] for key in keys)))
        assert pose is not None
        actual = pose.apply(object_frame(local).numpy())
        np.testing.assert_allclose(actual, flip_frame(placed).numpy(), rtol=2e-3, atol=2e-3)


def test_parity_with_the_released_stage_2(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The golden's images, voxels and noise give its gaussians, in the object frame."""
    golden = Golden(request.config.getoption("--golden"), "stage2/composed")
    vision = replace(SMALL_VISION, width=48, image_size=56)
    config = replace(
        SMALL,
        condition_stage2=replace(SMALL.condition_stage2, networks=(vision, vision)),
        latent_flow=replace(SMALL.latent_flow, condition_width=48, resolution=64),
        splat_decoder=SplatDecoderConfig(replace(SMALL.splat_decoder.trunk, resolution=64)),
    )
    store = StandInStore(config)
    model = Sam3dObjects(store, "cpu", "staged")
    monkeypatch.setattr(engine.latent_flow, "draw_noise", lambda *_: golden["noise"])
    embedder = store.get("condition_stage2")
    tokens = embedder({row.input: golden[row.input] for row in config.condition_stage2.rows})
    options = Options(steps=(1, golden.info["sampler"]["inference_steps"]))
    voxels = Voxels(golden["coords"], golden["coords"], 1)
    generator = torch.Generator().manual_seed(0)
    latent, grid = returned(model.sample_latent(voxels, tokens, generator, options))
    golden.check(latent, "slat")
    gaussians = returned(model.decode_gaussians(latent, grid, options))
    assert gaussians is not None
    tolerance = golden.tolerance()
    expected = object_frame(golden["gs.get_xyz"]).numpy()
    np.testing.assert_allclose(gaussians.centers, expected, **tolerance)
    np.testing.assert_allclose(gaussians.scales, golden["gs.get_scaling"].numpy(), **tolerance)
    np.testing.assert_allclose(gaussians.colors, golden["gs.rgb"].numpy(), **tolerance)
    opacities = golden["gs.get_opacity"][:, 0].numpy()
    np.testing.assert_allclose(gaussians.opacities, opacities, **tolerance)
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    turned = turn @ matrices(golden["gs.get_rotation"].numpy())
    np.testing.assert_allclose(matrices(gaussians.rotations), turned, atol=1e-3)


def returned(stage: Generator[Event, None, T]) -> T:
    """Return what a stage returns."""
    while True:
        try:
            next(stage)
        except StopIteration as stop:
            return stop.value


# Frames and colors


def test_a_pose_places_mesh_and_splats_at_one_spot(model: Sam3dObjects) -> None:
    """The spot is where the released placement puts the same points of the local frame."""
    grid_of = engine.Grid
    seen: dict[str, Any] = {}

    class Spy(Sam3dObjects):
        def extract(self, decoder: Any, latent: Tensor, grid: Any) -> Surface:
            seen["splats"] = self.store.get("splat_decoder")(latent, grid_of(grid.coords, 16))
            seen["surface"] = super().extract(decoder, latent, grid)
            return seen["surface"]

        def place(self, latents: Any, moments: Any, voxels: Any) -> Any:
            seen["layout"] = engine.decode_layout(latents, moments, voxels.factor)
            return super().place(latents, moments, voxels)

    made = Spy(model.store).reconstruct(photo(), disc(), **QUICK)
    vertices = place_points(seen["surface"].vertices, seen["layout"])
    expected = flip_frame(vertices).numpy()
    np.testing.assert_allclose(made.mesh_in_camera().vertices, expected, atol=1e-5)

    splats = place(seen["splats"], seen["layout"])
    ours = made.gaussians_in_camera()
    np.testing.assert_allclose(ours.centers, flip_frame(splats.xyz).numpy(), atol=1e-5)
    flip = np.diag([-1.0, -1.0, 1.0])
    theirs = flip @ matrix_from_quaternion(splats.rotation).numpy()
    np.testing.assert_allclose(
        np.abs(np.einsum("kij,kij->k", matrices(ours.rotations), theirs)), 3, atol=1e-3
    )
    larger = splats.scale.numpy() > 1.2 * splats.kernel_size  # placing lifts smaller ones a little
    assert larger.any()
    np.testing.assert_allclose(ours.scales[larger], splats.scale.numpy()[larger], rtol=1e-3)


def matrices(quaternions: np.ndarray) -> np.ndarray:
    return matrix_from_quaternion(torch.tensor(quaternions)).numpy()


def test_object_frame_and_colors_against_the_released_glb(request: pytest.FixtureRequest) -> None:
    golden = Golden(request.config.getoption("--golden"), "stage2/to_glb")
    tensors = (golden["vertices"], golden["faces"].long(), golden["vertex_attrs"])
    mesh = mesh_of(Surface(*tensors))
    np.testing.assert_allclose(mesh.vertices, golden["glb_vertices"].numpy(), atol=1e-7)
    np.testing.assert_array_equal(mesh.faces, golden["glb_faces"].numpy())
    # The same colors on the screen: ours are linear, as COLOR_0 is by the standard.
    assert mesh.colors is not None
    bytes_shown = np.round(to_srgb(mesh.colors) * 255)
    difference = np.abs(bytes_shown - golden["glb_vertex_colors"][:, :3].numpy())
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_gaussians_that_are_not_finite_are_an_error(store: StandInStore) -> None:
    grid = engine.Grid(torch.tensor([[0, 1, 2, 3]]), 16)
    found = store.get("splat_decoder")(torch.zeros(1, 8), grid)
    found.raw_color[0, 0] = torch.nan
    with pytest.raises(
        ReconstructionError, match="the colors of some of 8 gaussians are not finite"
    ):
        gaussians_of(found)


def test_pose_of_is_a_proper_pose() -> None:
    layout = Layout(
        torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([[0.1, 0.2, 3.0]]), torch.ones(1, 3)
    )
    np.testing.assert_allclose(pose_of(layout).apply([[0, 0.5, 0]]), [[-0.1, -0.2, 3.5]], atol=1e-6)


# The same result again


def test_same_seed_same_bits_and_the_user_s_random_numbers_stay(model: Sam3dObjects) -> None:
    first = model.reconstruct(photo(), disc(), seed=7, **QUICK)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    fresh = Sam3dObjects(StandInStore())  # made and used with other numbers in the air
    assert_same(fresh.reconstruct(photo(), disc(), seed=7, **QUICK), first)
    after = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    other = model.reconstruct(photo(), disc(), seed=8, **QUICK)
    assert other.pose != first.pose


def test_memory_plans_give_the_same_bits_and_hold_what_they_say() -> None:
    stores = {plan: CountingStore() for plan in ("resident", "staged")}
    models = {plan: Sam3dObjects(store, "cpu", plan) for plan, store in stores.items()}
    made = {plan: m.reconstruct(photo(), disc(), **QUICK) for plan, m in models.items()}
    assert_same(made["resident"], made["staged"])
    assert stores["resident"].held == {*PARTS} - {"splat_decoder_4"}
    assert stores["staged"].held == set()
    embedders = frozenset({"condition_stage1", "condition_stage2"})
    assert {group for group in stores["staged"].together if len(group) > 1} == {embedders}
    models["resident"].release()
    assert stores["resident"].held == set()


def test_a_staged_model_sends_away_what_another_left() -> None:
    shared = CountingStore()
    Sam3dObjects(shared, "cpu", "resident")
    staged = Sam3dObjects(shared, "cpu", "staged")
    stream = staged.stream(photo(), disc(), **QUICK)
    next(stream)
    assert shared.held == set()
    stream.close()


# What the caller decides


def test_point_maps_the_caller_s_before_the_example_s_before_an_estimate(
    model: Sam3dObjects,
) -> None:
    def seen(image: Any, mask: Any, **given: Any) -> tuple[np.ndarray, np.ndarray]:
        with closing(model.stream(image, mask, **given)) as stream:
            event = next(e for e in stream if e.fraction == 1)
        assert isinstance(event, DepthEvent)
        return event.pointmap, event.intrinsics  # type: ignore[return-value]

    info = {"objects": [{"index": 3, "name": "ball"}]}
    example = Example(Path("ball"), photo(), {3: disc()}, pointmap=plane(4.0), info=info)
    np.testing.assert_array_equal(seen(example, 3)[0], plane(4.0))
    np.testing.assert_array_equal(seen(example, 3, pointmap=plane())[0], plane())
    given = np.array([[77.0, 0, 41], [0, 77, 31], [0, 0, 1]])
    np.testing.assert_array_equal(seen(example, 3, intrinsics=given)[1], given)

    points, camera = seen(photo(), disc())
    known = np.isfinite(points).all(-1)
    assert np.isnan(points[~known]).all()
    assert camera[:2, 2].tolist() == [W / 2, H / 2]
    assert camera[0, 0] == pytest.approx(camera[1, 1])


def test_an_object_without_depth_is_told(model: Sam3dObjects) -> None:
    holes = plane()
    holes[disc()] = np.nan
    with pytest.warns(UserWarning, match="no point within the mask"):
        model.reconstruct(photo(), disc(), **QUICK | {"pointmap": holes})


def test_formats(model: Sam3dObjects) -> None:
    mesh = model.reconstruct(photo(), disc(), formats=("mesh",), **QUICK)
    assert mesh.gaussians is None
    events: list[Event] = []
    splats = model.reconstruct(
        photo(), disc(), formats=("gaussians_4",), on_event=events.append, **QUICK
    )
    assert not len(splats.mesh.faces)
    assert {type(e) for e in events} >= {GaussiansEvent}
    assert {type(e) for e in events}.isdisjoint({MeshEvent})
    voxels = next(e.voxels for e in reversed(events) if isinstance(e, SparseStructureEvent))
    assert len(splats.gaussians or ()) == 4 * len(voxels)


def test_samplers_of_an_option() -> None:
    first, second = Options().samplers(SMALL)
    assert (first, second) == (SMALL.stage1_sampler, SMALL.stage2_sampler)
    first, second = Options((7, 9)).samplers(SMALL)
    assert (first.steps, second.steps, first.shortcut, first.guidance) == (7, 9, False, 7)
    first, second = Options(few_step=True).samplers(SMALL)
    assert (first.steps, second.steps) == FEW_STEPS
    assert first.shortcut
    assert second.guidance == 0
    assert Options((3, 5), few_step=True).samplers(SMALL)[0].steps == 3


BAD_OPTIONS = {
    "one number": ({"steps": 25}, "two whole numbers .* but got 25"),
    "three": ({"steps": (1, 2, 3)}, "two whole numbers"),
    "none": ({"steps": (0, 25)}, r"from 1 to 1000.* but got \(0, 25\)"),
    "fraction": ({"steps": (2.5, 25)}, "whole numbers"),
    "too many": ({"steps": (25, 1001)}, "1000"),
    "unknown format": ({"formats": ("mesh", "glb")}, "out of mesh, gaussians, gaussians_4"),
    "no format": ({"formats": ()}, "out of mesh"),
    "both gaussians": ({"formats": ("gaussians", "gaussians_4")}, "one set of gaussians"),
    "no mask": ({"mask": np.zeros((H, W), bool)}, "empty"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_get_a_sentence_before_anything_runs(model: Sam3dObjects, case: str) -> None:
    change, sentence = BAD_OPTIONS[case]
    arguments = {"image": photo(), "mask": disc()} | change
    with pytest.raises(InputError, match=sentence):
        model.stream(**arguments)


# Scenes


def test_a_cache_saves_what_objects_share_and_changes_nothing(store: StandInStore) -> None:
    model = Sam3dObjects(store)
    masks = disc(30, 30, 15), disc(55, 30, 12)
    alone = [model.reconstruct(photo(), mask, steps=(2, 2)) for mask in masks]
    cache, computed = SceneCache(), []
    for mask, expected in zip(masks, alone, strict=True):
        before = cache.computed
        assert_same(model.reconstruct(photo(), mask, steps=(2, 2), cache=cache), expected)
        computed.append(cache.computed - before)
    # the first: point map, full view, 4 passes of DINOv2 over images and masks; the second:
    # the crops of image and mask, and its own full mask
    assert computed == [6, 3]


# Cancelling


def watched(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """Watch tokens, latents, keys and values, and logits of every run from here on."""
    seen: list[weakref.ref[Tensor]] = []

    def spy(
        function: Callable[..., Any], pick: Callable[[Any], list[Tensor]]
    ) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            seen.extend(weakref.ref(tensor) for tensor in pick(result))
            return result

        return wrapped

    def spied_sampler(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            for step, state in function(*arguments, **options):
                tensors = state.values() if isinstance(state, dict) else [state]
                seen.extend(weakref.ref(tensor) for tensor in tensors)
                yield step, state

        return wrapped

    monkeypatch.setattr(engine, "condition_tokens", spy(engine.condition_tokens, list))
    monkeypatch.setattr(engine, "sample_structure", spied_sampler(engine.sample_structure))
    monkeypatch.setattr(engine, "sample_latent", spied_sampler(engine.sample_latent))
    monkeypatch.setattr(engine, "decode_structure", spy(engine.decode_structure, lambda x: [x]))
    flow = engine.structure_flow.StructureFlow
    prepared = spy(
        flow.prepare, lambda c: [t for layer in c for s in layer.values() for t in s.tokens]
    )
    monkeypatch.setattr(flow, "prepare", prepared)
    return seen


class StopHere(Exception):
    pass


STOPS: dict[str, Callable[[Event], bool]] = {
    "depth": lambda e: isinstance(e, DepthEvent),
    "stage 1, step 1": lambda e: isinstance(e, SparseStructureEvent) and e.step == 1,
    "stage 1, step 3": lambda e: isinstance(e, SparseStructureEvent) and e.step == 3,
    "voxels": lambda e: isinstance(e, SparseStructureEvent) and e.voxels is not None,
    "stage 2, step 2": lambda e: isinstance(e, StructuredLatentEvent) and e.step == 2,
    "mesh": lambda e: isinstance(e, MeshEvent),
}


@pytest.fixture(scope="module")
def counting() -> CountingStore:
    return CountingStore()


@pytest.mark.parametrize("how", ["exception", "close"])
@pytest.mark.parametrize("where", STOPS)
def test_cancelling_ends_at_once_and_frees_everything(
    monkeypatch: pytest.MonkeyPatch, counting: CountingStore, where: str, how: str
) -> None:
    model = Sam3dObjects(counting, "cpu", "staged")
    seen, events = watched(monkeypatch), []
    options: dict[str, Any] = {"steps": (5, 5), "pointmap": plane()}

    def stop(event: Event) -> None:
        events.append(event)
        if STOPS[where](event):
            raise StopHere

    kept: BaseException | None = None
    if how == "exception":
        try:
            model.reconstruct(photo(), disc(), on_event=stop, **options)
        except StopHere as error:
            kept = error  # as a notebook keeps the last traceback
        assert kept is not None
    else:
        stream = model.stream(photo(), disc(), **options)
        with suppress(StopHere):
            for event in stream:
                stop(event)
        stream.close()
    assert sum(STOPS[where](event) for event in events) == 1
    assert not [ref for ref in seen if ref() is not None]
    assert bool(seen) == (where != "depth")
    assert counting.held == set()
    if where == "stage 1, step 1":
        assert model.reconstruct(photo(), disc(), **QUICK).pose  # and it can be used again


def test_nothing_is_kept_after_a_whole_run(
    monkeypatch: pytest.MonkeyPatch, store: StandInStore
) -> None:
    seen = watched(monkeypatch)
    made = Sam3dObjects(store).reconstruct(photo(), disc(), **QUICK)
    assert made
    assert seen
    assert not [ref for ref in seen if ref() is not None]


# Failing


def test_memory_that_runs_out_is_freed_and_told() -> None:
    class Full(Sam3dObjects):
        full = True

        def extract(self, decoder: Any, latent: Tensor, grid: Any) -> Surface:
            self.filling = weakref.ref(large := torch.zeros(10))
            if self.full:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
            assert large is not None
            return super().extract(decoder, latent, grid)

    store = CountingStore()
    model = Full(store, "cpu", "staged")
    with pytest.raises(OutOfMemoryError, match="memory ran out; close other programs") as caught:
        model.reconstruct(photo(), disc(), **QUICK)
    assert model.filling() is None  # though the error and its traceback are still here
    assert "extract" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
    assert store.held == set()
    model.full = False
    assert len(model.reconstruct(photo(), disc(), **QUICK).mesh.faces)


def test_a_model_that_does_not_fit_says_so_when_it_is_loaded() -> None:
    class Large(CountingStore):
        def get(self, name: str, device: Any = None) -> Any:
            if name == "latent_flow":
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().get(name, device)

    store = Large()
    with pytest.raises(OutOfMemoryError, match="memory ran out"):
        Sam3dObjects(store, "cpu", "resident")
    assert store.held == set()


def test_resident_networks_make_room_for_a_decoder() -> None:
    class Tight(Sam3dObjects):
        def extract(self, decoder: Any, latent: Tensor, grid: Any) -> Surface:
            if len(self.store.held) > 1:  # type: ignore[attr-defined]
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().extract(decoder, latent, grid)

    store = CountingStore()
    model = Tight(store, "cpu", "resident")
    assert_same(
        model.reconstruct(photo(), disc(), **QUICK), model.reconstruct(photo(), disc(), **QUICK)
    )
    assert store.held == {"mesh_decoder"}


def test_advice_depends_on_the_plan() -> None:
    mps = torch.device("mps")
    assert 'memory="staged"' in str(memory.out_of_memory(mps, "resident"))
    assert 'device="cpu"' in str(memory.out_of_memory(mps, "staged"))


def test_which_errors_mean_that_memory_ran_out() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8 GiB)"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_other_errors_pass_as_they_are(counting: CountingStore) -> None:
    class Empty(Sam3dObjects):
        def find_voxels(self, logits: Tensor, generator: torch.Generator) -> Any:
            return super().find_voxels(-logits.abs() - 1, generator)

    with pytest.raises(ReconstructionError, match="none of 4096 voxels is occupied"):
        Empty(counting, "cpu", "staged").reconstruct(photo(), disc(), **QUICK)
    assert counting.held == set()


# Plans and devices


def test_auto_is_staged_below_16_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 11 * 10**9)
    assert choose_plan(torch.device("cuda")) == "staged"
    assert choose_plan(torch.device("cpu")) == "resident"
    monkeypatch.setattr(memory, "available", lambda device: 16 * 10**9)
    assert choose_plan(torch.device("cuda")) == "resident"


def test_the_host_is_at_most_one_step_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class FakeEvent:
        def __init__(self) -> None:
            self.number = sum(call.startswith("record") for call in calls)

        def record(self) -> None:
            calls.append(f"record {self.number}")

        def synchronize(self) -> None:
            calls.append(f"wait {self.number}")

    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    pace = Pace(torch.device("cuda"))
    for _ in range(3):
        pace()
    assert calls == ["record 0", "wait 0", "record 1", "wait 1", "record 2"]
    calls.clear()
    Pace(torch.device("cpu"))()
    assert not calls


def test_accelerated_steps_give_the_same_bits_and_are_closed_when_cancelled(
    store: StandInStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Sam3dObjects(store).reconstruct(photo(), disc(), **QUICK)
    model = Sam3dObjects(store, accelerate=True)
    assert_same(model.reconstruct(photo(), disc(), **QUICK), plain)
    accelerated = model._accelerated
    assert accelerated is not None
    closed: list[int] = []
    monkeypatch.setattr(accelerated, "close", lambda: closed.append(1))
    stream = model.stream(photo(), disc(), **QUICK)
    next(e for e in stream if isinstance(e, SparseStructureEvent) and e.step == 1)
    stream.close()
    assert closed


# Loading


def test_without_weights_the_model_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"sam-3d-objects is not ready"):
        load_model("sam-3d-objects", device="cpu")
    assert load_model(device="cpu").name == "silhouette"
    with pytest.raises(InputError, match=r"no memory plan 'swap'; choose from auto, resident"):
        load_model("silhouette", memory="swap")


def test_weights_on_disk_give_what_weights_in_memory_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Sam3dObjects
) -> None:
    write_stand_in(StandInStore(), tmp_path)
    monkeypatch.setenv("SAM3D_NB_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(load, "_latest", [])
    loaded = load_model("sam-3d-objects", device="cpu")
    assert load_model(device="cpu") is loaded
    made = loaded.reconstruct(photo(), disc(), **QUICK)
    assert_same(made, loaded.reconstruct(photo(), disc(), **QUICK))
    # Products of mapped tensors round differently: they start at other addresses.
    in_memory = model.reconstruct(photo(), disc(), **QUICK)
    for name in ("pose", "centers", "scales", "opacities"):
        np.testing.assert_allclose(arrays(made)[name], arrays(in_memory)[name], atol=1e-4)
    assert made.provenance.model == "sam-3d-objects with stand-in weights"
    assert made.provenance.settings["weights_sha256"]


def test_loading_again_is_free(monkeypatch: pytest.MonkeyPatch, store: StandInStore) -> None:
    asked: list[dict[str, Any]] = []

    def load_weights(**options: Any) -> StandInStore:
        asked.append(options)
        return store

    monkeypatch.setattr(load, "load_weights", load_weights)
    monkeypatch.setattr(load, "_latest", [])
    first = load.load_sam3d("cpu")
    assert load.load_sam3d("cpu") is first
    assert load.load_sam3d("cpu", "staged") is not first
    assert asked[0] == {"device": "cpu", "dtype": torch.float32, "pin": False}


def test_stand_ins_cannot_be_asked_for_by_name() -> None:
    for name in ("stand-in", "standin", "sam-3d-objects with stand-in weights"):
        with pytest.raises(InputError, match="there is no model"):
            load_model(name)
