"""The command line, `sam3d-nb`: the same functions as in the notebooks, with exit codes."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

from sam3d_nb import __version__
from sam3d_nb.batch.command import batch_options, run_batch
from sam3d_nb.errors import (
    InputError,
    OutOfMemoryError,
    OutputError,
    ReconstructionError,
    Sam3dError,
)
from sam3d_nb.masks.options import AUTO_MASKS, add_mask_options, check_mask_options
from sam3d_nb.profiling.command import profile_options, run_profile
from sam3d_nb.weights.command import add_weights_command

# Only what argument parsing needs is imported here: `--help` answers without torch.
if TYPE_CHECKING:
    from pathlib import Path

    from sam3d_nb.mesh.finish import Finishing
    from sam3d_nb.object3d import Object3D

ALL_MASKS = -1
USAGE_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130

EXIT_CODES = """\
exit codes:
  0    done
  1    an error in this program; please report it with what --verbose prints
  2    the command line is not understood
  3    the input is not what is needed: a path, picture, mask, option
  4    the result cannot be written
  5    a model's weights are missing
  6    memory ran out
  7    the model found nothing usable (batch, evaluate, profile, scenes: for one object at least)
  130  interrupted
"""


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(USAGE_EXIT_CODE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors are one line on standard error."""
    parser = _make_parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "lab":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    verbose = getattr(options, "verbose", False)
    try:
        return options.run(options) or 0
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted", INTERRUPTED_EXIT_CODE, verbose)
    except Sam3dError as error:
        return _fail(str(error), error.exit_code, verbose)
    except Exception as error:
        if _is_out_of_memory(error):
            hint = "memory ran out; free some, or choose a smaller picture"
            return _fail(hint, OutOfMemoryError.exit_code, verbose)
        hint = "" if verbose else "; --verbose shows where, please report it"
        message = f"unexpected {type(error).__name__}: {error}{hint}"
        return _fail(message, Sam3dError.exit_code, verbose)


def _is_out_of_memory(error: Exception) -> bool:
    # torch.cuda.OutOfMemoryError is no MemoryError, and torch may not be loaded.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _fail(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    line = " ".join(message.split())
    print(f"sam3d-nb: {line} (exit code {code})", file=sys.stderr)
    return code


