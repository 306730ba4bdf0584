"""Networks by name, made when first asked for and moved between host and device on request."""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor, nn

from sam3d_nb.errors import WeightsError
from sam3d_nb.model.conditioning import ConditionEmbedder
from sam3d_nb.model.latent_flow import LatentFlow
from sam3d_nb.model.mesh_decoder import MeshDecoder
from sam3d_nb.model.moge import Moge
from sam3d_nb.model.splat_decoder import SplatDecoder
from sam3d_nb.model.structure_decoder import StructureDecoder
from sam3d_nb.model.structure_flow import StructureFlow
from sam3d_nb.weights.blocks import PageLocked, to_cuda
from sam3d_nb.weights.config import SMALL, ModelConfig
from sam3d_nb.weights.parts import PARTS, build_empty, part, vision_places

Device = torch.device | str
Where = Device | None  # None: the store's own device


@dataclass(frozen=True)
class Origin:
    """Where weights come from, for provenance."""

    kind: str  # official: from the hub, as published there; local: from files given; stand-in
    version: str  # of the weights, such as the published revision
    sha256: str = ""  # of the manifest of the converted files


class ModuleStore(ABC):
    """The networks of one model: `get` brings one to a device, `release` takes it off again.

    A network keeps its tensors on the host, memory-mapped where they come from a file, and its
    identity over moves: what `get` returned stays the same object. DINOv2 networks that are equal
    are one object, on a device as long as one embedder that uses it is.

    config: all hyper-parameters. dtype: in which matrix products run. origin: for provenance.
    device: where networks go unless `get` says otherwise. pin: keep page-locked host copies of
    what goes to a CUDA device, as far as the host has room for them, so that it goes there faster
    the next time.
    """

    def __init__(
        self,
        config: ModelConfig,
        dtype: torch.dtype,
        origin: Origin,
        *,
        device: Device = "cpu",
        pin: bool = False,
    ) -> None:
        self.config = config
        self.dtype = dtype
        self.origin = origin
        self.device = torch.device(device)
        self.pin = pin
        self._modules: dict[str, nn.Module] = {}
        self._pieces: dict[str, _Piece] = {}

    @overload
    def get(
        self, name: Literal["condition_stage1", "condition_stage2"], device: Where = ...
    ) -> ConditionEmbedder: ...
    @overload
    def get(self, name: Literal["moge"], device: Where = ...) -> Moge: ...
    @overload
    def get(self, name: Literal["structure_flow"], device: Where = ...) -> StructureFlow: ...
    @overload
    def get(self, name: Literal["structure_decoder"], device: Where = ...) -> StructureDecoder: ...
    @overload
    def get(self, name: Literal["latent_flow"], device: Where = ...) -> LatentFlow: ...
    @overload
    def get(
        self, name: Literal["splat_decoder", "splat_decoder_4"], device: Where = ...
    ) -> SplatDecoder: ...
    @overload
    def get(self, name: Literal["mesh_decoder"], device: Where = ...) -> MeshDecoder: ...
    @overload
    def get(self, name: str, device: Where = ...) -> nn.Module: ...

    def get(self, name: str, device: Where = None) -> nn.Module:
        """Return the network `name` with its weights on `device` (default: the store's).

        `name` is one of `parts.PARTS`. A network lives on one device at a time. Raises
        WeightsError where the weights are missing or not what they should be.
        """
        target = _indexed(self.device if device is None else device)
        module = self._module(name)
        for piece in self._pieces_of(name):
            piece.place(target, self.pin)
            piece.users.add(name)
        return module

    def make(self, name: str) -> None:
        """Make the network `name` on the host, unless it is there; raises as `get` does.

        Another thread may get networks that are made already.
        """
        self._module(name)

    def release(self, name: str) -> None:
        """Free the device memory of the network `name`; the next `get` brings it back.

        DINOv2 networks stay as long as the other embedder is in use.
        """
        part(name)
        if name not in self._modules:
            return
        for piece in self._pieces_of(name):
            piece.users.discard(name)
            if not piece.users:
                piece.evict()

    def release_all(self) -> None:
        """Free the device memory of all networks."""
        for name in PARTS:
            self.release(name)

    @contextmanager
    def on(self, device: Where, *names: str) -> Iterator[tuple[nn.Module, ...]]:
        """Have the networks `names` on `device` for the time of a `with` block."""
        try:
            yield tuple(self.get(name, device) for name in names)
        finally:
            for name in names:
                self.release(name)

    def nbytes(self, *names: str) -> int:
        """Return the bytes that these networks (default: all) take on a device, shared ones once.

        Makes the networks that are not made yet, on the host.
        """
        for name in names or PARTS:
            self._module(name)
        return sum({id(p): p.nbytes for n in names or PARTS for p in self._pieces_of(n)}.values())

    @abstractmethod
    def _read(self, piece: str, empty: nn.Module) -> Mapping[str, Tensor]:
        """Return the tensors of a piece on the host, named as in `empty`.

        A piece is a network by its name, for a condition embedder without DINOv2, or a DINOv2
        network by what `_vision_key` returned.
        """

    @abstractmethod
    def _vision_key(self, name: str, place: str) -> str:
        """Return the key of the DINOv2 network at `place` in the embedder `name`."""

    def _module(self, name: str) -> nn.Module:
        if name not in self._modules:
            module = build_empty(name, self.config, self.dtype)
            for place in vision_places(name, self.config):
                key = self._vision_key(name, place)
                owner, _, attribute = place.rpartition(".")
                backbone = module.get_submodule(place)
                if key not in self._pieces:
                    self._pieces[key] = _Piece(backbone, self._read(key, backbone))
                setattr(module.get_submodule(owner), attribute, self._pieces[key].module)
            self._pieces[name] = _Piece(module, self._read(name, module))
            self._modules[name] = module
        return self._modules[name]

    def _pieces_of(self, name: str) -> list[_Piece]:
        places = vision_places(name, self.config)
        keys = dict.fromkeys(self._vision_key(name, place) for place in places)
        return [self._pieces[key] for key in (*keys, name)]


