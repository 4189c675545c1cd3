"""Independent ways to compute what the library computes, written for clarity alone."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sonibook.deconvnet.backward import ForwardPass
from sonibook.model.encoder import CNN12
from sonibook.model.layers import effective_weight


def plain_stack(network: nn.Module, *, padded: bool = False) -> nn.Sequential:
    """PyTorch's own modules with the weights of `network.features`, perhaps zero-padded."""
    modules: list[nn.Module] = []
    for module in network.features.children():
        if isinstance(module, nn.Conv1d):
            kernel = module.kernel_size[0]
            conv = nn.Conv1d(
                module.in_channels,
                module.out_channels,
                kernel,
                module.stride,
                padding=kernel // 2 if padded else 0,
            )
            conv = conv.to(module.weight.dtype)
            with torch.no_grad():
                conv.weight.copy_(effective_weight(module))
                conv.bias.copy_(module.bias)
            modules.append(conv)
        elif isinstance(module, nn.MaxPool1d):
            modules.append(nn.MaxPool1d(module.kernel_size))
        else:
            modules.append(nn.ReLU())
    return nn.Sequential(*modules).requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def own_network(*channels: int, pool: int = 4, seed: int = 0) -> nn.Sequential:
    """Someone's own 1-D CNN, of PyTorch's modules alone: kernels of 9, and nothing of CNN12."""
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise((1, *channels)):
        modules += [nn.Conv1d(inputs, outputs, 9), nn.ReLU()]
        modules += [nn.MaxPool1d(pool)] if pool > 1 else []
    return nn.Sequential(*modules).eval()


def own_classifier(encoder: nn.Module, channels: int, classes: int) -> nn.Sequential:
    """A linear classifier of the means of an encoder's last maps."""
    mean, flat = nn.AdaptiveAvgPool1d(1), nn.Flatten()
    parts = {"encoder": encoder, "mean": mean, "flat": flat, "head": nn.Linear(channels, classes)}
    return nn.Sequential(OrderedDict(parts)).eval()


#: The filter of layer 2 that never responds in `with_dead_filter`.
DEAD = 3


def with_dead_filter() -> CNN12:
    """A small CNN12, a filter of which never responds."""
    network = CNN12(width=1 / 16, seed=0).eval()
    with torch.no_grad():
        network.features.conv2.bias[DEAD] = -1000.0
    return network


def layer_output(stack: nn.Sequential, layer: int) -> nn.Module:
    """The module at the end of block `layer`: its pool, or its ReLU where it has none."""
    ends, last = [], None
    for module in stack:
        if isinstance(module, nn.Conv1d) and last is not None:
            ends.append(last)
        last = module
    return [*ends, last][layer - 1]


def captum_sonification(stack: nn.Sequential, x: Tensor, *, layer: int, filter: int) -> Tensor:
    """Captum's deconvolution of one filter's map, weighted by itself; shape (batch, time)."""
    from captum.attr import NeuronDeconvolution

    def selector(output: Tensor) -> Tensor:
        return (output[:, filter].detach() * output[:, filter]).sum(-1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its hooks
        method = NeuronDeconvolution(stack, layer_output(stack, layer))
        return method.attribute(x.clone(), selector)[:, 0].detach()


def naive_sonification(stack: nn.Sequential, x: Tensor, *, layer: int, filter: int) -> Tensor:
    """The paper's figure B.2 in PyTorch's own operations; shape (batch, time)."""
    convs: list[nn.Conv1d] = []
    steps: list[tuple[Tensor | None, torch.Size]] = []
    y = x
    for module in stack:
        if isinstance(module, nn.Conv1d):
            if len(convs) == layer:
                break
            convs.append(module)
            steps.append((None, torch.Size()))
            y = module(y)
        elif isinstance(module, nn.ReLU):
            y = F.relu(y)
        else:
            before = y.shape
            y, indices = F.max_pool1d(y, module.kernel_size, return_indices=True)
            steps[-1] = (indices, before)
    only = torch.zeros_like(y)
    only[:, filter] = y[:, filter]
    pools = [m.kernel_size for m in stack if isinstance(m, nn.MaxPool1d)]
    for conv, (indices, size), pool in reversed(
        list(zip(convs, steps, [*pools, *[None] * len(convs)], strict=False))
    ):
        if indices is not None:
            only = F.max_unpool1d(only, indices, pool, output_size=size)
        only = F.conv_transpose1d(
            F.relu(only), conv.weight, padding=conv.padding, dilation=conv.dilation
        )
    return only[:, 0]


def force_switches(passed: ForwardPass, stack: nn.Sequential) -> None:
    """Give a forward pass the maps and switches that PyTorch's own modules compute.

    Two convolution kernels round differently, and a max-pool switch is discontinuous: where two
    samples are equal but for rounding, they choose differently. What is compared here is the way
    back.
    """
    y, index = passed.x, -1
    for module in stack:
        y_before = y
        if isinstance(module, nn.MaxPool1d):
            y, indices = F.max_pool1d(y, module.kernel_size, return_indices=True)
            offsets = indices - torch.arange(y.shape[2]) * module.kernel_size
            kind = passed.switches[index].dtype
            passed.switches[index] = offsets.to(kind)
        else:
            y = module(y_before)
            index += isinstance(module, nn.Conv1d)
        if index < len(passed.maps):
            passed.maps[index] = y
        else:
            break


def naive_chain(chain: list[nn.Module], x: Tensor, *, filter: int) -> Tensor:
    """One filter's map of a chain's end, taken back module by module; shape (channel, time).

    Activations rectify, normalisation by a clip's own statistics multiplies by its scale, and
    whatever else a module does is transposed by automatic differentiation of that module alone.
    """
    inputs = [x.detach()]
    for module in chain:
        inputs.append(module(inputs[-1]).detach())
    y = torch.zeros_like(inputs[-1])
    y[:, filter] = inputs[-1][:, filter]
    for module, taken in zip(reversed(chain), reversed(inputs[:-1]), strict=True):
        if type(module).__module__ == "torch.nn.modules.activation":
            y = F.relu(y)
        elif isinstance(module, nn.GroupNorm | nn.InstanceNorm1d):
            channels = taken.shape[1]
            groups = getattr(module, "num_groups", channels)
            deviation = (
                taken.reshape(1, groups, -1).var(dim=2, unbiased=False).add(module.eps).sqrt()
            )
            scale = module.weight.detach() / deviation.repeat_interleave(channels // groups, dim=1)
            y = y * scale[..., None]
        elif isinstance(module, nn.LayerNorm):
            over = tuple(range(3 - len(module.normalized_shape), 3))
            deviation = (taken.var(dim=over, unbiased=False, keepdim=True) + module.eps).sqrt()
            y = y / deviation * module.weight.detach()
        else:
            taken = taken.clone().requires_grad_()
            (y,) = torch.autograd.grad(module(taken), taken, y)
    return y[0]


def captum_chain(chain: list[nn.Module], x: Tensor, *, filter: int) -> Tensor:
    """Captum's deconvolution of one filter's map at the end of a chain; shape (channel, time)."""
    from captum.attr import NeuronDeconvolution

    def selector(output: Tensor) -> Tensor:
        return (output[:, filter].detach() * output[:, filter]).sum(-1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its hooks
        method = NeuronDeconvolution(nn.Sequential(*chain), chain[-1])
        return method.attribute(x.clone(), selector)[0].detach()
