"""Networks of any shape as files: they come back as they were, and a card cannot do harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sonibook import CNN12, ForwardPass
from sonibook.errors import CheckpointError, SonibookError, StackError
from sonibook.model.checkpoint import imported, load_encoder, open_network, read_card
from sonibook.model.stack import blocks_of
from sonibook.model.stack_file import sample_rate_of, save_network

pytestmark = [
    pytest.mark.filterwarnings("ignore::sonibook.errors.SonibookWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same'"),
]
CARD = {"name": "mine", "source": "made here", "licence": "CC0", "citation": "none"}


def everything() -> nn.Sequential:
    """One module of every kind that a card can list."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.ConstantPad1d((3, 1), 0.0), nn.Conv1d(1, 8, 9, stride=2, bias=False), nn.BatchNorm1d(8),
        nn.ReLU(), nn.MaxPool1d(3, 2, padding=1, ceil_mode=True), nn.Dropout(),
        nn.Conv1d(8, 8, 5, padding="same", dilation=2, groups=4), nn.LeakyReLU(0.2),
        nn.BatchNorm1d(8, eps=1e-3), nn.AvgPool1d(2, count_include_pad=False),
        nn.Sequential(nn.Conv1d(8, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.GELU("tanh")),
        nn.Conv1d(6, 6, 3), nn.PReLU(6), nn.InstanceNorm1d(6, affine=True), nn.MaxPool1d(2),
        nn.Conv1d(6, 4, 1), nn.ELU(0.5), nn.CELU(2.0), nn.SELU(), nn.SiLU(), nn.Mish(), nn.ReLU6(),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_var.abs_()
    network.sample_rate = 16_000
    return network.eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stack") / "mine.safetensors"
    save_network(path, everything(), CARD)
    return path


def test_a_network_comes_back_as_it_was(written):
    network, card = open_network(written)
    assert (sample_rate_of(network), network.training) == (16_000, False)
    assert {key: card[key] for key in CARD} == CARD
    x = torch.rand(1, 1, 4000, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(network(x), everything()(x))
    ours, theirs = ForwardPass(network, x[0, 0]), ForwardPass(everything(), x[0, 0])
    for layer in range(1, 6):
        assert torch.equal(ours.sonify(layer), theirs.sonify(layer))


def test_a_network_that_was_opened_is_written_as_it_was(written, tmp_path):
    again = tmp_path / "again.safetensors"
    save_network(again, *open_network(written))
    assert again.read_bytes() == written.read_bytes()


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_come_back_or_are_refused(tmp_path, seed):
    sample = networks.Generator(seed).sample()
    path = tmp_path / "random.safetensors"
    try:
        save_network(path, sample.network, {})
    except StackError:
        with pytest.raises(StackError):
            blocks_of(sample.network)
        return
    network, _ = open_network(path)
    x = sample.x.float()
    try:
        theirs = ForwardPass(sample.network.float(), x).maps
    except SonibookError:
        return  # the file holds the chain; only the network itself does more
    for own, their in zip(ForwardPass(network, x).maps, theirs, strict=True):
        torch.testing.assert_close(own, their, rtol=1e-4, atol=1e-5)


def test_a_list_of_modules_and_an_encoder_are_stacks_too(tmp_path):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv1d(1, 3, 5), nn.Conv1d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x).relu()).relu()

    net, x = Net().eval(), torch.randn(1, 1, 200)
    path = tmp_path / "listed.safetensors"
    save_network(path, net, {}, modules=[net.one, nn.ReLU(), net.two, nn.ReLU()])
    with torch.no_grad():
        assert torch.equal(open_network(path)[0](x), net(x))
    encoder = CNN12(width=1 / 16, norm="batch", depth=3, seed=0).eval()
    save_network(path, encoder, {})
    with torch.no_grad():
        torch.testing.assert_close(open_network(path)[0](x), encoder.features(x))


def test_an_input_scale_becomes_part_of_the_weights(tmp_path):
    network, path = everything(), tmp_path / "scaled.safetensors"
    save_network(path, network, {}, input_scale=256.0)
    scaled, card = open_network(path)
    x = torch.rand(1, 1, 4000)
    assert card["input_scale"] == 256.0
    with torch.no_grad():
        assert torch.equal(scaled(x), network(256 * x))
    late = nn.Sequential(nn.BatchNorm1d(1), nn.Conv1d(1, 2, 3), nn.ReLU())
    with pytest.raises(CheckpointError, match="needs a convolution first, not BatchNorm1d"):
        save_network(path, late, {}, input_scale=2.0)


def test_names_are_found_in_the_networks_folder(written, tmp_path, monkeypatch):
    monkeypatch.setenv("SONIBOOK_NETWORKS", str(tmp_path))
    (tmp_path / "given.safetensors").write_bytes(written.read_bytes())
    assert list(imported()) == ["given"]
    assert read_card("given") == open_network("given")[1]
    with pytest.raises(CheckpointError, match="a stack: open it with open_network"):
        load_encoder("given")
    with pytest.raises(CheckpointError, match=r"no such file, nor .* \(given, "):
        open_network("other")


