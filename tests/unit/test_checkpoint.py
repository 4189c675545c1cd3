"""Published networks: what goes in comes out, and nothing else is let in."""

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sonibook.deconvnet.backward import sonify
from sonibook.errors import CheckpointError, LayerError, SonibookWarning
from sonibook.model.checkpoint import (
    canonical,
    kept_checkpoints,
    load_classifier,
    load_encoder,
    read_card,
    save_checkpoint,
    shipped,
)
from sonibook.model.encoder import CNN12, Classifier

WIDTH = 1 / 16
CLASSES = ("dog", "чайка", "rain")


def trained(norm: str = "weight", *, seed: int = 0) -> Classifier:
    """A network whose biases, gains and head have moved, as training moves them."""
    network = Classifier(CNN12(width=WIDTH, norm=norm, seed=seed), CLASSES, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = 0.1 * (parameter.std() if parameter.ndim > 1 else 1.0)
            parameter += spread * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def clips(count: int = 2, samples: int = 4001) -> torch.Tensor:
    x = torch.randn(count, 1, samples, generator=torch.Generator().manual_seed(9))
    return x / x.abs().amax(dim=2, keepdim=True)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("published") / "encoder.safetensors"
    save_checkpoint(path, trained(), {"name": "tiny", "test": {"accuracy": 0.5}})
    return path


def with_tensors(
    source: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> Path:
    """The checkpoint `source` with its tensors changed, card kept."""
    tensors = load_file(source)
    change(tensors)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, target, metadata={"card": json.dumps(read_card(source))})
    return target


# --- what is published ---------------------------------------------------------------------------


def test_weights_are_the_folded_ones_rounded_to_half_precision_once(published):
    stored = load_file(published)
    folded = trained().encoder.fold().state_dict()
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    for name, tensor in folded.items():
        assert torch.equal(stored[name], tensor.half())
    for name, tensor in load_encoder(published).state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].float())


