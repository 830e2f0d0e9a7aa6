"""A convolution whose weights' gradient is quick on a CPU when the pictures are small.

oneDNN takes five to eight times longer for the gradient of the weights than for the convolution
itself when a batch holds a thousand pictures of 2 or 4 pixels, as the LCA's last stages do. The
same sum written as one matrix product (every 3x3 window a row) trains the LCA 1.5 times faster:
`python -m benchmarks.convolution`.
"""

import torch
from torch import nn
from torch.nn import functional as F

from feallm.lca import ClueConv

SMALL = 4
"""Side of the output, in pixels, up to which the matrix product wins."""


def windows(x: torch.Tensor, stride: int) -> torch.Tensor:
    """Return every 3x3 window of x (n, c, h, w), padded by one, as a row: (n * h' * w', 9 * c).

    The columns run over the window's rows, its columns, then the channels.
    """
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()  # (n, h + 2, w + 2, c)
    high, wide = ((side - 1) // stride + 1 for side in x.shape[2:])
    channels = x.shape[1]
    per_picture, per_row, per_pixel, _ = padded.stride()
    rows = padded.as_strided(  # three neighbours of a row lie side by side in memory
        (len(x), high, wide, 3, 3 * channels),
        (per_picture, stride * per_row, stride * per_pixel, per_row, 1),
    )
    return rows.reshape(len(x) * high * wide, 9 * channels)


class _Convolve(torch.autograd.Function):
    """3x3 convolution, padding 1, without bias."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(ctx, x, weight, stride):
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, stride=stride, padding=1)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        stride = ctx.stride
        to_x = torch.ops.aten.convolution_backward(
            grad, x, weight, None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1,
            [ctx.needs_input_grad[0], False, False],
        )[0]  # fmt: skip
        rows = grad.permute(0, 2, 3, 1).flatten(0, 2)  # (n * h' * w', out)
        to_weight = (rows.T @ windows(x, stride)).unflatten(1, (3, 3, -1)).permute(0, 3, 1, 2)
        return to_x, to_weight, None


class QuickConv(ClueConv):
    """A `ClueConv` with the quick gradient where it pays; the forward pass is the same."""

    def _conv_forward(self, x, weight, bias):
        side = (x.shape[-1] - 1) // self.stride[0] + 1
        if x.device.type != "cpu" or side > SMALL or not torch.is_grad_enabled():
            return super()._conv_forward(x, weight, bias)
        out = _Convolve.apply(x, weight, self.stride[0])
        return out if bias is None else out + bias.to(out.dtype)[:, None, None]


def quicken(module: nn.Module) -> None:
    """Give every convolution of an LCA inside `module` the quick gradient, in place."""
    for part in module.modules():
        if type(part) is ClueConv:
            part.__class__ = QuickConv
