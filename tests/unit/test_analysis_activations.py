"""Top activations against a full sort, dead filters against a count, and users' own networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import DEAD, own_network, plain_stack, with_dead_filter
from torch import nn

from sonibook.analysis.activations import ActivationsResult, _Best, top_activations
from sonibook.datasets import Clip, Dataset, open_dataset
from sonibook.errors import AnalysisError
from sonibook.model.encoder import CNN12
from sonibook.plots.features import activations_figure


class Repeated(Dataset):
    """Every scene three times over, so that there are ties."""

    name, classes, split, task = "repeated", ("any",), "all", "single-label"

    def __init__(self) -> None:
        self.scenes = open_dataset("soundscapes", size=6, duration=0.6, seed=2)

    def __len__(self) -> int:
        return 3 * len(self.scenes)

    def __getitem__(self, index: int) -> Clip:
        clip = self.scenes[index % len(self.scenes)]
        return Clip(clip.waveform, (0,), f"clip-{index}")


@pytest.fixture(scope="module")
def network() -> CNN12:
    return with_dead_filter()


@pytest.fixture(scope="module")
def result(network: CNN12) -> ActivationsResult:
    return top_activations({"tiny": network}, Repeated(), k=4, chunk=5)


def naive_energies(network: CNN12, data: Dataset) -> list[np.ndarray]:
    """By PyTorch's own modules; one array (clips, filters) a layer."""
    stack, rows = plain_stack(network), []
    for clip in data:
        y, energies = torch.from_numpy(clip.waveform)[None, None], []
        modules = list(stack)
        for place, module in enumerate(modules):
            y = module(y)
            following = modules[place + 1] if place + 1 < len(modules) else None
            if following is None or isinstance(following, nn.Conv1d):
                energies.append(y[0].square().mean(dim=1).numpy())
        rows.append(energies)
    return [np.stack(layer) for layer in zip(*rows, strict=True)]


def test_top_clips_are_those_of_a_full_sort(network, result) -> None:
    energies = naive_energies(network, Repeated())
    assert {one.layer for one in result.filters} == set(range(1, 12))
    for layer, energy in enumerate(energies, start=1):
        filters = result.of_layer("tiny", layer)
        assert [one.filter for one in filters] == list(range(energy.shape[1]))
        for one in filters:
            own = energy[:, one.filter]
            live = [place for place in range(len(own)) if own[place] > 0]
            expected = sorted(live, key=lambda place: (-own[place], place))[:4]
            found = [top.index for top in one.top]
            # Two clips may swap places by a rounding error, so energies are compared, then ties.
            np.testing.assert_allclose(
                [top.energy for top in one.top], own[expected], rtol=1e-3, atol=1e-12
            )
            assert len(set(found)) == len(found)
            assert [top.clip_id for top in one.top] == [f"clip-{place}" for place in found]


def test_of_equal_clips_the_earlier_comes_first(result) -> None:
    for one in result.filters:
        for first, second in zip(one.top, one.top[1:], strict=False):
            assert first.energy > second.energy or first.index < second.index
        if one.top:
            assert one.top[0].index < 6


def test_dead_filters_and_pairs_are_counted(network, result) -> None:
    for layer, energy in enumerate(naive_energies(network, Repeated()), start=1):
        place = {"network": "tiny", "layer": layer}
        maps, filters = result.row("dead maps", **place), result.row("dead filters", **place)
        assert maps.mean == pytest.approx((energy == 0).mean())
        assert maps.low <= maps.mean <= maps.high
        assert filters.mean == pytest.approx((energy == 0).all(axis=0).mean())
        assert maps.clips == filters.clips == len(energy)
        found = result.of_layer("tiny", layer)
        assert [one.live_clips for one in found] == (energy > 0).sum(axis=0).tolist()
        firsts = {one.top[0].index for one in found if one.top}
        assert result.row("top clips", **place).mean == len(firsts)
    dead = result.of_layer("tiny", 2)[DEAD]
    assert dead.live_clips == 0
    assert dead.top == ()
    assert result.row("dead filters", network="tiny", layer=2).mean >= 1 / 4


