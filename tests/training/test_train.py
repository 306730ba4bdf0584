"""The training loop, and the way of weights from training into a model that runs."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sam3d_nb.errors import WeightsError
from sam3d_nb.examples import Example
from sam3d_nb.model.structure_decoder import decode_structure
from sam3d_nb.tiny.config import TINY
from sam3d_nb.tiny.load import load_tiny
from sam3d_nb.tiny.model import Tiny
from sam3d_nb.tiny.shipped import NAME
from sam3d_nb.weights.converted import read_converted
from sam3d_nb.weights.folder import MANIFEST
from sam3d_nb.weights.load import FileStore
from sam3d_nb.weights.parts import PARTS
from training import stages
from training.export import export
from training.loop import WARM, Schedule, _Steps, train
from training.networks import Average, StructureEncoder, build, load, save, share_vision
from training.resume import ENCODER_FILE, unpack
from training.samples import Samples
from training.train import Trainer, file_of


def test_the_rate_warms_up_and_falls_to_zero():
    schedule = Schedule(1.0, rate=2.0, warmup=10, hold=0.5)
    assert schedule.rate_at(0.0, 0) == pytest.approx(0.2)
    assert schedule.rate_at(0.3, 100) == 2.0
    assert schedule.rate_at(0.75, 100) == pytest.approx(1.0)
    assert schedule.rate_at(1.0, 100) == pytest.approx(0.0)


def test_training_finds_what_there_is_to_find_and_survives_a_bad_step(capsys):
    torch.manual_seed(0)
    layer, true = nn.Linear(3, 1), torch.tensor([[1.0, -2.0, 0.5]])

    def losses(step: int) -> dict[str, torch.Tensor]:
        x = torch.randn(64, 3)
        error = (layer(x) - x @ true.T).square().mean()
        return {"error": error * (torch.nan if step == 5 else 1.0)}

    schedule = Schedule(0.03, rate=0.05, warmup=5, decay=0.9, clip=100.0, log_every=0.3)
    log = train("line", {"layer": layer}, losses, schedule, 64)
    np.testing.assert_allclose(layer.weight.detach(), true, atol=0.05)
    assert not layer.training
    assert log[0].startswith("line")
    assert log[0] in capsys.readouterr().out
    assert any("skipped 0.0000" not in line for line in log)


def test_where_recording_fails_steps_are_taken_one_by_one(monkeypatch):
    layer = nn.Linear(3, 1)

    def losses(step: int) -> dict[str, torch.Tensor]:
        return {"error": layer(torch.ones(2, 3)).square().mean()}

    steps = _Steps(losses, list(layer.parameters()), Schedule(1.0), replayed=True)
    assert steps.stream is None, "there is nothing to replay on a CPU"
    steps.stream = object()
    monkeypatch.setattr(steps, "_record", lambda step: setattr(steps, "stream", None))
    before = layer.weight.detach().clone()
    assert float(steps(WARM, 0.1)["skipped"]) == 0
    assert not torch.equal(layer.weight, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replayed_steps_find_it_too_and_survive_a_bad_one():
    torch.manual_seed(0)
    layer = nn.Linear(3, 1).cuda()
    true, count = torch.tensor([[1.0, -2.0, 0.5]]).cuda(), torch.zeros((), device="cuda")

    def losses(step: int) -> dict[str, torch.Tensor]:
        count.add_(1)
        x = torch.randn(64, 3, device="cuda")
        error = (layer(x) - x @ true.T).square().mean()
        return {"error": error * torch.where(count == 2 * WARM, torch.nan, 1.0)}

    schedule = Schedule(0.03, rate=0.05, warmup=5, decay=0.9, clip=100.0, log_every=0.3)
    log = train("line", {"layer": layer}, losses, schedule, 64, replayed=True)
    np.testing.assert_allclose(layer.weight.detach().cpu(), true.cpu(), atol=0.05)
    assert "not replayed" not in "".join(log)
    assert any("skipped 0.0000" not in line for line in log)
    assert int(count) > 4 * WARM


def test_the_average_follows_the_parameters():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = Average({"layer": layer}, decay=0.5)
    nn.init.ones_(layer.weight)
    for _ in range(60):
        average.update()
    nn.init.constant_(layer.weight, 7.0)
    average.swap()
    assert float(layer.weight.detach()) == pytest.approx(1.0, abs=1e-3)
    average.swap()
    assert float(layer.weight.detach()) == 7.0


def test_the_encoder_gives_the_latent_that_the_flow_and_the_decoder_have():
    mean, log_variance = StructureEncoder()(torch.zeros(2, 2, 32, 32, 32))
    side, channels = TINY.structure_flow.resolution, TINY.structure_flow.channels
    assert mean.shape == log_variance.shape == (2, channels, side, side, side)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """What `training.train` leaves, of networks that were not trained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trained")
    names = [*PARTS, "structure_encoder"]
    networks = {name: build(name, "cpu") for name in names}
    share_vision(networks["condition_stage1"], networks["condition_stage2"])
    for file in {file_of(name) for name in names}:
        held = {name: networks[name] for name in names if file_of(name) == file}
        save(folder / file, held, (".backbone.",) if file == "latent.safetensors" else ())
    return folder


