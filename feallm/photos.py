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
            image = Image.open(
                BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS
            )
            width, height = image.size
            if width * height > MAX_PIXELS:
                if image.format != "JPEG":
                    raise BadPhoto(
                        f"This picture is too large ({width} x {height}). Use one of at most "
                        f"{MAX_PIXELS // 1_000_000} megapixels."
                    )
                image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # decodes at 1/2, 1/4 or 1/8
                if image.width * image.height > MAX_PIXELS:
                    raise BadPhoto(f"This picture is too large ({width} x {height}).")
            if getattr(image, "n_frames", 1) > 1:
                image.seek(0)
                if image.format != "MPO":
                    notes.append("Only the first frame of this animation is used.")
            image.load()
            image = ImageOps.exif_transpose(image)
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
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError):
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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        array = np.asarray(image, np.float64)
        low, high = (0, 65535) if image.mode.startswith("I") else (array.min(), array.max())
        scaled = (array - low) / max(high - low, 1e-9) * 255
        image = Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    # a copy through pixels: EXIF, GPS and comments stay behind
    rgb = image.convert("RGB")
    return Image.frombytes("RGB", rgb.size, rgb.tobytes())
