"""Networks that people have: what is computed of them is right, or they are refused."""

from __future__ import annotations

import inspect
from pathlib import Path

import literature
import networks
import pytest
import torch
import torch.nn.functional as F
from oracles import captum_chain, naive_chain
from torch import Tensor, nn

from sonibook import CNN12, ForwardPass, sonify
from sonibook.deconvnet.cpu import Engine, supports
from sonibook.errors import AudioError, LayerError, StackError
from sonibook.files import read_result
from sonibook.model.stack import blocks_of, check_filters, stride

CONV = nn.Conv1d(1, 3, 5)
#: Maps that are silent and clips that are padded say so, and PyTorch that it pads unevenly.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sonibook.errors.SonibookWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same'"),
]


@pytest.fixture(autouse=True)
def _seeded():
    """The same weights in every run, whatever ran before."""
    torch.manual_seed(0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.abs().max()


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-300))


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_networks_are_right_or_refused(first):
    """`python tests/networks.py` tries 20,000 of these."""
    for seed in range(first, first + 50):
        _, error = networks.try_one(seed)
        assert error < networks.TOLERANCE, seed


def assert_right(
    chain: list[nn.Module], x: Tensor, *, ends: list[int], captum: bool = True
) -> None:
    """Every layer's filters equal Captum's, and the naive way back."""
    network = nn.Sequential(*chain).eval()
    passed = ForwardPass(network, x)
    assert len(passed.blocks) == len(ends)
    for layer, end in enumerate(ends, start=1):
        count = passed.maps[layer - 1].shape[1]
        ours = passed.sonify(layer, rescale=False)
        assert ours.shape[0] == count
        for index in {0, count // 2, count - 1}:
            naive = naive_chain(chain[:end], passed.x, filter=index)[..., : x.shape[-1]]
            mine = ours[index].reshape(naive.shape)
            assert relative_error(mine, naive) < 1e-9
            if captum:
                theirs = captum_chain(chain[:end], passed.x, filter=index)[..., : x.shape[-1]]
                assert relative_error(mine, theirs) < 1e-9


def test_a_module_that_is_used_three_times_is_three_layers():
    pool, relu = nn.MaxPool1d(4), nn.ReLU()
    convs = [nn.Conv1d(1, 4, 7), nn.Conv1d(4, 5, 3), nn.Conv1d(5, 3, 3)]
    network = nn.Sequential(*(m for conv in convs for m in (conv, relu, pool))).double()
    assert [block.pool for block in blocks_of(network)] == [4, 4, 4]
    assert stride(blocks_of(network), 3) == 64
    chain = [m for conv in convs for m in (conv, nn.ReLU(), nn.MaxPool1d(4))]
    x = noise(3000)
    ours = sonify(network, x, layer=3, rescale=False)
    for index in range(3):
        theirs = captum_chain(chain, x[None, None], filter=index)[0]
        assert relative_error(ours[index], theirs) < 1e-9


@pytest.mark.parametrize(
    ("network", "word"),
    [
        (networks.Residual(nn.Conv1d(1, 3, 1), nn.ReLU()), "Residual computes something else"),
        (networks.Normalising(CONV, nn.ReLU()), "Normalising computes something else"),
        (
            nn.Sequential(networks.StandardisingConv(1, 3, 5), nn.ReLU()),
            r"0: StandardisingConv .* has no effective_weight\(\)",
        ),
        (nn.Sequential(networks.LyingConv(1, 3, 5), nn.ReLU()), "0: LyingConv computes something"),
        (nn.Sequential(CONV, networks.Threshold()), "1: Threshold computes something else"),
        (nn.Sequential(CONV, nn.ReLU(), networks.BlurPool(2)), "2: BlurPool computes something"),
        (nn.Sequential(nn.ReLU(), CONV, nn.ReLU()), "0: ReLU before the first convolution"),
        (networks.Wrapped(nn.Sequential(CONV, nn.ReLU()), 2.0), "changes the sound before"),
        (nn.Sequential(CONV, nn.BatchNorm1d(4), nn.ReLU()), "1: BatchNorm1d takes 4 .* gives 3"),
        (nn.Sequential(CONV, nn.ReLU(), nn.BatchNorm1d(4)), "Sequential cannot run on a sound"),
    ],
)
def test_what_computes_something_else_than_it_seems_to_is_refused(network, word):
    with pytest.raises(StackError, match=word):
        ForwardPass(network, torch.randn(2000))


def test_hooks_are_noticed_where_they_change_a_map():
    network = nn.Sequential(nn.Conv1d(1, 3, 5), nn.ReLU(), nn.Conv1d(3, 2, 3), nn.ReLU())
    x = torch.randn(1000)
    seen = []
    network[0].register_forward_hook(lambda module, inputs, output: seen.append(1))
    before = ForwardPass(network, x)
    handle = network[2].register_forward_hook(lambda module, inputs, output: -output)
    with pytest.raises(StackError, match="a hook changes a map"):
        ForwardPass(network, x)
    handle.remove()
    handle = network.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 3,))
    with pytest.raises(StackError, match="changes the sound before"):
        ForwardPass(network, x)
    handle.remove()
    assert torch.equal(ForwardPass(network, x).maps[1], before.maps[1])


