"""Published checkpoints, read without executing anything that they contain."""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.folder import shown
from sam3d_nb.weights.tensorfile import FileTensors, read_whole_header

MAX_PICKLE = 64 * 2**20  # bytes of instructions; the tensors' bytes stand beside them
MAX_RECORDS = 100_000
FLOATS = (torch.float32, torch.float16, torch.bfloat16)

# What training frameworks leave behind in a checkpoint. Read as empty placeholders: neither
# imported nor called.
LEFTOVER_PACKAGES = ("omegaconf", "pytorch_lightning", "lightning", "lightning_fabric", "numpy")
LEFTOVER_NAMES = {
    *("typing.Any", "collections.defaultdict", "argparse.Namespace", "pathlib.PosixPath"),
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")),
}


class Placeholder:
    """Stands for an object that weights do not need; takes anything and keeps nothing."""

    def __new__(cls, *arguments: object, **options: object) -> "Placeholder":
        """Return an empty object whatever the arguments."""
        return object.__new__(cls)

    def __init__(self, *arguments: object, **options: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


class Checkpoint:
    """One published file, pickled or safetensors. Tensors are memory-mapped.

    Raises WeightsError where the file is missing, no checkpoint, damaged, or asks for code.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix == ".safetensors":
            self._content: Any = None
            self._metadata = read_whole_header(path).metadata
            self._tensors = FileTensors(path)
        else:
            check_archive(path)
            self._content = _read_pickle(path)

    def tensors(self, container: str | None) -> dict[str, Tensor]:
        """Return the state dict that stands under the key `container`, or is the whole file.

        A safetensors file holds nothing else, and has no containers.
        """
        if self._content is None:
            return self._tensors
        state = self._content
        if container is not None:
            state = state.get(container) if isinstance(state, dict) else None
        if not isinstance(state, dict):
            known = self._content if isinstance(self._content, dict) else {}
            keys = [shown(str(key)) for key in list(known)[:8]]
            raise WeightsError(
                f"{self.path.name} has no state dict under {container!r}; it has the keys {keys}"
            )
        return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}

    def config(self, key: str) -> Mapping[str, Any]:
        """Return the table of settings under `key`; in a safetensors file it is JSON metadata."""
        if self._content is None:
            try:
                value = json.loads(self._metadata.get(key, "null"))
            except ValueError:
                value = None
        else:
            value = self._content.get(key) if isinstance(self._content, dict) else None
        if not isinstance(value, dict):
            raise WeightsError(f"{self.path.name} has no settings under {key!r}")
        return value


def check_archive(path: Path) -> None:
    """Check the zip archive around a pickled checkpoint before anything in it is read.

    Its records must be stored as they are (nothing to inflate), inside the file and not on top of
    each other. Raises WeightsError.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            start = archive.start_dir
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise WeightsError(
            f"{path.name} is truncated or no PyTorch checkpoint ({error}); download it again"
        ) from error
    pickles = [record for record in records if record.filename.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1 or len(records) > MAX_RECORDS:
        raise WeightsError(f"{path.name} is no PyTorch checkpoint: it has no single data.pkl")
    largest = max((r.file_size for r in records if not _is_tensor(r.filename)), default=0)
    if largest > MAX_PICKLE:
        raise WeightsError(
            f"{path.name} is refused: a record of {largest} bytes that is no tensor, where weights "
            f"need less than one hundredth of {MAX_PICKLE}"
        )
    end = 0
    for record in sorted(records, key=lambda record: record.header_offset):
        if record.compress_type != zipfile.ZIP_STORED or record.compress_size != record.file_size:
            name = shown(record.filename)
            raise WeightsError(f"{path.name} is refused: {name} in it is compressed")
        if record.header_offset < end:
            raise WeightsError(f"{path.name} is refused: records in it overlap")
        end = record.header_offset + record.file_size
    if end > start or start > size:
        raise WeightsError(f"{path.name} is damaged: records in it reach beyond its end")


def _is_tensor(record: str) -> bool:
    return record.split("/")[1:2] == ["data"]


def _read_pickle(path: Path) -> Any:
    """Return the content of a checked checkpoint by PyTorch's restricted reader."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        refused = sorted(name for name in names if not _is_leftover(name))
        if refused:
            named = ", ".join(map(shown, refused[:5]))
            raise WeightsError(
                f"{path.name} is refused, nothing in it was run: it asks for {named}, which no "
                "weights need. Delete it, do not open it with other programs, and download it "
                "again from the publisher"
            )
        with torch.serialization.safe_globals([(_placeholder(name), name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        text = " ".join(str(error).partition("WeightsUnpickler error:")[2].split()) or str(error)
        reason = text.partition(" Check the documentation")[0]
        raise WeightsError(
            f"{path.name} is refused: {shown(reason, 300)}; download it again"
        ) from error
    except Exception as error:  # whatever a malformed file makes the reader stumble over
        raise WeightsError(
            f"{path.name} is damaged: {type(error).__name__}: {shown(str(error), 300)}; download "
            "it again"
        ) from error


def _placeholder(name: str) -> Callable[..., Any]:
    if name == "collections.defaultdict":  # the reader fills it item by item
        return lambda *arguments: {}
    return type(name, (Placeholder,), {})


def _is_leftover(name: str) -> bool:
    return name in LEFTOVER_NAMES or name.partition(".")[0] in LEFTOVER_PACKAGES


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], where: str
) -> None:
    """Compare names, shapes and types with what the configuration asks for.

    Raises WeightsError that names what is missing, unknown or different.
    """
    problems = []
    for text, names in (
        ("missing", expected.keys() - found.keys()),
        ("unknown", found.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            problems.append(f"{text}: {', '.join(map(shown, sorted(names)[:5]))}{more}")
    for name in sorted(expected.keys() & found.keys()):
        tensor = found[name]
        if tuple(tensor.shape) != tuple(expected[name]):
            problems.append(f"{name} is {tuple(tensor.shape)} instead of {tuple(expected[name])}")
        elif tensor.dtype not in FLOATS or tensor.layout != torch.strided:
            problems.append(f"{name} is {tensor.dtype}, not a plain floating-point tensor")
    if problems:
        more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise WeightsError(
            f"{where}: the tensors are not those of the published model: "
            f"{'; '.join(problems[:6])}{more}"
        )
