"""From the published checkpoints to our own folder: once, tensor by tensor, all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.checkpoint import Checkpoint, check_tensors
from sam3d_nb.weights.config import ModelConfig
from sam3d_nb.weights.converted import DTYPES, Converted, Source
from sam3d_nb.weights.folder import hash_file
from sam3d_nb.weights.parts import PARTS, build_empty, part
from sam3d_nb.weights.published import CHECKPOINTS, SETTINGS, read_published
from sam3d_nb.weights.write import OnProgress, find_shared, piece_tensors, silent, write_model

LICENSE = "LICENSE"
SUFFIXES = (".ckpt", ".pt", ".safetensors")


@dataclass(frozen=True)
class PublishedFiles:
    """Where the published files lie. known: repository, revision and SHA-256 of files, by path."""

    settings: Path  # folder with pipeline.yaml and the checkpoints
    moge: Path  # checkpoint of the point-map network
    license: Path | None = None
    known: Mapping[Path, Source] = field(default_factory=dict)

    @property
    def checkpoints(self) -> dict[str, Path]:
        """Paths of the checkpoints by the names that `parts` uses; raises WeightsError."""
        found = {name: _find_checkpoint(self.settings, name) for name in CHECKPOINTS}
        if not self.moge.is_file():
            raise WeightsError(f"{self.moge} is missing; it is the point-map network's checkpoint")
        return {**found, "model": self.moge}


def find_published(folder: Path, moge: Path | None = None) -> PublishedFiles:
    """Return the published files in `folder` or below it.

    moge: the point-map checkpoint, if it does not lie there as model.pt or model.safetensors.
    Raises WeightsError that says what is missing.
    """
    places = sorted(folder.rglob("pipeline.yaml"), key=lambda path: (len(path.parts), path))
    if not places:
        raise WeightsError(
            f"{folder} has no pipeline.yaml; give the folder with the files of "
            "facebook/sam-3d-objects"
        )
    settings = places[0].parent
    if moge is None:
        names = [folder / f"model{suffix}" for suffix in SUFFIXES[1:]]
        moge = next((path for path in names if path.is_file()), None)
    if moge is None:
        raise WeightsError(
            f"{folder} has no model.pt; give the checkpoint of Ruicheng/moge-vitl with --moge"
        )
    missing = [f"{name}.yaml" for name in SETTINGS if not (settings / f"{name}.yaml").is_file()]
    if missing:
        raise WeightsError(f"{settings} lacks {', '.join(missing)}; get the complete repository")
    licenses = sorted(path for path in folder.rglob("LICENSE*") if path.is_file())
    files = PublishedFiles(settings, moge, licenses[0] if licenses else None)
    _ = files.checkpoints
    return files


def _find_checkpoint(folder: Path, name: str) -> Path:
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise WeightsError(f"{paths[0]} is missing; get the complete repository")
    return found


def convert(
    files: PublishedFiles,
    root: Path,
    *,
    dtype: str = "float16",
    accept: tuple[str, ...] = (),
    kind: str = "local",
    on_progress: OnProgress = silent,
) -> Path:
    """Convert the published files into `root` and return the folder of the converted model.

    Everything is checked before anything is written; the result gets its name when it is complete
    and verified, and then replaces an older one. An interrupted conversion goes on where it
    stopped. Needs the memory of one tensor, not of a network.

    dtype: float16 or bfloat16, of the matrix products; norms, embedders and the layers at both
    ends stay in float32. accept: see `published.read_published`. kind: official, local, stand-in.

    Raises WeightsError that says what is wrong with which file.
    """
    if dtype not in DTYPES:
        raise WeightsError(f"there is no dtype {dtype!r}; choose from {', '.join(DTYPES)}")
    opened = {name: Checkpoint(path) for name, path in files.checkpoints.items()}
    moge = opened["model"].config("model_config")
    published = read_published(files.settings, moge, accept)
    tensors = {name: _part_tensors(name, opened, published.config) for name in PARTS}
    vision = find_shared(published.config, tensors)
    sources = _sources(files, on_progress)
    converted = Converted(
        published.config,
        dtype,
        vision,
        kind,
        _version(sources),
        sources,
        published.accepted,
    )

    def read(piece: str) -> Mapping[str, Tensor]:
        return piece_tensors(piece, tensors, vision)

    extra = {LICENSE: files.license} if files.license else {}
    return write_model(converted, read, root, extra=extra, on_progress=on_progress)


def _part_tensors(
    name: str, opened: Mapping[str, Checkpoint], config: ModelConfig
) -> dict[str, Tensor]:
    """Return the tensors of one network by our names, checked for names, shapes and types."""
    spec = part(name)
    checkpoint = opened[spec.checkpoint]
    found = {
        key.removeprefix(spec.prefix): tensor
        for key, tensor in checkpoint.tensors(spec.container).items()
        if key.startswith(spec.prefix)
    }
    state = build_empty(name, config, torch.float32).state_dict()
    expected = {spec.inner + key: tuple(tensor.shape) for key, tensor in state.items()}
    check_tensors(found, expected, f"{checkpoint.path.name}, {name}")
    return {key.removeprefix(spec.inner): tensor for key, tensor in found.items()}


def _sources(files: PublishedFiles, on_progress: OnProgress) -> tuple[Source, ...]:
    """Return what the weights come from; hashes the files that are not known yet."""
    found = []
    paths = [*files.checkpoints.values(), *(files.settings / f"{name}.yaml" for name in SETTINGS)]
    total, done = sum(path.stat().st_size for path in paths), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        on_progress("hashing the published files", done, total)

    for path in paths:
        known = files.known.get(path)
        if known is None:
            size = path.stat().st_size
            known = Source("", "", path.name, size, hash_file(path, tell))
        found.append(known)
    return tuple(found)


def _version(sources: tuple[Source, ...]) -> str:
    """Return the published revision, or what identifies files of unknown origin."""
    generator = next(s for s in sources if s.file.rpartition("/")[2].startswith("ss_generator."))
    if generator.revision:
        return f"{generator.repository}@{generator.revision[:12]}"
    return f"ss_generator {generator.sha256[:12]}"
