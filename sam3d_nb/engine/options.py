"""What the caller decides about one reconstruction besides photo, mask and seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import SamplerConfig
from sam3d_nb.weights.config import ModelConfig
from sam3d_nb.whole import is_whole

FORMATS = ("mesh", "gaussians", "gaussians_4")
"""What can be decoded; `gaussians_4` is 4 a voxel instead of 32, by a decoder of its own."""
DECODED = ("mesh", "gaussians")
FEW_STEPS = (4, 12)
"""Steps in few-step mode: what the shortcut of stage 1 was distilled for, and what the published
settings of the stage-2 flow itself say, which are without guidance too."""
MOST_STEPS = 1000


@dataclass(frozen=True)
class Options:
    """Sampler steps and results of one reconstruction.

    steps: of stage 1 and stage 2; None takes the model's 25 and 25, or `FEW_STEPS`. few_step: stage
    1 by its shortcut, both stages without guidance, which halves the work of a step. formats: out
    of `FORMATS`. refine_layout: fit the pose to point map and mask by the decoded mesh, see
    `refine_pose`; the released configuration does not.

    Raises InputError.
    """

    steps: tuple[int, int] | None = None
    few_step: bool = False
    formats: tuple[str, ...] = DECODED
    refine_layout: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None:
            object.__setattr__(self, "steps", _checked_steps(self.steps))
        formats = (self.formats,) if isinstance(self.formats, str) else tuple(self.formats)
        unknown = [name for name in formats if name not in FORMATS]
        if unknown or not formats:
            raise InputError(f"formats are out of {', '.join(FORMATS)} but got {formats}")
        if {"gaussians", "gaussians_4"} <= set(formats):
            raise InputError("an object has one set of gaussians: 'gaussians' or 'gaussians_4'")
        object.__setattr__(self, "formats", formats)
        if self.refine_layout and "mesh" not in formats:
            raise InputError(f"refine_layout needs 'mesh' among the formats but got {formats}")

    @property
    def gaussians(self) -> str | None:
        """The format of the gaussians that are wanted, if any."""
        return next((name for name in self.formats if name.startswith("gaussians")), None)

    def samplers(self, config: ModelConfig) -> tuple[SamplerConfig, SamplerConfig]:
        """Return the samplers of stage 1 and stage 2, steps included."""
        first, second = config.stage1_sampler, config.stage2_sampler
        steps = self.steps or (FEW_STEPS if self.few_step else (first.steps, second.steps))
        if self.few_step:
            first, second = replace(first, shortcut=True), replace(second, guidance=0.0)
        return replace(first, steps=steps[0]), replace(second, steps=steps[1])


def _checked_steps(steps: tuple[int, int]) -> tuple[int, int]:
    numbers = tuple(steps) if isinstance(steps, tuple | list) else (steps,)
    if len(numbers) != 2 or not all(is_whole(n) and 0 < n <= MOST_STEPS for n in numbers):
        raise InputError(
            f"steps are two whole numbers from 1 to {MOST_STEPS}, for stage 1 and stage 2, such "
            f"as (25, 25), but got {steps!r}"
        )
    return int(numbers[0]), int(numbers[1])
