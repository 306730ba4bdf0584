"""A worker of a cluster: one model, and photos that come as bytes, since folders are elsewhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sam3d_nb.batch.inputs import PhotoFiles
from sam3d_nb.batch.make import Made, Maker
from sam3d_nb.batch.settings import Identity, Settings, identify
from sam3d_nb.pipeline import Model


class Worker:
    """What runs as an actor: loads its model once, then makes one object after another.

    threads: of torch on the CPU, the same everywhere, so that sums come out the same.
    """

    def __init__(self, load: Callable[[], Model], settings: Settings, threads: int) -> None:
        self._load, self._settings, self._threads = load, settings, threads
        self._maker: Maker | None = None
        self._token = ""
        self._photo: Path | None = None
        self._folder = ""
        self._scratch: TemporaryDirectory | None = None

    def start(self) -> tuple[Identity, str]:
        """Load the model; return who it is, and where: host and process."""
        import torch

        torch.set_num_threads(self._threads)
        model = self._load()
        self._maker = Maker(model, self._settings)
        return identify(model, self._settings), f"{socket.gethostname()}:{os.getpid()}"

    def make(self, token: str, photo: list[Any], mask: int, stem: str) -> Made:
        """Return one object of a photo; it is fetched only if `token` is not the latest photo's.

        photo: a list of one reference to `PhotoFiles`.
        """
        assert self._maker is not None
        if token != self._token or self._photo is None:
            import ray

            self._unpack(ray.get(photo[0]))
            self._token = token
        assert self._photo is not None
        made = self._maker.make(self._photo, mask, stem)
        return self._in_terms_of_the_sender(made)

    def _unpack(self, files: PhotoFiles) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()
        self._scratch = TemporaryDirectory()
        self._folder = files.folder
        self._photo = files.unpack(Path(self._scratch.name))

    def _in_terms_of_the_sender(self, made: Made) -> Made:
        """Return `made` with the folder that the person knows in its texts."""
        here = str(self._photo.parent) if self._photo else ""

        def known(text: str) -> str:
            return text.replace(here, self._folder)

        warnings = tuple(known(text) for text in made.warnings)
        return replace(made, reason=known(made.reason), warnings=warnings)
