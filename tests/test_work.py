"""The list of work, the journal of what is done, and stopping: what long jobs rest on."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam3d_nb.errors import InputError, OutputError
from sam3d_nb.work.items import list_work
from sam3d_nb.work.journal import Journal, read_records
from sam3d_nb.work.stop import CleanStop


def write_photo(folder: Path, masks: int = 1) -> Path:
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "image.png")
    for index in range(masks):
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(folder / f"{index}.png")
    return folder


# The list of work


def test_every_mask_of_every_folder_but_not_of_those_with_an_underscore(tmp_path: Path) -> None:
    write_photo(tmp_path / "kid_box", masks=2)
    write_photo(tmp_path / "a lamp")
    write_photo(tmp_path / "_left_out")
    (tmp_path / "no photo").mkdir()
    assert [item.name for item in list_work(tmp_path)] == ["0_a lamp", "0_kid_box", "1_kid_box"]
    assert [item.name for item in list_work(str(tmp_path / "kid_box"))] == [
        "0_kid_box",
        "1_kid_box",
    ]
    chosen = list_work([tmp_path / "a lamp", tmp_path / "kid_box" / "image.png"])
    assert [item.mask for item in chosen] == [0, 0, 1]


def test_a_few_masks_of_every_photo(tmp_path: Path) -> None:
    write_photo(tmp_path / "a", masks=3)
    write_photo(tmp_path / "b")
    assert [item.name for item in list_work(tmp_path, 2)] == ["0_a", "1_a", "0_b"]
    with pytest.raises(InputError, match="masks_per_photo is a number from 1 on, but got 0"):
        list_work(tmp_path, 0)


def test_masks_are_listed_by_number_and_not_read(tmp_path: Path) -> None:
    folder = write_photo(tmp_path / "photo", masks=11)
    (folder / "3.png").write_bytes(b"damaged")
    assert [item.mask for item in list_work(folder)] == list(range(11))


def test_the_package_has_examples() -> None:
    assert {item.image for item in list_work()} >= {"coffee", "study"}
    assert [item.name for item in list_work("coffee")] == ["0_coffee", "1_coffee", "2_coffee"]


def test_what_cannot_be_worked_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file or folder"):
        list_work(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no photo"):
        list_work(tmp_path)
    write_photo(tmp_path / "bare", masks=0)
    with pytest.raises(InputError, match="nothing to do: 1 examples and no mask"):
        list_work(tmp_path)
    twins = [write_photo(tmp_path / place / "same") for place in ("a", "b")]
    with pytest.raises(InputError, match="have the same name"):
        list_work(twins)
    second = shutil.copy(twins[0] / "image.png", twins[0] / "second.png")
    with pytest.raises(InputError, match="have the same masks beside them"):
        list_work([twins[0], second])


def test_a_photo_that_is_given_twice_is_one(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "a")
    assert len(list_work([photo, photo / ".." / "a", photo / "image.png"])) == 1


# The journal


def test_records_are_on_disk_at_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "done.jsonl"
    with Journal(path) as journal:
        journal.append({"name": "Stühle\nrot", "seconds": 0.1})
        assert list(read_records(path)) == [{"name": "Stühle\nrot", "seconds": 0.1}]
        journal.append({"name": "b"})
    with Journal(path) as journal:
        assert [record["name"] for record in journal.records] == ["Stühle\nrot", "b"]
        journal.clear()
    assert list(read_records(path)) == []


@pytest.mark.parametrize("cut", range(1, 20, 3))
def test_a_line_cut_off_by_a_kill_is_written_anew(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "done.jsonl"
    with Journal(path) as journal:
        journal.append({"number": 1})
        journal.append({"number": 2222222})
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        assert journal.records == [{"number": 1}]
        journal.append({"number": 3})
    assert [record["number"] for record in read_records(path)] == [1, 3]


@pytest.mark.parametrize("line", [b"not json", b"[1]", b"\xff\xfe", b"[" * 100_000, b"{}{}"])
def test_a_damaged_line_is_left_out_with_a_warning(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "done.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    with pytest.warns(UserWarning, match="line 2 .* is damaged"):
        assert list(read_records(path)) == [{"a": 1}, {"a": 2}]


def test_two_processes_do_not_share_a_journal(tmp_path: Path) -> None:
    code = "import sys; from sam3d_nb.work.journal import Journal; Journal(sys.argv[1]).__enter__()"
    path = tmp_path / "done.jsonl"
    command = [sys.executable, "-c", code, str(path)]
    with Journal(path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "another process is working in" in second.stderr
    assert subprocess.run(command, check=False).returncode == 0, "a dead process holds no lock"
    with Journal(path) as journal:
        assert journal.records == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(OutputError, match="choose another folder"),
        Journal(tmp_path / "file" / "x"),
    ):
        pass
    with pytest.raises(ValueError, match="JSON"), Journal(tmp_path / "x") as journal:
        journal.append({"seconds": float("nan")})
    assert list(read_records(tmp_path / "x")) == []


def test_a_full_disk_is_told_and_leaves_whole_lines(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file sizes can be limited on POSIX only")
    path = tmp_path / "done.jsonl"
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        journal.append({"number": 1})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, unlimited[1]))
            with pytest.raises(OutputError, match=r"cannot write done\.jsonl"):
                journal.append({"number": 2222222})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert path.read_bytes() == b'{"number": 1}\n', "nothing half-written stays"
        journal.append({"number": 3})
        assert [record["number"] for record in journal.records] == [1, 3]
    assert [record["number"] for record in read_records(path)] == [1, 3]


# Stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_next_check(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with CleanStop() as stop:
        stop.check()
        os.kill(os.getpid(), number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            stop.check()
    assert signal.getsignal(number) is before


def test_a_second_signal_does_not_wait() -> None:
    with CleanStop():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_nothing_waits_where_that_is_said() -> None:
    with CleanStop() as stop:
        stop.waits = False
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with CleanStop() as stop:
            stop.check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_handler_that_python_did_not_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """One set in C is None for `signal.getsignal`, and cannot be put back."""
    known = signal.getsignal
    foreign = {signal.SIGTERM: None}
    monkeypatch.setattr(signal, "getsignal", lambda n: foreign[n] if n in foreign else known(n))
    before = known(signal.SIGTERM)
    with CleanStop() as stop:
        assert known(signal.SIGTERM) is before
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
    assert known(signal.SIGTERM) is before
