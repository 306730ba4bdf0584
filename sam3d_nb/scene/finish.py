"""The meshes of a scene for other programs: each object finished on its own, where it stands."""

from __future__ import annotations

from dataclasses import replace

from sam3d_nb.events import FinishingEvent, OnEvent, tell
from sam3d_nb.frames import Pose
from sam3d_nb.mesh.finish import Finishing
from sam3d_nb.object3d import Object3D
from sam3d_nb.scene.failures import failure_of, raise_all_failed
from sam3d_nb.scene.scene import Scene


def finish_scene(scene: Scene, finishing: Finishing, on_event: OnEvent | None = None) -> Scene:
    """Return the scene with each object's mesh finished; see `Scene.finished`."""
    if not finishing or not scene.objects:
        return scene
    kept: list[tuple[Object3D, Pose]] = []
    failures = list(scene.failures)
    for number, (made, pose) in enumerate(zip(scene.objects, scene.poses, strict=True)):
        tell(on_event, FinishingEvent(number / len(scene), made.name))
        try:
            kept.append((finishing.apply(made), pose))
        except Exception as error:
            failures.append(failure_of(made.name, made.provenance.mask_index, error))
    tell(on_event, FinishingEvent(1.0, scene.objects[-1].name))
    if not kept:
        raise_all_failed(failures[len(scene.failures) :], "finished")
    objects, poses = zip(*kept, strict=True)
    return replace(scene, objects=objects, poses=poses, failures=tuple(failures))