def test_publishing_what_was_published_changes_no_bit(published, tmp_path):
    again = tmp_path / "again.safetensors"
    save_checkpoint(again, load_classifier(published), read_card(published))
    first, second = load_file(published), load_file(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_card(again) == read_card(published)


def test_canonical_is_the_network_that_is_read_back(published):
    expected, loaded = canonical(trained()), load_classifier(published)
    assert not expected.training
    assert not loaded.training
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    with torch.no_grad():
        assert torch.equal(expected(clips()), loaded(clips()))


def test_canonical_leaves_the_trained_network_alone():
    network = trained()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    canonical(network)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_float32_weights_are_rounded_when_they_are_read(published, tmp_path):
    def sharpen(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].float() * (1 + 1e-5)

    path = with_tensors(published, tmp_path / "float32.safetensors", sharpen)
    for name, tensor in load_encoder(path).state_dict().items():
        assert torch.equal(tensor, tensor.half().float()), name


# --- folding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "weight", "batch"])
def test_folded_and_trained_network_agree(norm):
    network = trained(norm).encoder
    plain = network.fold()
    assert plain.norm == "none"
    x = clips().double()
    network.double()
    plain.double()
    for layer in (1, 4, 8, 11):
        with torch.no_grad():
            maps, folded = (net.truncate(layer).features(x) for net in (network, plain))
        torch.testing.assert_close(folded, maps, rtol=1e-5, atol=1e-5 * float(maps.abs().max()))
    for layer in (2, 8, 11):
        filters = [0, 1, 2, 3]
        with warnings.catch_warnings(action="ignore", category=SonibookWarning):
            heard, expected = (sonify(n, x, layer=layer, filters=filters) for n in (plain, network))
        torch.testing.assert_close(heard, expected, rtol=1e-5, atol=1e-5)


def test_standardised_weights_have_unit_gain_by_definition():
    # Independent of `fold`: NumPy on the raw parameters, equation 1 of Brock et al. 2021.
    network = trained().encoder
    plain = network.fold()
    conv = network.features.conv5
    weight = conv.weight.detach().double().numpy().reshape(conv.out_channels, -1)
    centred = weight - weight.mean(axis=1, keepdims=True)
    unit = centred / (weight.std(axis=1, keepdims=True) * np.sqrt(weight.shape[1]))
    gain = conv.gain.detach().double().numpy()[:, None] * np.sqrt(2 / (1 - 1 / np.pi))
    folded = plain.features.conv5.weight.detach().numpy().reshape(conv.out_channels, -1)
    np.testing.assert_allclose(folded, unit * gain, rtol=1e-4, atol=1e-6)


# --- the card ------------------------------------------------------------------------------------


def test_card_is_in_the_file_and_says_what_is_there(published):
    with safe_open(published, framework="pt") as file:
        embedded = json.loads(file.metadata()["card"])
    assert embedded == read_card(published)
    assert embedded == {
        "name": "tiny",
        "test": {"accuracy": 0.5},
        "width": WIDTH,
        "depth": 11,
        "classes": list(CLASSES),
    }


@pytest.mark.parametrize("depth", [1, 8, 10])
def test_a_truncated_network_comes_back_as_it_was(tmp_path, depth):
    path = tmp_path / "short.safetensors"
    short = Classifier(trained().encoder.truncate(depth), CLASSES, seed=0)
    save_checkpoint(path, short, {"name": "short"})
    assert read_card(path)["depth"] == depth
    loaded = load_classifier(path)
    assert (loaded.encoder.depth, loaded.encoder.width) == (depth, WIDTH)
    expected = canonical(short)
    with torch.no_grad():
        assert torch.equal(loaded(clips()), expected(clips()))
        assert torch.equal(load_encoder(path)(clips()), expected.encoder(clips()))
    with pytest.raises(LayerError, match=f"choose 1 to {depth}"):
        loaded.encoder.truncate(depth + 1)


def test_a_strided_network_comes_back_as_it_was(tmp_path):
    path = tmp_path / "strided.safetensors"
    strided = CNN12(width=WIDTH, norm="weight", downsample="stride", seed=0)
    save_checkpoint(path, strided.truncate(9), {"name": "strided"})
    assert read_card(path)["downsample"] == "stride"
    with torch.no_grad():
        expected = canonical(strided).truncate(9)(clips())
        assert torch.equal(load_encoder(path)(clips()), expected)
    save_file(load_file(path), path, metadata={"card": json.dumps({"downsample": ["mean"]})})
    with pytest.raises(CheckpointError, match=r"the card asks for the downsample \['mean'\]"):
        load_encoder(path)


def test_canonical_of_an_encoder_alone_is_one(tmp_path):
    path = tmp_path / "encoder.safetensors"
    encoder = trained("batch").encoder
    save_checkpoint(path, encoder, {})
    assert torch.equal(canonical(encoder)(clips()), load_encoder(path)(clips()))


def test_an_encoder_alone_has_no_classes(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_checkpoint(path, trained().encoder, {"name": "alone"})
    assert "classes" not in read_card(path)
    assert load_encoder(path).width == WIDTH
    with pytest.raises(CheckpointError, match="without classes"):
        load_classifier(path)


def test_shipped_checkpoints_load_by_name_and_carry_a_card():
    for name in shipped():
        card = read_card(name)
        assert load_encoder(name).width == card["width"]
        assert {"name", "data", "config"} <= card.keys()
        assert {"test", "test_accuracy"} & card.keys()


# --- what is refused -----------------------------------------------------------------------------


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.pop(name)


def put(
    name: str, make: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors.update({name: make(tensors[name])})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop("features.conv4.bias"), "features.conv4.bias is missing"),
        (drop("features.conv1.weight"), "holds no CNN12"),
        (drop("fc1.fc10.weight"), "fc1.fc10.weight is missing"),
        (put("features.conv3.weight", lambda t: t[:, :, 1:]), r"features.conv3.weight has the sha"),
        (put("features.conv1.weight", lambda t: t[:2]), "holds no CNN12"),
        (put("features.conv1.weight", lambda t: t[:0]), "holds no CNN12"),
        (put("features.conv1.weight", lambda t: t[:, :, 0].clone()), "holds no CNN12"),
        (put("features.conv1.weight", lambda t: t.repeat(4096, 1, 1)), "holds no CNN12"),
        (put("features.conv2.bias", lambda t: t.int()), "features.conv2.bias is torch.int32"),
        (put("features.conv2.bias", lambda t: t.double()), "torch.float64, not float16 or float32"),
        (put("features.conv2.bias", lambda t: t * torch.nan), "features.conv2.bias holds NaN"),
        (put("features.conv2.bias", lambda t: t + torch.inf), "features.conv2.bias holds NaN or"),
        (
            lambda t: t.update({"lstm.weight": torch.zeros(3)}),
            "lstm.weight does not belong to a CNN12",
        ),
    ],
)
def test_other_tensors_are_refused_by_name(published, tmp_path, change, sentence):
    path = with_tensors(published, tmp_path / "other.safetensors", change)
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        load_encoder(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop("head.bias"), "bias is missing"),
        (put("head.weight", lambda t: t[:2]), r"weight has the shape \(2, 512\)"),
    ],
)
def test_a_head_that_does_not_fit_the_classes_is_refused(published, tmp_path, change, sentence):
    path = with_tensors(published, tmp_path / "head.safetensors", change)
    with pytest.raises(CheckpointError, match=sentence):
        load_classifier(path)


