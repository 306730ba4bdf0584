"""Batches on a Ray cluster: the same files, workers that die, objects in flight, stopping.

The cluster is a local one of two CPUs, and of two GPUs that exist in its books only.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from batch_models import (
    Deadly,
    Slow,
    Toy,
    loads,
    raise_weights_error,
    write_photo,
)
from test_batch import SLOW, files, records

import sam3d_nb as s3
from sam3d_nb.batch.cluster import IN_FLIGHT, RayEngine, _Slot
from sam3d_nb.batch.engine import Job
from sam3d_nb.batch.settings import Identity, Settings
from sam3d_nb.errors import InputError, WeightsError
from sam3d_nb.work.items import list_work
from sam3d_nb.work.stop import CleanStop

ray = pytest.importorskip("ray", reason="Ray is not installed; it is in the extra cluster")
ON_CPU: dict[str, Any] = {"engine": "ray", "device": "cpu", "workers": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster that the tests share: it takes seconds to start."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # workers import the models from there
    context = ray.init(
        address="local",
        num_cpus=2,
        num_gpus=2,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    write_photo(root / "a lamp", masks=4)
    write_photo(root / "box", masks=4, shade=120)
    return root


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def test_the_same_files_also_when_workers_are_killed(
    cluster: str, photos: Path, output: Path, tmp_path: Path
) -> None:
    killed: list[str] = []

    def kill_both(done: int, total: int, name: str) -> None:
        worker = records(output)[-1]["worker"]
        if len(killed) < 2 and worker not in killed:
            killed.append(worker)
            os.kill(int(worker.split(":")[1]), signal.SIGKILL)

    batch = s3.reconstruct_batch(photos, output, Slow, **ON_CPU, on_progress=kill_both)
    assert batch.count("done") == 8
    again = list(batch.table()["attempts"])
    assert set(again) <= {1, 2}, "one try is charged at most"
    assert again.count(2) <= 2, "only to what a worker had alone"
    assert set(batch.table()["worker"]) - set(killed), "others in place of the dead ones"
    assert len(killed) == 2
    s3.reconstruct_batch(photos, tmp_path / "local", "silhouette")
    assert files(output) == files(tmp_path / "local")
    again = s3.reconstruct_batch(photos, output, "silhouette")
    assert again.count("skipped") == 8, "keys are the same too"


def test_each_kind_of_failure_has_its_own_tries(
    cluster: str, photos: Path, output: Path, tmp_path: Path
) -> None:
    """Mask 1 kills its worker, 2 needs memory once, 3 is no picture; the next in line is spared."""
    (photos / "box" / "3.png").write_bytes(b"no picture")
    one = ON_CPU | {"workers": 1, "retries": 1}
    batch = s3.reconstruct_batch(photos / "box", output, loads(Deadly, tmp_path), **one)
    assert list(batch.table()["status"]) == ["done", "failed", "done", "failed"]
    assert list(batch.table()["attempts"]) == [1, 2, 2, 1]
    assert [record["error"] for record in batch.objects] == ["", "WorkerDied", "", "InputError"]
    assert batch.failures()["1_box"].startswith("its worker died: ")
    assert str(photos / "box" / "3.png") in batch.failures()["3_box"], "not of the worker's copy"


def test_one_model_a_gpu_and_jobs_only_when_it_has_room(cluster: str, photos: Path) -> None:
    taken = []

    def jobs() -> Iterator[Job]:
        for item in list_work(photos):
            taken.append(item)
            yield Job(item, "", f"{item.image}_{item.mask}")

    wait_for(lambda: ray.available_resources().get("GPU", 0) == 2)
    with CleanStop() as stop, RayEngine(Toy, Settings(), 0, stop) as engine:
        assert engine.workers == 2
        wait_for(lambda: ray.available_resources().get("GPU", 0) == 0)
        for number, outcome in enumerate(engine.run(jobs()), start=1):
            assert not outcome.made.error
            assert len(taken) <= number + IN_FLIGHT * engine.workers
    assert len(taken) == 8
    wait_for(lambda: ray.available_resources().get("GPU", 0) == 2)
    too_many = RayEngine(Toy, Settings(), 0, stop, workers=3)
    with pytest.raises(InputError, match="3 workers need a GPU each, but the Ray cluster has 2"):
        too_many.__enter__()


def test_what_workers_raise_comes_as_it_is(cluster: str, photos: Path, output: Path) -> None:
    with pytest.raises(WeightsError, match="the toy has no weights"):
        s3.reconstruct_batch(photos, output, raise_weights_error, **ON_CPU | {"workers": 1})
    assert not files(output)


def test_workers_that_would_make_other_objects_are_refused() -> None:
    """Of two workers that give other answers; the same version on another GPU is the same."""
    engine = RayEngine(Toy, Settings(), 0, CleanStop())
    engine._ray = SimpleNamespace(get=lambda answer: answer, exceptions=ray.exceptions)
    for number, (version, device) in enumerate([("1", "cuda (A)"), ("1", "cuda (B)")]):
        model = Identity("toy", version, {"device": device}, device)
        engine._welcome(_Slot(None, (model, f"host:{number}")))
    other = Identity("toy", "2", {"device": "cuda (A)"}, "cuda (A)")
    with pytest.raises(InputError, match=r"host:2 would make other objects.*'version': '2'"):
        engine._welcome(_Slot(None, (other, "host:2")))


def test_a_signal_ends_the_command_and_the_next_goes_on(
    cluster: str, photos: Path, output: Path, tmp_path: Path
) -> None:
    here = str(Path(__file__).parent)
    given = [f"--ray_address={cluster}", "--engine=ray", "--device=cpu", "--workers=1"]
    command = [sys.executable, "-c", SLOW, here, str(photos), str(output), *given]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: (output.exists() and records(output)) or process.poll())
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    done = len(records(output))
    assert f"interrupted; {done} of 8 objects are done" in said
    assert all(name.endswith(".glb") for name in files(output))
    batch = s3.reconstruct_batch(photos, output, "silhouette")
    assert (batch.count("skipped"), batch.count("done")) == (done, 8 - done)
    s3.reconstruct_batch(photos, tmp_path / "at once", "silhouette")
    assert files(output) == files(tmp_path / "at once")


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
