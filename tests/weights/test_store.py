"""Networks by name: made once, moved between host and device, shared where they are equal."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
import torch
from harness import fill
from torch.utils._python_dispatch import TorchDispatchMode
from weights import stand_in as reference_stand_in

from sam3d_nb.errors import WeightsError
from sam3d_nb.model.structure_flow import CHECKPOINT_PREFIX, build_structure_flow
from sam3d_nb.weights.config import SMALL
from sam3d_nb.weights.parts import PARTS, Unfilled, build_empty
from sam3d_nb.weights.store import ModuleStore, StandInStore, stand_in


def device_of(module: torch.nn.Module) -> set[str]:
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.device.type for tensor in tensors}


@pytest.fixture
def store() -> StandInStore:
    return StandInStore(SMALL)


@pytest.fixture
def moving(store, monkeypatch):
    """A store whose second device is a pretended one: copies on the host, counted."""
    import sam3d_nb.weights.store as module

    class Far:
        """Stands for a device; tensors go there by being copied."""

        type = "far"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Far)

        __hash__ = object.__hash__

    far = Far()
    to = torch.Tensor.to

    def copy(self, target, *arguments, **options):
        return self.clone() if target is far else to(self, target, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", copy)
    monkeypatch.setattr(module, "_indexed", lambda device: device)
    return store, far, torch.device("cpu")


def addresses(module: torch.nn.Module) -> dict[str, int]:
    return {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}


def test_every_network(store):
    for name in PARTS:
        module = store.get(name)
        assert store.get(name) is module
        assert not module.training
        assert device_of(module) == {"cpu"}
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert store.nbytes(name) == sum(t.nbytes for t in module.state_dict().values())
    with pytest.raises(WeightsError, match="no network 'flow'; there are moge, condition_stage1"):
        store.get("flow")
    with pytest.raises(WeightsError, match="no network"):
        store.release("flow")


def test_shared_networks(store):
    first, second = store.get("condition_stage1"), store.get("condition_stage2")
    for i in (0, 1):
        assert first.module_list[i].backbone is second.module_list[i].backbone
    assert first.module_list[0].backbone is not first.module_list[1].backbone
    alone = store.nbytes("condition_stage1") + store.nbytes("condition_stage2")
    assert store.nbytes("condition_stage1", "condition_stage2") < alone
    assert store.nbytes() < sum(store.nbytes(name) for name in PARTS)


def test_moves_and_comes_back(moving):
    store, far, cpu = moving
    module = store.get("latent_flow", cpu)
    host = addresses(module)
    values = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    parameters = list(module.parameters())
    assert store.get("latent_flow", far) is module
    away = addresses(module)
    assert not set(away.values()) & set(host.values())
    assert store.get("latent_flow", far) is module
    assert addresses(module) == away, "what is there is not copied again"
    store.release("latent_flow")
    assert addresses(module) == host, "the host's tensors are those of before"
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    for name, tensor in store.get("latent_flow", far).state_dict().items():
        assert torch.equal(tensor, values[name])


def test_shared_networks_stay_while_one_uses_them(moving):
    store, far, _ = moving
    first, second = store.get("condition_stage1", far), store.get("condition_stage2", far)
    backbone = first.module_list[0].backbone
    away = addresses(backbone)
    store.release("condition_stage1")
    assert addresses(backbone) == away
    assert second.module_list[0].backbone is backbone
    store.release("condition_stage2")
    assert not set(addresses(backbone).values()) & set(away.values())
    store.release("condition_stage2")  # twice does no harm
    store.release("mesh_decoder")  # nor does what was never got


def test_on_releases_even_after_an_error(moving):
    store, far, cpu = moving
    host = addresses(store.get("splat_decoder", cpu))
    with store.on(far, "splat_decoder", "mesh_decoder") as (splats, mesh):
        assert addresses(splats) != host
        assert mesh is store.get("mesh_decoder", far)
    assert addresses(splats) == host
    with pytest.raises(KeyboardInterrupt), store.on(far, "splat_decoder"):
        raise KeyboardInterrupt
    assert addresses(splats) == host


def test_memory_that_runs_out_midway(moving, monkeypatch):
    store, far, cpu = moving
    module = store.get("mesh_decoder", cpu)
    host = addresses(module)
    copy, count = torch.Tensor.to, iter(range(5))

    def full(self, target, *arguments, **options):
        if target is far and next(count, None) is None:
            raise torch.OutOfMemoryError
        return copy(self, target, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", full)
        with pytest.raises(torch.OutOfMemoryError):
            store.get("mesh_decoder", far)
    assert addresses(module) == host
    assert addresses(store.get("mesh_decoder", far)) != host


def test_the_store_s_own_device():
    store = StandInStore(SMALL, device="cpu")
    assert device_of(store.get("structure_decoder")) == {"cpu"}
    assert store.device == torch.device("cpu")


def test_stand_ins_are_those_of_the_golden_files(store):
    expected = fill(build_structure_flow(SMALL.structure_flow), CHECKPOINT_PREFIX)
    actual = store.get("structure_flow")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[name], tensor), name
    for name, shape in (("a.weight", (3, 4)), ("b.weight", (5,)), ("b.bias", (5,)), ("x", ())):
        assert (stand_in(name, shape) == reference_stand_in(name, shape)).all()


def test_seeds_and_dtypes():
    first, again, other = (StandInStore(SMALL, seed=seed) for seed in (1, 1, 2))
    a, b, c = (s.get("mesh_decoder").state_dict() for s in (first, again, other))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["out_layer.weight"], c["out_layer.weight"])
    half = StandInStore(SMALL, torch.bfloat16, 1).get("mesh_decoder").state_dict()
    assert all(torch.equal(a[name].to(t.dtype), t) for name, t in half.items())
    assert {tensor.dtype for tensor in half.values()} == {torch.bfloat16, torch.float32}


def test_stand_ins_say_so(store):
    assert store.origin.kind == "stand-in"
    assert store.origin.version == "stand-in seed 0"


class Broken(ModuleStore):
    def _read(self, piece, empty):
        return {"surprise": torch.ones(1)}

    def _vision_key(self, name, place):
        return place


def test_a_store_checks_what_it_is_given(store):
    with pytest.raises(WeightsError, match="missing or unknown"):
        Broken(SMALL, torch.float32, store.origin).get("splat_decoder")


def test_nothing_holds_a_store_that_is_dropped():
    import weakref

    store = StandInStore(SMALL)
    store.get("splat_decoder")
    seen = weakref.ref(store)
    del store
    gc.collect()
    assert seen() is None


def test_a_host_that_locks_no_pages_does_without(store, monkeypatch):
    """On a pretended card, whose copies stay on the host."""
    import sam3d_nb.weights.store as module

    tried = []

    def refuse(tensors):
        tried.append(len(tensors))
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(module, "PageLocked", refuse)
    monkeypatch.setattr(
        module, "to_cuda", lambda tensors, device: {n: t.clone() for n, t in tensors.items()}
    )
    monkeypatch.setattr(module, "_indexed", torch.device)
    store.pin = True
    values = {n: t.clone() for n, t in store.get("mesh_decoder", "cpu").state_dict().items()}
    for _ in range(2):
        there = store.get("mesh_decoder", "cuda:0").state_dict()
        assert all(torch.equal(there[name], value) for name, value in values.items())
        store.release("mesh_decoder")
    assert tried == [len(values)]  # once, and not for every object


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pin", [False, True])
def test_cuda_memory_is_freed(pin):
    gc.collect()  # what other tests left would be freed in between
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    store = StandInStore(SMALL, torch.float16, device="cuda", pin=pin)
    for name in PARTS:
        assert device_of(store.get(name)) == {"cuda"}
    assert torch.cuda.memory_allocated() - before >= store.nbytes()
    expected = StandInStore(SMALL, torch.float16)
    for name in PARTS:
        for key, tensor in store.get(name).state_dict().items():
            assert torch.equal(tensor.cpu(), expected.get(name).state_dict()[key])
    del tensor
    store.release_all()
    assert torch.cuda.memory_allocated() == before
    assert all(device_of(store.get(name, "cpu")) == {"cpu"} for name in PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_networks_are_built_without_drawing_numbers(name):
    """On meta no operation fills a tensor, and the network is the one that is built plainly."""
    plain = PARTS[name].build(getattr(SMALL, name), dtype=torch.float16, device="meta")
    expected = {n: (t.shape, t.dtype, t.device) for n, t in plain.state_dict().items()}
    with FillsSeen() as seen:
        network = build_empty(name, SMALL, torch.float16)
    found = {n: (t.shape, t.dtype, t.device) for n, t in network.state_dict().items()}
    assert found == expected
    assert not seen.names
    with FillsSeen() as seen:
        PARTS[name].build(getattr(SMALL, name), device="meta")
    assert seen.names  # or this test would see nothing


class FillsSeen(TorchDispatchMode):
    """Notes what draws or writes numbers on the meta device."""

    FILLS = ("uniform_", "normal_", "fill_", "zero_", "erfinv_", "clamp_")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name.removeprefix("aten::") in self.FILLS and args[0].is_meta:
            self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_what_is_not_on_meta_is_filled_as_ever():
    with Unfilled():
        layer = torch.nn.Linear(3, 2, device="cpu")
        assert torch.equal(torch.nn.init.ones_(layer.weight), torch.ones(2, 3))
        assert float(torch.zeros(1).fill_(2).add_(1)) == 3


def test_making_networks_does_not_import_the_compiler():
    """PyTorch's takes seconds to import, and nothing needs it to lay out a network."""
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "from sam3d_nb.weights.store import StandInStore, PARTS\n"
        "store = StandInStore()\n"
        "for name in PARTS: store.make(name)\n"
        "names = 'sympy', 'torch._dynamo', 'torch.fx.experimental.symbolic_shapes'\n"
        "print(*(n for n in names if n in before), '|', *(set(names) & {*sys.modules} - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    there, _, come = done.stdout.partition("|")
    assert not come.split()
    if there.strip():
        pytest.skip(f"import torch brings {there.strip()} by itself")


def test_status_and_command_need_no_torch():
    """`sam3d-nb --help` and the doctor's table answer at once."""
    code = (
        "import sys, sam3d_nb.weights.command, sam3d_nb.weights.status as s; s.weights_status();"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
