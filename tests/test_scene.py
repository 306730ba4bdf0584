"""Scenes: many objects of one photo, those that fail, runs that stop, and files of the whole."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from gltf import assert_valid_glb
from PIL import Image
from shapes import box, icosphere, mesh

import sam3d_nb as s3
from sam3d_nb import cli
from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.engine.stages import Stages
from sam3d_nb.errors import (
    InputError,
    OutOfMemoryError,
    OutputError,
    ReconstructionError,
    Sam3dError,
    WeightsError,
)
from sam3d_nb.events import (
    DepthEvent,
    Event,
    MeshEvent,
    ObjectDoneEvent,
    ObjectEvent,
    ObjectFailedEvent,
    SceneDoneEvent,
    SceneEvent,
)
from sam3d_nb.examples import Example
from sam3d_nb.frames import Pose, project
from sam3d_nb.mesh import Mesh
from sam3d_nb.mesh.export import load_object
from sam3d_nb.mesh.finish import Finishing, finish
from sam3d_nb.mesh.glb import unpack_glb
from sam3d_nb.model.cache import SceneCache
from sam3d_nb.object3d import Object3D, Provenance
from sam3d_nb.pipeline import Model, Reconstruction, Run
from sam3d_nb.progress import Progress
from sam3d_nb.request import Request
from sam3d_nb.scene import Failure, Scene
from sam3d_nb.scene.export import unique_names
from sam3d_nb.scene.keep import Keep
from sam3d_nb.scene.runs import UNFINISHED
from sam3d_nb.silhouette import Silhouette
from sam3d_nb.splats import Gaussians, load_splats
from sam3d_nb.view.masks import legend_width
from sam3d_nb.weights.store import StandInStore

H, W = 60, 80


def disc(u0: float, v0: float = 30, radius: float = 8) -> np.ndarray:
    v, u = np.mgrid[:H, :W] + 0.5
    return (u - u0) ** 2 + (v - v0) ** 2 < radius**2


def example(count: int = 3) -> Example:
    """A photo of `count` discs; all are called thing."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    masks = {2 * i: disc(12 + 18 * i) for i in range(count)}
    info = {"objects": [{"index": i, "name": "thing"} for i in masks]}
    return Example(Path("discs"), image, masks, info=info)


class Cubes(Model):
    """Makes a colored cube with a gaussian on each corner where the mask is.

    wrong: what to raise for a mask index. made: the indices of all that was made, in order.
    """

    name, version = "cubes", "1"

    def __init__(self, wrong: dict[int, BaseException] | None = None) -> None:
        self.wrong = wrong or {}
        self.made: list[int | None] = []

    def deciding(self, **options: Any) -> dict[str, Any]:
        return {"options": json.dumps(options, sort_keys=True)}

    def stream(self, image: Any, mask: Any, **settings: Any) -> Any:
        settings.pop("size", None)
        return super().stream(image, mask, **settings)

    def run(self, request: Request) -> Run:
        yield DepthEvent(0.0)
        points = np.full((H, W, 3), 2.0, np.float32)
        yield DepthEvent(1.0, points if request.pointmap is None else None)
        if request.mask_index in self.wrong:
            raise self.wrong[request.mask_index]
        self.made.append(request.mask_index)
        yield MeshEvent(0.5)
        rng = np.random.default_rng([request.seed, request.mask_index or 0])
        vertices, faces = box((1, 0.5, 0.8))
        colors = rng.random(vertices.shape)
        (u, v), _ = project_back(request)
        pose = Pose(rng.normal(size=4), (u, v, 2.0), 0.2)
        splats = Gaussians(
            vertices,
            rng.uniform(0.01, 0.1, vertices.shape),
            np.tile([1.0, 0, 0, 0], (len(vertices), 1)),
            rng.random(len(vertices)),
            colors,
        )
        yield MeshEvent(1.0)
        return Reconstruction(Mesh(vertices, faces, colors), pose, splats, np.diag([90.0, 90, 1]))


def project_back(request: Request) -> tuple[tuple[float, float], float]:
    v, u = np.nonzero(request.mask)
    return ((float(u.mean()) - W / 2) / 90 * 2, (float(v.mean()) - H / 2) / 90 * 2), 2.0


def assert_same(a: Object3D, b: Object3D) -> None:
    """Bit for bit, but for the seconds that it took."""
    assert (a.name, a.pose) == (b.name, b.pose)
    assert replace(a.provenance, timings={}) == replace(b.provenance, timings={})
    for mine, other in ((a.mesh, b.mesh), (a.gaussians, b.gaussians)):
        assert (mine is None) == (other is None)
        for name, value in vars(mine).items() if mine is not None else ():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(value, getattr(other, name))
    np.testing.assert_array_equal(a.intrinsics, b.intrinsics)  # type: ignore[arg-type]


