import published
import pytest
import torch
from harness import fill, manifest, shapes
from torch import Tensor, nn
from torch.nn import functional as F

from sam3d_nb.errors import InputError
from sam3d_nb.model.config import SMALL_MESH_DECODER
from sam3d_nb.model.grid import Grid
from sam3d_nb.model.mesh_decoder import MeshDecoder, SubdivisionBlock, build_mesh_decoder
from sam3d_nb.model.surface import SurfaceError, mesh_from_features


def small_input(voxels: int = 40) -> tuple[Tensor, Grid]:
    random = torch.Generator().manual_seed(0)
    cells = torch.randperm(6**3, generator=random)[:voxels].sort().values
    xyz = torch.stack([cells // 36, cells // 6 % 6, cells % 6], dim=1) + 5
    coords = F.pad(xyz, (1, 0)).int()
    return torch.randn(voxels, 8, generator=random), Grid(coords, 16)


@pytest.fixture(scope="module")
def small() -> MeshDecoder:
    return fill(build_mesh_decoder(SMALL_MESH_DECODER))


# --- Golden files and published names --------------------------------------------------------


def test_golden(golden) -> None:
    g = golden("stage2/slat_decoder_mesh")
    decoder = fill(build_mesh_decoder(published.mesh_decoder(g.config)))
    grid = Grid(g["coords"], g.config["resolution"])
    h = decoder.features(g["slat"], grid)
    g.check(h, "trace_last_block")
    g.check(decoder.upsample[0](h, grid), "trace_upsample0")
    features, fine = decoder(g["slat"], grid)
    g.check(features, "out_feats")
    g.check(fine.coords, "out_coords")
    mesh = mesh_from_features(fine.xyz, g["out_feats"], fine.resolution)
    g.check(mesh.vertices, "vertices")
    g.check(mesh.faces, "faces")
    g.check(mesh.attributes, "vertex_attrs")


def test_golden_composed(golden) -> None:
    g = golden("stage2/composed")
    config = published.mesh_decoder(g.config["slat_decoder_mesh"])
    decoder = fill(build_mesh_decoder(config))
    features, fine = decoder(g["slat"], Grid(g["coords"], config.trunk.resolution))
    rows = len(g["mesh_feats_head"])
    g.check(features[:rows], "mesh_feats_head")
    g.check(fine.coords[:rows], "mesh_coords_head")


def test_golden_block_on_small_input(golden) -> None:
    g = golden("stage2/blocks_small_input")
    x = g["subdivide_in"]
    names = g.info["names"]
    width = names["upsample.0.out_layers.1.weight"][0]
    block = fill(SubdivisionBlock(x.shape[1], width, groups=32), "upsample.0.")
    grid = Grid(g["coords"][: len(x)])
    g.check(block(x, grid), "subdivide_out")
    g.check(grid.subdivided.coords, "subdivide_coords")


@pytest.mark.slow
def test_golden_at_full_size(golden) -> None:
    g = golden("stage2/full_slat_decoder_mesh")
    decoder = fill(build_mesh_decoder(published.mesh_decoder(g.config)))
    features, fine = decoder(g["slat"], Grid(g["coords"], g.config["resolution"]))
    g.check(features, "out_feats")
    g.check(fine.coords, "out_coords")


def test_published_names_and_shapes() -> None:
    assert shapes(build_mesh_decoder(device="meta")) == manifest("slat_decoder_mesh")


# --- Plain twins ------------------------------------------------------------------------------


def dense_conv(features: Tensor, grid: Grid, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve in a dense volume and read at the voxels."""
    side, (x, y, z) = grid.resolution, grid.xyz.long().unbind(1)
    volume = features.new_zeros(features.shape[1], side, side, side)
    volume[:, x, y, z] = features.T
    return F.conv3d(volume[None], weight.permute(0, 4, 1, 2, 3), bias, padding=1)[0, :, x, y, z].T


def dense_norm(features: Tensor, norm: nn.GroupNorm) -> Tensor:
    return F.group_norm(features.T[None], norm.num_groups, norm.weight, norm.bias, 1e-5)[0].T


def test_subdivision_block_is_its_dense_twin(small: MeshDecoder) -> None:
    _, grid = small_input()
    block, fine = small.upsample[0], grid.subdivided
    x = torch.randn(len(grid), 96, generator=torch.Generator().manual_seed(1))
    first, second = block.out_layers[0].conv, block.out_layers[3].conv
    y = F.silu(dense_norm(x, block.act_layers[0])).repeat_interleave(8, dim=0)
    y = dense_conv(y, fine, first.weight, first.bias)
    y = dense_conv(F.silu(dense_norm(y, block.out_layers[1])), fine, second.weight, second.bias)
    skip = block.skip_connection.conv
    matrix = skip.weight.flatten().view(96, 24)  # (in, out), without a transpose
    y += (x @ matrix + skip.bias).repeat_interleave(8, dim=0)
    torch.testing.assert_close(block(x, grid), y, rtol=1e-4, atol=1e-5)


def test_decoding_in_parts_is_decoding_at_once(small: MeshDecoder) -> None:
    latent, grid = small_input()
    features, fine = small(latent, grid)
    assert features.shape == (64 * 40, 101)
    assert fine.resolution == 64
    expected = mesh_from_features(fine.xyz, features, fine.resolution)
    mesh = small.decode(latent, grid)
    assert torch.equal(mesh.faces, expected.faces)
    torch.testing.assert_close(mesh.vertices, expected.vertices, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mesh.attributes, expected.attributes, rtol=1e-4, atol=1e-4)
    assert mesh.vertices.abs().max() < 0.51


def test_the_same_input_gives_the_same_mesh(small: MeshDecoder) -> None:
    latent, grid = small_input()
    first, second = small.decode(latent, grid), small.decode(latent.clone(), Grid(grid.coords, 16))
    assert torch.equal(first.vertices, second.vertices)
    assert torch.equal(first.faces, second.faces)
    assert torch.equal(first.attributes, second.attributes)


def test_the_largest_tables_are_freed(small: MeshDecoder) -> None:
    latent, grid = small_input()
    _, fine = small(latent, grid)
    kept = {name for name in vars(fine) if isinstance(vars(fine)[name], Tensor)}
    assert kept == {"coords"}
    assert fine.neighbors.shape == (len(fine), 27)


def test_gradients_reach_every_parameter() -> None:
    decoder = build_mesh_decoder(SMALL_MESH_DECODER)
    latent, grid = small_input(12)
    features, _ = decoder(latent, grid)
    features.square().mean().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


# --- Half precision ---------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
def test_half_precision_stays_near_float32(
    small: MeshDecoder, dtype: torch.dtype, limit: float
) -> None:
    """Root mean square of the difference, relative to that of float32."""
    latent, grid = small_input()
    expected, _ = small(latent, grid)
    decoder = fill(build_mesh_decoder(SMALL_MESH_DECODER))
    decoder.set_torso_dtype(dtype)
    actual, _ = decoder(latent, grid)
    assert decoder.out_layer.weight.dtype == torch.float32
    assert decoder.upsample[0].act_layers[0].weight.dtype == torch.float32
    assert actual.dtype == torch.float32
    error = (actual - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert error < limit
    assert len(decoder.decode(latent, grid).faces)


# --- Bad input --------------------------------------------------------------------------------


def test_no_surface_is_an_error_that_counts(small: MeshDecoder) -> None:
    latent, grid = small_input()
    decoder = fill(build_mesh_decoder(SMALL_MESH_DECODER))
    with torch.no_grad():
        decoder.out_layer.bias[:8] = 100.0
    with pytest.raises(SurfaceError, match="2560 fine voxels decoded from 40 voxels") as caught:
        decoder.decode(latent, grid)
    assert isinstance(caught.value, ValueError)


def test_numbers_beyond_half_precision_are_an_error() -> None:
    latent, grid = small_input()
    decoder = fill(build_mesh_decoder(SMALL_MESH_DECODER))
    with torch.no_grad():
        decoder.out_layer.weight[3] = torch.inf
    with pytest.raises(SurfaceError, match="not finite"):
        decoder.decode(latent, grid)


def test_bad_latents_are_refused(small: MeshDecoder) -> None:
    latent, grid = small_input()
    broken = latent.clone()
    broken[3, 2] = torch.nan
    with pytest.raises(InputError, match=r"1 of 40 rows .*NaN"):
        small.decode(broken, grid)
    with pytest.raises(InputError, match=r"\(39, 8\)"):
        small.decode(latent[:-1], grid)
    with pytest.raises(InputError, match=r"\(40, 7\)"):
        small.decode(latent[:, :7], grid)
    with pytest.raises(InputError, match="resolution 32"):
        small.decode(latent, Grid(grid.coords, 32))
    two = Grid(torch.cat([grid.coords, grid.coords + torch.tensor([1, 0, 0, 0])]), 16)
    with pytest.raises(InputError, match="2 batch items"):
        small.decode(torch.cat([latent, latent]), two)
