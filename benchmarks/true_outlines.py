"""What silhouette IoU the true shapes themselves have: what a right object gets in a set.

    python benchmarks/true_outlines.py .scratch/heldout --output true_outlines_heldout.json

Where something stands before an object that has no mask of its own, the right shape covers pixels
beside its mask.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from sam3d_nb.evaluation.outline import silhouette_iou
from sam3d_nb.examples import list_examples, load_example

WHOLE = 0.98
"""IoU from which on nothing that counts hides an object."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("examples", type=Path)
    parser.add_argument("--report", type=Path, help="of a model, to compare on objects seen whole")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    found = {}
    for path in list_examples(options.examples):
        example = load_example(path)
        for index in example.masks:
            true = example.true_mesh(index)
            if true is not None and example.intrinsics is not None:
                iou = silhouette_iou(true, example.intrinsics, example.mask(index))
                found[f"{example.name}/{index}"] = round(iou, 4)
    whole = sorted(name for name, iou in found.items() if iou >= WHOLE)
    summary = {
        "n": len(found),
        "mean": float(np.mean(list(found.values()))),
        "seen_whole": len(whole),
        "mean_seen_whole": float(np.mean([found[name] for name in whole])),
    }
    if options.report:
        rows = json.loads(options.report.read_text())["rows"]
        model = {f"{row['example']}/{row['index']}": row["silhouette_iou"] for row in rows}
        summary["model"] = {
            "mean": float(np.mean([model[name] for name in found])),
            "mean_seen_whole": float(np.mean([model[name] for name in whole])),
        }
    print(json.dumps(summary, indent=1))
    options.output.write_text(json.dumps({"summary": summary, "objects": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
