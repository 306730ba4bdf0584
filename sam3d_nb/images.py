"""Reading any picture safely: photos to RGB, masks to booleans.

Both are turned upright by the EXIF orientation that they carry themselves, so a mask drawn over
the photo as viewers show it fits. The alpha channel of a photo is dropped, as the official code
does: colors are stored unmultiplied, so pixels at a cut-out's edge keep the object's own color.
Color profiles are not applied.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam3d_nb.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000
"""Pictures with more pixels than this are refused before they are decoded."""

MIN_MASK_PIXELS = 16
"""A mask with fewer pixels than this says nothing about a shape."""

# Only formats that are decoded in this process: EPS, for one, would start another program.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "TGA")
OPAQUE_MODES = ("1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
ALPHA_MODES = ("P", "PA", "LA", "La", "RGBA", "RGBa")  # a palette may hold transparency
GREY_TOLERANCE = 16  # JPEG leaves a grey picture's channels a few levels apart


def read_image(path: str | Path) -> np.ndarray:
    """Return the picture at `path` as (H, W, 3) uint8 RGB, upright.

    CMYK, 16-bit, palette, grey and transparent pictures are converted. Raises InputError where
    the file is missing, no picture, damaged, or larger than MAX_PIXELS.
    """
    return _to_rgb(_read(Path(path)), Path(path))


def read_mask(path: str | Path) -> np.ndarray:
    """Return the mask at `path` as (H, W) bool, upright; it may be empty.

    The object is where alpha, or grey in a picture without transparency, exceeds half of its
    largest value, so masks of 0 and 1, 0 and 255, or 16 bits are all read. Raises InputError as
    `read_image` does, and where the picture is in color and opaque.
    """
    values = _mask_values(_read(Path(path)), Path(path))  # (H, W)
    return values > values.max() / 2


def check_mask(mask: np.ndarray, shape: tuple[int, int], label: str = "the mask") -> None:
    """Raise InputError unless `mask` (H, W) bool has this (H, W) shape and enough pixels."""
    if mask.shape != shape:
        raise InputError(
            f"{label} is {_size(mask.shape)} pixels but the photo is {_size(shape)}; "
            + fits_hint(mask.shape, shape)
        )
    count = int(np.count_nonzero(mask))
    if count == 0:
        raise InputError(f"{label} is empty: no pixel belongs to the object; draw it again")
    if count < MIN_MASK_PIXELS:
        pixels = "1 pixel" if count == 1 else f"{count} pixels"
        raise InputError(
            f"{label} has only {pixels}; a shape needs at least {MIN_MASK_PIXELS}: draw it again"
        )


def fits_hint(shape: tuple[int, ...], image_shape: tuple[int, ...]) -> str:
    """Say what to do about something of `shape` (H, W, ...) that belongs to another photo size."""
    if shape[:2] == image_shape[1::-1]:
        return (
            "it fits the photo lying on its side: photos are turned upright by their EXIF "
            "orientation, so make it from the upright photo"
        )
    return "make it from this very photo, or scale it to the same size"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}" if len(shape) == 2 else str(shape)


@cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _read(path: Path) -> Image:
    """Return the decoded, upright picture in whatever mode it was stored."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        if not path.exists():
            raise InputError(f"there is no picture {path}; check the path")
        if not path.is_file():
            raise InputError(f"{path} is a folder or device, not a picture")
        # Pillow warns from 89 megapixels on; the limit here is stated and checked below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=_formats())
        with picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(_too_large(path))
            upright = ImageOps.exif_transpose(picture)
            upright.load()
            return upright
    except (InputError, MemoryError):
        raise
    except PermissionError as error:
        raise InputError(f"{path} may not be read: {error.strerror}; change its rights") from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not a picture that can be read; save it as PNG or JPEG"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(path)) from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files
        raise InputError(
            f"{path} is damaged and cannot be read ({error}); save or download it again"
        ) from error


def _too_large(path: Path) -> str:
    return f"{path} has more than {MAX_PIXELS // 1_000_000} megapixels; scale it down first"


def _to_rgb(picture: Image, path: Path) -> np.ndarray:
    mode = picture.mode
    if mode.startswith("I;16") or (mode == "I" and _fits_16_bit(picture)):
        grey = np.round(np.asarray(picture).astype(np.float32) / 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)  # (H, W, 3)
    pixels = np.asarray(picture.convert(_plain_mode(picture, path)))
    return np.ascontiguousarray(pixels[..., :3])


def _plain_mode(picture: Image, path: Path) -> str:
    """Return RGBA where the picture may have transparency, else RGB."""
    if picture.mode in ALPHA_MODES:
        return "RGBA"
    if picture.mode in OPAQUE_MODES:
        return "RGB"
    raise InputError(f"{path} has pixels of kind {picture.mode!r}; save it as PNG, 8 or 16 bits")


def _fits_16_bit(picture: Image) -> bool:
    low, high = picture.getextrema()
    return bool(low >= 0 and high <= 65535)  # type: ignore[operator]


def _mask_values(picture: Image, path: Path) -> np.ndarray:
    """Return what tells the object from the rest, (H, W), as stored."""
    if picture.mode == "1":
        picture = picture.convert("L")
    if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16"):
        return np.nan_to_num(np.asarray(picture))
    pixels = np.asarray(picture.convert(_plain_mode(picture, path)))  # (H, W, 3 or 4)
    if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
        return pixels[..., 3]
    colors = pixels[..., :3].astype(np.int16)
    if int(np.ptp(colors, axis=-1).max()) > GREY_TOLERANCE:
        raise InputError(
            f"{path} is a picture in color without transparency, not a mask; save the mask in "
            "grey, white on black, or in the alpha channel"
        )
    return colors[..., 1]
