"""What SAM 2 and SAM 3 have in common: photo to pixel values, logits to masks of its size.

Written for torch alone: the image processors of transformers need torchvision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam3d_nb.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 8  # masks that are enlarged at a time: a photo of 24 megapixels takes 0.1 GB each


def pixel_values(
    image: np.ndarray, size: int, mean: tuple[float, ...], std: tuple[float, ...], device: str
) -> Tensor:
    """Return a photo (H, W, 3) uint8 as float32 (1, 3, size, size), scaled and normalized."""
    import torch

    pixels = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None]  # (1, 3, H, W)
    small = torch.nn.functional.interpolate(
        pixels.float(), (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    small = small.round().clamp(0, 255) / 255  # as if the scaled photo were 8 bits again
    center, spread = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (mean, std))
    return (small - center) / spread


def enlarged(values: Tensor, shape: tuple[int, int], limit: float) -> Iterator[np.ndarray]:
    """Yield, for each of `values` (M, h, w), (H, W) bool: where it exceeds `limit` at `shape`."""
    import torch

    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK].float()[None]  # (1, m, h, w)
        large = torch.nn.functional.interpolate(part, shape, mode="bilinear", align_corners=False)
        yield from (large[0] > limit).cpu().numpy()


def read_network(kind: Any, place: Path, device: str) -> Any:
    """Return the network of transformers' class `kind` with the weights in a folder.

    Safetensors only, no code from the folder is run, nothing is downloaded. Raises WeightsError.
    """
    try:
        with _without_bars():
            network = kind.from_pretrained(
                place, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"the weights in {place} cannot be read: {reason}; delete that folder and download "
            "them again"
        ) from error
    return network.eval().requires_grad_(False).to(device)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars of its own, which it does into files too."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