# --- Objects, events, failures --------------------------------------------------------------


def test_objects_are_what_reconstruct_makes() -> None:
    room = example()
    scene = Silhouette().reconstruct_scene(room, seed=4)
    assert [o.provenance.mask_index for o in scene] == [0, 2, 4]
    for thing in scene:
        alone = Silhouette().reconstruct(room, thing.provenance.mask_index, seed=4)
        assert_same(thing, alone)
    assert scene.size == (H, W)
    assert scene.intrinsics is not None
    assert not scene.failures
    assert repr(scene) == "Scene(3 objects, realign='none')"


def test_masks_as_indices_arrays_and_mappings() -> None:
    room, model = example(), Cubes()
    assert [o.provenance.mask_index for o in model.reconstruct_scene(room, [4, 0])] == [4, 0]
    assert len(model.reconstruct_scene(room, 2)) == 1
    by_array = model.reconstruct_scene(room.image, np.stack(list(room.masks.values())))
    assert [o.name for o in by_array] == ["object 0", "object 1", "object 2"]
    assert [o.provenance.mask_index for o in by_array] == [None] * 3
    by_index = model.reconstruct_scene(room.image, {7: room.masks[0]})
    assert (by_index[0].name, by_index[0].provenance.mask_index) == ("object 7", 7)
    np.testing.assert_array_equal(by_index[0].mesh.vertices, by_array[0].mesh.vertices)


def test_events_say_which_object_and_what_it_does() -> None:
    seen: list[Event] = []
    scene = Cubes({2: ReconstructionError("too thin")}).reconstruct_scene(
        example(), on_event=seen.append
    )
    kinds = [
        type(e).__name__ + (f":{e.inner.stage}" if isinstance(e, ObjectEvent) else "") for e in seen
    ]
    whole = ["SceneEvent", *["ObjectEvent:depth"] * 2, *["ObjectEvent:mesh"] * 2, "ObjectDoneEvent"]
    broken = ["SceneEvent", *["ObjectEvent:depth"] * 2, "ObjectFailedEvent"]
    assert kinds == [*whole, *broken, *whole, "SceneDoneEvent"]
    fractions = [event.fraction for event in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)
    places = [(e.number, e.count, e.name) for e in seen if isinstance(e, SceneEvent)]
    assert places == [*[(1, 3, "thing")] * 6, *[(2, 3, "thing")] * 4, *[(3, 3, "thing")] * 6]
    assert isinstance(seen[-1], SceneDoneEvent)
    assert seen[-1].result is scene
    done = [event.result for event in seen if isinstance(event, ObjectDoneEvent)]
    assert done == list(scene.objects)
    assert seen[3].label == "1 of 3, thing: mesh"
    assert seen[3].share == 0.5


def test_the_progress_bar_goes_through_a_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []

    class Bar:
        n = 0.0

        def set_description_str(self, text: str, refresh: bool) -> None:
            labels.append(text)

        def update(self, step: float) -> None:
            self.n += step

        def close(self) -> None:
            labels.append("closed")

    monkeypatch.setattr("sam3d_nb.progress.progress_bar", lambda **settings: Bar())
    Cubes().reconstruct_scene(example(2), on_event=Progress())
    assert labels.count("closed") == 1
    assert labels[-1] == "closed"
    assert "2 of 2, thing: mesh" in labels


def test_an_object_that_fails_is_reported_and_the_rest_go_on() -> None:
    room = example(4)
    masks = {**room.masks, 6: np.zeros((H, W), bool)}
    wrong = {0: OutOfMemoryError("memory ran out"), 2: RuntimeError("no kernel")}
    seen: list[Event] = []
    scene = Cubes(wrong).reconstruct_scene(replace(room, masks=masks), on_event=seen.append)
    assert [o.provenance.mask_index for o in scene] == [4]
    first, second, third = scene.failures
    assert (first.mask_index, first.kind, first.reason) == (0, "OutOfMemoryError", "memory ran out")
    assert "unexpected RuntimeError: no kernel" in second.reason
    assert "in run" in second.trace
    assert (third.mask_index, third.kind) == (6, "InputError")
    assert "empty" in third.reason
    failed = [e.failure for e in seen if isinstance(e, ObjectFailedEvent)]
    assert failed == list(scene.failures)
    table = scene.table()
    assert table["mask"].tolist() == [4, 0, 2, 6]
    assert (table["error"] != "").tolist() == [False, True, True, True]
    assert repr(scene) == "Scene(1 object, 3 failed, realign='none')"


