"""From one photo to textured 3D objects, step by step in JupyterLab.

`import sam3d_nb as s3` is quick: each name is imported from its module when it is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# How long threads of PyTorch on Linux look out for work before they sleep. With the usual 300,000
# turns, two notebooks on one machine slow each other down severalfold, see benchmarks/together.py.
# It counts where PyTorch is not imported yet.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

if TYPE_CHECKING:
    from sam3d_nb.batch.run import reconstruct_batch as reconstruct_batch
    from sam3d_nb.diagnosis import doctor as doctor
    from sam3d_nb.errors import Sam3dError as Sam3dError
    from sam3d_nb.evaluate import compare as compare
    from sam3d_nb.evaluate import evaluate_folder as evaluate_folder
    from sam3d_nb.examples import Example as Example
    from sam3d_nb.examples import list_examples as list_examples
    from sam3d_nb.examples import load_example as load_example
    from sam3d_nb.masks.finder import MaskFinder as MaskFinder
    from sam3d_nb.masks.picker import MaskPicker as MaskPicker
    from sam3d_nb.masks.segmenter import Prompt as Prompt
    from sam3d_nb.masks.segmenter import load_segmenter as load_segmenter
    from sam3d_nb.mesh.finish import Finishing as Finishing
    from sam3d_nb.mesh.finish import finish as finish
    from sam3d_nb.object3d import Object3D as Object3D
    from sam3d_nb.profiling.benchmark import benchmark as benchmark
    from sam3d_nb.progress import Progress as Progress
    from sam3d_nb.refine.object import refine_layout as refine_layout
    from sam3d_nb.runs import reconstruct_to_folder as reconstruct_to_folder
    from sam3d_nb.scene import Scene as Scene
    from sam3d_nb.view.masks import show_masks as show_masks
    from sam3d_nb.view.render import render as render
    from sam3d_nb.view.sheet import contact_sheet as contact_sheet
    from sam3d_nb.view.show import show as show
    from sam3d_nb.zoo import load_model as load_model

_MODULES = {
    "Example": "examples",
    "Finishing": "mesh.finish",
    "MaskFinder": "masks.finder",
    "MaskPicker": "masks.picker",
    "Object3D": "object3d",
    "Progress": "progress",
    "Prompt": "masks.segmenter",
    "Sam3dError": "errors",
    "Scene": "scene",
    "benchmark": "profiling.benchmark",
    "compare": "evaluate",
    "contact_sheet": "view.sheet",
    "doctor": "diagnosis",
    "evaluate_folder": "evaluate",
    "finish": "mesh.finish",
    "list_examples": "examples",
    "load_example": "examples",
    "load_model": "zoo",
    "load_segmenter": "masks.segmenter",
    "reconstruct_batch": "batch.run",
    "reconstruct_to_folder": "runs",
    "refine_layout": "refine.object",
    "render": "view.render",
    "show": "view.show",
    "show_masks": "view.masks",
}

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
