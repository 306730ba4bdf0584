"""Loading converted weights: memory-mapped, checked, and only once a process."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.converted import (
    DTYPES,
    Converted,
    check_piece,
    file_of,
    read_converted,
)
from sam3d_nb.weights.folder import MANIFEST, SAM3D, Manifest, hash_file, weights_folder
from sam3d_nb.weights.status import model_status, renewal
from sam3d_nb.weights.store import Device, ModuleStore, Origin
from sam3d_nb.weights.tensorfile import FileTensors, entry_of

_loaded: weakref.WeakValueDictionary[tuple[object, ...], FileStore] = weakref.WeakValueDictionary()


class FileStore(ModuleStore):
    """Networks of a converted folder. Nothing is read from disk until it is used.

    advice: what to do where a file is damaged; default, to get the official weights anew.
    """

    def __init__(
        self,
        folder: Path,
        converted: Converted,
        manifest: Manifest,
        *,
        dtype: torch.dtype | None = None,
        device: Device = "cpu",
        pin: bool = False,
        advice: str = "",
    ) -> None:
        super().__init__(
            converted.config,
            dtype or DTYPES[converted.dtype],
            Origin(converted.kind, converted.version, manifest.sha256),
            device=device,
            pin=pin,
        )
        self.folder = folder
        self.advice = advice or renewal(SAM3D, folder.parent)
        self._converted = converted

    def _read(self, piece: str, empty: nn.Module) -> Mapping[str, Tensor]:
        path = self.folder / file_of(piece)
        wanted = {name: t for name, t in empty.state_dict().items() if t.is_meta}
        entries = {name: entry_of(tensor) for name, tensor in wanted.items()}
        stored = DTYPES[self._converted.dtype]
        try:
            check_piece(path, entries, exact=self.dtype == stored)
            tensors = FileTensors(path)
        except WeightsError as error:
            raise WeightsError(f"{error}; {self.advice}") from error
        if self.dtype == stored:
            return tensors
        return {name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()}

    def _vision_key(self, name: str, place: str) -> str:
        return self._converted.vision[name][place]


def load_weights(
    folder: str | Path | None = None,
    *,
    device: Device = "cpu",
    dtype: torch.dtype | None = None,
    pin: bool = False,
) -> FileStore:
    """Return the networks of SAM 3D Objects from the folder of weights; takes milliseconds.

    folder: of all weights, default as `folder.weights_folder`. device: where networks go. dtype:
    in which matrix products run, default as converted; another one costs a copy on the host. The
    same files on the same device are one object as long as anybody holds it: loading them again is
    free.

    Raises WeightsError that says how to get the weights, or what is wrong with them.
    """
    place = weights_folder(folder) / SAM3D
    if not (place / MANIFEST).is_file():
        status = model_status(SAM3D, folder)
        raise WeightsError(f"{SAM3D} is not ready: {status.found}; {status.advice}")
    key = (place.resolve(), hash_file(place / MANIFEST), torch.device(device), dtype, pin)
    store = _loaded.get(key)
    if store is None:
        try:
            converted, manifest = read_converted(place)
        except WeightsError as error:
            raise WeightsError(f"{error}; {renewal(SAM3D, folder)}") from error
        store = FileStore(place, converted, manifest, dtype=dtype, device=device, pin=pin)
        _loaded[key] = store
    return store


def forget(store: object) -> None:
    """Let the next `load_weights` read the files of `store` again, whoever holds it."""
    for key in [key for key, other in _loaded.items() if other is store]:
        del _loaded[key]