@pytest.mark.parametrize("kind", [ReconstructionError, OutOfMemoryError, InputError])
def test_where_nothing_could_be_made_the_first_reason_is_raised(kind: type[Sam3dError]) -> None:
    wrong = {0: kind("too thin"), 2: ValueError("odd")}
    with pytest.raises(kind, match="none of the 2 objects could be made; thing: too thin"):
        Cubes(wrong).reconstruct_scene(example(2))
    with pytest.raises(Sam3dError, match=r"^thing: unexpected ValueError: odd"):
        Cubes(wrong).reconstruct_scene(example(2), [2])


def test_what_is_wrong_for_all_is_raised_at_once() -> None:
    model = Cubes({2: WeightsError("no weights")})
    with pytest.raises(WeightsError, match="no weights"):
        model.reconstruct_scene(example())
    assert model.made == [0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"masks": [0, 3]}, "no mask 3"),
        ({"masks": [2, 2]}, "mask 2 is given twice"),
        ({"masks": []}, "no mask"),
        ({"seed": -1}, "seed"),
        ({"realign": "ransac"}, "none, pca, obb"),
        ({"pointmap": np.zeros((3, 3, 3))}, "point map"),
        ({"intrinsics": np.zeros((3, 3))}, "intrinsics"),
        ({"image": np.zeros((4, 4)), "masks": disc(30)}, "uint8"),
        ({"image": np.zeros((H, W, 3), np.uint8)}, "needs an example"),
        ({"image": np.zeros((H, W, 3), np.uint8), "masks": None}, "needs masks"),
        ({"image": "photo.png"}, "needs an example"),
    ],
)
def test_a_wrong_call_is_raised_before_any_work(change: dict, sentence: str) -> None:
    model = Cubes()
    call: dict[str, Any] = {"image": example(), "masks": [0, 2], **change}
    with pytest.raises(InputError, match=sentence):
        model.reconstruct_scene(**call)
    assert not model.made


def test_options_that_a_model_has_not_are_refused() -> None:
    with pytest.raises(InputError, match="silhouette takes no options, but got steps"):
        Silhouette().reconstruct_scene(example(), steps=(2, 2))


def test_a_listener_that_raises_stops_the_scene() -> None:
    model = Cubes()

    def stop(event: Event) -> None:
        if isinstance(event, ObjectEvent) and event.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.reconstruct_scene(example(), on_event=stop)
    assert model.made == [0]


# --- Runs that stop, and go on --------------------------------------------------------------


def interrupted(model: Cubes, folder: Path, after: int) -> None:
    """Run until `after` objects are complete, then close the stream, as a killed run would."""
    from sam3d_nb.scene.reconstruct import stream_scene

    with closing(stream_scene(model, example(), save_dir=folder)) as events:
        done = 0
        for event in events:
            done += isinstance(event, ObjectDoneEvent)
            if done == after:
                return


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    model = Cubes()
    interrupted(model, tmp_path, after=2)
    assert model.made == [0, 2]
    seen: list[Event] = []
    scene = model.reconstruct_scene(example(), save_dir=tmp_path, on_event=seen.append)
    assert model.made == [0, 2, 4]
    resumed = [e.resumed for e in seen if isinstance(e, ObjectDoneEvent)]
    assert resumed == [True, True, False]
    fresh = Cubes().reconstruct_scene(example())
    for kept, made in zip(scene, fresh, strict=True):
        assert_same(kept, made)
    np.testing.assert_array_equal(scene.pointmap, fresh.pointmap)  # type: ignore[arg-type]
    complete = model.reconstruct_scene(example(), save_dir=tmp_path)
    assert model.made == [0, 2, 4]
    np.testing.assert_array_equal(complete.pointmap, fresh.pointmap)  # type: ignore[arg-type]
    model.reconstruct_scene(example(), save_dir=tmp_path, resume=False)
    assert model.made == [0, 2, 4, 0, 2, 4]


def test_what_decides_an_object_is_in_its_key(tmp_path: Path) -> None:
    room = example(1)
    points = np.full((H, W, 3), 2.0, np.float32)
    other = replace(room, image=255 - room.image)
    moved = replace(room, masks={0: disc(30)})
    near, far = points.copy(), points.copy()
    far[0, 0, 0] += 1
    calls: list[tuple[Example, dict[str, Any]]] = [
        (room, {}),
        (room, {"seed": 1}),
        (other, {}),
        (moved, {}),
        (room, {"pointmap": near}),
        (room, {"pointmap": far}),
        (room, {"intrinsics": np.diag([80.0, 80, 1])}),
        (room, {"size": 3}),
    ]
    model = Cubes()
    for number, (photo, settings) in enumerate(calls, start=1):
        for _ in range(2):  # the second time it is found
            model.reconstruct_scene(photo, save_dir=tmp_path, **settings)
        assert len(model.made) == number
    newer = Cubes()
    newer.version = "2"
    newer.reconstruct_scene(room, save_dir=tmp_path)
    assert len(newer.made) == 1


