"""SAM 3D Objects from photo and mask to object, small, with stand-in weights, on the CPU."""

import random
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import published
import pytest
import torch
from engine_small import QUICK, H, W, assert_same, disc, photo, plane
from fields import chair
from gltf import assert_valid_glb
from harness import Golden
from torch import Tensor

from sam3d_nb.engine import results
from sam3d_nb.engine import stages as engine
from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.engine.options import FEW_STEPS, Options
from sam3d_nb.engine.results import gaussians_of, mesh_of, object_frame, pose_of, vertex_normals
from sam3d_nb.errors import (
    InputError,
    ReconstructionError,
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
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.color import to_linear, to_srgb
from sam3d_nb.mesh.export import load_object
from sam3d_nb.model import preprocess
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.model.config import (
    STAGE1_SAMPLER,
    STAGE2_SAMPLER,
    PreprocessConfig,
    StructureDecoderConfig,
)
from sam3d_nb.model.coords import Voxels
from sam3d_nb.model.flexicubes import Surface
from sam3d_nb.model.gaussian_scene import place
from sam3d_nb.model.layout import Layout, matrix_from_quaternion, place_points
from sam3d_nb.model.preprocess import crop_box, flip_frame, pointmap_tensor
from sam3d_nb.object3d import Object3D
from sam3d_nb.weights.config import SMALL
from sam3d_nb.weights.store import StandInStore

T = TypeVar("T")
STAGES = (
    *("depth", "conditioning", "sparse structure", "layout"),
    *("structured latent", "gaussians", "mesh", "done"),
)


@pytest.fixture(scope="module")
def store() -> StandInStore:
    return StandInStore()


@pytest.fixture(scope="module")
def model(store: StandInStore) -> Sam3dObjects:
    return Sam3dObjects(store)


@pytest.fixture(scope="module")
def whole(model: Sam3dObjects) -> tuple[Object3D, list[Event], float]:
    """One run with all that is default: object, events, seconds of one core."""
    events: list[Event] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them count the time in which they wait for each other
    started = time.process_time()
    made = model.reconstruct(photo(), disc(), on_event=events.append)
    seconds = time.process_time() - started
    torch.set_num_threads(threads)
    return made, events, seconds


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


def test_the_crop_of_a_mask_is_worked_out_once(
    model: Sam3dObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = []

    def counted(mask: Tensor, factor: float) -> tuple[int, int, int, int]:
        boxes.append(crop_box(mask, factor))
        return boxes[-1]

    for module in (engine, preprocess):
        monkeypatch.setattr(module, "crop_box", counted)
    model.reconstruct(photo(), disc(), **QUICK)
    assert len(boxes) == 1


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
    assert back.provenance == replace(made.provenance, timings={})
    assert made.save_splats(tmp_path / "thing.ply").stat().st_size > 68 * len(made.gaussians or ())


def test_parity_with_the_released_stage_1(request: pytest.FixtureRequest) -> None:
    """The golden's photo, mask, point map and seed give its voxels and its pose."""
    golden = Golden(request.config.getoption("--golden"), "stage1/stage1_pipeline")
    image, mask = golden["in.rgb"].numpy(), golden["in.mask"].numpy().astype(bool)
    points = pointmap_tensor(golden["in.pointmap"], mask.shape).permute(1, 2, 0)
    for name, run in golden.config["runs"].items():
        config = replace(
            SMALL,
            preprocess=PreprocessConfig(golden.config["preprocess_size"]),
            condition_stage1=published.stage1_condition(golden.config),
            condition_stage2=published.stage2_condition(golden.config["dinov2"]),
            structure_flow=published.structure_flow(golden.config["flow"]),
            stage1_sampler=published.sampler(STAGE1_SAMPLER, golden.config),
            structure_decoder=StructureDecoderConfig(tuple(run["decoder_channels"])),
        )
        stream = Sam3dObjects(StandInStore(config)).stream(
            image,
            mask,
            pointmap=flip_frame(points).numpy(),
            seed=golden.config["seed"],
            steps=(run["steps"], 1),
            few_step=name.startswith("shortcut"),
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
    networks = golden.config
    config = replace(
        SMALL,
        condition_stage2=published.stage2_condition(networks["condition_embedder"]["tiny_vit"]),
        latent_flow=published.latent_flow(networks["generator"]["reverse_fn"]["backbone"]),
        stage2_sampler=published.sampler(STAGE2_SAMPLER, golden.info["sampler"]),
        splat_decoder=published.splat_decoder(networks["slat_decoder_gs"]),
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
        def extract(self, decoder: Any, latent: Tensor, grid: Any, sculpt: Any = None) -> Surface:
            seen["splats"] = self.store.get("splat_decoder")(latent, grid_of(grid.coords, 16))
            seen["surface"] = super().extract(decoder, latent, grid)
            return seen["surface"]

        def place(self, latents: Any, moments: Any, factor: Any = 1) -> Any:
            seen["layout"] = engine.decode_layout(latents, moments, factor)
            return super().place(latents, moments, factor)

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


def test_linear_colors_are_those_of_arrays() -> None:
    srgb = np.concatenate([np.linspace(0, 1, 1001), [0.04045]]).astype(np.float32)
    found = results.to_linear(torch.from_numpy(srgb)).numpy()
    np.testing.assert_allclose(found, to_linear(srgb.astype(np.float64)), atol=1e-6)


def test_normals_made_on_the_device_are_those_of_the_mesh() -> None:
    mesh = chair(60)
    vertices = np.concatenate([mesh.vertices, [[9, 9, 9]]]).astype(np.float32)  # one without faces
    expected = Mesh(vertices, mesh.faces).normals
    actual = vertex_normals(torch.tensor(vertices), torch.tensor(mesh.faces))
    np.testing.assert_allclose(actual.numpy(), expected, atol=1e-6)
    turned = vertex_normals(torch.tensor(vertices), torch.tensor(mesh.faces[::-1].copy()))
    assert torch.equal(turned, actual)  # whatever the order of the sums


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
    # the first: point map, its turn into the network's frame, full view, 4 passes of DINOv2 over
    # images and masks; the second: the crops of image and mask, and its own full mask
    assert computed == [7, 3]
