"""The progress bar follows the events of a reconstruction, and stays away from quick ones."""

import io
from contextlib import suppress
from typing import Any

import pytest
from tqdm import tqdm

from sam3d_nb import progress
from sam3d_nb.events import DepthEvent, DoneEvent, MeshEvent


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Where bars are drawn, without waiting between two drawings."""
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


def test_invisible(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0)
    run(progress.Progress(visible=False))
    assert not screen.getvalue()