def test_names_and_indices_are_those_of_the_call(tmp_path: Path) -> None:
    room = example(1)
    Cubes().reconstruct_scene(room, save_dir=tmp_path)
    renamed = Cubes().reconstruct_scene(room.image, {9: room.masks[0]}, save_dir=tmp_path)
    assert (renamed[0].name, renamed[0].provenance.mask_index) == ("object 9", 9)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "other"])
def test_a_damaged_file_is_made_again_and_said_so(tmp_path: Path, damage: str) -> None:
    fresh = Cubes().reconstruct_scene(example(2), save_dir=tmp_path)
    paths = sorted(p for p in tmp_path.glob("*.npz") if len(np.load(p).files) > 3)
    content = paths[0].read_bytes()
    middle = len(content) // 2
    paths[0].write_bytes(
        {
            "cut": content[:middle],
            "flip": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
            "empty": b"",
            "text": b"hello",
            "other": paths[1].read_bytes(),
        }[damage]
    )
    model = Cubes()
    with pytest.warns(UserWarning, match=rf"{paths[0].name} is damaged .* made again"):
        scene = model.reconstruct_scene(example(2), save_dir=tmp_path)
    assert len(model.made) == 1
    for kept, made in zip(scene, fresh, strict=True):
        assert_same(kept, made)
    Cubes().reconstruct_scene(example(2), save_dir=tmp_path)  # mended: no warning


def test_kept_files_run_nothing(tmp_path: Path) -> None:
    """A pickled array in a kept file is refused, not loaded."""
    model = Cubes()
    model.reconstruct_scene(example(1), save_dir=tmp_path)
    path = next(p for p in tmp_path.glob("*.npz") if len(np.load(p).files) > 3)
    np.savez(path, notes=np.array([{"key": path.stem}], dtype=object))
    with pytest.warns(UserWarning, match="damaged"):
        model.reconstruct_scene(example(1), save_dir=tmp_path)


def test_textures_and_objects_without_gaussians_are_kept(tmp_path: Path) -> None:
    made = Silhouette().reconstruct(example(), 0)
    keep = Keep(tmp_path)
    keep.put_object("a", made)
    kept = keep.get_object("a")
    assert kept is not None
    assert_same(kept, made)
    assert kept.provenance == made.provenance
    assert keep.get_object("b") is None


def test_a_folder_that_cannot_be_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = Cubes()
    with pytest.raises(OutputError, match="cannot keep objects"):
        model.reconstruct_scene(example(), save_dir=tmp_path / "file" / "kept")
    assert not model.made


# --- The network ----------------------------------------------------------------------------


def test_point_map_and_photo_go_through_the_network_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects of a scene are those made alone, bit for bit, by fewer passes."""
    depths = 0
    estimate = Stages._estimate

    def counted(self: Stages, image: Any) -> Any:
        nonlocal depths
        depths += 1
        return estimate(self, image)

    monkeypatch.setattr(Stages, "_estimate", counted)
    model = Sam3dObjects(StandInStore())
    caches: list[SceneCache] = []
    make = model.shared
    monkeypatch.setattr(
        model, "shared", lambda: caches.append(make()["cache"]) or {"cache": caches[-1]}
    )
    room = example(2)
    scene = model.reconstruct_scene(room, steps=(1, 1), seed=3)
    assert depths == 1
    assert scene.pointmap is not None
    np.testing.assert_array_equal(scene.intrinsics, scene[0].intrinsics)  # type: ignore[arg-type]
    for thing in scene:
        alone = model.reconstruct(room, thing.provenance.mask_index, steps=(1, 1), seed=3)
        assert_same(thing, alone)
    assert depths == 3
    model.reconstruct_scene(room, [0], steps=(1, 1), seed=3)
    both, one = caches  # what the second object adds is its own crop of photo, mask and points
    assert both.computed < 2 * one.computed
    assert both.recalled > 2 * one.recalled
    assert len(scene.gaussians()) == sum(len(o.gaussians) for o in scene)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no option stepz; there are steps"):
        model.reconstruct_scene(room, stepz=3)
    with pytest.raises(InputError, match="steps are two whole numbers"):
        model.reconstruct_scene(room, steps=0)


# --- Files ----------------------------------------------------------------------------------


def nodes_of(path: Path) -> dict[str, dict[str, Any]]:
    document, _ = unpack_glb(path.read_bytes())
    return {node["name"]: node for node in document["nodes"]}


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Three cubes with gaussians, re-aligned, so that no pose is trivial."""
    return Cubes({6: ReconstructionError("too thin")}).reconstruct_scene(
        example(4), seed=5, realign="obb+"
    )


