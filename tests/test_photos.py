"""Every kind of picture becomes upright RGB; everything else becomes a sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from feallm.photos import BadPhoto, open_photo


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def picture(mode: str = "RGB") -> Image.Image:
    return Image.effect_noise((96, 64), 60).convert(mode)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "PNG"),
        ("1", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("RGB", "WEBP"), ("RGB", "BMP"),
        ("RGB", "TIFF"), ("RGB", "AVIF"),
        ("P", "GIF"),
    ],
)  # fmt: skip
def test_every_mode_becomes_rgb(mode, form):
    photo, note = open_photo(encoded(picture(mode), form))
    assert photo.mode == "RGB" and photo.size == (96, 64)
    assert note == ""


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    photo, _ = open_photo(encoded(Image.fromarray(values), "PNG"))
    grey = np.asarray(photo)[..., 0].astype(float)
    np.testing.assert_allclose(grey, values / 257.0, atol=1.0)


def test_exif_orientation_is_applied_and_exif_dropped():
    image = Image.new("RGB", (100, 60), "blue")
    image.paste("red", (0, 0, 100, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise
    exif[0x010E] = "at home"
    photo, _ = open_photo(encoded(image, "PNG", exif=exif))
    assert photo.size == (60, 100)
    assert photo.getpixel((59, 50)) == (255, 0, 0)
    assert not photo.getexif() and not photo.info


def test_transparency_lies_on_white():
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    assert open_photo(encoded(image, "PNG"))[0].getpixel((5, 5)) == (255, 255, 255)


def test_an_animation_gives_its_first_frame_and_says_so():
    frames = [Image.new("RGB", (64, 64), c) for c in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    photo, note = open_photo(data)
    assert photo.getpixel((5, 5)) == (255, 0, 0)
    assert "first frame" in note


def huge_png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"this is text", "not a picture"),
        (b"", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (b"<html><img src='x'></html>", "not a picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not a picture"),
        (encoded(picture(), "JPEG")[:400], "damaged"),
        (encoded(picture(), "PNG")[:-600], "damaged"),
        (huge_png(65000), "too large"),
        (encoded(Image.new("RGB", (30, 30)), "PNG"), "too small"),
    ],
    ids=["text", "empty", "svg", "html", "heic", "cut jpeg", "cut png", "65000 x 65000", "tiny"],
)
def test_what_cannot_be_used_gets_a_sentence(data, sentence):
    with pytest.raises(BadPhoto, match=sentence) as problem:
        open_photo(data)
    assert str(problem.value).endswith(".")


def test_a_missing_file_gets_a_sentence(tmp_path):
    with pytest.raises(BadPhoto, match="does not exist"):
        open_photo(tmp_path / "nothing.jpg")


def test_a_large_photo_is_reduced():
    photo, _ = open_photo(encoded(Image.new("RGB", (6000, 3000)), "JPEG"))
    assert photo.size == (4096, 2048)


def test_a_jpeg_of_108_megapixels_is_decoded_small():
    data = encoded(Image.new("L", (12000, 9000)), "JPEG")
    assert len(data) < 2e6
    photo, _ = open_photo(data)
    assert photo.size == (4096, 3072)
