"""The part of the command line that finds masks: `--mask_index=-2` and its options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from sam3d_nb.errors import InputError

AUTO_MASKS = -2
OPTIONS = ("segmenter", "sam_prompt", "sam_threshold", "sam_mask_threshold")


def add_mask_options(parser: argparse.ArgumentParser, add: Callable[..., None]) -> None:
    """Add the options to `parser` by `add(parser, name, **settings)`."""
    text = "-2: embedded, sam2 (also -tiny, -base, -large) or sam3 (default: sam3 if it is ready)"
    add(parser, "segmenter", help=text)
    text = "-2: what to find, in words, for sam3 (default: interior objects)"
    add(parser, "sam_prompt", help=text)
    text = "-2: least score of a mask, 0 to 1 (default: 0.4 for sam3, what is likely for embedded)"
    add(parser, "sam_threshold", type=float, help=text)
    text = "-2: least probability of a pixel, 0 to 1, for sam3 (default: 0.4)"
    add(parser, "sam_mask_threshold", type=float, help=text)


def check_mask_options(options: argparse.Namespace) -> None:
    """Raise InputError or WeightsError where the options are wrong, before anything is loaded.

    Those of --mask_index=-2 are wrong without it; a segmenter that does not exist is told first.
    """
    if options.segmenter is not None:
        from sam3d_nb.masks.segmenter import check_segmenter_name

        check_segmenter_name(options.segmenter)
    if options.mask_index == AUTO_MASKS:
        from sam3d_nb.masks.find import check_thresholds
        from sam3d_nb.masks.segmenter import check_segmenter

        check_thresholds(options.sam_threshold, options.sam_mask_threshold)
        if options.segmenter is not None:
            check_segmenter(options.segmenter)
        return
    given = [name for name in OPTIONS if getattr(options, name) is not None]
    if given:
        raise InputError(f"--{given[0]} is about finding masks; it needs --mask_index={AUTO_MASKS}")


def find_masks(options: argparse.Namespace, example: Any) -> tuple[Any, dict[str, Any]]:
    """Return the example with the masks found on it, and where they were written.

    Says on standard error what was found and dropped. Raises ReconstructionError for nothing.
    """
    from sam3d_nb.masks.find import find_objects, save_masks, with_masks
    from sam3d_nb.runs import result_folder, result_name

    found = find_objects(
        example,
        options.segmenter,
        prompt=options.sam_prompt,
        threshold=options.sam_threshold,
        mask_threshold=options.sam_mask_threshold,
        device=options.device,
    )
    for line in found.report():
        print(f"sam3d-nb: {line}", file=sys.stderr)
    masked = with_masks(example, found.kept)
    name = result_name(masked, "masks")
    folder = result_folder(options.output_dir, name, overwrite=options.overwrite)
    save_masks(masked, folder, overwrite=options.overwrite)
    again = f"--image_path={folder} --mask_index=-1"
    print(f"sam3d-nb: the masks are kept; {again} makes them again", file=sys.stderr)
    return masked, {"masks": folder}