@pytest.mark.parametrize("classes", ["abc", 3, [1, 2, 3]])
def test_classes_that_are_no_names_are_refused(published, tmp_path, classes):
    path = tmp_path / "odd.safetensors"
    save_file(load_file(published), path, metadata={"card": json.dumps({"classes": classes})})
    with pytest.raises(CheckpointError, match="are not a list of names"):
        load_classifier(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"just text", b"\xff" * 100, pickle.dumps({"features.conv1.weight": 1})],
    ids=["empty", "text", "noise", "pickle"],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        load_encoder(path)


def test_a_truncated_file_is_refused(published, tmp_path):
    path = tmp_path / "half.safetensors"
    path.write_bytes(published.read_bytes()[: published.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        load_encoder(path)


@pytest.mark.parametrize("card", ["{", "[1, 2]", '"text"'])
def test_a_card_that_is_no_object_is_refused(published, tmp_path, card):
    path = tmp_path / "card.safetensors"
    save_file(load_file(published), path, metadata={"card": card})
    with pytest.raises(CheckpointError):
        read_card(path)


class Payload:
    """Unpickling this would write a file: no reader may do so."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ".pkl", ".safetensors"])
def test_no_pickle_is_ever_run(tmp_path, suffix):
    trace = tmp_path / "was_run"
    path = tmp_path / f"network{suffix}"
    torch.save({"state": Payload(trace)}, path)
    with pytest.raises(CheckpointError, match="pickle" if suffix != ".safetensors" else "is no"):
        load_encoder(path)
    assert not trace.exists()


def test_a_missing_checkpoint_names_those_there_are(tmp_path):
    with pytest.raises(CheckpointError, match="no such file, nor a network of that name"):
        load_encoder("nonesuch")
    with pytest.raises(CheckpointError, match="no such file"):
        load_encoder(tmp_path)


def test_weights_too_large_for_half_precision_are_not_published(tmp_path):
    network = trained("none")
    with torch.no_grad():
        network.encoder.features.conv2.bias[0] = 1e6
    path = tmp_path / "large.safetensors"
    path.write_text("what was there before")
    with pytest.raises(CheckpointError, match=r"features\.conv2\.bias .* float16"):
        save_checkpoint(path, network, {})
    assert path.read_text() == "what was there before"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


# --- what a run kept -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder as training leaves it, and what else may lie in it."""
    folder = tmp_path_factory.mktemp("run")
    for epoch in (100, 0, 5):
        network = CNN12(width=WIDTH, norm="weight", seed=epoch)
        save_checkpoint(folder / "kept" / f"epoch-{epoch:04d}.safetensors", network, {})
    save_checkpoint(folder / "encoder.safetensors", network, {})
    (folder / "kept" / "epoch-last.safetensors").write_bytes(b"of something else")
    return folder


@pytest.mark.parametrize("part", ["", "kept"])
def test_what_a_run_kept_is_found_by_its_folder_first_epoch_first(run_folder, part):
    found = kept_checkpoints(run_folder / part)
    assert list(found) == [0, 5, 100]
    for epoch, path in found.items():
        expected = CNN12(width=WIDTH, norm="weight", seed=epoch).fold().state_dict()
        for name, tensor in load_encoder(path).state_dict().items():
            assert torch.equal(tensor, expected[name].half().float())


def test_a_shipped_run_is_found_by_its_name(run_folder, tmp_path, monkeypatch):
    shipped_run = tmp_path / "data" / "checkpoints" / "kept" / "tiny"
    shipped_run.parent.mkdir(parents=True)
    (run_folder / "kept").rename(shipped_run)
    monkeypatch.setattr("sonibook.files._DATA_FOLDERS", (tmp_path / "none", tmp_path / "data"))
    try:
        assert kept_checkpoints("tiny")[5] == shipped_run / "epoch-0005.safetensors"
        with pytest.raises(CheckpointError, match=r"huge: no checkpoints .* shipped run \(tiny\)"):
            kept_checkpoints("huge")
    finally:
        shipped_run.rename(run_folder / "kept")


def test_the_last_epoch_of_a_shipped_run_is_the_shipped_network():
    epochs = kept_checkpoints("contrastive")
    assert [*epochs] == [0, 10, 20, 50, 90]
    assert epochs[90] == shipped()["contrastive"]


def test_a_folder_in_which_nothing_was_kept_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoints were kept"):
        kept_checkpoints(tmp_path)
