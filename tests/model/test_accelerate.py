"""Replayed steps of both flows: the same numbers as the plain ones, over several requests."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from coordinates import voxels
from harness import fill

from sam3d_nb.errors import InputError
from sam3d_nb.model import graphs
from sam3d_nb.model.accelerate import AcceleratedVision, accelerate, addresses
from sam3d_nb.model.conditioning import ImageEmbed
from sam3d_nb.model.config import (
    SMALL_LATENT_FLOW,
    SMALL_STRUCTURE_FLOW,
    SMALL_VISION,
    LatentFlowConfig,
    StructureFlowConfig,
    VisionConfig,
)
from sam3d_nb.model.graphs import StepGraphs, tensors
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.latent_flow import CHECKPOINT_PREFIX as LATENT_PREFIX
from sam3d_nb.model.latent_flow import build_latent_flow, sample_latent
from sam3d_nb.model.latent_flow import draw_noise as latent_noise
from sam3d_nb.model.layers import KeysValues, set_linear_dtype
from sam3d_nb.model.structure_flow import (
    CHECKPOINT_PREFIX,
    build_structure_flow,
    draw_noise,
    sample_structure,
)

CARD = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
needs_card = pytest.mark.skipif(not CARD, reason="needs an NVIDIA card from Ampere on")


@pytest.fixture(scope="module")
def flow():
    return fill(build_structure_flow(SMALL_STRUCTURE_FLOW), CHECKPOINT_PREFIX)


def request(flow, seed, count=11, steps=6):
    """Return the final latents of a request with random tokens and noise."""
    generator = torch.Generator().manual_seed(seed)
    device = next(getattr(flow, "flow", flow).parameters()).device
    noise = draw_noise(flow.config, generator, device=device)
    tokens = torch.randn(1, count, flow.config.condition_width, generator=generator).to(device)
    *_, (_, latents) = sample_structure(flow, tokens, noise, steps=steps)
    return latents


def same(actual, expected, tolerance=0.0):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert (actual[name] - value).norm() <= tolerance * value.norm(), name


def test_requests_equal_those_of_the_plain_flow(flow):
    """Also where the condition is written over the last request's, and where its size changes."""
    fast = accelerate(flow)
    for seed, count in ((0, 11), (1, 11), (2, 7), (0, 11)):
        same(request(fast, seed, count), request(flow, seed, count))


def test_buffers_stay_where_they_are_between_requests_of_one_size(flow):
    fast = accelerate(flow)
    addresses = []
    for count in (11, 11, 7):
        condition = fast.prepare(torch.randn(1, count, flow.config.condition_width))
        addresses.append([t.data_ptr() for t in tensors(condition)])
    assert addresses[0] == addresses[1]
    assert addresses[1] != addresses[2]


def test_times_of_the_last_request_are_kept(flow, monkeypatch):
    """Until others come, or `close`; where gradients are wanted they are worked out anew."""
    computed = []

    def modulation(*times):
        computed.append(len(times[0]))
        return plain(*times)

    plain = flow.modulation
    monkeypatch.setattr(flow, "modulation", modulation)
    fast = accelerate(flow)
    for steps in (3, 3, 5, 5, 3):
        request(fast, 0, steps=steps)
    assert computed == [3, 5, 3]
    fast.close()
    request(fast, 0, steps=3)
    assert computed == [3, 5, 3, 3]
    t, d = torch.tensor([20.0]), torch.zeros(1)
    with torch.enable_grad():
        fast.modulation(t, d)
    with torch.no_grad():
        kept = fast.modulation(t, d)
        assert fast.modulation(t.clone(), d.clone()) is kept
        assert fast.modulation(t, torch.ones(1)) is not kept
    assert computed == [3, 5, 3, 3, 1, 1, 1]
    assert torch.equal(kept, plain(t, d))


def test_addresses_are_those_of_all_parameters_and_buffers(flow):
    wanted = {t.data_ptr() for t in (*flow.parameters(), *flow.buffers())}
    assert set(addresses(flow.modules())) == wanted


