"""The model under test, kept or loaded anew for every run."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter

from sam3d_nb.errors import InputError
from sam3d_nb.pipeline import Model
from sam3d_nb.profiling.probe import Memory, Probe, probe_for
from sam3d_nb.zoo import MODELS, load_model, unload_model

Load = Callable[[], Model]


class Subject:
    """A model that is measured.

    model: a name as `load_model` takes it, None for the best that is ready; a model that is loaded
    already; or a function that loads one. keep: use one model for all runs, else every run loads
    its own. `probe` reads the device of the model that was got last, `loaded` is the most memory
    until it was ready, `fresh` whether it had to be loaded and was not kept from before.

    Raises InputError for a model that is loaded already and not to be kept.
    """

    def __init__(
        self,
        model: str | Model | Load | None = None,
        *,
        keep: bool = True,
        device: str = "auto",
        memory: str = "auto",
    ) -> None:
        self.keep = keep
        self.probe = Probe()
        self.loaded = Memory()
        self.fresh = False
        self._model: Model | None = None
        self._own = not isinstance(model, Model)
        if isinstance(model, Model):
            if not keep:
                raise InputError(
                    f"{model.name} is loaded already, but without the inference cache every run "
                    "loads it anew: give its name or a function that loads it, or "
                    "use_inference_cache=True"
                )
            self._load: Load = lambda: model
        elif callable(model):
            self._load = model
        else:
            self._load = lambda: load_model(model, device, memory)

    def get(self) -> tuple[Model, float]:
        """Return the model, ready on an idle device, and the seconds that loading took."""
        if self._model is not None:
            return self._model, 0.0
        kept = [other for spec in MODELS.values() for other in spec.kept()]
        start = perf_counter()
        self._model = self._load()
        self.fresh = self._own and not any(self._model is other for other in kept)
        self.probe = probe_for(self._model)
        self.probe.synchronize()
        self.loaded = self.probe.take_peak()
        return self._model, perf_counter() - start

    def drop(self) -> None:
        """Forget the model and free its memory, unless it is to be kept or belongs to the caller.

        The caller must hold no reference to it. A model that is given back is loaded anew.
        """
        if self.keep or self._model is None:
            return
        self.release()

    def release(self) -> None:
        """Forget the model and free its memory, unless it belongs to the caller."""
        model, self._model = self._model, None
        if model is not None and self._own:
            unload_model(model)
        del model
        gc.collect()
        self.probe.take_peak()