# --- cards that anybody may have written --------------------------------------------------------


def changed(
    source: Path,
    target: Path,
    *,
    card: Callable[[dict[str, Any]], Any] = lambda card: None,
    tensors: Callable[[dict[str, Tensor]], Any] = lambda tensors: None,
) -> Path:
    content, weights = read_card(source), load_file(source)
    card(content)
    tensors(weights)
    save_file(weights, target, metadata={"card": json.dumps(content)})
    return target


def layer(index: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda card: card["layers"][index].update(values)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda card: card.update(layers=[]), "not a list of 1 to 1000"),
        (lambda card: card.update(layers="Conv1d"), "not a list of 1 to 1000"),
        (lambda card: card.update(layers=card["layers"] * 100), "not a list of 1 to 1000"),
        (lambda card: card.update(sample_rate="fast"), "rate in its card is 'fast'"),
        (lambda card: card.update(sample_rate=1), "rate in its card is 1"),
        (lambda card: card.update(sample_rate=True), "rate in its card is True"),
        (lambda card: card["layers"].append(card["layers"][0]), "two layers called '0'"),
        (lambda card: card["layers"].append(7), "has no name without a dot"),
        (layer(0, name="a.b"), "has no name without a dot"),
        (layer(1, type="Linear"), "of the type 'Linear', and a stack holds Conv1d"),
        (layer(1, type=["Conv1d"]), "of the type"),
        (layer(1, __class__="os.system"), "has __class__ 'os.system', which is impossible"),
        (layer(1, device="cuda"), "has device 'cuda', which is impossible"),
        (layer(1, kernel_size=10**9), "has kernel_size 1000000000, which is impossible"),
        (layer(1, kernel_size=0), "has kernel_size 0"),
        (layer(1, stride=-1), "has stride -1"),
        (layer(1, stride=1.5), "has stride 1.5"),
        (layer(1, stride=True), "has stride True"),
        (layer(1, out_channels=65_536), r"1.weight has the shape \(8, 1, 9\), and its card asks"),
        (layer(1, padding="reflect"), "has padding 'reflect'"),
        (layer(0, padding=[10**9, 0]), "which is impossible"),
        (layer(0, padding=[1, 2, 3]), "which is impossible"),
        (layer(2, eps=-1), "has eps -1"),
        (layer(2, eps=float("nan")), "has eps nan"),
        (layer(4, padding=3), "pads more than half of its window"),
        (layer(5, groups=3), "in_channels must be divisible by groups"),
        (lambda card: card["layers"][1].pop("kernel_size"), "kernel_size"),
        (lambda card: card["layers"].pop(3), "without ReLU between"),
        (layer(10, num_groups=4), r"num_channels \(6\) must be divisible by"),
    ],
)
def test_cards_that_are_wrong_are_refused_in_a_sentence(written, tmp_path, change, sentence):
    path = tmp_path / "wrong.safetensors"
    changed(written, path, card=change)
    with pytest.raises(SonibookError, match=sentence) as refusal:
        open_network(path)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.pop("1.weight"), "the tensor 1.weight is missing"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra does not belong to its card"),
        (lambda tensors: tensors["2.running_var"].neg_(), "2.running_var holds variances below"),
        (lambda tensors: tensors["1.weight"].fill_(torch.nan), "1.weight holds NaN"),
    ],
)
def test_weights_that_do_not_fit_the_card_are_refused(written, tmp_path, change, sentence):
    path = changed(written, tmp_path / "wrong.safetensors", tensors=change)
    with pytest.raises(CheckpointError, match=sentence):
        open_network(path)


def test_a_card_cannot_ask_for_more_than_the_file_holds(tmp_path):
    """Strides multiply, and padding adds up, without a weight."""
    path = tmp_path / "wide.safetensors"
    network = nn.Sequential(nn.Conv1d(1, 1, 1), nn.ReLU(), nn.AvgPool1d(60_000))
    network.extend([nn.AvgPool1d(60_000) for _ in range(50)])
    with pytest.raises(CheckpointError, match=r"hears .* samples at once"):
        save_network(path, network, {})
    padded = nn.Sequential(nn.Conv1d(1, 1, 1), nn.ReLU())
    padded.extend([nn.ConstantPad1d(65_000, 0.0) for _ in range(900)])
    with pytest.raises(CheckpointError, match="pads with 117,000,000"):
        save_network(path, padded, {})
    assert not path.exists()


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Linear(2, 2)), "2: Linear cannot"),
        (nn.Linear(2, 2), "Linear is not a torch.nn.Sequential"),
    ],
)
def test_what_cannot_be_sonified_is_not_written(tmp_path, network, sentence):
    with pytest.raises(StackError, match=sentence):
        save_network(tmp_path / "no.safetensors", network, {})
    assert not list(tmp_path.iterdir())
