"""`sam3d-nb batch`: every mask of every photo from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from sam3d_nb.errors import ReconstructionError

Option = Callable[..., None]
SHOWN = 20
"""How many failures are printed; the manifest has all of them."""


def batch_options(
    parser: argparse.ArgumentParser,
    option: Option,
    switch: Option,
    file_options: Option,
    model_options: Option,
) -> None:
    """Add the options of `batch`, with the helpers of the command line."""
    text = "folder of example folders, or an example (default: those of the package)"
    option(parser, "images_dir", help=text)
    text = "where objects go; a run that was stopped goes on there (default: output/batch)"
    option(parser, "output_dir", default="output/batch", help=text)
    file_options(parser)
    text = "tries more where memory ran out or a worker died (default: 2)"
    option(parser, "retries", type=int, default=2, help=text)
    switch(parser, "overwrite", "replace objects there of other inputs or settings")
    text = "local, one object after another, or ray, all GPUs of a cluster (default: local)"
    option(parser, "engine", default="local", help=text)
    text = "ray: models at once (default: one a GPU, or one a machine without)"
    option(parser, "workers", type=int, help=text)
    text = "ray: the cluster, auto or HOST:PORT (default: $RAY_ADDRESS, or Ray on this machine)"
    option(parser, "ray_address", help=text)
    model_options(parser)


def run_batch(options: argparse.Namespace) -> int:
    """Reconstruct the batch, print its summary, and say what failed."""
    from sam3d_nb.batch.run import reconstruct_batch
    from sam3d_nb.mesh.finish import Finishing
    from sam3d_nb.progress import counting

    with counting() as bar:
        batch = reconstruct_batch(
            options.images_dir,
            options.output_dir,
            options.model,
            formats=options.output_format,
            finishing=Finishing(
                options.triangles, options.fill_holes, options.watertight, options.texture
            ),
            seed=options.seed,
            device=options.device,
            memory=options.memory,
            retries=options.retries,
            overwrite=options.overwrite,
            engine=options.engine,
            workers=options.workers,
            ray_address=options.ray_address,
            on_progress=lambda done, total, name: bar(done, total, f"{done} of {total}, {name}"),
        )
    print(batch.summary())
    print(f"results in {batch.folder}, all records in {batch.manifest.name}")
    failures = batch.failures()
    for name, reason in list(failures.items())[:SHOWN]:
        print(f"sam3d-nb: {name} failed: {reason}", file=sys.stderr)
    if len(failures) > SHOWN:
        more = f"{len(failures) - SHOWN} more failed; {batch.manifest} says why"
        print(f"sam3d-nb: {more}", file=sys.stderr)
    return ReconstructionError.exit_code if failures else 0
