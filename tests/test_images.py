"""Every kind of picture that people have, and every kind that must get a sentence instead."""

import struct
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam3d_nb.errors import InputError
from sam3d_nb.images import MAX_PIXELS, check_mask, read_image, read_mask

SIDES = (6, 8)  # H, W


@pytest.fixture
def rgb() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (*SIDES, 3), dtype=np.uint8)


def save(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def test_rgb_is_read_as_stored(tmp_path: Path, rgb: np.ndarray) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(rgb))
    result = read_image(path)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, rgb)


def test_grey_becomes_three_equal_channels(tmp_path: Path, rgb: np.ndarray) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(rgb[..., 0]))
    np.testing.assert_array_equal(read_image(path), np.repeat(rgb[..., :1], 3, axis=2))


def test_one_bit_becomes_black_and_white(tmp_path: Path, rgb: np.ndarray) -> None:
    bits = rgb[..., 0] > 127
    path = save(tmp_path / "a.png", Image.fromarray(bits))
    np.testing.assert_array_equal(read_image(path)[..., 1], bits * np.uint8(255))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(values))
    np.testing.assert_array_equal(read_image(path)[0, :, 0], [0, 1, 100, 255])


def test_sixteen_bit_color_is_scaled_to_eight(tmp_path: Path) -> None:
    values = np.array([[[0, 25700, 65535], [65535, 0, 25700]]], dtype=">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    path = tmp_path / "a.png"
    path.write_bytes(png(width=2, height=1, bits=16, kind=2, data=zlib.compress(rows)))
    np.testing.assert_array_equal(read_image(path), [[[0, 100, 255], [255, 0, 100]]])


def test_cmyk_is_converted(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    path = save(tmp_path / "a.jpg", cyan, quality=100)
    r, g, b = read_image(path)[4, 4].astype(int)
    assert r < 10
    assert g > 245
    assert b > 245


def test_palette_is_converted(tmp_path: Path, rgb: np.ndarray) -> None:
    indexed = Image.fromarray(rgb).quantize(16)
    path = save(tmp_path / "a.png", indexed)
    np.testing.assert_array_equal(read_image(path), np.asarray(indexed.convert("RGB")))


def test_palette_with_transparency_keeps_its_colors(tmp_path: Path) -> None:
    indexed = Image.new("P", (2, 1))
    indexed.putpalette([10, 20, 30, 200, 100, 50])
    indexed.putpixel((1, 0), 1)
    path = save(tmp_path / "a.png", indexed, transparency=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(path), [[[10, 20, 30], [200, 100, 50]]])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped(tmp_path: Path, rgb: np.ndarray, mode: str) -> None:
    picture = Image.fromarray(rgb).convert(mode)
    picture.putalpha(Image.fromarray(rgb[..., 0]))
    path = save(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(read_image(path), np.asarray(picture.convert("RGBA"))[..., :3])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    """The upright photo has a red corner in the upper left and a green one in the upper right."""
    upright = np.zeros((20, 30, 3), dtype=np.uint8)
    upright[:10, :10] = (255, 0, 0)
    upright[:10, -10:] = (0, 255, 0)
    to_stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(to_stored(upright)))
    path = save(tmp_path / "a.png", stored, exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)


def test_mask_is_turned_by_its_own_orientation(tmp_path: Path) -> None:
    upright = np.zeros((20, 30), dtype=np.uint8)
    upright[:10, :10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright, 1)))
    path = save(tmp_path / "0.png", stored, exif=exif)
    np.testing.assert_array_equal(read_mask(path), upright > 0)


@pytest.mark.parametrize("largest", [1, 255])
def test_grey_mask_of_any_range(tmp_path: Path, rgb: np.ndarray, largest: int) -> None:
    wanted = rgb[..., 0] > 127
    path = save(tmp_path / "0.png", Image.fromarray(wanted * np.uint8(largest)))
    np.testing.assert_array_equal(read_mask(path), wanted)


def test_sixteen_bit_mask(tmp_path: Path, rgb: np.ndarray) -> None:
    wanted = rgb[..., 0] > 127
    path = save(tmp_path / "0.png", Image.fromarray(wanted * np.uint16(65535)))
    np.testing.assert_array_equal(read_mask(path), wanted)