def test_features_equal_those_of_the_plain_network():
    embed, vision = fill(ImageEmbed(SMALL_VISION, prenorm=True)), AcceleratedVision()
    for seed in range(3):
        image = torch.rand(1, 3, 98, 98, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(embed(image, features=vision), embed(image))
        mask = image[:, :1].round()
        assert torch.equal(embed(mask, features=vision), embed(mask))
    vision.close()


def test_a_request_that_another_one_ended_is_refused(flow):
    fast = accelerate(flow)
    tokens, noise = torch.randn(1, 11, flow.config.condition_width), draw_noise(flow.config)
    first = sample_structure(fast, tokens, noise)
    next(first)
    second = sample_structure(fast, tokens + 1, noise)
    next(second)
    with pytest.raises(InputError, match="earlier request"):
        next(first)
    next(second)
    fast.close()
    with pytest.raises(InputError, match="earlier request"):
        next(second)


def test_input_is_checked_as_ever(flow):
    fast = accelerate(flow)
    with pytest.raises(InputError, match=r"\(B, M, 64\), got \(1, 11, 63\)"):
        fast.prepare(torch.randn(1, 11, 63))
    condition = fast.prepare(torch.randn(1, 11, 64))
    with pytest.raises(InputError, match="'6drotation_normalized' is missing"):
        fast({}, fast.modulation(torch.zeros(1)), condition)


def test_tensors_come_in_their_order():
    a, b, c, d = torch.arange(4).unbind()
    assert [int(t) for t in tensors(({"x": KeysValues(a, b)}, c, {"y": d}))] == [0, 1, 2, 3]


def test_stage_2_equals_the_plain_flow():
    flow = fill(build_latent_flow(SMALL_LATENT_FLOW), LATENT_PREFIX)
    fast = accelerate(flow)
    for seed in (0, 1, 0):
        generator = torch.Generator().manual_seed(seed)
        grid = Grid(voxels(60 + seed, 16), 16)
        tokens = torch.randn(1, 9, SMALL_LATENT_FLOW.condition_width, generator=generator)
        noise = latent_noise(grid, generator=generator)
        *_, (_, expected) = sample_latent(flow, tokens, grid, noise, steps=4)
        *_, (_, actual) = sample_latent(fast, tokens, grid, noise, steps=4)
        assert torch.equal(actual, expected)
    fast.close()


class End:
    def __init__(self, done):
        self.query = lambda: done


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        ((), True),  # nothing runs
        ((True,), True),  # the device waits for the host
        ((True, True), True),
        ((False,), False),  # less than a step to do
        ((True, False), False),
        ((False, False), True),  # more than a step to do
        ((True, False, False), True),
        ((False, True, True), True),  # the last two count
    ],
)
def test_patient_graphs_are_captured_where_that_delays_nothing(done, expected):
    steps = StepGraphs(torch.device("cpu"), patient=True)
    steps._ends.extend(End(d) for d in done)
    assert steps._may_capture("new", 100) == expected
    assert not steps._starved  # the host may have set up libraries
    steps._set_up.add("old")
    assert steps._may_capture("old", 100) == expected
    assert steps._starved == ({"old": 100} if all(done[-2:]) else {})
    assert StepGraphs(torch.device("cpu"))._may_capture("new", 100)


def early(monkeypatch, capture, free):
    """Return graphs with one captured kind, and what captures "later" early, `free` bytes left."""
    steps = StepGraphs(torch.device("cpu"), patient=True)
    steps._captured["now"], steps._set_up = object(), {"later"}
    monkeypatch.setattr(graphs, "room", lambda device: free)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(steps, "_capture", capture)
    stream = SimpleNamespace(device=torch.device("cpu"))
    return steps, lambda: steps._capture_early(stream, "later", lambda: None)