def test_scene_glb_has_a_named_node_an_object(scene: Scene, tmp_path: Path) -> None:
    path = scene.save(tmp_path / "scene.glb")
    assert_valid_glb(path)
    nodes = nodes_of(path)
    assert list(nodes) == ["thing", "thing_2", "thing_3", "camera"]
    for thing, pose, node in zip(scene, scene.poses, nodes.values(), strict=False):
        w, x, y, z = pose.rotation
        assert node["rotation"] == pytest.approx([x, y, z, w])
        assert node["translation"] == pytest.approx(pose.translation)
        assert node["scale"] == pytest.approx(pose.scale)
        assert node["extras"]["provenance"]["mask_index"] == thing.provenance.mask_index
        assert node["extras"]["provenance"]["image_sha256"] == thing.provenance.image_sha256
    document, _ = unpack_glb(path.read_bytes())
    about = document["scenes"][0]["extras"]
    assert about["realign"] == "obb+"
    assert about["failures"][0]["reason"] == "too thin"
    assert Pose(*(tuple(about["world"][k]) for k in ("rotation", "translation", "scale"))) == (
        scene.world
    )
    with pytest.raises(OutputError, match="exists"):
        scene.save(path)
    scene.save(path, overwrite=True)


def test_other_programs_place_the_meshes_as_meshes_does(scene: Scene, tmp_path: Path) -> None:
    loaded = trimesh.load_scene(scene.save(tmp_path / "scene.glb"), process=False)
    for name, expected in zip(("thing", "thing_2", "thing_3"), scene.meshes(), strict=True):
        transform, geometry = loaded.graph[name]
        vertices = loaded.geometry[geometry].apply_transform(transform).vertices
        np.testing.assert_allclose(vertices, expected.vertices, atol=1e-5)


def test_the_camera_in_the_file_sees_what_the_photo_does(scene: Scene, tmp_path: Path) -> None:
    """A point of the world through the file's camera, by hand, and through pose and intrinsics."""
    path = replace(scene, intrinsics=np.array([[90.0, 0, W / 2], [0, 90, H / 2], [0, 0, 1]])).save(
        tmp_path / "scene.glb"
    )
    document, _ = unpack_glb(path.read_bytes())
    lens = document["cameras"][0]["perspective"]
    node = nodes_of(path)["camera"]
    x, y, z, w = node["rotation"]
    camera = Pose((w, x, y, z), tuple(node["translation"]))
    points = scene.meshes()[0].vertices.astype(float)
    seen = camera.inverse_apply(points)  # x right, y up, looking along -z
    upward = np.tan(lens["yfov"] / 2)
    u = (seen[:, 0] / -seen[:, 2] / (upward * lens["aspectRatio"]) + 1) * W / 2
    v = (1 - seen[:, 1] / -seen[:, 2] / upward) * H / 2
    in_camera = scene.world.inverse().apply(points)
    expected = project(in_camera, np.array([[90.0, 0, W / 2], [0, 90, H / 2], [0, 0, 1]]))
    np.testing.assert_allclose(np.stack([u, v], 1), expected, atol=1e-4)


def test_a_pose_places_mesh_and_splats_at_one_spot(scene: Scene, tmp_path: Path) -> None:
    """The cubes have a gaussian on each corner: through both files they are still there."""
    for method in ("none", "obb+"):
        placed = scene.realigned(method)
        glb = placed.save(tmp_path / f"{method}.glb")
        splats = load_splats(placed.save_splats(tmp_path / f"{method}.ply"))
        loaded = trimesh.load_scene(glb, process=False).to_geometry()
        corners = np.unique(np.round(loaded.vertices, 4), axis=0)
        centers = np.unique(np.round(splats.centers, 4), axis=0)
        assert len(corners) == len(centers) == 24
        distance = np.linalg.norm(corners[:, None] - centers[None], axis=2)
        assert distance.min(0).max() < 2e-4
        assert distance.min(1).max() < 2e-4
    thing = scene[0]  # one object: GLB and PLY in the object frame, one pose for both
    thing.save(tmp_path / "thing.glb")
    thing.save_splats(tmp_path / "thing.ply")
    read = load_object(tmp_path / "thing.glb")
    spots = read.pose.apply(load_splats(tmp_path / "thing.ply").centers)
    np.testing.assert_allclose(spots, read.mesh_in_camera().vertices, atol=1e-5)


