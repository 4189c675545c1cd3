"""A device that no machine has: its tensors compute on the CPU, and refuse to meet the CPU's own.

What a program forgets to move to a GPU fails there alone. Within `elsewhere` it fails without one:
tensors on the device `ELSEWHERE` hold real numbers, and what PyTorch would refuse of a GPU's
tensors, it refuses of them: an operation on one of them and one of the CPU's, or an array of its
memory. PyTorch's device ``meta``, which has no memory of its own, lends its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

ELSEWHERE = torch.device("meta")

_aten = torch.ops.aten
#: Operations that may take tensors of both devices: copies, and indices that lie on the CPU.
_MOVES = {_aten._to_copy.default, _aten.copy_.default}
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten._index_put_impl_.default}


class Away(Tensor):
    """A tensor elsewhere; `here` is what it holds."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> Away:
        away = Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(),
            dtype=here.dtype, device=ELSEWHERE, requires_grad=here.requires_grad,
        )  # fmt: skip
        away.here = here
        return away

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation gives: elsewhere if it is asked for there, or if its tensors are there."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    away = [isinstance(one, Away) for one in tensors]
    if any(one.device == ELSEWHERE for one in tensors if not isinstance(one, Away)):
        raise RuntimeError(
            f"{func}: PyTorch made a tensor without numbers, which is not in use here"
        )
    if any(away) and func not in _MOVES and not (func in _INDEXING and away[0]):
        strangers = [one for one in tensors if not isinstance(one, Away) and one.ndim]
        if strangers:
            shapes = [tuple(one.shape) for one in strangers]
            raise RuntimeError(f"{func}: tensors of shapes {shapes} lie on the CPU, others do not")
    asked = kwargs.get("device")
    if asked is None:
        lands_away = any(away) if func not in _MOVES else away[0]
    else:
        lands_away = torch.device(asked) == ELSEWHERE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map_only(Away, lambda one: one.here, (args, kwargs))
    result = func(*args, **kwargs)
    return tree_map_only(Tensor, Away, result) if lands_away else result


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Between Python and tensors, where PyTorch makes an exception for subclasses or ``meta``."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") == ELSEWHERE:
            return torch.tensor(*args, **{**kwargs, "device": None}).to(ELSEWHERE)
        if func is Tensor.new_tensor and isinstance(args[0], Away):
            return args[0].here.new_tensor(*args[1:], **kwargs).to(ELSEWHERE)
        if func is Tensor.tolist and isinstance(args[0], Away):
            return args[0].here.tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[1], tuple):
            index = tuple(torch.tensor(one) if isinstance(one, list) else one for one in args[1])
            args = (args[0], index, *args[2:])
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """While it lasts there is a device `ELSEWHERE`."""
    autocast = torch.autocast

    def known(device: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device == ELSEWHERE.type else autocast(device, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched, _Functions(), _Operations():
        patched.setattr(torch, "autocast", known)
        yield ELSEWHERE
