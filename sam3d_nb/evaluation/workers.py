"""Several objects at once: processes that each hold the model and take one object after another."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from typing import Any

from sam3d_nb.errors import OutOfMemoryError
from sam3d_nb.evaluate import OnProgress, count_objects, measure_row
from sam3d_nb.examples import Example, load_example
from sam3d_nb.pipeline import Model

_model: Model | None = None  # of this process


def evaluate_rows(
    paths: Sequence[str],
    load: Callable[[], Model],
    seed: int,
    jobs: int,
    on_progress: OnProgress | None = None,
    *,
    use_pointmaps: bool = True,
) -> list[dict[str, Any]]:
    """Return a row for every masked object of the examples at `paths`, in their order.

    load: makes the model; it is called once in each of `jobs` processes. Raises InputError where
    there is no object, OutOfMemoryError where a process was killed.
    """
    total = count_objects(paths)
    work = [(path, index) for path in paths for index in load_example(path).masks]
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")  # threads and CUDA do not survive a fork
    pool = ProcessPoolExecutor(min(jobs, total), context, _start, (load, threads))
    try:
        futures = {
            pool.submit(_work, path, index, seed, use_pointmaps): path for path, index in work
        }
        _wait(futures, total, on_progress)
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise OutOfMemoryError(
            f"one of {jobs} processes was killed, most likely because memory ran out; give fewer "
            "jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _wait(futures: dict[Future, str], total: int, on_progress: OnProgress | None) -> None:
    for done, future in enumerate(as_completed(futures), start=1):
        row = future.result()
        if on_progress is not None:
            on_progress(done, total, f"{row['example']}/{row['index']}")


def _start(load: Callable[[], Model], threads: int) -> None:
    import torch

    global _model
    torch.set_num_threads(threads)
    _model = load()


def _work(path: str, index: int, seed: int, use_pointmap: bool) -> dict[str, Any]:
    assert _model is not None
    return measure_row(_example(path), index, _model, seed, use_pointmap=use_pointmap)


@lru_cache(1)
def _example(path: str) -> Example:
    return load_example(path)
