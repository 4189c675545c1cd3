"""What would run: counted, timed a little, and nothing written."""

import itertools
from types import SimpleNamespace

import pytest
from clips import tiny

from sonibook.model.encoder import CHANNELS, CNN12, EMBEDDING, KERNELS
from sonibook.training import runs
from sonibook.training.distributed import Runtime
from sonibook.training.runs import Plan, plan


def planned(network: CNN12, /, *, clips: int = 100, **changes: object) -> Plan:
    return plan(tiny(**changes), network, clips=clips, classes=3, runtime=Runtime())


def counted(width: float, depth: int = 11) -> int:
    """Weights and biases, layer by layer."""
    channels = [1, *(round(count * width) for count in CHANNELS[:depth])]
    layers = zip(channels, channels[1:], KERNELS, strict=False)
    total = sum(below * above * taps + above for below, above, taps in layers)
    return total + (channels[-1] + 1) * EMBEDDING if depth == 11 else total


def test_the_papers_network_has_its_parameters():
    assert counted(1.0) == 13_757_248
    brief = {"data": {"name": "folder", "crop_seconds": 20.0}, "encoder": {"fc_only": True}}
    assert planned(CNN12(), clips=1, **brief).parameters == 13_757_248


@pytest.mark.parametrize("norm", ["none", "weight", "batch"])
@pytest.mark.parametrize("depth", [11, 4])
def test_parameters_are_those_of_what_is_published(norm, depth):
    size = planned(CNN12(width=1 / 16, norm=norm, depth=depth))
    assert size.parameters == counted(1 / 16, depth)


def test_steps_are_whole_batches_times_epochs():
    encoder = CNN12(width=1 / 16)
    size = planned(encoder, clips=103, optimiser={"batch_size": 10, "epochs": 7})
    assert (size.batches, size.steps) == (10, 70)
    assert size.hours > 0


@pytest.mark.parametrize(
    ("changes", "crops"),
    [
        ({}, 7 * 100),
        ({"objective": "nt_xent", "augment": {}}, 7 * 100 * 2),  # two views of a clip
        ({"encoder": {"fc_only": True}}, 103),  # every clip once, whatever the epochs
    ],
    ids=["supervised", "contrastive", "fc-only"],
)
def test_hours_are_those_of_all_crops(monkeypatch, changes, crops):
    clock = itertools.count()  # a second passes between two looks at it
    ticking = SimpleNamespace(perf_counter=lambda: float(next(clock)))
    monkeypatch.setattr(runs, "time", ticking)
    size = planned(
        CNN12(width=1 / 16), clips=103, optimiser={"batch_size": 10, "epochs": 7}, **changes
    )
    trial = round(20 / 0.3)  # crops of 0.3 s in a trial step of 20 s
    assert size.hours == pytest.approx(crops / trial / 3600)