def test_merged_gaussians_have_the_covariances_of_the_world(scene: Scene) -> None:
    """R S^2 R^T of a placed gaussian is M (R S^2 R^T) M^T for the pose's linear part M."""
    from scipy.spatial.transform import Rotation

    def covariance(g: Gaussians) -> np.ndarray:
        axes = Rotation.from_quat(g.rotations, scalar_first=True).as_matrix() * g.scales[:, None]
        return axes @ axes.transpose(0, 2, 1)

    merged = covariance(scene.gaussians())
    expected = []
    for thing, pose in zip(scene, scene.poses, strict=True):
        assert thing.gaussians is not None
        linear = pose.matrix()[:3, :3]
        expected.append(linear @ covariance(thing.gaussians) @ linear.T)
    np.testing.assert_allclose(merged, np.concatenate(expected), atol=1e-6)


def test_one_mesh_of_all_in_other_formats(scene: Scene, tmp_path: Path) -> None:
    count = sum(len(thing.mesh.faces) for thing in scene)
    bounds = np.array([scene.gaussians().centers.min(0), scene.gaussians().centers.max(0)])
    for kind in ("obj", "ply", "stl"):
        read = trimesh.load_mesh(scene.save(tmp_path / f"scene.{kind}"))
        assert len(read.faces) == count
        np.testing.assert_allclose(read.bounds, bounds, atol=1e-4)
    colors = trimesh.load_mesh(tmp_path / "scene.ply").visual.vertex_colors
    assert len(np.unique(colors, axis=0)) > 8
    with pytest.raises(InputError, match="no format"):
        scene.save(tmp_path / "scene.fbx")


def test_scenes_without_meshes_or_gaussians_say_so(scene: Scene, tmp_path: Path) -> None:
    plain = Scene(tuple(replace(thing, gaussians=None) for thing in scene))
    with pytest.raises(InputError, match="none of the 3 objects has gaussians"):
        plain.save_splats(tmp_path / "scene.ply")
    none = Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
    bare = Scene(tuple(replace(thing, mesh=none) for thing in scene))
    with pytest.raises(InputError, match="none of the 3 objects has triangles"):
        bare.save(tmp_path / "scene.glb")
    assert len(bare.table()) == 3
    with pytest.raises(InputError, match="3 objects need as many poses"):
        Scene(scene.objects, poses=scene.poses[:1])


def test_mixed_scene_keeps_what_it_has(scene: Scene, tmp_path: Path) -> None:
    """One textured, one colored, one grey, one of gaussians alone."""
    none = Mesh(np.zeros((0, 3)), np.zeros((0, 3)))
    grey = replace(scene[1], mesh=Mesh(scene[1].mesh.vertices, scene[1].mesh.faces), gaussians=None)
    textured = Silhouette().reconstruct(example(), 0)
    mixed = Scene((scene[0], grey, textured, replace(scene[2], mesh=none)))
    path = mixed.save(tmp_path / "scene.glb")
    assert_valid_glb(path)
    assert len(nodes_of(path)) == 3  # the last has no triangles; no camera is known
    assert trimesh.load_mesh(mixed.save(tmp_path / "scene.ply")).visual.kind == "vertex"
    assert len(mixed.gaussians()) == 16


def test_unique_names() -> None:
    assert unique_names(["a", "b", "a", "a_2", "a"]) == ["a", "b", "a_2", "a_2_2", "a_3"]
    assert unique_names(["camera"], ["camera"]) == ["camera_2"]


# --- Meshes for other programs ---------------------------------------------------------------

FAILED = Failure("lamp", 7, "ReconstructionError", "too thin")


def test_a_finished_scene_stands_where_it_stood(scene: Scene) -> None:
    events: list[Event] = []
    done = scene.realigned("obb+").finished(triangles=8, texture=64, on_event=events.append)
    assert done.poses == scene.realigned("obb+").poses
    assert done.world == scene.realigned("obb+").world
    for made, given in zip(done, scene, strict=True):
        assert len(made.mesh.faces) <= 8 < len(given.mesh.faces)
        assert made.mesh.texture is not None
        assert made.gaussians is given.gaussians
    assert [event.fraction for event in events] == [0, 1 / 3, 2 / 3, 1]
    assert [event.label for event in events[:3]] == [f"finishing {made.name}" for made in scene]
    assert scene.finished() is scene
    with pytest.raises(InputError, match="from 4 up, not to 0"):
        scene.finished(triangles=0)