def test_mask_in_the_alpha_channel(tmp_path: Path, rgb: np.ndarray) -> None:
    wanted = rgb[..., 0] > 127
    pixels = np.dstack([rgb, wanted * np.uint8(255)])
    path = save(tmp_path / "0.png", Image.fromarray(pixels))
    np.testing.assert_array_equal(read_mask(path), wanted)


def test_grey_mask_saved_in_color_or_opaque(tmp_path: Path, rgb: np.ndarray) -> None:
    wanted = rgb[..., 0] > 127
    grey = Image.fromarray(wanted * np.uint8(255))
    for mode in ("RGB", "RGBA", "P"):
        path = save(tmp_path / f"{mode}.png", grey.convert(mode))
        np.testing.assert_array_equal(read_mask(path), wanted)


def test_photo_is_no_mask(tmp_path: Path, rgb: np.ndarray) -> None:
    path = save(tmp_path / "0.png", Image.fromarray(rgb))
    with pytest.raises(InputError, match="in color without transparency, not a mask"):
        read_mask(path)


def test_check_mask_says_what_is_wrong() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    with pytest.raises(InputError, match="mask 4 is empty"):
        check_mask(mask, (20, 30), "mask 4")
    mask[5, 5] = True
    with pytest.raises(InputError, match="only 1 pixel;"):
        check_mask(mask, (20, 30))
    mask[5, 5:15] = True
    with pytest.raises(InputError, match="only 10 pixels"):
        check_mask(mask, (20, 30))
    with pytest.raises(InputError, match=r"30 x 20 pixels but the photo is 60 x 40"):
        check_mask(mask, (40, 60))
    with pytest.raises(InputError, match="EXIF orientation"):
        check_mask(mask, (30, 20))
    mask[6, 5:15] = True
    check_mask(mask, (20, 30))


def test_picture_that_may_not_be_read(
    tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who runs the tests may be allowed to read everything, so the refusal is played."""
    path = save(tmp_path / "a.png", Image.fromarray(rgb))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match="may not be read: Permission denied"):
        read_image(path)


def test_kinds_of_pixels_without_a_meaning(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.new("F", (8, 8), 0.5))
    with pytest.raises(InputError, match="pixels of kind 'F'"):
        read_image(path)
    path = save(tmp_path / "b.tif", Image.new("LAB", (8, 8)))
    for read in (read_image, read_mask):
        with pytest.raises(InputError, match="pixels of kind 'LAB'"):
            read(path)


def test_missing_file_folder_and_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no picture"):
        read_image(tmp_path / "no.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)
    text = tmp_path / "text.png"
    text.write_text("this is no picture")
    with pytest.raises(InputError, match="not a picture that can be read"):
        read_image(text)
    text.write_bytes(b"")
    with pytest.raises(InputError, match="not a picture that can be read"):
        read_image(text)


def test_format_that_would_start_a_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n")
    with pytest.raises(InputError, match="not a picture that can be read"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_truncated_picture(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"damaged|not a picture"):
        read_image(path)


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    source = save(tmp_path / "a.png", Image.new("RGB", (16, 16), (9, 8, 7))).read_bytes()
    path = tmp_path / "b.png"
    for _ in range(200):
        damaged = bytearray(source)
        damaged[rng.integers(8, len(source))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with suppress(InputError):
            assert read_image(path).shape[2] == 3


def png(width: int, height: int, bits: int, kind: int, data: bytes) -> bytes:
    """Return a PNG file; kind: 0 grey, 2 color. data: compressed rows."""

    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [10_001, 30_000, 2_000_000])
def test_decompression_bomb_is_refused_before_decoding(tmp_path: Path, side: int) -> None:
    assert side**2 > MAX_PIXELS
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 8, 0, zlib.compress(b"\0" * 1000)))
    with pytest.raises(InputError, match="more than 100 megapixels"):
        read_image(path)


def test_limit_below_pillow_warning_is_silent(tmp_path: Path) -> None:
    """95 megapixels are allowed, so the file is found damaged only when it is decoded."""
    path = tmp_path / "large.png"
    path.write_bytes(png(9_500, 10_000, 8, 0, zlib.compress(b"\0" * 1000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="damaged"):
            read_image(path)