def test_an_early_capture_without_room_leaves_the_graphs_alone(monkeypatch):
    tries = []
    steps, capture = early(monkeypatch, lambda *_: tries.append(1), graphs.ROOM - 1)
    capture()
    assert list(steps._captured) == ["now"]
    assert not tries
    assert not steps._full


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_a_failed_early_capture_leaves_the_graphs_alone_and_is_not_tried_again(monkeypatch, kind):
    tries = []

    def fail(*_):
        tries.append(1)
        raise kind("too much")

    steps, capture = early(monkeypatch, fail, graphs.ROOM)
    with nullcontext() if kind is torch.OutOfMemoryError else pytest.warns(match="too much"):
        capture()
    capture()
    assert list(steps._captured) == ["now"]
    assert len(tries) == 1
    steps.forget()
    capture()
    assert len(tries) == (2 if kind is torch.OutOfMemoryError else 1)  # memory may be free by then


def test_where_a_capture_fails_steps_run_without_graphs_until_the_next_request(monkeypatch):
    def fail(*_):
        raise RuntimeError("refused")

    steps, _ = early(monkeypatch, fail, graphs.ROOM)
    stream = SimpleNamespace(device=torch.device("cpu"))
    with pytest.warns(match="without graphs.*refused"):
        steps._capture_in_room(stream, "later", lambda: None)
    assert not steps._captured
    assert not steps._may_capture("later", 1)
    steps.forget()
    assert steps._may_capture("later", 1)


def test_what_ends_a_refused_capture_hides_no_error(monkeypatch):
    """PyTorch may have closed the pool, and CUDA may refuse all that follows."""

    class Refused:
        def capture_end(self):
            raise RuntimeError("first")

        def capture_begin(self, **_):
            raise RuntimeError("third")

    def end(*_):
        raise RuntimeError("second")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Refused)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    with pytest.raises(RuntimeError, match="first"):
        StepGraphs(torch.device("cpu"))._end(Refused(), (0, 1))


# --- On a card --------------------------------------------------------------------------------


def card_flow(dtype):
    """Return a flow wide enough for the fused kernels and long enough for their attention."""
    config = StructureFlowConfig(width=256, depth=3, heads=4, condition_width=256)
    torch.manual_seed(0)
    flow = build_structure_flow(config, dtype=dtype, device="cuda")
    return flow.requires_grad_(False)


@needs_card
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_replayed_steps_equal_plain_ones(dtype):
    """Steps that are run, captured and replayed, guided and not, in three requests."""
    flow = card_flow(dtype)
    fast = accelerate(flow)
    for seed, count in ((0, 3001), (1, 3001), (2, 700)):
        same(request(fast, seed, count, steps=12), request(flow, seed, count, steps=12), 1e-3)
    assert len(fast._graphs._captured) == 2


@needs_card
def test_without_room_for_graphs_steps_run_as_they_are(monkeypatch):
    """Whether the memory is known to be short, or runs out in the middle of a capture."""
    flow = card_flow(torch.float16)
    expected = request(flow, 0, count=3001, steps=12)
    fast = accelerate(flow)
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "room", lambda device: graphs.ROOM - 1)
        same(request(fast, 0, count=3001, steps=12), expected, 1e-3)
    assert not fast._graphs._captured
    fast.close()
    step, calls = flow.decode, []

    def run_out(*arguments):
        calls.append(torch.cuda.is_current_stream_capturing())
        if calls[-1]:
            raise torch.OutOfMemoryError
        return step(*arguments)

    before = torch.cuda.memory_reserved()
    monkeypatch.setattr(flow, "decode", run_out)
    same(request(fast, 0, count=3001, steps=12), expected, 1e-3)
    assert calls.count(True) == 1
    assert not fast._graphs._captured
    monkeypatch.undo()
    same(request(fast, 0, count=3001, steps=12), expected, 1e-3)  # the same sizes: still eager
    fast.close()
    assert torch.cuda.memory_reserved() <= before + (32 << 20)
    same(request(fast, 0, count=3001, steps=12), expected, 1e-3)
    assert len(fast._graphs._captured) == 2