def test_files_hold_what_was_saved(trained):
    again = build("structure_encoder", "cpu")
    load(trained / "vae.safetensors", {"structure_encoder": again})
    other = build("structure_encoder", "cpu")
    load(trained / "vae.safetensors", {"structure_encoder": other})
    for name, value in again.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_exported_weights_run_and_fit_into_the_package(trained, tmp_path):
    total = export(trained, "test", tmp_path / "weights")
    assert total < 48e6
    converted, manifest = read_converted(tmp_path / "weights", NAME)
    assert converted.version == "test"
    assert all(record.bytes < 16e6 for record in manifest.files.values())
    assert "| author |" in (tmp_path / "weights" / "ATTRIBUTION.md").read_text()
    assert converted.vision["condition_stage1"] == converted.vision["condition_stage2"]
    store = FileStore(tmp_path / "weights", converted, manifest, dtype=torch.float32)
    model = Tiny(store, "cpu")
    image = np.full((64, 64, 3), 127, dtype=np.uint8)
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:44, 16:48] = True
    v, u = np.mgrid[:64, :64] + 0.5
    points = np.stack([(u - 32) / 40, (v - 32) / 40, np.ones_like(u)], -1)
    points *= np.where(mask, 2.0, 3.0)[..., None]
    photo = Example(Path("test"), image, {0: mask}, pointmap=points.astype(np.float32))
    result = model.reconstruct(photo, 0, steps=(1, 1), formats=("gaussians",))
    assert result.provenance.model == NAME
    assert len(result.gaussians) % TINY.splat_decoder.gaussians.per_voxel == 0
    centers = result.pose.apply(result.gaussians.centers)
    assert np.isfinite(centers).all()


