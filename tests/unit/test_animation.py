"""What the animation draws: the library's numbers, as bytes, held against PyTorch's own pools."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sonibook import CNN12, ForwardPass
from sonibook.errors import LayerError, StackError
from sonibook.widgets.animation import Animation, backward_animation, encoder_diagram

LAYER = 4


@pytest.fixture(scope="module")
def passed() -> ForwardPass:
    x = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    return ForwardPass(CNN12(width=0.0625, seed=0).eval(), x / np.abs(x).max())


@pytest.fixture(scope="module")
def other(passed: ForwardPass) -> ForwardPass:
    return ForwardPass(passed.blocks, torch.flip(passed.x[0, 0], (0,)))


@pytest.fixture(scope="module")
def animation(passed: ForwardPass, other: ForwardPass) -> Animation:
    return backward_animation(passed, layer=LAYER, other=other)


def grid(text: str, rows: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(rows, -1).astype(float)


def stretches(values: torch.Tensor, columns: int) -> np.ndarray:
    """The largest value in each of some stretches of time."""
    at = np.linspace(0, values.shape[1], columns, endpoint=False).astype(int)
    ends = [*at[1:], values.shape[1]]
    pieces = [values[:, a:b].amax(dim=1).numpy() for a, b in zip(at, ends, strict=True)]
    return np.stack(pieces, axis=1)


def arrived_by_pytorch(passed: ForwardPass, layer: int, chosen: int) -> dict[int, torch.Tensor]:
    """What arrives at each layer on the way back, by PyTorch's own max-pools."""
    y, indices, sizes = passed.x, [], []
    for block in passed.blocks[:layer]:
        y = F.relu(F.conv1d(y, block.conv.weight, block.conv.bias))
        sizes.append(y.shape)
        y, where = F.max_pool1d(y, 2, return_indices=True)
        indices.append(where)
    only = torch.zeros_like(y)
    only[:, chosen] = y[:, chosen]
    arrived = {layer: only}
    for number in range(layer, 0, -1):
        up = F.max_unpool1d(arrived[number], indices[number - 1], 2, output_size=sizes[number - 1])
        conv = passed.blocks[number - 1].conv
        arrived[number - 1] = F.conv_transpose1d(F.relu(up), conv.weight)
    return {number: values.detach()[0] for number, values in arrived.items()}


def test_maps_on_the_way_up_are_the_forward_pass(animation: Animation, passed: ForwardPass) -> None:
    for number, one in enumerate(animation.data["layers"], start=1):
        maps = passed.maps[number - 1][0][one["shown"]]
        drawn = grid(one["map"], len(maps)) / 255 * one["peak"]
        expected = stretches(maps, one["columns"])
        assert np.abs(drawn - expected).max() <= one["peak"] / 510 + 1e-9


def test_maps_on_the_way_back_are_those_of_pytorch(
    animation: Animation, passed: ForwardPass
) -> None:
    data = animation.data
    chosen = data["layers"][LAYER - 1]["shown"][data["row"]]
    arrived = arrived_by_pytorch(passed, LAYER, chosen)
    for number in range(1, LAYER + 1):
        one, back = data["layers"][number - 1], data["ways"][0]["layers"][number - 1]
        values = arrived[number][one["shown"]]
        for name, part in (("map", values), ("negative", -values)):
            drawn = grid(back[name], len(values)) / 255 * back["peak"]
            expected = stretches(part.clamp(min=0), one["columns"])
            assert np.abs(drawn - expected).max() <= back["peak"] * (1 / 510 + 1e-4)


def test_close_ups_are_consistent(animation: Animation, passed: ForwardPass) -> None:
    data = animation.data
    for number, (one, near) in enumerate(zip(data["layers"], data["near"], strict=True), start=1):
        pairs = np.reshape(near["before"], (-1, one["pool"]))
        np.testing.assert_allclose(pairs.max(axis=1), near["kept"], rtol=1e-3, atol=1e-6)
        alive = pairs.max(axis=1) > 0
        assert (pairs.argmax(axis=1) == near["switches"])[alive].all()
        here = slice(one["start"], one["start"] + len(near["kept"]))
        kept = passed.maps[number - 1][0, near["channel"], here].numpy()
        np.testing.assert_allclose(near["kept"], kept, rtol=1e-3)


@pytest.mark.parametrize("way", [0, 1, 2])
def test_values_go_to_their_switches(animation: Animation, way: int) -> None:
    data = animation.data
    for one, back in zip(data["layers"], data["ways"][way]["layers"], strict=False):
        expected = np.zeros((len(back["arrived"]), one["pool"]))
        expected[np.arange(len(expected)), back["switches"]] = back["arrived"]
        np.testing.assert_array_equal(back["unpooled"], expected.ravel())
    switches = [back["switches"] for back in data["ways"][1]["layers"]]
    assert not np.any(switches)


