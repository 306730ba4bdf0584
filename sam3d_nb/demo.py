"""The demo: the sample object of a photo to a GLB, a preview picture and a report."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from pathlib import Path

from sam3d_nb.events import OnEvent
from sam3d_nb.examples import Example, load_example
from sam3d_nb.files import write_file
from sam3d_nb.pipeline import Model
from sam3d_nb.runs import Run, reconstruct_to_folder
from sam3d_nb.zoo import MODELS

SAMPLE = ("leather_armchair", 0)
"""Name of the example and index of the mask."""

NOTES = {
    "tiny": (
        "This is the small learned model that comes with the package. What the photo shows gets "
        "its colors from the photo; the sides that it does not show are guessed, their colors "
        "roughly. This photo, a rendered one, comes with a point map. From a photo alone the model "
        "has to estimate depth, and seen from the side the object may be stretched or bent: the "
        "example coffee, a real photo, shows that."
    ),
    "silhouette": (
        "This is the baseline, not a learned model. It inflates the outline of the mask, so the "
        "front looks like the photo from where the photo was taken; the depth is a guess, hollow "
        "things come out solid, and the back is the front mirrored."
    ),
}

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100%; border-radius: 6px }
td { padding: .1rem 1.5rem .1rem 0; vertical-align: top; overflow-wrap: anywhere }
"""


def run_demo(
    model: Model,
    output_dir: str | Path = "output",
    *,
    seed: int = 0,
    on_event: OnEvent | None = None,
) -> Run:
    """Reconstruct the sample object into a new folder under `output_dir`, with pictures and report.

    The files of the returned run are `glb`, `photo`, `preview` and `report`, an HTML page.
    Raises OutputError where they cannot be written.
    """
    name, index = SAMPLE
    example = load_example(name)
    run = reconstruct_to_folder(
        example, index, model, output_dir, seed=seed, pictures=True, on_event=on_event
    )
    page = report(example, run).encode()
    path = write_file(run.folder / "report.html", page)
    return replace(run, files=run.files | {"report": path})


def closing_words(run: Run, seconds: float) -> str:
    """Return in one line which model it was, how long it took, and where the files are.

    seconds: of all, from the start of the command to the last file.
    """
    source = run.result.provenance
    made = f"{source.model} made the {run.result.name} in {_stages(run):.1f} s"
    return f"{made}, {seconds:.1f} s with loading and files; all of it is in {run.folder}"


def report(example: Example, run: Run) -> str:
    """Return an HTML page about one run; pictures and files are named relative to its folder."""
    result = run.result
    source = result.provenance
    known = MODELS.get(source.model)
    note = NOTES.get(source.model) or (known.description if known else "a model of your own")
    facts = {
        "object": f"{result.name}, mask {source.mask_index} of example {example.name}",
        "photo": str(example.info.get("source", "source unknown")),
        "license of the photo": str(example.info.get("license", "unknown")),
        "model": f"{source.model}, version {source.model_version}",
        "seed": str(source.seed),
        "sam3d_nb": source.package_version,
        "SHA-256 of the pixels": source.image_sha256,
        "mesh": f"{len(result.mesh.vertices):,} vertices, {len(result.mesh.faces):,} triangles",
    }
    timings = {stage: f"{seconds:.2f} s" for stage, seconds in source.timings.items()}
    timings["all stages"] = f"{_stages(run):.2f} s"
    files = {kind: path.name for kind, path in run.files.items()}
    preview = escape(run.files["preview"].name)
    parts = [
        f"<h1>{escape(result.name.capitalize())}</h1>",
        f"<p><strong>{escape(source.model)}:</strong> {escape(note)}</p>",
        f'<p><img src="{preview}" alt="The photo, its mask, and the object from four sides"></p>',
        f"<h2>Where it comes from</h2>{_table(facts)}",
        f"<h2>Time</h2>{_table(timings)}",
        f"<h2>Files</h2>{_table(files)}",
    ]
    title = escape(f"{result.name} by {source.model}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _stages(run: Run) -> float:
    """Return the seconds of all stages."""
    return sum(run.result.provenance.timings.values())


def _table(rows: dict[str, str]) -> str:
    cells = (f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{''.join(cells)}</table>"
