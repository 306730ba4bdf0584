"""A device that works asynchronously, as a GPU does, and models and a probe for it."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from sam3d_nb.events import MeshEvent, StructuredLatentEvent
from sam3d_nb.frames import Pose
from sam3d_nb.mesh import Mesh
from sam3d_nb.pipeline import Model, Reconstruction, Run
from sam3d_nb.profiling.probe import Memory, Probe
from sam3d_nb.request import Request

TRIANGLE = Mesh(np.eye(3), np.array([[0, 1, 2]]))


class Device:
    """Does what it is told in order, beside the host; counts memory like PyTorch's allocator."""

    def __init__(self) -> None:
        self._queue = ThreadPoolExecutor(1)
        self._last: Future[Any] = self._queue.submit(int)
        self.now = self.highest = 0

    def launch(self, seconds: float) -> None:
        self._last = self._queue.submit(time.sleep, seconds)

    def synchronize(self) -> None:
        self._last.result()

    def mark(self) -> Future[float]:
        self._last = self._queue.submit(time.perf_counter)
        return self._last

    def allocate(self, size: int) -> None:
        self.now += size
        self.highest = max(self.highest, self.now)


class DeviceProbe(Probe):
    """Reads a `Device` as `CudaProbe` reads a GPU."""

    def __init__(self, device: Device) -> None:
        super().__init__(device.synchronize)
        self._device = device

    def mark(self) -> Future[float]:
        return self._device.mark()

    def between(self, first: Any, second: Any) -> float:
        return second.result() - first.result()

    def memory(self) -> Memory:
        return Memory(self._device.now, self._device.now, None)

    def take_peak(self) -> Memory:
        peak = Memory(self._device.highest, self._device.highest, None)
        self._device.highest = self._device.now
        return peak


class AsynchronousModel(Model):
    """Launches work and goes on: three steps of a flow, then a mesh, then some more."""

    name, version = "asynchronous", "1"
    STEP, MESH, AFTER = 0.03, 0.06, 0.05  # seconds on the device

    def __init__(self, device: Device) -> None:
        self.launched = device
        self.synchronize = device.synchronize

    def run(self, request: Request) -> Run:
        yield StructuredLatentEvent(0.0, 0, 3)
        self.launched.allocate(100)
        for step in range(3):
            self.launched.launch(self.STEP)
            yield StructuredLatentEvent((step + 1) / 3, step + 1, 3)
        self.launched.allocate(-50)
        yield MeshEvent(0.0)
        self.launched.allocate(30)
        self.launched.launch(self.MESH)
        yield MeshEvent(1.0)
        self.launched.launch(self.AFTER)
        return Reconstruction(TRIANGLE, Pose())