class _Piece:
    """Tensors that move together: host copies, and the module's tensors that show one or more."""

    def __init__(self, module: nn.Module, host: Mapping[str, Tensor]) -> None:
        tensors = {
            name: tensor
            for name, tensor in chain(module.named_parameters(), module.named_buffers())
            if tensor.is_meta  # what is not belongs to a piece inside, which is there already
        }
        if set(tensors) != set(host):
            raise WeightsError(
                f"{type(module).__name__}: tensors {sorted(set(host) ^ set(tensors))[:5]} are "
                "missing or unknown"
            )
        module.load_state_dict(host, strict=False, assign=True)
        module.requires_grad_(False)
        self.module = module
        self.users: set[str] = set()
        self.device = torch.device("cpu")
        self.nbytes = sum(tensor.nbytes for tensor in host.values())
        self._source = host
        # Objects of their own: a buffer of the module is the very tensor that it was loaded from.
        self._host: Mapping[str, Tensor] = {name: tensor.detach() for name, tensor in host.items()}
        self._shown = {name: _find(module, name) for name in host}
        self._locked: PageLocked | None = None
        self._lockable = True

    def place(self, device: torch.device, pin: bool) -> None:
        """Bring the tensors to `device`."""
        if device == self.device:
            return
        self.evict()
        if device.type == "cpu":
            return
        self.device = device
        try:
            for name, tensor in self._copies(device, pin).items():
                self._shown[name].data = tensor
        except BaseException:  # the device's memory ran out: leave nothing behind
            self.evict()
            raise

    def _copies(self, device: torch.device, pin: bool) -> dict[str, Tensor]:
        """Return the tensors on `device`."""
        if device.type != "cuda":
            return {name: tensor.to(device) for name, tensor in self._host.items()}
        if pin and self._locked is None and self._lockable:
            try:
                self._locked = PageLocked(self._source)
                self._host = self._source = self._locked.tensors
            except (RuntimeError, MemoryError):  # the host locks no more pages: do without
                self._lockable = False
        return to_cuda(self._source, device) if self._locked is None else self._locked.to(device)

    def evict(self) -> None:
        """Bring the tensors back to the host, where they still are."""
        for name, tensor in self._host.items():
            self._shown[name].data = tensor
        self.device = torch.device("cpu")


def _find(module: nn.Module, name: str) -> Tensor:
    owner, _, attribute = name.rpartition(".")
    return getattr(module.get_submodule(owner), attribute)


def _indexed(device: Device) -> torch.device:
    """Return the device with its number, which alone tells cuda and cuda:0 to be the same."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


class StandInStore(ModuleStore):
    """Networks with made-up weights, for tests and timings; what they produce is noise.

    The weights have the names and shapes of the published ones and a distribution that keeps
    activations of order one; seed 0 gives those of the golden files. They are computed on the host
    when asked for, in seconds at full size.
    """

    def __init__(
        self,
        config: ModelConfig = SMALL,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        *,
        device: Device = "cpu",
        pin: bool = False,
    ) -> None:
        origin = Origin("stand-in", f"stand-in seed {seed}")
        super().__init__(config, dtype, origin, device=device, pin=pin)
        self.seed = seed

    def _read(self, piece: str, empty: nn.Module) -> Mapping[str, Tensor]:
        prefix = PARTS[piece].inner if piece in PARTS else f"{piece}."
        parameters = {name for name, _ in empty.named_parameters()}
        values = {n: t for n, t in empty.state_dict().items() if t.is_meta}

        # Tables follow from the configuration. One by one: each puts PyTorch's random numbers back.
        tables = {n: self._table(piece, n, t) for n, t in values.items() if n not in parameters}

        def make(name: str) -> Tensor:
            if name in tables:
                return tables[name]
            like = values[name]
            noise = stand_in(prefix + name, tuple(like.shape), self.seed)
            return torch.from_numpy(noise).to(like.dtype)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return dict(zip(values, pool.map(make, values), strict=True))

    def _table(self, piece: str, name: str, like: Tensor) -> Tensor:
        settings = getattr(self.config, piece)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # building draws numbers
            return _find(PARTS[piece].build(settings), name).detach().to(like.dtype)

    def _vision_key(self, name: str, place: str) -> str:
        return place


def stand_in(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return the float32 stand-in for the parameter `name` of `shape`.

    Matrices and kernels (two axes or more) are normal with variance 1 / fan-in, where fan-in is
    the product of all axes but the first. Vectors named weight or gamma are 1 + 0.1 n, every other
    vector and scalar is 0.1 n, with n standard normal.
    """
    key = zlib.crc32(name.encode())
    noise = np.random.default_rng(key if seed == 0 else [key, seed]).standard_normal(
        shape, dtype=np.float32
    )
    if len(shape) >= 2:
        return noise / np.float32(math.sqrt(math.prod(shape[1:])))
    if name.endswith(("weight", "gamma")):
        return 1 + np.float32(0.1) * noise
    return np.float32(0.1) * noise
