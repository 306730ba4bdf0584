"""SAM 3 by words, through transformers (Carion et al., SAM 3: Segment Anything with Concepts)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sam3d_nb.errors import InputError, WeightsError
from sam3d_nb.masks.sam import enlarged, pixel_values, read_network
from sam3d_nb.masks.sam_weights import weights_place
from sam3d_nb.masks.segmenter import Prompt, Segment, Segmenter, check_photo

if TYPE_CHECKING:
    from torch import Tensor

MEAN = STD = (0.5, 0.5, 0.5)
WORDS = 32  # to which the tokens of a prompt are padded
EVERYTHING = "interior objects"


class Sam3(Segmenter):
    """SAM 3 with a network of transformers' class Sam3Model and its tokenizer.

    threshold: of the scores. mask_threshold: of the probability of a pixel. Both can be set at any
    time, or given to `masks` for one call; what the network said about the last photo and words is
    kept, so that is quick.
    """

    name = "sam3"

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        device: str = "cpu",
        *,
        threshold: float = 0.4,
        mask_threshold: float = 0.4,
    ) -> None:
        self.threshold = threshold
        self.mask_threshold = mask_threshold
        self._network = network
        self._tokenizer = tokenizer
        self._device = device
        self._size = int(network.config.vision_config.backbone_config.image_size)
        self._seen: tuple[np.ndarray, Any] | None = None
        self._said: tuple[np.ndarray, str, Tensor, Tensor] | None = None

    def prepare(self, image: np.ndarray) -> None:
        """Do now what the first prompt on this photo would wait for."""
        self._features(image)

    def masks(
        self,
        image: np.ndarray,
        prompt: Prompt,
        *,
        threshold: float | None = None,
        mask_threshold: float | None = None,
    ) -> list[Segment]:
        """Return every object that the words mean, the best first.

        threshold, mask_threshold: for this call, by default those of the segmenter.

        Raises InputError for a prompt without words, or with anything else.
        """
        check_photo(image)
        asked = prompt.checked((image.shape[0], image.shape[1]))
        if len(asked.points) or asked.box is not None or asked.scribble is not None:
            raise InputError(
                "SAM 3 is asked by words here; for points, boxes and scribbles use the segmenter "
                "'sam2' or 'embedded'"
            )
        if not asked.text:
            raise InputError(f"the prompt is empty; say what to find, such as {EVERYTHING!r}")
        masks, scores = self._answer(image, asked.text)
        least = self.threshold if threshold is None else threshold
        pixel = self.mask_threshold if mask_threshold is None else mask_threshold
        good = (scores > least).nonzero()[:, 0]
        order = good[scores[good].argsort(descending=True)]
        shape = image.shape[0], image.shape[1]
        found = zip(enlarged(masks[order], shape, pixel), scores[order].tolist(), strict=True)
        return [Segment(mask, score, asked.text) for mask, score in found if mask.any()]

    def everything(self, image: np.ndarray, pointmap: np.ndarray | None = None) -> list[Segment]:
        """Return the 'interior objects' of the photo; makes no use of depth."""
        return self.masks(image, Prompt(text=EVERYTHING))

    def _features(self, image: np.ndarray) -> Any:
        import torch

        if self._seen is None or self._seen[0] is not image:
            check_photo(image)
            pixels = pixel_values(image, self._size, MEAN, STD, self._device)
            with torch.inference_mode():
                self._seen = (image, self._network.get_vision_features(pixels))
        return self._seen[1]

    def _answer(self, image: np.ndarray, text: str) -> tuple[Tensor, Tensor]:
        """Return probabilities (M, h, w) and scores (M,) of all queries."""
        import torch

        if self._said is None or self._said[0] is not image or self._said[1] != text:
            words = self._tokenizer(
                text,
                return_tensors="pt",
                padding="max_length",
                truncation=True,
                max_length=WORDS,
            )
            features = self._features(image)
            with torch.inference_mode():
                output = self._network(
                    vision_embeds=features,
                    input_ids=words["input_ids"].to(self._device),
                    attention_mask=words["attention_mask"].to(self._device),
                )
            scores = output.pred_logits[0].float().sigmoid()
            if output.presence_logits is not None:
                scores = scores * output.presence_logits[0].float().sigmoid()
            self._said = (image, text, output.pred_masks[0].float().sigmoid(), scores)
        return self._said[2], self._said[3]


def load_sam3(device: str) -> Sam3:
    """Return SAM 3 with its weights; raises WeightsError where they are missing."""
    place = weights_place("sam3")
    from transformers import AutoTokenizer
    from transformers.models.sam3.modeling_sam3 import Sam3Model

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            place, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"the words of {place} cannot be read: {error}; delete that folder and download it "
            "again"
        ) from error
    return Sam3(read_network(Sam3Model, place, device), tokenizer, device)
