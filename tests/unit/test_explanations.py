"""Other explanations: what defines each of them, and the comparison with sonification."""

from __future__ import annotations

import builtins
import inspect
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clips import Held
from oracles import captum_sonification, own_classifier, plain_stack
from scipy import signal, stats
from torch import Tensor, nn

from sonibook import sonify
from sonibook.analysis.alternatives import ExplanationResult, compare_explanations
from sonibook.cli import main
from sonibook.datasets import open_dataset
from sonibook.deconvnet.alternatives import METHODS, explain, most_active_sounds
from sonibook.errors import AnalysisError, LayerError, SonibookWarning
from sonibook.model.encoder import CNN12, Classifier
from sonibook.plots.interventions import explanations_figure

GRADIENTS = METHODS[1:]


def held() -> Held:
    return Held([clip(seed=seed).numpy() for seed in range(6)], [0, 1] * 3, ("first", "second"))


def clip(samples: int = 3000, seed: int = 0) -> Tensor:
    x = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    x = x * torch.linspace(0, 1, samples)
    return x / x.abs().max()


def own_network(*, bias: float = 0.1, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Depth 4, pool 4, kernel 9, of PyTorch's modules alone."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 6), (6, 6), (6, 8), (8, 8)):
        conv = nn.Conv1d(inputs, outputs, 9)
        nn.init.kaiming_normal_(conv.weight)
        nn.init.constant_(conv.bias, bias)
        layers += [conv, nn.ReLU(), nn.MaxPool1d(4)]
    return nn.Sequential(*layers).to(dtype).eval()


def classifier() -> nn.Sequential:
    torch.manual_seed(1)
    return own_classifier(own_network(), 8, 2)


def energy(network: nn.Sequential, x: Tensor, layer: int, filter: int) -> Tensor:
    """1/2 sum a^2, by PyTorch's functions alone."""
    y = x[None, None]
    for conv in [module for module in network if isinstance(module, nn.Conv1d)][:layer]:
        y = F.max_pool1d(F.relu(F.conv1d(y, conv.weight, conv.bias)), 4)
    return 0.5 * (y[0, filter] ** 2).sum()


def gradient(network: nn.Sequential, x: Tensor, layer: int, filter: int) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(energy(network, x, layer, filter), x)[0]


@pytest.mark.parametrize("layer", [1, 2, 4])
def test_gradient_x_input_is_that(layer):
    network, x = own_network(dtype=torch.float64), clip().double()
    ours = explain("gradient x input", network, x, layer=layer, filter=3, rescale=False)
    assert ours.abs().sum() > 0
    torch.testing.assert_close(ours, x * gradient(network, x, layer, 3))


@pytest.mark.parametrize("layer", [1, 4])
def test_integrated_gradients_sum_to_the_difference_from_silence(layer):
    network, x = own_network(dtype=torch.float64), clip().double()
    ours = explain(
        "integrated gradients", network, x, layer=layer, filter=2, steps=300, rescale=False
    )
    difference = energy(network, x, layer, 2) - energy(network, 0 * x, layer, 2)
    assert float(ours.sum()) == pytest.approx(difference.item(), rel=1e-3)


def test_without_biases_both_gradients_are_one():
    """E is then quadratic along the line to silence: its gradient grows evenly, to one half."""
    network, x = own_network(bias=0.0, dtype=torch.float64), clip().double()
    integrated, product = (
        explain(method, network, x, layer=3, filter=1, rescale=False)
        for method in ("integrated gradients", "gradient x input")
    )
    torch.testing.assert_close(integrated, product / 2, rtol=1e-6, atol=1e-12)


def test_guided_backpropagation_lets_through_what_both_ways_do():
    """Against the chain written out: unpool, then keep what is positive in gradient and map."""
    network, x = own_network(dtype=torch.float64), clip().double()
    maps, y = [], x[None, None]
    convs = [module for module in network if isinstance(module, nn.Conv1d)][:3]
    for conv in convs:
        before = F.conv1d(y, conv.weight, conv.bias)
        y, indices = F.max_pool1d(F.relu(before), 4, return_indices=True)
        maps.append((before, indices))
    back = torch.zeros_like(y)
    back[:, 4] = y[:, 4]
    for conv, (before, indices) in zip(reversed(convs), reversed(maps), strict=True):
        back = F.max_unpool1d(back, indices, 4, output_size=before.shape)
        back = F.conv_transpose1d(F.relu(back) * (before > 0), conv.weight)
    ours = explain("guided backpropagation", network, x, layer=3, filter=4, rescale=False)
    torch.testing.assert_close(ours, back[0, 0].detach())


def test_sonification_is_one_of_the_methods():
    encoder, x = CNN12(width=1 / 16, seed=0).eval(), clip(5000)
    ours = explain("sonification", encoder, x, layer=5, filter=2)
    torch.testing.assert_close(ours, sonify(encoder, x, layer=5, filters=[2])[0])
    raw = explain("sonification", encoder, x, layer=5, filter=2, rescale=False)
    theirs = captum_sonification(plain_stack(encoder), x[None, None], layer=5, filter=2)[0]
    torch.testing.assert_close(raw, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


@pytest.mark.parametrize("method", GRADIENTS)
def test_the_librarys_own_layers_give_what_pytorchs_give(method):
    encoder, x = CNN12(width=1 / 16, norm="weight", seed=0).eval(), clip(5000)
    plain = plain_stack(encoder)
    ours, theirs = (
        explain(method, network, x, layer=9, filter=1, steps=8) for network in (encoder, plain)
    )
    correlation = np.corrcoef(ours.numpy(), theirs.numpy())[0, 1]
    assert correlation > 0.999


@pytest.mark.parametrize("method", METHODS)
def test_sounds_have_the_peak_and_length_of_the_clip(method):
    network = own_network()
    for samples in (3000, 500):  # the second is shorter than the network needs
        x = 0.3 * clip(samples)
        with pytest.warns(SonibookWarning) if samples == 500 else nullcontext():
            s = most_active_sounds(method, network, x, [4])[0][0]
        assert s.shape == x.shape
        assert not s.requires_grad
        assert float(s.abs().max()) == pytest.approx(float(x.abs().max()), rel=1e-5)


@pytest.mark.parametrize("method", GRADIENTS)
def test_a_silent_map_gives_silence(method):
    network = own_network(bias=-1e3)
    assert not explain(method, network, clip(), layer=2, filter=0).any()


@pytest.mark.parametrize("method", METHODS)
def test_most_active_filters_are_the_same_for_every_method(method):
    network, x = own_network(), clip()
    sounds, filters = most_active_sounds(method, network, x, [1, 3])
    _, expected = most_active_sounds("sonification", network, x, [1, 3])
    assert filters.tolist() == expected.tolist()
    again = explain(method, network, x, layer=3, filter=int(filters[1]))
    torch.testing.assert_close(sounds[1], again)


def test_what_is_refused(monkeypatch):
    network, x = own_network(), clip()
    with pytest.raises(AnalysisError, match="no method 'saliency'"):
        inspect.unwrap(explain)("saliency", network, x, layer=1, filter=0)
    with pytest.raises(LayerError, match="Filter 6 of layer 1"):
        explain("gradient x input", network, x, layer=1, filter=6)
    present = builtins.__import__

    def without_captum(name, *others, **named):
        if name.startswith("captum"):
            raise ImportError(name)
        return present(name, *others, **named)

    monkeypatch.setattr(builtins, "__import__", without_captum)
    with pytest.raises(AnalysisError, match=r"pip install 'sonibook\[explain\]'"):
        explain("gradient x input", network, x, layer=1, filter=0)
    explain("sonification", network, x, layer=1, filter=0)


# --- the comparison ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result():
    return compare_explanations(classifier(), held(), name="own", layers=[2, 4], steps=4)


def test_coherences_are_scipys(result):
    network = classifier()
    for method in METHODS:
        values = []
        for one in held():
            x = torch.from_numpy(one.waveform)
            s = most_active_sounds(method, network.encoder, x, [4], steps=4)[0][0]
            coherence = signal.coherence(x.double().numpy(), s.double().numpy())[1]
            values.append(np.sort(coherence)[-5:].mean())
        found = result.row("coherence", network="own", layer=4, condition=method)
        assert found.mean == pytest.approx(np.mean(values), rel=1e-6)


def test_every_method_goes_through_the_same_ablation(result):
    drops = result.select(quantity="drop")
    assert list(dict.fromkeys(row.condition for row in drops)) == list(METHODS)
    assert result.row("score", network="own", condition="untouched").clips == len(held())
    for quantity in ("score, white noise", "drop, random phase", "p_holm, white noise"):
        found = {(row.condition, row.layer) for row in result.select(quantity=quantity)}
        assert found == {(row.condition, row.layer) for row in drops}
    network, data = classifier(), held()
    for row in drops:
        lost = []
        for clip in data:
            x = torch.from_numpy(clip.waveform)
            s = most_active_sounds(row.condition, network.encoder, x, [row.layer], steps=4)[0]
            with torch.no_grad():
                logits = network(torch.cat([x[None], x - s])[:, None]).double()
            before, after = torch.log_softmax(logits, dim=1)[:, clip.labels[0]]
            lost.append(float(before - after))
        assert row.mean == pytest.approx(np.mean(lost), abs=1e-5)


def test_methods_are_tested_against_sonification(result):
    measures = [f"{measure} beyond sonification" for measure in ("coherence", "drop")]
    rows = result.select(quantity=set(measures))
    assert len(rows) == 2 * len(GRADIENTS) * 2
    sure = []
    for row in rows:
        place = {"network": "own", "layer": row.layer}
        if row.quantity == measures[0]:
            own, papers = (
                result.row("coherence", condition=method, **place).mean
                for method in (row.condition, "sonification")
            )
            assert row.mean == pytest.approx(own - papers)
        p, p_holm = (
            result.row(f"{name}, {row.quantity}", condition=row.condition, **place).mean
            for name in ("p", "p_holm")
        )
        assert p <= p_holm <= 1
        if row.low > 0 or row.high < 0:
            sure.append(p)
    # Six differences of one sign: of 2**6 flips, two are as extreme.
    assert sure
    assert min(sure) == pytest.approx(stats.binomtest(6, 6).pvalue, abs=0.01)


def test_it_reads_back_and_draws(result, tmp_path):
    result.write(tmp_path / "result.json")
    assert ExplanationResult.read(tmp_path / "result.json") == result
    picture = explanations_figure(result)
    assert "guided backpropagation: " in picture.alt
    assert len(picture.image) > 10_000


def test_the_level_is_open(result):
    options = {"name": "own", "layers": [4], "methods": ["gradient x input"]}
    other = compare_explanations(classifier(), held(), level="least squares", **options)
    methods = [row.condition for row in other.select(quantity="coherence")]
    assert methods == ["sonification", "gradient x input"]
    assert other.settings["level"] == "least squares"


def test_the_command_runs_on_a_published_network(tmp_path):
    from sonibook.model.checkpoint import save_checkpoint

    data = open_dataset("soundscapes", split="test", size=2, duration=1.0, task="single-label")
    small = Classifier(CNN12(width=1 / 16, seed=0), data.classes, seed=0)
    save_checkpoint(tmp_path / "small.safetensors", small, {})
    out = tmp_path / "result.json"
    code = main(
        ["analyse", "explanations", str(tmp_path / "small.safetensors"), "--dataset",
         "soundscapes", "-o", "size=2", "-o", "duration=1.0", "-o", "task=single-label",
         "--layers", "3", "--steps", "2", "--processes", "1", "--out", str(out),
         "--figure", str(tmp_path / "figure.svg")]
    )  # fmt: skip
    assert code == 0
    assert ExplanationResult.read(out).data.clips == 2
    assert "guided backpropagation" in (tmp_path / "figure.svg").read_text()