def _make_parser() -> _Parser:
    common = _Parser(add_help=False, allow_abbrev=False)
    common.add_argument(
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,  # accepted before and after the command's name
        help="print the traceback of an error as well",
    )
    parser = _Parser(
        prog="sam3d-nb",
        parents=[common],
        description="From one photo to textured 3D objects.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"sam3d-nb {__version__}")
    commands: Any = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )

    def add(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Any:
        command = commands.add_parser(
            name, help=text, description=text, parents=[common], allow_abbrev=False
        )
        command.set_defaults(run=run)
        return command

    _inference_options(add("inference", _inference, "reconstruct one object of a photo, or all"))
    _demo_options(add("demo", _demo, "reconstruct the sample object and write a report"))
    _evaluate_options(add("evaluate", _evaluate, "measure a model against ground truth"))
    batch = add("batch", run_batch, "reconstruct every mask of many photos, a stopped run goes on")
    batch_options(batch, _option, _switch, _file_options, _model_options)
    profile = add("profile", run_profile, "time a model, by the published method")
    profile_options(profile, _option, _switch, _model_options)
    add_weights_command(commands, [common])
    add("doctor", _doctor, "show what is installed; which devices, models and segmenters are ready")
    lab = add("lab", _lab, "open JupyterLab on the notebooks; further options are passed on to it")
    _option(lab, "folder", help="folder of notebooks (default: notebooks, made if missing)")
    return parser


def _option(parser: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    """Add `--some_name`, as published, and `--some-name`."""
    spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
    parser.add_argument(*spellings, **settings)


def _switch(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add an option that takes true or false, and means true without a value."""
    _option(
        parser,
        name,
        nargs="?",
        const=True,
        default=False,
        type=_boolean,
        metavar="true|false",
        help=f"{text} (default: false)",
    )


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def _formats(text: str) -> tuple[str, ...]:
    parts = (part.strip().lower().removeprefix(".") for part in text.split(","))
    return tuple(dict.fromkeys(parts))


def _file_options(parser: argparse.ArgumentParser) -> None:
    text = "glb, obj, ply or stl; several with commas (default: glb)"
    _option(parser, "output_format", type=_formats, default=("glb",), help=text)
    text = "at most so many in the mesh of each object (default: all that the model made)"
    _option(parser, "triangles", type=int, help=text)
    _switch(parser, "fill_holes", "put a lid on every hole of each mesh")
    _switch(parser, "watertight", "close each mesh, as printers need it, and drop its crumbs")
    text = "pixels a side, 16 to 4096, of a texture in place of vertex colors (default: as made)"
    _option(parser, "texture", type=int, help=text)


def _model_options(parser: argparse.ArgumentParser) -> None:
    text = "sam-3d-objects, tiny or silhouette (default: the first of these that is ready)"
    _option(parser, "model", help=text)
    _option(parser, "device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    text = "how networks use the device's memory: auto, resident or staged (default: auto)"
    _option(parser, "memory", default="auto", help=text)
    _option(parser, "seed", type=int, default=0, help="same seed, same result (default: 0)")


def _inference_options(parser: argparse.ArgumentParser) -> None:
    text = "photo with masks 0.png, 1.png ... beside it, its folder, or a sample's name"
    _option(parser, "image_path", required=True, help=text)
    text = "which mask, -1 for a scene of all, -2 for one of masks that are found (default: 0)"
    _option(parser, "mask_index", type=int, default=0, help=text)
    _option(parser, "output_dir", default="output", help="results go into a new folder in here")
    _switch(parser, "export_images", "also write the photo with its mask and a preview")
    _file_options(parser)
    text = "write into a folder without a time in its name and replace the files there"
    _switch(parser, "overwrite", text)
    text = "scene: find up and the floor by none, pca, obb or obb+ (default: none)"
    _option(parser, "realign", help=text)
    _switch(parser, "save_all_objects", "scene: also write each object on its own")
    add_mask_options(parser, _option)
    _model_options(parser)


def _demo_options(parser: argparse.ArgumentParser) -> None:
    _option(parser, "output_dir", default="output", help="results go into a new folder in here")
    _model_options(parser)


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    text = "folder of examples, or one example (default: those of the package)"
    _option(parser, "examples", help=text)
    _option(parser, "output", help="where the report goes, a .json file")
    text = "an earlier report of another model, to be set beside this one object by object"
    _option(parser, "compare", help=text)
    text = "objects worked on at once, each in its own process (default: 1)"
    _option(parser, "jobs", type=int, default=1, help=text)
    _switch(parser, "ignore_pointmaps", "let the model estimate depth where the example has it")
    _switch(parser, "overwrite", "replace the report if it is there")
    _model_options(parser)


def _inference(options: argparse.Namespace) -> int | None:
    from sam3d_nb.examples import load_example
    from sam3d_nb.mesh.finish import Finishing
    from sam3d_nb.progress import Progress
    from sam3d_nb.runs import check_formats, reconstruct_to_folder
    from sam3d_nb.scene.realign import check_method
    from sam3d_nb.zoo import load_model

    check_formats(options.output_format)
    finishing = Finishing(
        options.triangles, options.fill_holes, options.watertight, options.texture
    )
    check_method(options.realign or "none")  # before anything is loaded or looked for
    if options.mask_index in (ALL_MASKS, AUTO_MASKS):
        return _scene(options, finishing)
    check_mask_options(options)
    if options.mask_index < 0:
        raise InputError(
            f"mask index {options.mask_index}: no mask; give {ALL_MASKS} for a scene of all masks, "
            f"{AUTO_MASKS} for one of masks that are found, or 0 or more for one object"
        )
    if options.realign or options.save_all_objects:
        raise InputError("realign and save_all_objects are about scenes; they need --mask_index=-1")
    model = load_model(options.model, options.device, options.memory)
    example = load_example(options.image_path)
    with Progress() as progress:
        run = reconstruct_to_folder(
            example,
            options.mask_index,
            model,
            options.output_dir,
            formats=options.output_format,
            finishing=finishing,
            seed=options.seed,
            pictures=options.export_images,
            overwrite=options.overwrite,
            on_event=progress,
        )
    _print_paths(run.files)
    tell_rough_depth([run.result])
    return None


def tell_rough_depth(objects: Iterable[Object3D]) -> None:
    """Say so where `tiny` had to estimate the depth."""
    if any(o.depth_is_estimated and o.provenance.model == "tiny" for o in objects):
        note = "no point map: depth is a rough estimate, and what is not seen may be quite wrong"
        print(f"sam3d-nb: {note}", file=sys.stderr)


def _scene(options: argparse.Namespace, finishing: Finishing) -> int:
    from sam3d_nb.examples import load_example
    from sam3d_nb.masks.options import find_masks
    from sam3d_nb.progress import Progress
    from sam3d_nb.scene.runs import scene_to_folder
    from sam3d_nb.zoo import load_model

    check_mask_options(options)
    model = load_model(options.model, options.device, options.memory)
    example = load_example(options.image_path)
    written: dict[str, Path] = {}
    if options.mask_index == AUTO_MASKS:
        example, written = find_masks(options, example)
    with Progress() as progress:
        run = scene_to_folder(
            example,
            model,
            options.output_dir,
            formats=options.output_format,
            finishing=finishing,
            seed=options.seed,
            realign=options.realign or "none",
            pictures=options.export_images,
            save_all_objects=options.save_all_objects,
            overwrite=options.overwrite,
            on_event=progress,
        )
    _print_paths(written | run.files)
    tell_rough_depth(run.result)
    if run.resumed:
        done = f"{run.resumed} of {len(example.masks)} objects"
        print(f"sam3d-nb: {done} were made by an earlier run", file=sys.stderr)
    for failure in run.result.failures:
        if failure.trace and getattr(options, "verbose", False):
            print(failure.trace, file=sys.stderr)
        where = f"{failure.name} (mask {failure.mask_index})"
        print(f"sam3d-nb: {where} failed: {failure.reason}", file=sys.stderr)
    return ReconstructionError.exit_code if run.result.failures else 0


def _demo(options: argparse.Namespace) -> None:
    started = perf_counter()
    from sam3d_nb.demo import closing_words, run_demo
    from sam3d_nb.progress import Progress
    from sam3d_nb.zoo import load_model

    model = load_model(options.model, options.device, options.memory)
    with Progress() as progress:
        run = run_demo(model, options.output_dir, seed=options.seed, on_event=progress)
    _print_paths(run.files)
    print("Open the report in a browser, and the GLB in any 3D viewer.")
    print(closing_words(run, perf_counter() - started))


def _evaluate(options: argparse.Namespace) -> int:
    from pathlib import Path

    from sam3d_nb.evaluate import evaluate_folder
    from sam3d_nb.evaluation.report import Report
    from sam3d_nb.evaluation.versus import side_by_side
    from sam3d_nb.progress import counting

    output = Path(options.output) if options.output else None
    if output is not None and output.exists() and not options.overwrite:
        raise OutputError(f"{output} exists; choose another name or pass --overwrite")
    baseline = Report.load(options.compare) if options.compare else None
    with counting() as show:
        report = evaluate_folder(
            options.examples,
            options.model,
            show,
            device=options.device,
            memory=options.memory,
            seed=options.seed,
            jobs=options.jobs,
            use_pointmaps=not options.ignore_pointmaps,
        )
    print(report.markdown())
    comparison = {}
    if baseline is not None:
        beside = side_by_side(report, baseline)
        comparison = {"comparison": beside.to_dict()}
        print(f"\n{beside.markdown()}")
    if output is not None:
        path = report.save(output, overwrite=options.overwrite, extra=comparison)
        _print_paths({"report": path})
    return ReconstructionError.exit_code if (report.rows["error"] != "").any() else 0


def _print_paths(files: dict[str, Path]) -> None:
    width = max(map(len, files))
    for kind, path in files.items():
        print(f"{kind:<{width}}  {path}")


def _doctor(options: argparse.Namespace) -> None:
    from sam3d_nb.diagnosis import doctor

    print(doctor())


def _lab(options: argparse.Namespace) -> None:
    from sam3d_nb.lab import open_lab

    open_lab(options.folder, options.rest)
