"""Several processes that train together end with the same weights as one that sees it all."""

import os
import socket
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import nn

from training import parallel
from training.loop import Schedule, train

PROCESSES = 2


def work(number: int, port: int, folder: Path) -> None:
    os.environ |= {
        "LOCAL_RANK": str(number),
        "RANK": str(number),
        "WORLD_SIZE": str(PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    parallel.start()
    torch.manual_seed(number)  # each begins with its own weights, and has its own samples
    layer, saved = nn.Linear(3, 1), []
    true = torch.tensor([[1.0, -2.0, 0.5]])

    def losses(step: int) -> dict[str, torch.Tensor]:
        x = torch.randn(16, 3)
        return {"error": (layer(x) - x @ true.T).square().mean()}

    # its minutes are those of the first, as a deadline gives them
    schedule = Schedule(
        0.03 * (1 + number), rate=0.05, warmup=5, decay=0.9, agree_every=3, save_every=0.2
    )
    train("line", {"layer": layer}, losses, schedule, 16, save=lambda: saved.append(number))
    told = parallel.agreed(float(number + 5), torch.device("cpu"))
    torch.save((layer.state_dict(), saved, told), folder / f"{number}.pt")
    parallel.stop()


def test_processes_stay_together(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, tmp_path), PROCESSES)
    (first, saved, told), (second, not_saved, also_told) = (
        torch.load(tmp_path / f"{number}.pt") for number in range(PROCESSES)
    )
    assert torch.equal(first["weight"], second["weight"])
    assert (first["weight"] - torch.tensor([[1.0, -2.0, 0.5]])).abs().max() < 0.05
    assert saved
    assert not not_saved  # the first process alone saves
    assert told == also_told == 5.0


def test_one_process_needs_nothing():
    layer = nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad.clone()
    parallel.average_gradients(list(layer.parameters()))
    assert torch.equal(layer.weight.grad, before)
    assert parallel.rank() == 0
    assert parallel.processes() == 1
    assert parallel.agreed(2.5, torch.device("cpu")) == 2.5