@needs_card
def test_room_counts_what_the_process_may_take():
    total, before = torch.cuda.get_device_properties(0).total_memory, torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((before + (1 << 30)) / total)
    try:
        assert graphs.room(torch.device("cuda", 0)) == pytest.approx(1 << 30, rel=0.01)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert graphs.room(torch.device("cuda", 0)) > 1 << 30


@needs_card
def test_moved_weights_are_noticed():
    flow = card_flow(torch.float16)
    fast = accelerate(flow)
    expected = request(fast, 0, steps=12)
    flow.cpu()
    torch.randn(1 << 24, device="cuda")  # takes the place where the weights were
    flow.cuda()
    same(request(fast, 0, steps=12), expected, 1e-3)


@needs_card
def test_closing_frees_the_memory():
    fast = accelerate(card_flow(torch.float16))
    request(fast, 0, count=3001, steps=12)
    used = [torch.cuda.memory_allocated(), torch.cuda.memory_reserved()]
    fast.close()
    free = [torch.cuda.memory_allocated(), torch.cuda.memory_reserved()]
    assert used[0] - free[0] > 16 << 20  # keys and values of the condition
    assert used[1] - free[1] > 64 << 20  # activations of the graphs
    request(fast, 0, count=3001, steps=12)
    fast.close()
    assert torch.cuda.memory_allocated() <= free[0] + (1 << 20)


@needs_card
@pytest.mark.parametrize("patient", [False, True])
def test_replayed_steps_of_stage_2_equal_plain_ones(patient):
    """Two requests, the second with other voxels in the memory of the first one's graphs."""
    config = LatentFlowConfig(width=256, depth=2, heads=4, condition_width=256, io_width=64)
    torch.manual_seed(0)
    flow = build_latent_flow(config, dtype=torch.float16, device="cuda").requires_grad_(False)
    fast = accelerate(flow)
    fast._graphs.patient = patient
    for count in (5000, 3000):
        grid = Grid(voxels(count, 64).cuda(), 64)
        tokens, noise = torch.randn(1, 600, 256, device="cuda"), latent_noise(grid)
        results = []
        for network in (flow, fast):
            *_, (_, latent) = sample_latent(network, tokens, grid, noise)
            results.append(latent)
        assert (results[0] - results[1]).norm() <= 1e-3 * results[0].norm()
    assert patient or len(fast._graphs._captured) == 2


def card_latents():
    """Return a stage-2 flow, the accelerated one, and what gives the final latents of both."""
    config = LatentFlowConfig(width=256, depth=2, heads=4, condition_width=256, io_width=64)
    torch.manual_seed(0)
    flow = build_latent_flow(config, dtype=torch.float16, device="cuda").requires_grad_(False)
    fast = accelerate(flow)

    def both(count, slow=None):
        grid = Grid(voxels(count, 64).cuda(), 64)
        tokens, noise = torch.randn(1, 600, 256, device="cuda"), latent_noise(grid)
        found = []
        for network in (flow, fast):
            for _, state in sample_latent(network, tokens, grid, noise):
                latent = state
                if network is fast and slow is not None:
                    slow()
            found.append(latent)
        return found

    return flow, fast, both


def count_eager(monkeypatch):
    """Return a list that gets an entry for every step that runs as it is."""
    eager, beside = [], StepGraphs._beside
    monkeypatch.setattr(
        StepGraphs, "_beside", lambda self, *rest: eager.append(1) or beside(self, *rest)
    )
    return eager


def spoil_early_captures(monkeypatch, flow, fast, spoil):
    """Call `spoil(x)` within captures without a run; return a list with an entry for each."""
    transform, tries = flow._transform, []

    def spoiled(x, *arguments, **options):
        if torch.cuda.is_current_stream_capturing() and not fast._graphs._known:
            tries.append(1)
            spoil(x)
        return transform(x, *arguments, **options)

    monkeypatch.setattr(flow, "_transform", spoiled)
    return tries