def test_what_a_silent_map_hides_is_noticed():
    """The last map says nothing: the one before it is silent."""
    for seed in (8573, 13264, 17067):
        assert networks.try_one(seed)[0] == "refused"


def test_a_norm_of_a_silent_map_is_rounding_and_not_another_network():
    came, error = networks.try_one(18862)
    assert came == "taken"
    assert error < 1e-12
    network = nn.Sequential(
        nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.GroupNorm(4, 4), nn.ReLU()
    )
    with torch.no_grad():
        network[0].bias.fill_(-10.0)
    assert float(ForwardPass(network, noise(900).float()).maps[1].max()) < 1e-2


def test_a_replaced_forward_is_noticed():
    network = nn.Sequential(nn.Conv1d(1, 3, 5), nn.ReLU())
    network[1].forward = lambda x: x.clamp(max=0.1)
    with pytest.raises(StackError, match="1: ReLU computes something else"):
        ForwardPass(network, torch.randn(1000))


def test_the_network_is_asked_once_and_left_as_it_was():
    calls = []

    class Counting(networks.Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(self.training or self.features.training)
            return super().forward(x)

    network = Counting(nn.Sequential(nn.Conv1d(1, 3, 5), nn.Dropout(), nn.ReLU()), 1.0)
    network.features.eval()
    for _ in range(3):
        ForwardPass(network, torch.randn(1000))
    assert calls == [False]
    assert network.training
    assert not network.features.training
    assert ForwardPass(CNN12(width=1 / 16, seed=0), torch.randn(3000)).maps[-1].any()


@pytest.mark.parametrize("pool", [255, 256, 257, 300])
def test_large_pools_do_not_wrap(pool):
    chain = [nn.Conv1d(1, 3, 9).double(), nn.ReLU(), nn.MaxPool1d(pool)]
    assert_right(chain, noise(3000), ends=[3])


@pytest.mark.parametrize("kernel", [2, 4, 5, 8])
@pytest.mark.parametrize("dilation", [1, 3])
def test_same_padding_is_pytorchs(kernel, dilation):
    conv = nn.Conv1d(1, 3, kernel, padding="same", dilation=dilation).double()
    assert_right([conv, nn.ReLU(), nn.MaxPool1d(2)], noise(500), ends=[3])


@pytest.mark.parametrize("pools", [(1, 1), (2, 1), (3, 4)])
def test_hidden_maps_of_one_channel(pools):
    modules: list[nn.Module] = []
    for channels, pool in zip(((1, 4), (4, 1), (1, 3)), (*pools, 2), strict=True):
        modules += [nn.Conv1d(*channels, 4), nn.ReLU(), nn.MaxPool1d(pool)]
    network = nn.Sequential(*modules).double()
    with torch.no_grad():
        for module in network:
            if isinstance(module, nn.Conv1d):
                module.bias.fill_(0.1)
    passed = ForwardPass(network, noise(900))
    assert supports(passed)
    for layer in (1, 2, 3):
        filters = range(passed.maps[layer - 1].shape[1])
        plain = passed._plain(layer, filters)
        torch.testing.assert_close(Engine(passed).sonify(layer, filters), plain)


NORM = nn.BatchNorm1d(4)
with torch.no_grad():
    NORM.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    NORM.running_var.copy_(torch.tensor([0.5, 2.0, 1.0, 0.1]))
    NORM.weight.copy_(torch.tensor([1.0, -0.5, 2.0, 0.7]))
    NORM.bias.copy_(torch.tensor([0.2, 0.1, -0.1, 0.0]))

CHAINS: dict[str, list[nn.Module]] = {
    "stride 3": [nn.Conv1d(1, 4, 5, stride=3), nn.ReLU()],
    "stride beyond the kernel": [nn.Conv1d(1, 4, 2, stride=5), nn.ReLU()],
    "stride, padding, dilation": [nn.Conv1d(1, 4, 5, 2, 3, 3), nn.ReLU()],
    "batch norm before ReLU": [nn.Conv1d(1, 4, 5, padding=2), NORM, nn.ReLU()],
    "batch norm after ReLU": [nn.Conv1d(1, 4, 5, padding=2), nn.ReLU(), NORM],
    "batch norm before the pool": [nn.Conv1d(1, 4, 5), nn.ReLU(), NORM, nn.MaxPool1d(2)],
    "batch norm after the pool": [nn.Conv1d(1, 4, 5), nn.ReLU(), nn.MaxPool1d(2), NORM],
    "constant padding": [nn.ConstantPad1d((5, 2), 0.4), nn.Conv1d(1, 4, 8, 4), nn.ReLU()],
    "cut": [nn.ConstantPad1d((-2, -3), 0.0), nn.Conv1d(1, 4, 3), nn.ReLU()],
    "overlapping pools": [nn.Conv1d(1, 4, 5), nn.ReLU(), nn.MaxPool1d(5, 2, 2)],
    "partial pools": [nn.Conv1d(1, 4, 5), nn.ReLU(), nn.MaxPool1d(4, ceil_mode=True)],
    "dilated pools": [nn.Conv1d(1, 4, 5), nn.ReLU(), nn.MaxPool1d(2, 3, 1, 2)],
    "pool before ReLU": [nn.Conv1d(1, 4, 5), nn.MaxPool1d(3), nn.ReLU()],
    "average pools": [nn.Conv1d(1, 4, 5), nn.ReLU(), nn.AvgPool1d(4, 3, 1)],
    "partial average pools": [
        nn.Conv1d(1, 4, 5), nn.ReLU(),
        nn.AvgPool1d(4, 3, 2, ceil_mode=True, count_include_pad=False),
    ],
    "depthwise": [
        nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Conv1d(4, 4, 3, groups=4), nn.ReLU(),
        nn.Conv1d(4, 4, 1), nn.ReLU(),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("batch", [None, 3])
def test_every_kind_of_operation_equals_captum(name, batch):
    follow = [nn.Conv1d(4, 3, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2)]
    chain = [module.double().eval() for module in CHAINS[name] + follow]
    ends = [len(CHAINS[name]), len(chain)]
    if name == "depthwise":
        ends = [2, 4, *ends]
    x = noise(601) if batch is None else noise(batch, 1, 601)
    if batch is None:
        assert_right(chain, x, ends=ends)
        return
    passed = ForwardPass(nn.Sequential(*chain), x)
    sounds = passed.sonify(len(ends), rescale=False)
    for clip in range(batch):
        alone = ForwardPass(nn.Sequential(*chain), x[clip, 0]).sonify(len(ends), rescale=False)
        torch.testing.assert_close(sounds[clip], alone)
    most, filters = passed.sonify_most_active(rescale=False)
    torch.testing.assert_close(most[1, -1], sounds[1, filters[1, -1]])


@pytest.mark.parametrize("kind", [nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.PReLU, nn.ReLU6])
def test_other_activations_are_rectified_on_the_way_back(kind):
    chain = [nn.Conv1d(1, 4, 5, 2), kind(), nn.MaxPool1d(2), nn.Conv1d(4, 3, 3), kind()]
    assert_right([module.double() for module in chain], noise(400), ends=[3, 5], captum=False)


@pytest.mark.parametrize(
    "norm",
    [nn.GroupNorm(2, 4), nn.InstanceNorm1d(4, affine=True), nn.LayerNorm(396),
     nn.LayerNorm([4, 396])],
)  # fmt: skip
def test_normalisation_by_the_clip_takes_its_scale_as_a_constant(norm):
    with torch.no_grad():
        norm.weight.add_(0.3 * torch.randn(norm.weight.shape))
        norm.bias.add_(0.1)
    chain = [nn.Conv1d(1, 4, 5), norm, nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(4, 3, 3), nn.ReLU()]
    x = noise(400)
    assert_right([module.double() for module in chain], x, ends=[4, 6], captum=False)
    with pytest.raises(AudioError, match="LayerNorm takes maps of shape"):
        sonify(nn.Sequential(chain[0], nn.LayerNorm(7).double(), nn.ReLU()), x, layer=1)


def test_several_channels_come_back_as_several():
    chain = [nn.Conv1d(2, 4, 5, 2), nn.ReLU(), nn.MaxPool1d(3), nn.Conv1d(4, 3, 3), nn.ReLU()]
    chain = [module.double() for module in chain]
    network, x = nn.Sequential(*chain), noise(2, 500)
    assert_right(chain, x, ends=[3, 5])
    scaled = sonify(network, x, layer=2, filters=[0, 2])
    assert scaled.shape == (2, 2, 500)
    assert float(scaled[0].abs().max()) == pytest.approx(float(x.abs().max()))
    assert sonify(network, noise(3, 2, 500), layer=2).shape == (3, 3, 2, 500)
    assert ForwardPass(network, x).sonify_together(2).shape == (2, 500)
    assert ForwardPass(network, x).sonify_most_active()[0].shape == (2, 2, 500)
    for wrong in (noise(500), noise(3, 500), noise(4, 1, 500)):
        with pytest.raises(AudioError, match=r"Expected a sound \(2, time\)"):
            sonify(network, wrong, layer=1)


class Branching(nn.Module):
    """A network that is not a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 4, 7, 2), nn.Conv1d(4, 5, 3)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool1d(3)
        self.skip = nn.Conv1d(4, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.relu(self.first(x)))
        y = self.pool(self.relu(self.second(y)))
        return y.mean(dim=2)


def test_modules_listed_by_hand():
    network, x = Branching().double(), noise(700)
    modules = [
        network.first,
        network.relu,
        network.pool,
        network.second,
        network.relu,
        network.pool,
    ]
    with pytest.raises(StackError, match=r"blocks_of\(network, modules="):
        blocks_of(network)
    blocks = blocks_of(network, modules=modules)
    ours = sonify(blocks, x, layer=2, filters=[3], rescale=False)[0]
    chain = [network.first, nn.ReLU(), nn.MaxPool1d(3), network.second, nn.ReLU(), nn.MaxPool1d(3)]
    assert relative_error(ours, captum_chain(chain, x[None, None], filter=3)[0]) < 1e-9
    assert blocks_of(blocks) == blocks
    wrong = blocks_of(network, modules=[*modules[:3], network.skip, *modules[4:]])
    with pytest.raises(StackError, match="computes something else"):
        ForwardPass(wrong, x)
    with pytest.raises(StackError, match=r"modules\[1\]: Tanh"):
        blocks_of(network, modules=[network.first, nn.Tanh()])


def test_a_pool_that_is_not_side_by_side_is_undone_by_its_switches_alone():
    network = nn.Sequential(nn.Conv1d(1, 3, 5), nn.ReLU(), nn.MaxPool1d(3, 2))
    passed = ForwardPass(network, torch.randn(500))
    with pytest.raises(StackError, match="2: only a max-pool with stride = kernel size"):
        passed.backward(1, passed.maps[0], unpool=lambda x, switches, *, pool, length: x)


@pytest.mark.parametrize("name", literature.LITERATURE)
def test_networks_of_the_literature_are_heard_at_every_layer(name):
    """`python tests/literature.py` takes all of their channels."""
    found, _ = literature.errors(name, share=literature.LITERATURE[name].share)
    assert max(found) < 1e-9


def test_the_table_of_the_literature_is_what_was_measured():
    page = (Path(__file__).parents[2] / "book/reference/index.md").read_text(encoding="utf-8")
    rows = {row["network"]: row for row in read_result("literature")["rows"]}
    assert rows.keys() == literature.LITERATURE.keys()
    for name, row in rows.items():
        assert len(row["errors"]) == row["layers"]
        line = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[2] == str(row["layers"])
        assert cells[4:] == [row["against"], f"{max(row['errors']):.0e}"]


@pytest.mark.parametrize("filters", [[1.7], 3, ["a"]])
def test_filters_that_are_not_numbers(filters):
    unchecked = inspect.unwrap(check_filters)  # without the types that tests check
    with pytest.raises(LayerError, match="list of whole numbers"):
        unchecked(blocks_of(CNN12(width=1 / 16)), 1, filters)


def test_complex_sounds_and_low_precision():
    network = CNN12(width=1 / 16, seed=0).eval()
    with pytest.raises(AudioError, match="complex"):
        sonify(network, torch.randn(3000, dtype=torch.complex64), layer=1)
    x = torch.randn(3000)
    full = sonify(network, x, layer=2, filters=[3])[0]
    low = sonify(network.bfloat16(), x, layer=2, filters=[3])[0].float()
    assert float(F.cosine_similarity(full, low, dim=0)) > 0.9
