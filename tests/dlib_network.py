"""Networks of random weights in the layout of dlib's file."""

import torch

from train.mini.pretrained import LAYERS


def integer(number: int) -> bytes:
    """An integer as dlib writes it."""
    size = (number.bit_length() + 7) // 8
    return bytes([size]) + number.to_bytes(size, "little")


def write_network(file, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Write pairs of a convolution's and its scaling's weights as dlib would, and a last matrix."""
    with file.open("wb") as out:
        out.write(integer(21) + b"loss_metric_2\x01\x02\x00")
        for weights in [w for pair in layers for w in pair] + [torch.randn(64)]:
            out.write(integer(5) + b"con_4" + integer(2) + integer(len(weights)) + integer(1) * 3)
            out.write(weights.numpy().astype("<f4").tobytes() + integer(3))


def make_network(file, channels, depths) -> list[tuple]:
    """Write a network of random weights; return (kernel, bias, scale, shift) of its layers.

    A scaling of fewer than 16 channels would be passed over as too short.
    """
    torch.manual_seed(0)
    kernels, width = [torch.randn(channels[0], 3, 7, 7) * 0.1], channels[0]
    for channel, depth in zip(channels, depths, strict=True):
        for _ in range(depth):
            kernels += [torch.randn(channel, w, 3, 3) * 0.05 for w in (width, channel)]
            width = channel
    while len(kernels) < LAYERS:  # its last block, which the stem leaves out
        kernels.append(torch.randn(width, width, 3, 3))
    layers = [(kernel, *(torch.randn(len(kernel)) * 0.1 for _ in range(3))) for kernel in kernels]
    layers = [(k, b, 1 + scale, shift) for k, b, scale, shift in layers]
    write_network(
        file,
        [
            (torch.cat([kernel.flatten(), bias]), torch.cat([scale, shift]))
            for kernel, bias, scale, shift in layers
        ],
    )
    return layers