def busy():
    """Give the card more to do than the host needs for a capture."""
    torch.cuda._sleep(400_000_000)  # cycles, a fifth of a second


@needs_card
def test_steps_without_guidance_are_captured_ahead_while_the_card_is_busy(monkeypatch):
    """From the second request on; bit for bit what a run gives, with other voxels each time."""
    _, fast, both = card_latents()
    kinds = []
    capture = StepGraphs._capture_early

    def noted(self, stream, kind, *rest):
        before = len(self._captured)
        capture(self, stream, kind, *rest)
        kinds.append((kind, len(self._captured) - before))

    monkeypatch.setattr(StepGraphs, "_capture_early", noted)
    for count in (5000, 3000, 4000):
        kinds.clear()
        expected, actual = both(count, busy)
        assert torch.equal(actual, expected)
        if count == 5000:
            assert all(made == 0 for _, made in kinds)
        else:
            assert ((False, 1), 1) in kinds
    assert fast._graphs._early


@needs_card
def test_small_steps_are_captured_without_a_run_where_the_card_had_to_wait(monkeypatch):
    _, fast, both = card_latents()
    for _ in range(2):  # in the first request libraries are set up
        assert not fast._graphs._starved
        both(5000, torch.cuda.synchronize)
    assert fast._graphs._starved.keys() == {(True, 1), (False, 1)}
    assert min(fast._graphs._starved.values()) >= 5000 * 8
    eager = count_eager(monkeypatch)
    expected, actual = both(3000, torch.cuda.synchronize)
    assert torch.equal(actual, expected)
    assert not eager
    expected, actual = both(6000, torch.cuda.synchronize)
    assert torch.equal(actual, expected)
    assert len(eager) == 2  # larger ones of each kind run first


@needs_card
def test_where_nothing_can_be_captured_early_steps_run_first(monkeypatch):
    flow, fast, both = card_latents()
    for _ in range(2):
        both(5000, torch.cuda.synchronize)

    def refuse(x):
        raise RuntimeError("operation not permitted when stream is capturing")

    tries = spoil_early_captures(monkeypatch, flow, fast, refuse)
    with pytest.warns(match="captured ahead.*not permitted"):
        expected, actual = both(3000, torch.cuda.synchronize)
    assert torch.equal(actual, expected)
    expected, actual = both(2000, torch.cuda.synchronize)
    assert torch.equal(actual, expected)
    assert len(tries) == 1
    assert len(fast._graphs._captured) == 2


@needs_card
@torch.no_grad()
def test_steps_of_several_items_are_captured_ahead_without_the_sampler(monkeypatch):
    """Tables that only such steps read are there before, as are those that guided ones read."""
    flow, fast, _ = card_latents()
    eager = count_eager(monkeypatch)
    modulation = flow.modulation(torch.tensor([500.0]))
    for count, runs in ((3000, 2), (2000, 2), (1000, 0)):
        eager.clear()
        xyz = voxels(count, 64)
        grid = Grid(torch.cat([xyz, xyz + torch.tensor([1, 0, 0, 0])]).cuda(), 64)
        tokens, x = torch.randn(2, 600, 256).cuda(), torch.randn(len(grid), 8).cuda()
        conditions = flow.prepare(tokens), fast.prepare(tokens)
        for guided in (True, True, True, False, False, False):
            expected = flow(x, modulation, conditions[0], Grid(grid.coords, 64), guided=guided)
            actual = fast(x, modulation, conditions[1], grid, guided=guided)
            torch.cuda.synchronize()
            assert torch.equal(actual, expected)
        assert len(eager) == runs
    assert fast._graphs._early


