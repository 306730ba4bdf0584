"""What is to be downloaded for a model: the files that are needed, and which of them are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from sam3d_nb.errors import WeightsError
from sam3d_nb.weights.convert import SUFFIXES
from sam3d_nb.weights.folder import read_json, write_json
from sam3d_nb.weights.hub import Hub, Listing, RemoteFile, partial_path
from sam3d_nb.weights.published import CHECKPOINTS, PIPELINE, SETTINGS
from sam3d_nb.weights.status import REPOSITORIES, download_folder

RECORDS = ".records.json"
SAM3_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "LICENSE*")


@dataclass(frozen=True)
class Plan:
    """What is to be downloaded from one repository, and where to."""

    listing: Listing
    files: tuple[RemoteFile, ...]
    folder: Path

    def missing(self) -> list[RemoteFile]:
        """Return the files that are not there yet with this content."""
        records = records_in(self.folder)
        return [file for file in self.files if not self._is_there(file, records.get(file.name))]

    def _is_there(self, file: RemoteFile, record: dict[str, object] | None) -> bool:
        path = self.folder / file.name
        if record is None or not path.is_file() or path.stat().st_size != file.bytes:
            return False
        if file.sha256:
            return record["sha256"] == file.sha256
        return record["revision"] == self.listing.revision

    def missing_bytes(self) -> int:
        """Return how many bytes are still to come."""
        missing = self.missing()
        partial = [partial_path(self.listing, file, self.folder) for file in missing]
        there = sum(path.stat().st_size for path in partial if path.is_file())
        return max(sum(file.bytes for file in missing) - there, 0)

    def fetch(self, hub: Hub) -> None:
        """Download what is missing; what is complete is on record at once."""
        missing = self.missing()
        records = records_in(self.folder)
        for file in self.files:
            if file in missing:
                hub.fetch(self.listing, file, self.folder)
            records[file.name] = _record(self.listing, file)
            write_json(self.folder / RECORDS, records)


def _record(listing: Listing, file: RemoteFile) -> dict[str, object]:
    return {**asdict(file), "repository": listing.repository, "revision": listing.revision}


def records_in(folder: Path) -> dict[str, dict[str, object]]:
    """Return what is on record as downloaded into a folder, by file name."""
    try:
        records = read_json(folder / RECORDS)
    except WeightsError:  # none yet, or half written: the files are looked at anew
        return {}
    if not isinstance(records, dict):
        return {}
    whole = {"name", "bytes", "sha256", "repository", "revision"}
    return {name: r for name, r in records.items() if isinstance(r, dict) and set(r) == whole}


def choose_model_files(listing: Listing) -> tuple[RemoteFile, ...]:
    """Return the files of SAM 3D Objects that are needed, wherever in the repository they stand.

    Raises WeightsError that says which ones the repository lacks.
    """
    by_name = {file.name: file for file in listing.files}
    main = f"{PIPELINE}.yaml"
    places = [name for name in by_name if name.rpartition("/")[2] == main]
    if not places:
        raise WeightsError(f"{listing.repository} has no {main}; update this package")
    start = min(places, key=lambda name: (name.count("/"), name)).removesuffix(main)
    wanted = [f"{start}{name}.yaml" for name in SETTINGS]
    for name in CHECKPOINTS:
        choices = [f"{start}{name}{suffix}" for suffix in SUFFIXES]
        wanted.append(next((choice for choice in choices if choice in by_name), choices[0]))
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise WeightsError(f"{listing.repository} lacks {', '.join(missing)}; update this package")
    licenses = [name for name in by_name if fnmatchcase(name, "LICENSE*") and "/" not in name]
    return tuple(by_name[name] for name in (*wanted, *licenses))


def choose_moge_files(listing: Listing) -> tuple[RemoteFile, ...]:
    """Return the checkpoint of the point-map network."""
    by_name = {file.name: file for file in listing.files}
    name = next((n for n in ("model.pt", "model.safetensors") if n in by_name), None)
    if name is None:
        raise WeightsError(f"{listing.repository} has no model.pt; update this package")
    return (by_name[name],)


def choose_sam3_files(listing: Listing) -> tuple[RemoteFile, ...]:
    """Return the files of SAM 3 that transformers reads; no pickled ones."""
    chosen = tuple(
        file
        for file in listing.files
        if "/" not in file.name and any(fnmatchcase(file.name, p) for p in SAM3_FILES)
    )
    names = {file.name for file in chosen}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise WeightsError(f"{listing.repository} has no config.json with .safetensors files")
    return chosen


CHOOSE: Mapping[str, Callable[[Listing], tuple[RemoteFile, ...]]] = {
    "facebook/sam-3d-objects": choose_model_files,
    "Ruicheng/moge-vitl": choose_moge_files,
    "facebook/sam3": choose_sam3_files,
}


def make_plans(name: str, hub: Hub, root: Path) -> list[Plan]:
    """Return what the model `name` needs from each of its repositories.

    Raises AccessError before anything is listed where one of them is closed.
    """
    for repository in REPOSITORIES[name]:
        hub.check_access(repository)
    plans = []
    for repository in REPOSITORIES[name]:
        listing = hub.list_files(repository)
        plans.append(Plan(listing, CHOOSE[repository](listing), download_folder(root, repository)))
    return plans
