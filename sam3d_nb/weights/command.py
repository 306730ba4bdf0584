"""`sam3d-nb weights`: get the official weights, look after them, get rid of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam3d_nb.errors import InputError, WeightsError
from sam3d_nb.tiny.shipped import NAME as TINY
from sam3d_nb.weights.folder import FOLDER_VARIABLE, SAM3D
from sam3d_nb.weights.status import REPOSITORIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sam3d_nb.weights.write import OnProgress

MODELS = tuple(REPOSITORIES)
DTYPES = ("float16", "bfloat16")


def add_weights_command(subparsers: Any, parents: Sequence[argparse.ArgumentParser] = ()) -> None:
    """Add `weights status|download|convert|verify|remove` to the commands of the parser."""
    text = "download, convert, check and remove the official weights"
    weights = subparsers.add_parser("weights", help=text, description=text, allow_abbrev=False)
    commands = weights.add_subparsers(
        dest="weights_command", required=True, metavar="ACTION", parser_class=type(weights)
    )

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text, parents=list(parents), allow_abbrev=False
        )
        command.set_defaults(run=run)
        command.add_argument(
            "--folder", help=f"folder of all weights (default: ${FOLDER_VARIABLE}, or the cache)"
        )
        return command

    status = add("status", _status, "show which weights are ready, and how to get the others")
    text = "which alone; exit code 5 where it is not ready (default: all, exit code 0)"
    status.add_argument("--model", choices=(TINY, *MODELS), help=text)
    status.add_argument("--online", action="store_true", help="ask the hub for access as well")

    download = add("download", _download, "download and convert; run again to resume")
    download.add_argument("--sam3", action="store_true", help="get facebook/sam3 too, for masks")
    text = "get a segmenter for masks and nothing else: sam3, sam2, sam2-tiny, -base or -large"
    download.add_argument("--segmenter", metavar="NAME", help=text)
    text = "keep the published files after the conversion (12 GB)"
    _dashed(download, "keep_download", action="store_true", help=text)

    convert = add("convert", _convert, "convert files that are on this machine; needs no network")
    text = "folder with the files of facebook/sam-3d-objects (default: the earlier download)"
    convert.add_argument("--source", type=Path, help=text)
    text = "checkpoint of Ruicheng/moge-vitl (default: model.pt in the source)"
    convert.add_argument("--moge", type=Path, help=text)
    for command, default in ((download, None), (convert, "float16")):
        text = "of the matrix products (default: float16)"
        command.add_argument("--dtype", choices=DTYPES, default=default, help=text)
        text = "settings, with commas, to take as the released model has them"
        command.add_argument("--accept", type=_names, default=(), metavar="NAMES", help=text)

    verify = add("verify", _verify, "check every file by SHA-256, every tensor by name and shape")
    verify.add_argument("--model", choices=MODELS, help="which (default: all that are there)")
    remove = add("remove", _remove, "delete weights and what is left of downloads")
    which = remove.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", choices=MODELS, help="which")
    which.add_argument("--all", action="store_true", help="all weights in the folder")


def _dashed(parser: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", **settings)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _status(options: argparse.Namespace) -> int:
    from sam3d_nb.weights.status import model_status, weights_status

    if options.model:
        states = [model_status(options.model, options.folder)]
    else:
        states = [model_status(TINY), *weights_status(options.folder)]
    for state in states:
        print(f"{state.name}: {'ready' if state.ready else 'not ready'}, {state.found}")
        if state.advice:
            print(f"  -> {state.advice}")
    if options.online:
        from sam3d_nb.weights.hub import AccessError, Hub

        hub = Hub()
        for repository in (r for state in states for r in REPOSITORIES.get(state.name, ())):
            try:
                hub.check_access(repository)
                print(f"{repository}: access granted")
            except AccessError as error:
                print(error)
    asked_and_missing = options.model and not states[0].ready
    return WeightsError.exit_code if asked_and_missing else 0


def _download(options: argparse.Namespace) -> None:
    from sam3d_nb.weights.download import download

    if options.segmenter:
        from sam3d_nb.masks.sam_weights import download_segmenter

        download_segmenter(options.segmenter, options.folder, say=print)
        return
    with _progress() as on_progress:
        download(
            options.folder,
            dtype=options.dtype,
            sam3=options.sam3,
            accept=options.accept,
            keep_download=options.keep_download,
            say=print,
            on_progress=on_progress,
        )


def _convert(options: argparse.Namespace) -> None:
    from sam3d_nb.weights.convert import convert, find_published
    from sam3d_nb.weights.download import convert_download, locked
    from sam3d_nb.weights.folder import weights_folder

    root = weights_folder(options.folder)
    if options.moge and not options.source:
        raise InputError("--moge needs --source, the folder of the other files")
    with locked(root), _progress() as on_progress:
        settings = {
            "dtype": options.dtype,
            "accept": options.accept,
            "on_progress": on_progress,
        }
        if options.source:
            files = find_published(options.source, options.moge)
            place = convert(files, root, **settings)
        else:
            place = convert_download(root, **settings)
    print(f"{SAM3D} is ready in {place}")


def _verify(options: argparse.Namespace) -> None:
    from sam3d_nb.weights.download import verify
    from sam3d_nb.weights.folder import weights_folder

    root = weights_folder(options.folder)
    there = [name for name in MODELS if (root / name).is_dir()]
    for name in [options.model] if options.model else there or [SAM3D]:
        with _progress() as on_progress:
            print(f"{name}: all files as recorded in {verify(name, root, on_progress)}")


def _remove(options: argparse.Namespace) -> None:
    from sam3d_nb.weights.download import remove
    from sam3d_nb.weights.status import size_text, weights_status

    there = [state.name for state in weights_status(options.folder)]
    for name in there if options.all else [options.model]:
        print(f"{name}: {size_text(remove(name, options.folder))} freed")


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """Give a bar that follows whatever is being done, and leaves nothing behind."""
    from sam3d_nb.progress import counting

    with counting() as show:
        yield lambda text, done, total: show(done, total, text)
