"""Objects of a scene that are written while the next one is made: slow disks, full disks, ends."""

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_scene import Cubes, assert_same, example

from sam3d_nb.errors import OutputError, WeightsError
from sam3d_nb.events import Event, MeshEvent, ObjectDoneEvent, ObjectEvent, SceneEvent
from sam3d_nb.object3d import Object3D
from sam3d_nb.scene.behind import Behind
from sam3d_nb.scene.keep import Keep
from sam3d_nb.scene.reconstruct import stream_scene
from sam3d_nb.silhouette import Silhouette


class Disk:
    """Stands between `Keep` and its folder.

    slow: writes wait for `go`. full_from: the number of the first write that fails, if one does.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, slow: bool = False, full_from: int | None = None
    ) -> None:
        self.slow = slow
        self.full_from = full_from
        self.go = threading.Event()
        self.begun = threading.Event()
        self.count = 0
        self.written: list[str] = []
        self._busy = threading.Lock()
        put = Keep.put_object

        def put_object(keep: Keep, key: str, made: Object3D) -> None:
            assert self._busy.acquire(blocking=False), "two writes at once"
            try:
                self.begun.set()
                self.count += 1
                if self.slow:
                    self.go.wait(5)
                if self.full_from is not None and self.count >= self.full_from:
                    raise OutputError("cannot write: No space left on device")
                put(keep, key, made)
                self.written.append(made.name)
            finally:
                self._busy.release()

        monkeypatch.setattr(Keep, "put_object", put_object)


def kept(folder: Path) -> int:
    """The number of objects in a folder."""
    return sum(len(np.load(path).files) > 3 for path in folder.glob("*.npz"))


def resumed(folder: Path) -> list[bool]:
    """Which objects a run with the same arguments finds there."""
    seen: list[Event] = []
    Cubes().reconstruct_scene(example(), save_dir=folder, on_event=seen.append)
    return [event.resumed for event in seen if isinstance(event, ObjectDoneEvent)]


def test_the_next_object_is_made_while_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, slow=True)
    seen: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, ObjectEvent) and event.number == 2 and event.inner.fraction == 1:
            assert disk.begun.wait(5)
            assert not disk.written
            seen.append("made meanwhile")
            if isinstance(event.inner, MeshEvent):
                disk.go.set()

    scene = Cubes().reconstruct_scene(example(), save_dir=tmp_path, on_event=watch)
    assert seen == ["made meanwhile"] * 2
    assert (len(disk.written), kept(tmp_path)) == (3, 3)
    for made, alone in zip(scene, Cubes().reconstruct_scene(example()), strict=True):
        assert_same(made, alone)
    assert resumed(tmp_path) == [True] * 3


@pytest.mark.parametrize("full_from", [1, 3])
def test_a_full_disk_ends_the_scene_at_the_next_object(
    full_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, full_from=full_from)
    model = Cubes()
    begun: list[int] = []

    def watch(event: Event) -> None:
        if type(event) is SceneEvent:
            begun.append(event.number)

    with pytest.raises(OutputError, match="No space left"):
        model.reconstruct_scene(example(), save_dir=tmp_path, on_event=watch)
    assert begun[-1] == min(full_from + 1, 3)
    assert kept(tmp_path) == full_from - 1
    disk.full_from = None
    assert resumed(tmp_path) == [True] * (full_from - 1) + [False] * (4 - full_from)


def test_closing_early_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, slow=True)
    with closing(stream_scene(Cubes(), example(), save_dir=tmp_path)) as events:
        for event in events:
            if isinstance(event, ObjectDoneEvent):
                threading.Timer(0.2, disk.go.set).start()
                break
    assert kept(tmp_path) == 1
    assert resumed(tmp_path) == [True, False, False]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, WeightsError])
def test_an_end_by_an_error_keeps_all_that_was_done(
    kind: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, slow=True)
    threading.Timer(0.2, disk.go.set).start()
    with pytest.raises(kind, match="stop"):
        Cubes({4: kind("stop")}).reconstruct_scene(example(), save_dir=tmp_path)
    assert kept(tmp_path) == 2
    assert resumed(tmp_path) == [True, True, False]


def test_what_stops_a_scene_is_raised_and_what_is_not_kept_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, slow=True, full_from=1)

    def stop(event: Event) -> None:
        if isinstance(event, ObjectDoneEvent):
            threading.Timer(0.2, disk.go.set).start()
            raise KeyboardInterrupt("enough")

    with (
        pytest.warns(UserWarning, match=r"latest object is not kept: .* No space left"),
        pytest.raises(KeyboardInterrupt, match="enough"),
    ):
        Cubes().reconstruct_scene(example(), save_dir=tmp_path, on_event=stop)
    assert kept(tmp_path) == 0


def test_a_listener_may_change_an_object_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Disk(monkeypatch, slow=True).go.set()

    def spoil(event: Event) -> None:
        if isinstance(event, ObjectDoneEvent) and event.result is not None:
            event.result.mesh.vertices[:] = 7
            event.result.intrinsics[:] = 7  # type: ignore[index]
            event.result.provenance.settings["spoilt"] = True
            event.result.provenance.timings.clear()

    Cubes().reconstruct_scene(example(), save_dir=tmp_path, on_event=spoil)
    found = Cubes().reconstruct_scene(example(), save_dir=tmp_path)
    for resumed_one, alone in zip(found, Cubes().reconstruct_scene(example()), strict=True):
        assert_same(resumed_one, alone)
        assert "spoilt" not in resumed_one.provenance.settings
        assert resumed_one.provenance.timings.keys() == alone.provenance.timings.keys()


def test_the_same_mask_twice_is_found_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, slow=True)
    room, model = example(1), Cubes()
    threading.Timer(0.2, disk.go.set).start()
    first, second = model.reconstruct_scene(
        room.image, [room.masks[0], room.masks[0]], save_dir=tmp_path
    )
    assert len(model.made) == 1
    np.testing.assert_array_equal(first.mesh.vertices, second.mesh.vertices)


def test_other_errors_while_writing_say_that_the_object_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Keep, "put_object", failing)
    made = Silhouette().reconstruct(example(), 0)
    with pytest.raises(OutputError, match=r"cannot be kept in .*: MemoryError"):  # noqa: SIM117
        with Behind(Keep(tmp_path)) as behind:
            behind.put_object("a", made)


def test_a_disk_that_fills_up_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """The limit is the system's, so all of the writing is real."""
    resource = pytest.importorskip("resource")
    import signal

    made = Silhouette().reconstruct(example(), 0)
    keep = Keep(tmp_path)
    keep.put_object("a", made)
    size = next(tmp_path.iterdir()).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write b\.npz .* File too large"):
            keep.put_object("b", made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    kept_one = keep.get_object("a")
    assert kept_one is not None
    assert_same(kept_one, made)
