"""dlib's network as the start of the mini's stem: its file, its first layer, all of its layers."""

import pytest
import torch
from dlib_network import make_network
from torch.nn import functional as F

from feallm import FEALLMForConditionalGeneration
from feallm.stem import ResidualStem
from train.mini.pretrained import (
    LAYERS,
    PIXEL_MEAN,
    convolutions,
    enlarged,
    read_tensors,
    start_stem,
)
from train.mini.sizes import PRETRAINED_STEM, mini_config
from train.mini.vision import VisionTask

CHANNELS, DEPTHS = [16, 24, 32, 40], [3, 4, 3, 3]


def test_a_file_is_read_as_it_was_written(tmp_path):
    layers = make_network(tmp_path / "net.dat", CHANNELS, DEPTHS)
    tensors = read_tensors(tmp_path / "net.dat")
    assert len(tensors) == 2 * LAYERS + 1
    for (kernel, bias, scale, shift), weights, scaling in zip(
        layers, tensors[:-1:2], tensors[1::2], strict=True
    ):
        assert torch.equal(weights, torch.cat([kernel.flatten(), bias]))
        assert torch.equal(scaling, torch.cat([scale, shift]))


def test_another_file_is_refused(tmp_path):
    (tmp_path / "other.dat").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(ValueError, match="other.dat is not dlib_face_recognition_resnet_model"):
        start_stem(ResidualStem(CHANNELS, DEPTHS, "batch"), tmp_path / "other.dat", torch.zeros(1))


def test_a_kernel_for_half_the_picture_sees_what_the_other_saw():
    torch.manual_seed(0)
    kernel, picture = torch.randn(5, 3, 7, 7), torch.rand(2, 3, 20, 20)
    twice = F.interpolate(picture, scale_factor=2, mode="bilinear")
    there = F.conv2d(twice, kernel, stride=2, padding=3)
    here = F.conv2d(picture, enlarged(kernel), padding=2)
    torch.testing.assert_close(here[..., 3:-3, 3:-3], there[..., 3:-3, 3:-3], atol=1e-4, rtol=1e-4)


def test_a_started_stem_gives_what_the_network_gives(tmp_path):
    layers = make_network(tmp_path / "net.dat", CHANNELS, DEPTHS)
    stem = ResidualStem(CHANNELS, DEPTHS, "batch").eval()
    faces = torch.randn(6, 3, 64, 64)
    start_stem(stem, tmp_path / "net.dat", faces)

    plain = ResidualStem(CHANNELS, DEPTHS, "none").eval()  # every scaling folded into its layer
    for (conv, _), (kernel, bias, scale, shift) in zip(convolutions(plain), layers, strict=False):
        if conv is plain.first:  # pixels of 0.5 mean, 0.25 std, as dlib has them
            taken = (127.5 - torch.tensor(PIXEL_MEAN)) / 256
            bias = bias + (kernel * taken.view(1, 3, 1, 1)).sum((1, 2, 3))
            kernel = enlarged(kernel * 255 / 256 / 4)
        conv.weight.data = kernel * scale.view(-1, 1, 1, 1)
        conv.bias.data = bias * scale + shift
    with torch.inference_mode():
        torch.testing.assert_close(stem(faces), plain(faces), atol=1e-3, rtol=1e-3)


def test_what_the_stem_knows_reaches_the_heads_at_once(tmp_path):
    torch.manual_seed(0)
    config = mini_config(vocab_size=300, **PRETRAINED_STEM | {"vision_stem_norm": "batch"})
    task = VisionTask(FEALLMForConditionalGeneration(config), "vision_tower").eval()
    sizes = (PRETRAINED_STEM[f"vision_stem_{name}"] for name in ("channels", "depths"))
    make_network(tmp_path / "net.dat", *sizes)
    task.start_tower()
    faces = torch.randn(4, 3, 96, 96)
    task.start_from(tmp_path / "net.dat", faces)
    with torch.inference_mode():
        hidden = task.model.vision_tower(faces, output_hidden_states=True).hidden_states
    assert len(hidden) == 5
    assert all(torch.equal(hidden[0], later) for later in hidden[1:])
