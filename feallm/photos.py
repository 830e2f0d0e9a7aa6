"""Opening a photo somebody gives us: any picture becomes upright RGB, anything else a sentence."""

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 60_000_000
"""Above this a picture is refused before it is decoded (a JPEG may be decoded smaller)."""
MAX_SIDE = 4096
"""Larger photos are reduced to this longer side: four times what detection looks at."""
MIN_SIDE = 48
DRAFTS = (2, 4, 8)
"""A JPEG can be decoded at one over these of its sides."""
ORIENTATION, ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
"""The EXIF tag, and its values that exchange width and height."""


class BadPhoto(ValueError):
    """A photo that cannot be used; its text is a sentence for the person who gave it."""


def open_photo(source: str | Path | bytes) -> tuple[Image.Image, str]:
    """Return the photo as upright RGB, without its metadata, and a note (often empty).

    EXIF orientation is applied and then dropped with the rest of the EXIF; transparency becomes
    white; 16-bit and float pictures are scaled; of an animation the first frame is taken.

    Raises:
        BadPhoto: not a picture, damaged, too small or too large.
    """
    notes = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's about large pictures: we check the size
            image = _opened(source)
            if image.width * image.height > MAX_PIXELS:
                _decode_smaller(image)
            if getattr(image, "n_frames", 1) > 1:
                image.seek(0)
                if image.format != "MPO":
                    notes.append("Only the first frame of this animation is used.")
            image.load()
            image = _upright(image)
    except BadPhoto:
        raise
    except Image.UnidentifiedImageError:
        raise BadPhoto(
            "This file is not a picture we can read. Use JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF."
        ) from None
    except Image.DecompressionBombError:
        raise BadPhoto(
            f"This picture is too large. Use one of at most {MAX_PIXELS // 1_000_000} megapixels."
        ) from None
    except FileNotFoundError:
        raise BadPhoto("This file does not exist.") from None
    except Exception:  # what a damaged file leads Pillow's decoders into is any of them
        raise BadPhoto("This picture is damaged or incomplete and cannot be opened.") from None
    image = _to_rgb(image)
    if min(image.size) < MIN_SIDE:
        raise BadPhoto(
            f"This picture is too small ({image.width} x {image.height}); "
            f"a face needs at least {MIN_SIDE} pixels."
        )
    if max(image.size) > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return image, " ".join(notes)


def upright_size(source: str | Path | bytes) -> tuple[int, int]:
    """Return the width and height in pixels that `open_photo`'s photo has before it is reduced.

    Raises:
        OSError: not a picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _opened(source) as image:
            width, height = image.size
            return (height, width) if _orientation(image) in ON_ITS_SIDE else (width, height)


def _opened(source: str | Path | bytes) -> Image.Image:
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # as in `open_photo`
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF's orientation; where the EXIF is damaged the pixels are not."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # as in `open_photo`
        return image


def _decode_smaller(image: Image.Image) -> None:
    """Let a picture of too many pixels be decoded at a half, a quarter or an eighth, in place.

    Raises:
        BadPhoto: it cannot, or would still have too many.
    """
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        for part in DRAFTS:
            if width * height <= MAX_PIXELS * part**2:
                image.draft("RGB", (width // part, height // part))
                return
    raise BadPhoto(
        f"This picture is too large ({width} x {height}). Use one of at most "
        f"{MAX_PIXELS // 1_000_000} megapixels."
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        array = np.asarray(image, np.float64)
        known = array[np.isfinite(array)]  # a float picture may have holes
        low, high = 0, 65535
        if image.mode == "F" and known.size:
            low, high = known.min(), known.max()
        scaled = np.nan_to_num((array - low) / max(high - low, 1e-9) * 255)
        image = Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    # a copy through pixels: EXIF, GPS and comments stay behind
    rgb = image.convert("RGB")
    return Image.frombytes("RGB", rgb.size, rgb.tobytes())
