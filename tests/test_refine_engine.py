"""Layout refinement as an option of the engine, with stand-in weights."""

import numpy as np
import pytest
from engine_small import QUICK, disc, photo

from sam3d_nb.engine.model import Sam3dObjects
from sam3d_nb.errors import InputError
from sam3d_nb.events import Event, LayoutEvent
from sam3d_nb.refine import refine_pose
from sam3d_nb.weights.store import StandInStore


@pytest.fixture(scope="module")
def model() -> Sam3dObjects:
    return Sam3dObjects(StandInStore())


def test_the_engine_refines_where_asked_to(model: Sam3dObjects) -> None:
    as_made = model.reconstruct(photo(), disc(), **QUICK)
    events: list[Event] = []
    better = model.reconstruct(photo(), disc(), on_event=events.append, refine_layout=True, **QUICK)
    np.testing.assert_array_equal(better.mesh.vertices, as_made.mesh.vertices)
    pose, report = refine_pose(
        as_made.mesh, as_made.pose, as_made.intrinsics, disc(), QUICK["pointmap"]
    )
    assert better.pose == pose != as_made.pose
    assert report.iou_after > report.iou_before
    poses = [event.pose for event in events if isinstance(event, LayoutEvent)]
    assert poses == [None, as_made.pose, None, pose]
    settings = better.provenance.settings
    assert settings["refined_by"] == ", ".join(report.accepted)
    assert settings["layout_iou_after"] == round(report.iou_after, 4)
    assert as_made.provenance.settings["refine_layout"] is False
    assert settings["refine_layout"] is True


def test_the_option_is_part_of_what_decides_an_object(model: Sam3dObjects) -> None:
    assert model.deciding(refine_layout=True) != model.deciding()
    with pytest.raises(InputError, match=r"refine_layout needs 'mesh' among the formats"):
        model.stream(photo(), disc(), formats=("gaussians",), refine_layout=True)
