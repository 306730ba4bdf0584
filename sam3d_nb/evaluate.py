"""How good a model is: its objects against ground truth, shape and layout told apart.

Both surfaces are normalized by the true object's box (longest side 1) and compared twice: as the
predicted pose places them, and after the best rigid alignment with scale, which leaves the error
of the shape alone; that alignment's own rotation, shift and scale are the error of the layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from sam3d_nb.errors import InputError, Sam3dError
from sam3d_nb.evaluation.align import align
from sam3d_nb.evaluation.categories import category
from sam3d_nb.evaluation.color import color_psnr, grey, point_colors, surface_color_psnr
from sam3d_nb.evaluation.layout import layout_error
from sam3d_nb.evaluation.outline import silhouette_iou
from sam3d_nb.evaluation.report import COLUMNS, METRICS, Report
from sam3d_nb.evaluation.surface import compare_surfaces, sample_places, surface_points
from sam3d_nb.evaluation.volume import volume_iou
from sam3d_nb.examples import Example, list_examples, load_example
from sam3d_nb.machine import hardware, versions
from sam3d_nb.mesh import Mesh
from sam3d_nb.object3d import Object3D
from sam3d_nb.pipeline import Model
from sam3d_nb.request import make_request, mask_index_of
from sam3d_nb.zoo import load_model

POINTS = 10_000
OnProgress = Callable[[int, int, str], None]


def evaluate_folder(
    examples_dir: str | Path | None,
    model_name: str | None = None,
    on_progress: OnProgress | None = None,
    *,
    device: str = "auto",
    memory: str = "auto",
    seed: int = 0,
    jobs: int = 1,
    use_pointmaps: bool = True,
) -> Report:
    """Measure a model on every masked object of a folder of examples.

    examples_dir: holds example folders, or is one itself, or the name of one that comes with the
    package; None means all of those.
    model_name, device, memory: as `load_model` takes them. on_progress: called with the number of
    objects done, their total and the name of what comes next. jobs: how many objects are worked
    on at once, each by a process of its own with the model in it; only the seconds depend on it.
    use_pointmaps: see `evaluate`.

    Raises InputError where there is no example or none has a mask, OutOfMemoryError where a process
    was killed. An object that fails has its reason in the report and is in no mean.
    """
    folder = None if examples_dir is None else Path(examples_dir).expanduser()
    paths = list_examples(folder) if folder is None or folder.is_dir() else []
    if not paths and examples_dir is not None:
        paths = [str(examples_dir)]  # an example itself, or `load_example` says what is missing
    if jobs < 1:
        raise InputError(f"{jobs} jobs cannot work; give 1 or more")
    model = load_model(model_name, device, memory)
    if jobs == 1:
        return evaluate(
            paths, model, seed=seed, on_progress=on_progress, use_pointmaps=use_pointmaps
        )
    from sam3d_nb.evaluation.workers import evaluate_rows  # which imports this module

    loader = partial(load_model, model_name, device, memory)
    rows = evaluate_rows(paths, loader, seed, jobs, on_progress, use_pointmaps=use_pointmaps)
    return _report(rows, model, seed, jobs, use_pointmaps=use_pointmaps)


def evaluate(
    examples: Iterable[Example | str | Path],
    model: Model,
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    use_pointmaps: bool = True,
) -> Report:
    """Measure `model` on every masked object of `examples`, given or by path or name.

    use_pointmaps: false lets the model estimate depth and camera where the example has them; the
    object's place and size are then a guess, and only what is measured aligned says something.
    Where there is no ground truth only the silhouette IoU is measured. Raises InputError where
    there is no object at all.
    """
    chosen = list(examples)
    total = count_objects(chosen)
    rows: list[dict[str, Any]] = []
    for given in chosen:
        example = _loaded(given)
        for index in example.masks:
            if on_progress is not None:
                on_progress(len(rows), total, f"{example.name}/{index}")
            rows.append(measure_row(example, index, model, seed, use_pointmap=use_pointmaps))
    if on_progress is not None:
        on_progress(total, total, "done")
    return _report(rows, model, seed, use_pointmaps=use_pointmaps)


def count_objects(examples: Sequence[Example | str | Path]) -> int:
    """Return how many masks `examples` have; raises InputError where there is none."""
    total = sum(len(_loaded(example).masks) for example in examples)
    if total == 0:
        raise InputError(
            f"there is nothing to evaluate: {len(examples)} examples and no mask; an example is a "
            "folder with image.png and masks 0.png, 1.png ..."
        )
    return total


def compare(result: Object3D, example: Example, index: int | None = None) -> pd.Series:
    """Return every metric of one reconstructed object, NaN where there is no ground truth.

    index: which mask of `example` it was made from; by default what the object remembers.
    """
    index = mask_index_of(result, example) if index is None else index
    if index is None:
        raise InputError("this object does not know its mask: give its index in the example")
    found = measure(result, example, index)
    return pd.Series({METRICS[name]: value for name, value in found.items()}, name=result.name)


def measure(result: Object3D, example: Example, index: int, seed: int = 0) -> dict[str, float]:
    """Return the metrics of an object made from mask `index` of `example`, by column name.

    The camera is the one that the object's pose belongs to, else the one that a model is given.
    Raises InputError where a mesh has no surface.
    """
    mask = example.mask(index)
    intrinsics = result.intrinsics
    if intrinsics is None:
        request = make_request(example.image, mask, example.pointmap, example.intrinsics, seed)
        intrinsics = request.intrinsics
    predicted, true = result.mesh_in_camera(), example.true_mesh(index)
    found = {} if true is None else measure_shape(predicted, true, seed)
    # A damaged one of these is told where its own object is measured.
    others = (mask for other, mask in example.readable_masks() if other != index)
    found["silhouette_iou"] = silhouette_iou(predicted, intrinsics, mask, others)
    found["color_psnr"] = color_psnr(predicted, intrinsics, example.image, mask)
    return found


def measure_shape(predicted: Mesh, true: Mesh, seed: int = 0) -> dict[str, float]:
    """Return the metrics of shape, layout and surface color of two meshes in the camera frame.

    Raises InputError where one has no surface.
    """
    places = sample_places(predicted, POINTS, seed), sample_places(true, POINTS, seed + 1)
    points = surface_points(predicted, *places[0]), surface_points(true, *places[1])
    low, high = true.bounds.astype(np.float64)
    center, side = (low + high) / 2, float((high - low).max())
    points = (points[0] - center) / side, (points[1] - center) / side
    placed = compare_surfaces(*points)
    correction = align(*points, seed=seed)
    laid = correction.apply(points[0])
    aligned = compare_surfaces(laid, points[1])

    truth = true.with_vertices((true.vertices - center) / side)
    shape = predicted.with_vertices((predicted.vertices - center) / side)
    moved = shape.with_vertices(correction.apply(shape.vertices.astype(np.float64)))
    colors, true_colors = point_colors(predicted, *places[0]), point_colors(true, *places[1])
    surface_color = float("nan")
    if true_colors is not None:
        colors = grey(POINTS) if colors is None else colors
        surface_color = surface_color_psnr(laid, colors, points[1], true_colors)
    layout = layout_error(correction, shape.bounds.mean(0), center, side)
    return {
        "f_score": placed.f_score,
        "chamfer": placed.chamfer,
        "volume_iou": volume_iou(shape, truth),
        "aligned_f_score": aligned.f_score,
        "aligned_chamfer": aligned.chamfer,
        "aligned_volume_iou": volume_iou(moved, truth),
        "surface_color_psnr": surface_color,
        "rotation_error": layout.rotation,
        "translation_error": layout.translation,
        "distance_error": layout.distance,
        "scale_ratio": layout.scale_ratio,
        "scale_error": layout.scale,
    }


def measure_row(
    example: Example, index: int, model: Model, seed: int, *, use_pointmap: bool = True
) -> dict[str, Any]:
    """Reconstruct and measure one object, a row of a report; what fails is told in it."""
    row: dict[str, Any] = dict.fromkeys(METRICS, float("nan"))
    row |= {"example": example.name, "index": index, "name": example.names[index], "error": ""}
    row["category"] = category(example, index)
    try:
        given = example if use_pointmap else example.without_pointmap()
        started = perf_counter()
        result = model.reconstruct(given, index, seed=seed)
        row["seconds"] = perf_counter() - started
        row |= measure(result, example, index, seed)
    except Sam3dError as error:
        row |= dict.fromkeys(METRICS, float("nan"))
        row["error"] = str(error)
    return row


def _report(
    rows: list[dict[str, Any]], model: Model, seed: int, jobs: int = 1, *, use_pointmaps: bool
) -> Report:
    return Report(
        rows=pd.DataFrame(rows, columns=COLUMNS),
        model=model.name,
        model_version=model.version,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        points=POINTS,
        hardware=hardware(),
        versions=versions(),
        jobs=jobs,
        use_pointmaps=use_pointmaps,
    )


def _loaded(example: Example | str | Path) -> Example:
    return example if isinstance(example, Example) else load_example(example)