def test_training_goes_on_from_the_weights_of_the_package(trained, tmp_path):
    export(trained, "test", tmp_path / "weights")
    unpack(tmp_path / "again", tmp_path / "weights", trained / "vae.safetensors")
    files = sorted(path.name for path in trained.iterdir())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == files
    for name in files:
        before, after = load_file(trained / name), load_file(tmp_path / "again" / name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_encoder_of_the_shipped_weights_goes_with_their_decoder():
    encoder = build("structure_encoder", "cpu").eval()
    load(ENCODER_FILE, {"structure_encoder": encoder})
    decoder = load_tiny("cpu").store.get("structure_decoder", "cpu")
    axis = (torch.arange(32) + 0.5) / 32 - 0.5
    distance = (torch.cartesian_prod(axis, axis, axis).norm(dim=1) - 0.4).view(32, 32, 32)
    occupied = distance.abs() < 0.5 / 32
    fields = torch.stack([(distance * 32 / 2).clamp(-1, 1), occupied.float()])
    with torch.no_grad():
        found = decode_structure(decoder, encoder(fields[None])[0].flatten(2).mT)[0, 0] > 0
    both, either = (found & occupied).sum(), (found | occupied).sum()
    assert both / either > 0.7


class Noise:
    """Samples that are nothing but fields, by `structure_fields` of the test below."""

    objects = None

    def __init__(self, count: int) -> None:
        self.views, self.side = self, torch.zeros(count)

    def __len__(self) -> int:
        return len(self.side)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        return rows


def test_a_latent_has_deviation_1_also_where_training_was_interrupted(tmp_path, monkeypatch):
    torch.manual_seed(0)
    fields = torch.randn(4, 2, 32, 32, 32)

    def interrupted(name, modules, losses, schedule, batch, frozen, save, **settings):
        with torch.no_grad():
            modules["structure_encoder"].out_layer.weight *= 3
        save()
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "structure_fields", lambda objects, rows: (fields[rows], None))
    monkeypatch.setattr("training.train.train", interrupted)
    trainer = Trainer(Namespace(out=tmp_path, init=None, device="cpu", batch=1, rate=1.0))
    trainer.samples = Noise(len(fields))
    with pytest.raises(KeyboardInterrupt):
        trainer.run("vae", 1.0)
    names = "structure_encoder", "structure_decoder"
    saved = {name: build(name, "cpu") for name in names}
    load(tmp_path / "vae.safetensors", saved)
    with torch.no_grad():
        latent = saved[names[0]](fields)[0]
        kept = trainer.networks[names[0]](fields)[0]
        decoded, wanted = saved[names[1]](latent), trainer.networks[names[1]](kept)
    assert float(latent.std()) == pytest.approx(1.0, abs=0.01)
    assert abs(float(kept.std()) - 1) > 0.1, "what trains on keeps its scale"
    torch.testing.assert_close(decoded, wanted, atol=0.02, rtol=0.02)


def trainer_of(usable, monkeypatch, tmp_path) -> Trainer:
    """Return a trainer whose depth network sees the samples that are marked `usable`."""
    found = Namespace(usable=torch.tensor(usable))
    monkeypatch.setattr("training.train.estimate", lambda network, pool, views: found)
    options = Namespace(out=tmp_path, init=None, device="cpu", batch=1, rate=1.0, estimated=0.5)
    trainer = Trainer(options)
    monkeypatch.setattr(trainer, "network", lambda name: nn.Linear(1, 1))
    trainer.samples = Samples(None, None, Noise(len(usable)), None)
    return trainer


def test_a_depth_network_that_sees_little_stops_a_stage_that_needs_it(monkeypatch, tmp_path):
    trainer = trainer_of([True, False, False, False], monkeypatch, tmp_path)
    assert trainer.estimate(trainer.samples, 0.5) == 0.25
    assert trainer.samples.share == 0.5
    trainer.samples.estimates = None
    with pytest.raises(ValueError, match="sees 25% of the objects"):
        trainer.run("flow", 1.0)


@pytest.mark.parametrize("usable", [[True, False, False, False], [True, True, False, False]])
def test_the_check_leaves_out_point_maps_that_are_not_usable(usable, monkeypatch, tmp_path, capsys):
    trainer = trainer_of(usable, monkeypatch, tmp_path)
    vars(trainer.options).update(held_out=1, grid=8, check=4, seed=0)
    monkeypatch.setattr("training.train.procedural", lambda *what, **more: None)
    monkeypatch.setattr(trainer, "rendered", lambda *what: trainer.samples)
    monkeypatch.setattr("training.train.check_depth", lambda network, samples: "depth")
    measured = []

    def structure(*networks, estimated):
        measured.append(estimated)
        return []

    monkeypatch.setattr("training.train.check_structure", structure)
    trainer.check()
    enough = sum(usable) >= 2
    assert measured == [False, True][: 1 + enough]
    assert ("25% of the objects, too few" in capsys.readouterr().out) != enough
    assert "depth" in trainer.log


def test_a_folder_without_a_stage_is_no_model(trained, tmp_path):
    with pytest.raises(FileNotFoundError):
        export(tmp_path, "test", tmp_path / "weights")
    assert not (tmp_path / "weights" / MANIFEST).exists()
    with pytest.raises(WeightsError):
        read_converted(tmp_path, NAME)