def test_an_object_that_cannot_be_finished_joins_the_failures(scene: Scene) -> None:
    grey = replace(scene[1], mesh=Mesh(scene[1].mesh.vertices, scene[1].mesh.faces), gaussians=None)
    mixed = replace(scene, objects=(scene[0], grey, scene[2]), failures=(FAILED,))
    done = mixed.finished(texture=64)
    assert [made.name for made in done] == [scene[0].name, scene[2].name]
    assert done.poses == (scene.poses[0], scene.poses[2])
    assert done.failures[0] is FAILED
    (failure,) = done.failures[1:]
    assert (failure.name, failure.kind) == (grey.name, "InputError")
    assert failure.mask_index == grey.provenance.mask_index
    assert "neither vertex colors nor a texture" in failure.reason
    with pytest.raises(
        InputError, match=r"none of the 2 objects could be finished; .* nothing to bake"
    ):
        Scene((grey, grey), failures=(FAILED,)).finished(texture=64)
    assert len(Scene((), failures=(FAILED,)).finished(texture=64)) == 0


# --- Looking at it --------------------------------------------------------------------------


def test_a_scene_can_be_shown(scene: Scene) -> None:
    seen = s3.show(scene, size=120)
    assert seen.still.shape == (120, 120, 3)
    assert "scene of 3 objects" in seen.text
    assert (seen.still != seen.still[0, 0]).any(-1).sum() > 200
    meshes = [thing.mesh_in_camera() for thing in scene]
    pair = s3.show(scene.realigned("none"), meshes, size=120)
    left, right = np.split(pair.still.astype(int), 2, axis=1)
    assert np.abs(left - right).mean() < 2, "an unaligned scene is not what the camera saw"
    assert s3.render(scene, size=64).shape == (64, 64, 3)


def test_a_scene_is_shown_from_where_the_photo_was_taken() -> None:
    """Azimuth 0, elevation 0 looks along the camera's axis, in every world."""
    ball = Object3D(
        mesh(icosphere(2)), Pose((1, 0, 0, 0), (0, 0.5, 4), 0.5), Provenance("test", "1", "0", "")
    )
    far = replace(ball, pose=Pose((1, 0, 0, 0), (0, 0.5, 8), 1.0))
    pictures = [
        s3.show(Scene((ball, far)).realigned(m), size=100, azimuth=0, elevation=0).still
        for m in ("none", "pca")
    ]
    for picture in pictures:
        rows, columns = np.nonzero((picture != picture[0, 0]).any(-1))
        assert abs(columns.mean() - 49.5) < 1.5
        assert abs(rows.mean() - 49.5) < 6


# --- Command line ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The discs as an example folder."""
    room = example()
    place = tmp_path / "discs"
    place.mkdir()
    Image.fromarray(room.image).save(place / "image.png")
    for index, mask in room.masks.items():
        Image.fromarray((mask * 255).astype(np.uint8)).save(place / f"{index}.png")
    (place / "example.json").write_text(json.dumps(room.info))
    return place


@pytest.fixture
def cubes(monkeypatch: pytest.MonkeyPatch) -> Cubes:
    model = Cubes()
    monkeypatch.setattr("sam3d_nb.zoo.load_model", lambda *names: model)
    return model


def arguments(folder: Path, *more: str) -> list[str]:
    output = folder.parent / "output"
    place = [f"--image_path={folder / 'image.png'}", f"--output_dir={output}"]
    return ["inference", *place, "--mask_index=-1", *more]


def test_scene_on_the_command_line(
    folder: Path, cubes: Cubes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(folder, "--realign=obb+", "--output_format=glb,stl")) == 0
    (made,) = (folder.parent / "output").iterdir()
    assert made.name.endswith("_discs_scene")
    files = sorted(path.name for path in made.iterdir())
    assert files == ["scene.glb", "scene.stl", "scene_gaussians.ply"]
    assert_valid_glb(made / "scene.glb")
    document, _ = unpack_glb((made / "scene.glb").read_bytes())
    assert document["scenes"][0]["extras"]["realign"] == "obb+"
    printed = capsys.readouterr().out
    assert str(made / "scene.glb") in printed


def test_objects_and_pictures_on_request(folder: Path, cubes: Cubes) -> None:
    more = ["--save_all_objects", "--export-images", "--overwrite"]
    assert cli.main(arguments(folder, *more)) == 0
    made = folder.parent / "output" / "discs_scene"
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*.*"))
    objects = [f"objects/{i}_thing{end}" for i in (0, 2, 4) for end in (".glb", "_gaussians.ply")]
    assert names == sorted(
        [*objects, "photo.png", "preview.png", "scene.glb", "scene_gaussians.ply"]
    )
    assert load_object(made / "objects" / "4_thing.glb").provenance.mask_index == 4
    preview = np.asarray(Image.open(made / "preview.png"))
    assert preview.shape[1] == 4 * 412 + 12
    left = (preview.shape[1] - 2 * (W + 12) - legend_width(example().names)) // 2
    np.testing.assert_array_equal(preview[12 : 12 + H, left : left + W], example().image)
    assert cli.main(arguments(folder, *more)) == 0  # replaces all of them


