"""The residual stream on the plain path: sums and norms over parts of a batch."""

import pytest
import torch
from torch.nn import functional as F

from sam3d_nb.model import residual

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("times", [1, 3])
def test_add_norm_is_a_sum_and_a_norm(times: int, dtype: torch.dtype) -> None:
    """With one gain, shift and gate for the batch, and with one an item."""
    x, update = draw(3, 5, 16), draw(3, 5, 16).to(dtype)
    gate, gain, shift = draw(times, 1, 16), draw(times, 1, 16) + 1, draw(times, 1, 16)
    total, normed = residual.add_norm(x, update, gain, shift, 1e-6, gate=gate)
    torch.testing.assert_close(total, x + gate * update.float())
    expected = F.layer_norm(total, (16,), eps=1e-6) * gain + shift
    torch.testing.assert_close(normed, expected.to(dtype))
    torch.testing.assert_close(residual.norm(total, gain, shift, 1e-6, dtype), normed)
    torch.testing.assert_close(residual.add(x, update, gate), total)


def test_items_beyond_the_update_take_the_rest() -> None:
    x, update, rest, ones = draw(4, 5, 16), draw(2, 5, 16), draw(16), torch.ones(16)
    total, normed = residual.add_norm(x, update, ones, 0 * ones, 1e-6, rest=rest)
    torch.testing.assert_close(total, torch.cat([x[:2] + update, x[2:] + rest]))
    assert normed.shape == x.shape
    total, normed = residual.add_norm(x, update, ones, 0 * ones, 1e-6, items=1)
    torch.testing.assert_close(total, torch.cat([x[:2] + update, x[2:]]))
    torch.testing.assert_close(normed, F.layer_norm(total[:1], (16,), eps=1e-6))


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_a_float32_stream_keeps_what_half_precision_would_lose(dtype: torch.dtype) -> None:
    x, update = torch.full((1, 1, 8), 4096.0), torch.full((1, 1, 8), 0.25).to(dtype)
    assert (residual.add(x, update, torch.ones(1, 1, 8)) == 4096.25).all()


def test_gradients_reach_everything() -> None:
    x, update = draw(2, 3, 8).requires_grad_(), draw(2, 3, 8).requires_grad_()
    gate, gain = draw(1, 1, 8).requires_grad_(), draw(8).requires_grad_()
    total, normed = residual.add_norm(x, update, gain, gain, 1e-6, gate=gate)
    (total.sum() + normed.square().sum()).backward()
    assert all(t.grad is not None and t.grad.any() for t in (x, update, gate, gain))
