"""SAM 2.1 by points, boxes and scribbles, through transformers (Ravi et al., SAM 2, 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sam3d_nb.masks.sam import enlarged, pixel_values, read_network
from sam3d_nb.masks.sam_weights import weights_place
from sam3d_nb.masks.segmenter import Prompt, Segment, Segmenter, check_photo

if TYPE_CHECKING:
    from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GRID = 16  # points a side that `everything` asks for
BATCH = 64
SCRIBBLE_POINTS = 5
SAME = 0.7  # of two masks whose IoU exceeds this, the one with the lower score goes
LIMIT = 0.0  # logit of a mask's outline
STEADY = 1.0  # by which the limit is moved to see how steady a mask is


class Sam2(Segmenter):
    """SAM 2 with a network of transformers' class Sam2Model.

    score, stability: what `everything` asks of a mask: the predicted IoU, and the IoU of the masks
    with the limit a little lower and higher.
    """

    def __init__(
        self,
        network: Any,
        device: str = "cpu",
        name: str = "sam2",
        *,
        score: float = 0.8,
        stability: float = 0.9,
    ) -> None:
        self.name = name
        self.score = score
        self.stability = stability
        self._network = network
        self._device = device
        self._size = int(network.config.prompt_encoder_config.image_size)
        self._seen: tuple[np.ndarray, list[Tensor]] | None = None

    def prepare(self, image: np.ndarray) -> None:
        """Do now what the first prompt on this photo would wait for."""
        self._features(image)

    def masks(self, image: np.ndarray, prompt: Prompt) -> list[Segment]:
        """Return one segment for a box or several points, up to three for a single point.

        Scores are the predicted IoU. Raises InputError for words and for an empty prompt.
        """
        check_photo(image)
        asked = prompt.wordless((image.shape[0], image.shape[1]), self.name)
        points, labels = asked.points, asked.labels
        if asked.scribble is not None:
            drawn = _points_on(asked.scribble)
            points = np.concatenate([points, drawn])
            labels = np.concatenate([labels, np.ones(len(drawn), bool)])
        single = asked.box is None and len(points) == 1
        logits, scores = self._ask(
            image,
            points[None] if len(points) else None,
            labels[None] if len(points) else None,
            None if asked.box is None else np.array(asked.box)[None],
            several=single,
        )
        order = scores[0].argsort(descending=True)
        masks = enlarged(logits[0][order], (image.shape[0], image.shape[1]), LIMIT)
        found = zip(masks, scores[0][order].tolist(), strict=True)
        return [Segment(mask, min(max(score, 0.0), 1.0)) for mask, score in found if mask.any()]

    def everything(self, image: np.ndarray, pointmap: np.ndarray | None = None) -> list[Segment]:
        """Return what a grid of points finds, without near-duplicates; makes no use of depth."""
        import torch

        check_photo(image)
        height, width = image.shape[:2]
        steps = (np.arange(GRID) + 0.5) / GRID
        grid = np.stack(np.meshgrid(steps * width, steps * height), axis=-1).reshape(-1, 1, 2)
        logits, scores = [], []
        for start in range(0, len(grid), BATCH):
            points = grid[start : start + BATCH]
            found = self._ask(image, points, np.ones(points.shape[:2], bool), None, several=True)
            logits.append(found[0].flatten(0, 1))  # (3 P, h, w)
            scores.append(found[1].flatten())
        every, score = torch.cat(logits), torch.cat(scores)
        sizes = [(every > LIMIT + step).sum((1, 2)) for step in (STEADY, -STEADY)]
        steady = sizes[0] / sizes[1].clamp(min=1)
        good = (score >= self.score) & (steady >= self.stability) & (sizes[0] > 0)
        kept = _distinct(every[good] > LIMIT, score[good])
        masks = enlarged(every[good][kept], (height, width), LIMIT)
        found_scores = score[good][kept].clamp(0, 1).tolist()
        return [Segment(m, s) for m, s in zip(masks, found_scores, strict=True) if m.any()]

    def _features(self, image: np.ndarray) -> list[Tensor]:
        import torch

        if self._seen is None or self._seen[0] is not image:
            check_photo(image)
            pixels = pixel_values(image, self._size, MEAN, STD, self._device)
            with torch.inference_mode():
                self._seen = (image, self._network.get_image_embeddings(pixels))
        return self._seen[1]

    def _ask(
        self,
        image: np.ndarray,
        points: np.ndarray | None,
        labels: np.ndarray | None,
        boxes: np.ndarray | None,
        *,
        several: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return logits (P, M, h, w) and scores (P, M) of P prompts, in pixels of the photo.

        points: (P, N, 2). labels: (P, N) bool. boxes: (P, 4).
        """
        import torch

        scale = self._size / np.array([image.shape[1], image.shape[0]])

        def tensor(values: np.ndarray | None, kind: Any) -> Tensor | None:
            if values is None:
                return None
            return torch.as_tensor(values, dtype=kind, device=self._device)[None]

        features = self._features(image)
        with torch.inference_mode():
            output = self._network(
                image_embeddings=features,
                input_points=tensor(None if points is None else points * scale, torch.float32),
                input_labels=tensor(labels, torch.int64),
                input_boxes=tensor(
                    None if boxes is None else boxes * np.tile(scale, 2), torch.float32
                ),
                multimask_output=several,
            )
        return output.pred_masks[0].float(), output.iou_scores[0].float()


def _points_on(scribble: np.ndarray) -> np.ndarray:
    """Return (N, 2), a few points spread over a scribble (H, W) bool."""
    rows, columns = np.nonzero(scribble)
    order = np.argsort(columns if np.ptp(columns) > np.ptp(rows) else rows, kind="stable")
    count = min(SCRIBBLE_POINTS, len(rows))
    some = order[((np.arange(count) + 0.5) / count * len(rows)).astype(int)]
    return np.stack([columns[some], rows[some]], axis=1) + 0.5


def _distinct(masks: Tensor, scores: Tensor) -> list[int]:
    """Return which masks (M, h, w) bool to keep, the best first."""
    flat = masks.flatten(1).float()
    area = flat.sum(1)
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        both = flat[kept] @ flat[index]
        if not bool((both / (area[kept] + area[index] - both).clamp(min=1) > SAME).any()):
            kept.append(index)
    return kept


def load_sam2(device: str, name: str = "sam2") -> Sam2:
    """Return SAM 2 with its weights; raises WeightsError where they are missing."""
    place = weights_place(name)
    from transformers.models.sam2.modeling_sam2 import Sam2Model

    return Sam2(read_network(Sam2Model, place, device), device, name)
