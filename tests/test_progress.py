"""The progress bar follows the events of a reconstruction, and stays away from quick ones."""

import io
import sys
from contextlib import suppress
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import pytest
from tqdm import tqdm

from sam3d_nb import progress
from sam3d_nb.events import DepthEvent, DoneEvent, MeshEvent, WritingEvent


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Where bars are drawn, without waiting between two drawings."""
    monkeypatch.setattr(progress, "has_screen", lambda: True)
    drawn = io.StringIO()

    def bar(**settings: Any) -> tqdm:
        return tqdm(**settings, file=drawn, mininterval=0)

    monkeypatch.setattr("tqdm.auto.tqdm", bar)
    return drawn


def run(bar: progress.Progress) -> None:
    for event in (DepthEvent(0.0), DepthEvent(1.0), MeshEvent(0.0), MeshEvent(0.5)):
        bar(event)


def test_stage_and_share_are_drawn(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    bar = progress.Progress()
    run(bar)
    assert "depth 100%" in screen.getvalue()
    assert screen.getvalue().rsplit("\r", 1)[1].startswith("mesh  50%")
    bar(DoneEvent(1.0))
    assert bar._bar is None
    assert not screen.getvalue().rsplit("\r", 1)[1].strip(), "the bar is still there"


def test_quick_runs_draw_nothing(screen: io.StringIO) -> None:
    with progress.Progress() as bar:
        run(bar)
        assert "%" not in screen.getvalue()


def test_bar_goes_when_the_run_fails(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    bar = progress.Progress()
    with suppress(ZeroDivisionError), bar:
        run(bar)
        raise ZeroDivisionError
    assert "mesh  50%" in screen.getvalue()
    assert bar._bar is None
    assert not screen.getvalue().rsplit("\r", 1)[1].strip()


def write(bar: progress.Progress) -> None:
    for event in (DoneEvent(1.0), WritingEvent(), WritingEvent(0.5, "pictures")):
        bar(event)


def test_writing_is_drawn_and_goes_when_all_is_written(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    bar = progress.Progress()
    run(bar)
    write(bar)
    assert screen.getvalue().rsplit("\r", 1)[1].startswith("writing pictures  50%")
    bar(WritingEvent(1.0))
    assert bar._bar is None
    with bar:
        run(bar)
        first = bar._bar
        write(bar)
        assert bar._bar is first, "one clock for all"
    assert bar._bar is None


def test_invisible(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    run(progress.Progress(visible=False))
    assert not screen.getvalue()


def test_a_file_gets_a_line_a_stage(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    bar = progress.Progress()
    run(bar)
    bar(MeshEvent(1.0))
    bar(DoneEvent(1.0))
    assert capsys.readouterr().err == "    0 s  depth\n    0 s  mesh\n"
    write(bar)
    assert capsys.readouterr().err == "    0 s  writing files\n    0 s  writing pictures\n"
    with progress.counting() as show:
        for done, name in enumerate(["chair", "chair", "lamp"]):
            show(done, 3, name)
    assert capsys.readouterr().err == "    0 s  chair\n    0 s  lamp\n"
    run(progress.Progress(visible=False))
    assert capsys.readouterr().err == ""


def test_lines_are_a_second_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100, 100.5, 101.5, 102, 102.6, 104])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    bar = progress.Lines()
    for text in ("depth", "depth", "mesh", "mesh", "texture"):
        bar.set_description_str(text)
        bar.update(0.1)
    assert bar.n == pytest.approx(0.5)
    bar.close()
    assert capsys.readouterr().err == "    2 s  depth\n    3 s  mesh\n    4 s  texture\n"


def test_a_long_stage_is_told_while_it_lasts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.1)
    bar = progress.Lines()
    for text in ("depth", "mesh"):  # the second begins right after the first is told
        bar.set_description_str(text)
        bar.update(0.1)
        until = monotonic() + 30
        told = ""
        while text not in told and monotonic() < until:
            told += capsys.readouterr().err
            sleep(0.01)
        assert told == f"    0 s  {text}\n"
    bar.set_description_str("texture")
    bar.update(0.1)
    bar.close()
    sleep(0.2)
    assert capsys.readouterr().err == ""


def test_a_file_gets_nothing_of_quick_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress() as bar:
        run(bar)
    assert capsys.readouterr().err == ""


def test_bars_are_for_terminals_and_notebooks(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    assert not progress.has_screen()
    shell = SimpleNamespace(kernel=None)
    with monkeypatch.context() as patch:
        patch.setattr("IPython.core.getipython.get_ipython", lambda: shell)
        assert progress.has_screen()
    assert not progress.has_screen()
    monkeypatch.setattr(file, "isatty", lambda: True)
    assert progress.has_screen()
