"""The spectrogram CNN that the raw-waveform encoders are held against: trained, and listened to.

It is trained on the same clips, crops and augmentations as ``configs/supervised-esc40.yaml`` and by
the same optimiser, one network a seed, for a third of the epochs (``python -m
tools.results_spectrogram 31``, half an hour on a core). ``spectrogram`` asks how coherent with
the clip sonifications by way of a spectrogram are, beside ours, both beside random weights; and
what the clip's own phase brings along, with the same magnitude everywhere.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from sonibook.analysis.result import MeasuredOn, ResultTable, Row, estimates
from sonibook.datasets import open_dataset
from sonibook.deconvnet import ForwardPass
from sonibook.deconvnet.spectrogram import SpectrogramCNN, SpectrogramPass, load_spectrogram_cnn
from sonibook.errors import SonibookError
from sonibook.files import atomic
from sonibook.metrics.similarity import mean_top_coherence
from sonibook.model.checkpoint import load_encoder
from sonibook.model.encoder import CNN12, DROPOUT
from sonibook.training.config import load_config
from sonibook.training.data import predict
from sonibook.training.distributed import Runtime
from sonibook.training.experiment import prepare
from sonibook.training.loop import adam, warmup_cosine
from tools.results_settings import Settings

CONFIG = "configs/supervised-esc40.yaml"
CHANGES = ("optimiser.epochs=50", "optimiser.warmup_epochs=3")
SEEDS = (31, 32, 33)
TARGET = "spectrogram"
#: Clips of ESC-10 that are listened to, and of our encoder the layers.
_CLIPS, _LAYERS = 60, (2, 5, 8)
#: What has no network: the clip's phase, and the same magnitude everywhere.
PHASE_ALONE = "the clip's phase alone"
#: The regime's name in results.
MEL_CNN = "mel CNN"
#: Features for each class's logit: 256 channels in two bands.
_FEATURES = 512


def _path(folder: Path, seed: int) -> Path:
    return folder / "spectrogram-esc40" / f"seed-{seed}.safetensors"


def trained(settings: Settings) -> dict[int, Path]:
    """The networks that were trained, by seed."""
    paths = {seed: _path(settings.runs, seed) for seed in SEEDS}
    return {seed: path for seed, path in paths.items() if path.exists()}


def train(path: Path, *, root: Path, seed: int) -> None:
    """Train the network of one seed and write it, folded and rounded to float16."""
    config = load_config(CONFIG, changes=(*CHANGES, f"seed={seed}"))
    torch.set_num_threads(config.threads or 1)
    torch.manual_seed(seed)
    experiment = prepare(config, data_root=root)
    batches, settings = experiment.batches(experiment.train_data), config.optimiser
    runtime = Runtime(torch.device("cpu"), precision=settings.precision)
    network = SpectrogramCNN(norm=True, seed=seed)
    for conv in network.convs:  # a CPU is quicker at these
        weight = conv.get_parameter("weight")
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    head = nn.Linear(_FEATURES, len(experiment.test_data.classes))
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    optimiser = adam(config, nn.ModuleList([network, head]))
    total = settings.epochs * len(batches)
    warmup = round(settings.warmup_epochs * len(batches))
    schedule = LambdaLR(optimiser, partial(warmup_cosine, warmup=warmup, total=total))
    for epoch in tqdm(range(settings.epochs), desc=path.stem, mininterval=5):
        losses = []
        for batch in batches.epoch(epoch):
            with runtime.autocast():
                logits = head(F.dropout(network(batch.x), DROPOUT))
            loss = F.cross_entropy(logits.float(), batch.targets)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
        tqdm.write(f"{path.stem}: epoch {epoch + 1}, loss {sum(losses) / len(losses):.3f}")
    folded = network.fold()
    state = {name: value.half() for name, value in folded.state_dict().items()}
    folded.load_state_dict({name: value.float() for name, value in state.items()})
    scores, targets = predict(
        lambda x: head(folded(x)), experiment.test_data, least_length=folded.least_length
    )
    right = float((scores.argmax(1) == targets.argmax(1)).mean())
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        save_file(state, temporary, metadata={"seed": str(seed), "accuracy": str(right)})
    print(f"{path}: {right:.3f} of the test clips are named.", flush=True)


def make(path: Path, settings: Settings) -> None:
    """Measure how coherent with the clip both kinds of sonification are, and write the file."""
    data = open_dataset("esc10", root=settings.root, split="all")
    seed, depth = SEEDS[0], 4
    own = _path(settings.runs, seed)
    if not own.exists():
        raise SonibookError(f"{own} is not there: train it by tools.results_spectrogram {seed}.")
    raw = {
        ("supervised-esc40", "supervised"): load_encoder("supervised-esc40"),
        ("random weights", "random"): CNN12(width=0.25, seed=seed).eval(),
    }
    seen = {
        (MEL_CNN, MEL_CNN): load_spectrogram_cnn(own).fold(depth=depth),
        (f"random {MEL_CNN}", "random"): SpectrogramCNN(depth=depth, seed=seed).eval(),
    }
    found: dict[tuple[str, str, int | None], list[float]] = {}
    for place in tqdm(np.linspace(0, len(data) - 1, _CLIPS).astype(int).tolist(), desc=TARGET):
        x = torch.from_numpy(data[place].waveform)
        for of, encoder in raw.items():
            sounds, _ = ForwardPass(encoder, x, depth=max(_LAYERS)).sonify_most_active(_LAYERS)
            for layer, sound in zip(_LAYERS, sounds, strict=True):
                found.setdefault((*of, layer), []).append(_coherence(x, sound))
        for of, network in seen.items():
            passed = SpectrogramPass(network, x)
            for layer in range(1, len(network.convs) + 1):
                sound = passed.sonify(layer, [passed.most_active(layer)])[0]
                found.setdefault((*of, layer), []).append(_coherence(x, sound))
        flat = network.waveform(torch.ones_like(passed.picture), passed.spectrum, samples=len(x))
        found.setdefault(("", PHASE_ALONE, None), []).append(_coherence(x, flat[0]))
    rows = [
        Row(
            network=network,
            regime="" if layer is None else regime,
            condition=regime if layer is None else "",
            seed=seed,
            baseline=layer is None or regime == "random",
            layer=layer,
            quantity="coherence",
            **one.model_dump(),
        )
        for (network, regime, layer), one in zip(
            found, estimates(np.array(list(found.values())).T), strict=True
        )
    ]
    ResultTable(
        analysis="coherence",
        networks={row.network: row.network for row in rows if row.network},
        settings={"seed": seed},
        data=MeasuredOn.of(data, clips=_CLIPS, skipped={}),
        rows=tuple(rows),
        provenance=settings.provenance(TARGET),
    ).write(path)
    print(f"{path} is written.")


def _coherence(x: Tensor, sound: Tensor) -> float:
    return float(mean_top_coherence(x.double(), sound.double()))


if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        train(_path(Path("runs"), number), root=Path(os.environ["SONIBOOK_DATA"]), seed=number)
