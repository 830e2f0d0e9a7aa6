"""The memory of tensors, counted as they come and go; also of sizes this machine could not hold.

A GPU's own figure adds what its allocator cannot place, and its kernels' workspaces.
"""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


def tensors_in(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class Counted(TorchDispatchMode):
    """Counts the bytes of the tensors made inside: `alive` now, `peak` at most."""

    def __init__(self):
        super().__init__()
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = self.make(function, args, kwargs or {})
        for tensor in tensors_in(made):
            self._count(tensor.untyped_storage())
        return made

    def make(self, function, args: tuple, kwargs: dict):
        """Return what an operation gives."""
        return function(*args, **kwargs)

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


class Uncomputed(Counted):
    """Counts without computing: every tensor has its shape and type, and memory nobody writes.

    The system gives only memory that is written, so a 7B trains in 1 GiB, in seconds, to no
    result. Whole numbers, truth values and single numbers are computed: shapes and loops may hang
    on them.
    """

    def make(self, function, args: tuple, kwargs: dict):
        given = tensors_in((args, kwargs))
        if is_view(function) or (given and all(t.numel() == 1 for t in given)):
            return function(*args, **kwargs)
        if writes_into_floats(function, args):
            return args[0]
        try:
            made = function(*tree_map(shape_of, args), **tree_map(shape_of, kwargs))
        except (RuntimeError, NotImplementedError):  # a shape that hangs on values: x[mask]
            return function(*args, **kwargs)
        quantized = function.namespace == "bitsandbytes"  # whose bytes are weights
        if not quantized and not all(t.is_floating_point() for t in tensors_in(made)):
            return function(*args, **kwargs)
        return tree_map(reserve, made)


def is_view(function) -> bool:
    """Return whether an operation gives the memory it was given, seen otherwise."""
    return function.is_view or function is torch.ops.aten._unsafe_view.default


def writes_into_floats(function, args: tuple) -> bool:
    """Return whether an operation changes its first argument, a tensor of fractions."""
    parameters = function._schema.arguments
    place = parameters[0].alias_info if parameters else None
    return place is not None and place.is_write and args[0].is_floating_point()


def shape_of(value):
    """Return a tensor without memory in place of one; "meta" in place of a device."""
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return torch.device("meta") if isinstance(value, torch.device) else value


def reserve(value):
    """Return a tensor of unwritten memory in place of one without any."""
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
    return value