@needs_card
def test_a_capture_that_cuda_refuses_leaves_a_working_card(monkeypatch):
    """Memory is given out and taken back, random numbers are drawn, and later kinds captured."""
    flow, fast, both = card_latents()
    for _ in range(2):
        both(5000, torch.cuda.synchronize)
    tries = spoil_early_captures(monkeypatch, flow, fast, lambda x: x.sum().item())
    with pytest.warns(match="captured ahead"):
        expected, actual = both(3000, torch.cuda.synchronize)
    assert torch.equal(actual, expected)
    assert len(tries) == 1
    assert len(fast._graphs._captured) == 2
    before = torch.cuda.memory_reserved()
    filled = torch.ones(2**28, device="cuda")
    assert filled.sum().item() == 2**28
    del filled
    fast.close()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before
    expected, actual = both(4000, torch.cuda.synchronize)
    assert torch.equal(actual, expected)


def card_embed(dtype=torch.float16):
    torch.manual_seed(0)
    embed = ImageEmbed(VisionConfig(width=256, depth=3, heads=4), prenorm=True)
    set_linear_dtype([embed], dtype)
    with torch.no_grad():
        for parameter in embed.parameters():
            parameter.normal_(std=0.1)
    return embed.cuda().requires_grad_(False)


@needs_card
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_replayed_features_equal_plain_ones(dtype):
    """Photos and masks one after the other, from the host and from the card, bit for bit."""
    image_embed, mask_embed, vision = card_embed(dtype), card_embed(dtype), AcceleratedVision()
    cases, kept = [], []
    for seed in range(3):
        image = torch.rand(1, 3, 518, 518, generator=torch.Generator().manual_seed(seed))
        cases += [
            (image_embed, image),
            (mask_embed, image[:, :1].round()),
            (image_embed, image / 2),
        ]
    for index, (embed, x) in enumerate(cases):
        kept.append(vision(embed, x if index % 2 else x.cuda()))
    for (embed, x), actual in zip(cases, kept, strict=True):  # later ones did not overwrite it
        assert torch.equal(actual, embed.features(x.cuda()))
    assert len(vision._graphs._captured) == 2


@needs_card
@torch.no_grad()
def test_features_notice_moved_weights_and_closing_frees_the_memory():
    embed, vision = card_embed(), AcceleratedVision()
    images = [torch.rand(1, 3, 518, 518) for _ in range(3)]
    expected = [embed.features(image) for image in images]
    vision(embed, images[0])  # libraries keep memory for the stream
    vision.close()
    before = torch.cuda.memory_reserved()
    for _ in range(2):
        for image, wanted in zip(images, expected, strict=True):
            assert torch.equal(vision(embed, image), wanted)
        assert len(vision._graphs._captured) == 1
        embed.cpu()
        blocker = torch.randn(1 << 24, device="cuda")  # takes the place where the weights were
        embed.cuda()
    used = torch.cuda.memory_reserved()
    vision.close()
    assert not vision._graphs._captured
    assert torch.cuda.memory_reserved() < used
    del blocker, expected, wanted
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + (32 << 20)


@needs_card
@torch.no_grad()
def test_without_room_features_come_from_plain_passes(monkeypatch):
    embed, vision = card_embed(), AcceleratedVision()
    monkeypatch.setattr(graphs, "room", lambda device: graphs.ROOM - 1)
    for _ in range(3):
        image = torch.rand(1, 3, 518, 518)
        assert torch.equal(vision(embed, image), embed.features(image))
    assert not vision._graphs._captured


@needs_card
def test_conditions_are_written_by_a_graph_from_the_third_request_on():
    flow = card_flow(torch.float16)
    fast = accelerate(flow)
    for seed in range(4):
        tokens = torch.randn(1, 700, 256, generator=torch.Generator().manual_seed(seed)).cuda()
        with torch.no_grad():
            written, wanted = fast.prepare(tokens), flow.prepare(tokens)
        for a, b in zip(tensors(written), tensors(wanted), strict=True):
            assert torch.equal(a, b)
        assert len(fast._graphs._captured) == (seed >= 2)
    fast.close()