def test_the_chunks_do_not_matter(network, result) -> None:
    assert top_activations({"tiny": network}, Repeated(), k=4, chunk=18) == result


def content(path: Path) -> dict:
    whole = json.loads(path.read_text())
    del whole["provenance"]
    return whole


@pytest.mark.usefixtures("quick_processes")
def test_interrupted_or_in_two_processes_it_writes_the_same(
    network, result, tmp_path, monkeypatch
) -> None:
    result.write(tmp_path / "one.json")
    networks, options = {"tiny": network}, {"k": 4, "chunk": 5}
    top_activations(networks, Repeated(), processes=2, **options).write(tmp_path / "two.json")

    def broken(self: Repeated, index: int) -> Clip:
        if index == 11:
            raise KeyboardInterrupt
        return read(self, index)

    read = Repeated.__getitem__
    parts = tmp_path / "parts"
    monkeypatch.setattr(Repeated, "__getitem__", broken)
    with pytest.raises(KeyboardInterrupt):
        top_activations(networks, Repeated(), parts=parts, **options)
    assert len(list(parts.rglob("*.npz"))) == 2
    monkeypatch.setattr(Repeated, "__getitem__", read)
    top_activations(networks, Repeated(), parts=parts, **options).write(tmp_path / "three.json")
    assert content(tmp_path / "one.json") == content(tmp_path / "two.json")
    assert content(tmp_path / "one.json") == content(tmp_path / "three.json")


def test_what_is_kept_does_not_grow_with_the_clips() -> None:
    best, generator = _Best(7, 3), np.random.default_rng(0)
    energies = []
    for start in range(0, 400, 10):
        energies.append(generator.random((10, 7), np.float32))
        best.add(energies[-1], np.arange(start, start + 10))
        assert best.energy.shape == best.place.shape == (7, 3)
    expected = np.argsort(-np.concatenate(energies), axis=0)[:3].T
    assert (best.place == expected).all()


def test_own_network() -> None:
    """Four blocks, pools of 4, kernels of 9, and nothing of CNN12."""
    mine, channels = own_network(4, 6, 8, 10), [4, 6, 8, 10]
    data = open_dataset("soundscapes", size=5, duration=1.0)
    result = top_activations({"mine": mine}, data, k=2)
    assert [len(result.of_layer("mine", layer)) for layer in range(1, 5)] == channels
    for clip in data:
        y = torch.from_numpy(clip.waveform)[None, None]
        energy = mine(y).detach()[0].square().mean(dim=1)
        for one in result.of_layer("mine", 4):
            for top in one.top:
                if top.clip_id == clip.clip_id:
                    assert top.energy == pytest.approx(float(energy[one.filter]), rel=1e-4)


def test_the_figure_shows_what_the_result_says(result, tmp_path) -> None:
    result.write(tmp_path / "result.json")
    picture = activations_figure(ActivationsResult.read(tmp_path / "result.json"))
    maps, filters, clips = picture.figure.axes
    shares = [row.mean for row in result.select(quantity="dead maps")]
    np.testing.assert_allclose(maps.lines[0].get_ydata(), shares)
    assert filters.lines[0].get_ydata()[1] == pytest.approx(1 / 4)
    assert 1 <= max(clips.lines[0].get_ydata()) <= 6
    assert f"Dead maps: tiny: {shares[0]:.2g} at layer 1" in picture.alt


def test_what_is_refused(network) -> None:
    with pytest.raises(AnalysisError, match="k 0 is impossible"):
        top_activations({"tiny": network}, Repeated(), k=0)
    with pytest.raises(AnalysisError, match="no network"):
        top_activations({}, Repeated())