def test_the_close_up_of_one_filter_is_painted_by_its_taps(
    animation: Animation, passed: ForwardPass
) -> None:
    # In the chosen layer one channel alone is there: what lies below is a sum of its own taps.
    data, back = animation.data, animation.data["ways"][0]["layers"][LAYER - 1]
    channel, under = data["near"][LAYER - 1]["channel"], data["near"][LAYER - 2]["channel"]
    taps = passed.blocks[LAYER - 1].conv.weight[channel, under].detach().numpy()
    painted, edge = np.convolve(np.maximum(back["unpooled"], 0), taps), len(taps) - 1
    inner = slice(edge, -edge)  # further out, values beside the close-up have their share
    np.testing.assert_allclose(
        back["below"][inner], painted[inner], rtol=1e-2, atol=1e-3 * np.abs(painted).max()
    )


def test_sounds_are_the_sonification(passed: ForwardPass) -> None:
    from sonibook.widgets.stages import WayBack

    chosen = passed.most_active(LAYER)[0]
    expected = passed.sonify(LAYER, [chosen])[0]
    got = WayBack(passed, LAYER, chosen, passed.switches).sound
    assert float((got - expected).abs().max()) < 1e-4


def test_every_act_is_there_once_and_in_order(animation: Animation) -> None:
    acts = [(act["act"], act["layer"]) for act in animation.data["acts"]]
    back = [(act, n) for n in range(LAYER, 0, -1) for act in ("unpool", "rectify", "paint")]
    ups = [("up", number) for number in range(1, 12)]
    assert acts == [("input", 0), *ups, ("choose", LAYER), *back, ("end", 0)]


def test_a_layer_without_a_pool_is_not_unpooled(passed: ForwardPass) -> None:
    acts = backward_animation(passed, layer=11).data["acts"]
    assert [act["layer"] for act in acts if act["act"] == "unpool"] == list(range(8, 0, -1))


def test_it_is_light_and_has_a_form_without_a_script(animation: Animation) -> None:
    page = animation._repr_html_()
    assert len(page) < 400_000
    assert page.count("<audio") == len(animation.player.tracks) == 4
    assert 'alt="Left, from the bottom up' in animation.still
    assert animation.still in page


def test_the_encoder_is_drawn_from_its_own_numbers(passed: ForwardPass) -> None:
    diagram = encoder_diagram(passed, layer=5)
    layers = diagram.data["layers"]
    kernels, channels = [7, 7, 5, 5, 5, 3, 3, 3, 3, 3, 3], [4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128]
    assert [one["kernel"] for one in layers] == kernels
    assert [one["filters"] for one in layers] == channels
    assert [one["stride"] for one in layers] == [2 ** min(n, 8) for n in range(1, 12)]
    # One impulse changes no step but those that hear it.
    at, lit = 4000, passed.x[0, 0].clone()
    lit[at] += 0.5
    changed = ForwardPass(passed.blocks, lit)
    for one, before, after in zip(layers, passed.maps, changed.maps, strict=True):
        steps = torch.nonzero((before != after)[0].any(dim=0))[:, 0]
        starts = steps * one["stride"]
        assert ((starts <= at) & (at < starts + one["field"])).all()
    assert "player" not in diagram._repr_html_()
    assert len(diagram._repr_html_()) < 150_000
    with pytest.raises(LayerError):
        encoder_diagram(passed, layer=0)


def test_a_silent_filter_is_drawn_as_silence(passed: ForwardPass) -> None:
    silent = ForwardPass(passed.blocks, torch.zeros(8000))
    data: dict[str, Any] = backward_animation(silent, layer=2).data
    assert not grid(data["ways"][0]["layers"][0]["map"], len(data["layers"][0]["shown"])).any()


def test_what_cannot_be_drawn_is_told(passed: ForwardPass) -> None:
    with pytest.raises(LayerError):
        backward_animation(passed, layer=12)
    with pytest.raises(LayerError):
        backward_animation(passed, layer=1, filter=99)
    short = ForwardPass(passed.blocks, passed.x[0, 0, :7000])
    with pytest.raises(ValueError, match="cut both to one length"):
        backward_animation(passed, layer=1, other=short)
    with pytest.raises(ValueError, match="one mono clip"):
        backward_animation(ForwardPass(passed.blocks, passed.x.repeat(2, 1, 1)), layer=1)
    padded = nn.Sequential(nn.Conv1d(1, 4, 5, padding=2), nn.ReLU()).eval()
    with pytest.raises(StackError, match="draws no other"):
        backward_animation(ForwardPass(padded, passed.x[0, 0]), layer=1)
