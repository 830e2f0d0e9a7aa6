"""Every kind of picture becomes upright RGB; everything else becomes a sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from feallm.photos import BadPhoto, open_photo, upright_size


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


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_no_damage_is_more_than_a_sentence(form):
    """Decoders raise whatever a wrong byte leads them into."""
    rng = np.random.default_rng(0)
    frames = {"save_all": True, "append_images": [picture()]} if form in ("GIF", "TIFF") else {}
    whole = np.frombuffer(encoded(picture(), form, **frames), np.uint8)
    for _ in range(60):
        damaged = whole[: rng.integers(20, len(whole) + 1)].copy()
        damaged[rng.integers(0, len(damaged), 3)] = rng.integers(0, 256, 3)
        try:
            photo, _ = open_photo(damaged.tobytes())
        except BadPhoto:
            continue
        assert photo.mode == "RGB"


def test_damaged_exif_does_no_harm():
    photo, _ = open_photo(encoded(picture(), "PNG", exif=b"Exif\0\0II*\0"))
    assert photo.size == (96, 64)


def test_a_float_picture_may_have_holes():
    values = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    values[0, :2] = np.nan, np.inf
    photo, _ = open_photo(encoded(Image.fromarray(values), "TIFF"))
    grey = np.asarray(photo)[..., 0].astype(float)
    np.testing.assert_allclose(grey[1:], values[1:] * 255, atol=1.5)
    photo, _ = open_photo(encoded(Image.fromarray(np.full((64, 64), np.nan, np.float32)), "TIFF"))
    assert not np.asarray(photo).any()


def test_a_missing_file_gets_a_sentence(tmp_path):
    with pytest.raises(BadPhoto, match="does not exist"):
        open_photo(tmp_path / "nothing.jpg")


def test_a_large_photo_is_reduced():
    photo, _ = open_photo(encoded(Image.new("RGB", (6000, 3000)), "JPEG"))
    assert photo.size == (4096, 2048)


@pytest.mark.parametrize(
    ("size", "shown"),
    [((12000, 9000), (4096, 3072)), ((9248, 6936), (4096, 3072)), ((16000, 4000), (4096, 1024))],
)
def test_a_jpeg_of_too_many_pixels_is_decoded_small(size, shown):
    data = encoded(Image.new("L", size), "JPEG")
    assert len(data) < 2e6
    photo, _ = open_photo(data)
    assert photo.size == shown


def test_what_cannot_be_decoded_small_enough_is_refused():
    with pytest.raises(BadPhoto, match="at most 60 megapixels"):
        open_photo(encoded(Image.new("1", (9248, 6936)), "PNG"))


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (600, 300)), (6, (300, 600)), (3, (600, 300))]
)
def test_the_upright_size_is_that_of_the_whole_photo(monkeypatch, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", (600, 300)), "JPEG", exif=exif)
    monkeypatch.setattr("feallm.photos.MAX_SIDE", 100)
    assert upright_size(data) == size and max(open_photo(data)[0].size) == 100