def test_finished_meshes_on_request(
    folder: Path,
    cubes: Cubes,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = ["--texture=64", "--save_all_objects", "--overwrite"]
    made = folder.parent / "output" / "discs_scene"

    def refuse(wish: Finishing, thing: Object3D, *_: object) -> Object3D:
        if thing.provenance.mask_index == 2:
            raise ReconstructionError("too tangled; ask for more")
        return finish(thing, texture=wish.texture)

    with monkeypatch.context() as patched:
        patched.setattr(Finishing, "apply", refuse)
        assert cli.main(arguments(folder, *more)) == ReconstructionError.exit_code
    assert "thing (mask 2) failed: too tangled; ask for more" in capsys.readouterr().err
    assert list(nodes_of(made / "scene.glb")) == ["thing", "thing_2", "camera"]
    assert cli.main(arguments(folder, *more)) == 0
    assert cubes.made == [0, 2, 4], "what is finished anew is not made anew"
    assert "3 of 3 objects were made by an earlier run" in capsys.readouterr().err
    assert_valid_glb(made / "scene.glb")
    document, _ = unpack_glb((made / "scene.glb").read_bytes())
    assert len(document["textures"]) == 3
    assert load_object(made / "objects" / "4_thing.glb").mesh.texture.shape == (64, 64, 3)


def test_exit_code_of_a_scene_in_which_an_object_failed(
    folder: Path, cubes: Cubes, capsys: pytest.CaptureFixture[str]
) -> None:
    cubes.wrong = {2: ReconstructionError("too thin; try another seed")}
    assert cli.main(arguments(folder)) == ReconstructionError.exit_code
    captured = capsys.readouterr()
    assert "thing (mask 2) failed: too thin; try another seed" in captured.err
    output = folder.parent / "output"
    (made,) = (path for path in output.iterdir() if path.name != UNFINISHED)
    assert "scene.glb" in captured.out
    assert list(nodes_of(made / "scene.glb")) == ["thing", "thing_2", "camera"]
    cubes.wrong, cubes.made = {}, []
    assert cli.main(arguments(folder)) == 0
    assert cubes.made == [2], "finished objects were made again"
    assert "2 of 3 objects were made by an earlier run" in capsys.readouterr().err
    assert not (output / UNFINISHED).exists()


def test_a_damaged_mask_costs_its_own_object_only(
    folder: Path, cubes: Cubes, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "2.png").write_bytes(b"no picture")
    Image.new("L", (5, 5), 255).save(folder / "4.png")
    assert cli.main(arguments(folder, "--export_images")) == ReconstructionError.exit_code
    captured = capsys.readouterr()
    assert "(mask 2) failed" in captured.err
    assert "(mask 4) failed" in captured.err
    assert "preview.png" in captured.out
    assert cubes.made == [0]


def test_an_interrupted_scene_goes_on(
    folder: Path, cubes: Cubes, capsys: pytest.CaptureFixture[str]
) -> None:
    cubes.wrong = {4: KeyboardInterrupt()}
    assert cli.main(arguments(folder)) == cli.INTERRUPTED_EXIT_CODE
    error = capsys.readouterr().err
    assert "interrupted; 2 of 3 objects are kept" in error
    output = folder.parent / "output"
    assert [path.name for path in output.iterdir()] == [UNFINISHED], "an empty result is left"
    cubes.wrong = {}
    assert cli.main(arguments(folder)) == 0
    assert cubes.made == [0, 2, 4]


def test_a_scene_that_is_interrupted_while_it_is_saved_leaves_no_empty_folder(
    folder: Path, cubes: Cubes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Scene, "save", stop)
        assert cli.main(arguments(folder)) == cli.INTERRUPTED_EXIT_CODE
    output = folder.parent / "output"
    assert [path.name for path in output.iterdir()] == [UNFINISHED]
    assert cli.main(arguments(folder)) == 0
    assert cubes.made == [0, 2, 4], "nothing is made again"
    assert [path.name.endswith("_discs_scene") for path in output.iterdir()] == [True]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--realign=up"], "no re-alignment 'up'"),
        (["--output_format=fbx"], "no format 'fbx'"),
        (["--mask_index=-3"], "mask index -3"),
        (["--mask_index=0", "--realign=obb"], "need --mask_index=-1"),
        (["--mask_index=0", "--realign=up"], "no re-alignment 'up'"),
    ],
)
def test_wrong_flags_get_a_sentence(
    folder: Path, cubes: Cubes, capsys: pytest.CaptureFixture[str], more: list[str], sentence: str
) -> None:
    assert cli.main(arguments(folder, *more)) == InputError.exit_code
    assert sentence in capsys.readouterr().err
    assert not cubes.made
    assert not (folder.parent / "output").exists()
