"""The peer: what a user would otherwise call."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from captum.attr import NeuronDeconvolution
from torch import Tensor, nn

from sonibook import CNN12


def plain_modules(encoder: CNN12) -> tuple[nn.Sequential, list[nn.Module]]:
    """PyTorch's own modules with the encoder's weights, and the one at each block's end."""
    modules: list[nn.Module] = []
    ends: list[nn.Module] = []
    for module in encoder.features:
        if isinstance(module, nn.Conv1d):
            conv = nn.Conv1d(module.in_channels, module.out_channels, module.kernel_size[0])
            conv.load_state_dict(module.state_dict())
            conv.weight.data = conv.weight.data.contiguous()
            modules.append(conv)
            ends.append(conv)
        else:
            pool = isinstance(module, nn.MaxPool1d)
            modules.append(nn.MaxPool1d(module.kernel_size) if pool else nn.ReLU())
            ends[-1] = modules[-1]
    return nn.Sequential(*modules).requires_grad_(False).eval(), ends


def captum(network: nn.Sequential, end: nn.Module, x: Tensor) -> Callable[[int], Tensor]:
    """Sonify one filter of the block that ends in `end`, the whole way, with Captum."""
    method = NeuronDeconvolution(network, end)
    waveform = x[None, None]

    def sonify(index: int) -> Tensor:
        def selector(output: Tensor) -> Tensor:
            return (output[:, index].detach() * output[:, index]).sum(-1)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces its hooks at each call
            return method.attribute(waveform, selector)[0, 0].detach()

    return sonify


def spread(count: int, of: int) -> list[int]:
    """`count` filters (or all), evenly spaced."""
    count = min(count, of)
    return [round(i * (of - 1) / max(count - 1, 1)) for i in range(count)]
