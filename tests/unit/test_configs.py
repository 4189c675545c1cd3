"""Every row of the paper's tables has its configuration, and it says what the paper says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sonibook.model.checkpoint import save_checkpoint
from sonibook.model.encoder import CNN12
from sonibook.training.config import AugmentConfig, TrainConfig, load_config
from sonibook.training.experiment import prepare

CONFIGS = Path(__file__).parents[2] / "configs"
FOLDERS = ("paper", "mini")

_A1 = ("cnn12-gain", "cnn12-noise", "cnn12-mask", "cnn12-all", "cnn12-tau02", "cnn12-tau03",
       "cnn12x2-all")  # fmt: skip
#: The files of every row of the paper's tables that is CNN12 or CNN12_x2.
ROWS: dict[tuple[str, int], tuple[str, ...]] = {
    **{
        ("A.1", row): tuple(f"a1-{stem}-{kind}" for kind in ("pretrain", "fc", "full"))
        for row, stem in enumerate(_A1, start=1)
    },
    ("A.2", 1): ("a2-cnn12-supervised",),
    ("A.2", 2): ("a2-cnn12-contrastive-fc",),
    ("A.2", 3): ("a2-cnn12-contrastive-full",),
    ("A.2", 4): ("a2-cnn12x2-contrastive-full",),
    ("A.3", 7): ("a2-cnn12-contrastive-full",),
    ("A.3", 8): ("a2-cnn12x2-contrastive-full",),
    ("A.4", 1): ("a4-cnn12-scratch",),
    ("A.4", 2): ("a4-cnn12-contrastive-fc",),
    ("A.4", 3): ("a4-cnn12-contrastive-full",),
    ("A.4", 4): ("a4-cnn12-supervised-fc",),
    ("A.4", 5): ("a4-cnn12-supervised-full",),
    ("A.4", 6): ("a4-cnn12x2-contrastive-fc",),
    ("A.4", 7): ("a4-cnn12x2-contrastive-full",),
    ("A.5", 6): ("a4-cnn12-supervised-fc",),
    ("A.5", 7): ("a4-cnn12-contrastive-full",),
    ("A.6", 3): ("a6-cnn12-scratch",),
    ("A.6", 4): ("a6-cnn12-supervised-fc",),
    ("A.6", 5): ("a6-cnn12-supervised-full",),
    ("A.6", 6): ("a6-cnn12-contrastive-fc",),
    ("A.6", 7): ("a6-cnn12-contrastive-full",),
}
STEMS = sorted({stem for stems in ROWS.values() for stem in stems})
#: The rows of A.2 once more, with several labels to a clip: only in miniature.
MULTILABEL = [stem.replace("a2-", "a2-multilabel-") for stem in STEMS if stem.startswith("a2-")]
FILES = sorted(CONFIGS.rglob("*.yaml"))


def paper(stem: str) -> TrainConfig:
    return load_config(CONFIGS / "paper" / f"{stem}.yaml")


# --- files and names -----------------------------------------------------------------------------


def test_the_folders_hold_every_row_and_nothing_else():
    assert sorted(path.stem for path in (CONFIGS / "paper").iterdir()) == STEMS
    assert sorted(path.stem for path in (CONFIGS / "mini").iterdir()) == sorted(STEMS + MULTILABEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_configuration_loads_and_is_named_as_its_file(path):
    if path.parent != CONFIGS:
        prefix = {"paper": "", "mini": "mini-", "ablation": "ablation-"}[path.parent.name]
        assert load_config(path).name == prefix + path.stem
    else:
        assert path.stem.endswith(load_config(path).name)


def test_no_two_runs_have_one_folder():
    names = [load_config(path).name for path in FILES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_a_run_starts_from_is_there_and_of_the_same_width(path):
    config = load_config(path)
    if config.encoder.start is None:
        assert not config.encoder.fc_only
        return
    start = load_config(config.encoder.start)
    assert Path(config.encoder.start).parent == path.parent
    assert start.encoder.width == config.encoder.width
    assert start.encoder.start is None
    assert ("contrastive" in path.stem or "a1-" in path.stem) == (start.objective == "nt_xent")


def readme_rows() -> list[list[str]]:
    lines = (CONFIGS / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if re.fullmatch(r"A\.\d, \d", row[0])]


def test_readme_maps_every_row_to_its_files():
    mapped = {}
    for row in readme_rows():
        table, number = row[0].split(", ")
        mapped[table, int(number)] = tuple(re.findall(r"`([^`]+)`", row[-1]))
    assert mapped == ROWS


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("row", [row for row in readme_rows() if row[0][:3] not in ("A.3", "A.5")])
def test_the_first_line_says_table_row_and_the_papers_figure(folder, row):
    """The figures of a file are those of the README's table."""
    figures = re.findall(r"\d\.\d+ ± \d\.\d+|\d+\.\d ± \d\.\d", row[3])
    for stem in re.findall(r"`([^`]+)`", row[-1]):
        text = (CONFIGS / folder / f"{stem}.yaml").read_text(encoding="utf-8")
        first = text.splitlines()[0]
        assert first.startswith(f"# Table {row[0].replace(',', ', row')}")
        assert ("in miniature" in first) == (folder == "mini")
        kind = stem.rpartition("-")[2]
        wanted = figures if row[0][:3] != "A.1" or kind == "pretrain" else [
            figures[0 if kind == "fc" else 1]
        ]  # fmt: skip
        assert re.findall(r"\d+\.\d+ ± \d+\.\d+", first) == wanted


# --- the parts of the contrastive recipe ---------------------------------------------------------


def parts_of(config: TrainConfig) -> dict[str, bool]:
    """Which parts of the recipe a configuration has."""
    augment = config.augment
    spectral = (augment.speed, augment.equalise_db, augment.low_pass_hz, augment.high_pass_hz,
                augment.reverberation_seconds, augment.polarity or None)  # fmt: skip
    assert len({value is None for value in spectral}) == 1
    assert (augment.background_min_snr_db is None) != (augment.mix_back_min_snr_db is None)
    pairs = {config.contrastive.pair_level_db, augment.level_db}
    assert pairs in ({None}, {15, 12})
    return {
        "data": bool(config.data.joined),
        "pairs": pairs == {15, 12},
        "background": augment.background_min_snr_db is not None,
        "spectral": augment.speed is not None,
        "head": config.contrastive.features == "mean",
        "plain": config.encoder.norm == "none",
    }


@pytest.mark.parametrize("path", sorted((CONFIGS / "ablation").iterdir()), ids=lambda p: p.stem)
def test_an_ablation_has_the_parts_that_its_name_says(path):
    config, (kind, *rest) = load_config(path), path.stem.split("-")
    part = rest[0] if rest else ""
    parts = ("data", "pairs", "background", "spectral", "head")
    wanted = dict.fromkeys(parts, kind in ("all", "less", "plain")) | {"plain": kind == "plain"}
    if kind in ("plus", "less"):
        wanted[part] = kind == "plus"
    assert parts_of(config) == wanted
    assert config.data.train == {"folds": [1, 2, 3]}
    assert config.data.test == {"folds": [4]}
    # 960 clips, or 4,171 with the pool: 3 and 16 batches of 256.
    steps = config.optimiser.epochs * (16 if config.data.joined else 3)
    assert steps == (960 if path.stem.endswith("long") else 176 if config.data.joined else 180)


def test_the_networks_differ_from_the_recipe_in_what_their_names_say():
    whole = load_config(CONFIGS / "contrastive.yaml")
    paper = load_config(CONFIGS / "contrastive-paper.yaml")
    plain = load_config(CONFIGS / "contrastive-plain.yaml")
    assert all(had for part, had in parts_of(whole).items() if part != "plain")
    assert [part for part, had in parts_of(paper).items() if had] == ["data"]
    assert (paper.data, paper.optimiser) == (whole.data, whole.optimiser)
    bare = plain.encoder.model_copy(update={"norm": "weight"})
    assert plain.model_copy(update={"encoder": bare, "name": whole.name}) == whole


# --- what the paper states -----------------------------------------------------------------------

SUPERVISED = {"gain_db", "noise_min_snr_db", "time_mask_share", "mixup_alpha"}
CONTRASTIVE = {"gain_db", "noise_min_snr_db", "time_mask_share", "mix_back_min_snr_db"}
ONE_BY_ONE = {
    "cnn12-gain": {"gain_db"},
    "cnn12-noise": {"gain_db", "noise_min_snr_db"},
    "cnn12-mask": {"gain_db", "noise_min_snr_db", "time_mask_share"},
}


def used(augment: AugmentConfig) -> set[str]:
    nothing = AugmentConfig(gain_db=None, noise_min_snr_db=None, time_mask_share=None)
    return {
        name
        for name in AugmentConfig.model_fields
        if getattr(augment, name) != getattr(nothing, name)
    }


@pytest.mark.parametrize("stem", STEMS)
def test_network_and_optimiser_are_the_papers(stem):
    config = paper(stem)
    assert config.encoder.width == (2 if "x2" in stem else 1)
    assert config.encoder.norm == "none"
    assert config.encoder.depth is None
    assert config.encoder.fc_only == stem.endswith("-fc")
    settings = config.optimiser
    assert (settings.learning_rate, settings.weight_decay) == (1e-3, 1e-3)
    assert not settings.decoupled
    assert settings.warmup_epochs == 10


@pytest.mark.parametrize("stem", [stem for stem in STEMS if stem.endswith("-pretrain")])
def test_contrastive_pretraining_is_the_papers(stem):
    config = paper(stem)
    assert config.objective == "nt_xent"
    assert config.data.name == "audioset"
    assert config.data.crop_seconds == 2.5
    assert config.optimiser.batch_size == 2048
    tau = {"tau02": 0.2, "tau03": 0.3}.get(stem.split("-")[2], 0.1)
    assert config.contrastive.temperature == tau
    assert config.contrastive.projection == 512
    setting = stem.removeprefix("a1-").removesuffix("-pretrain")
    assert used(config.augment) == ONE_BY_ONE.get(setting, CONTRASTIVE)


#: Data set, objective, seconds of a crop and batch size, as appendix A.3 has them.
TRAINING = {
    "a1": ("audioset", "binary_cross_entropy", 5.0, 128),
    "a2": ("audioset", "binary_cross_entropy", 5.0, 1024),
    "a4": ("fsd50k", "binary_cross_entropy", 2.5, 64),
    "a6": ("speech_commands", "cross_entropy", 1.0, 128),
}


@pytest.mark.parametrize("stem", [stem for stem in STEMS if not stem.endswith("-pretrain")])
def test_classifiers_are_trained_as_the_paper_trains_them(stem):
    config, table = paper(stem), stem.partition("-")[0]
    name, objective, seconds, batch_size = TRAINING[table]
    assert (config.data.name, config.objective) == (name, objective)
    assert config.optimiser.batch_size == batch_size
    if table == "a1":
        assert config.data.train == {"split": "balanced_train"}
    if config.encoder.fc_only:
        assert used(config.augment) == set()
    else:
        assert config.data.crop_seconds == seconds
        assert used(config.augment) == SUPERVISED


@pytest.mark.parametrize("stem", STEMS)
def test_the_miniature_is_the_same_method(stem):
    whole, mini = paper(stem), load_config(CONFIGS / "mini" / f"{stem}.yaml")
    assert (mini.objective == "nt_xent") == (whole.objective == "nt_xent")
    assert mini.contrastive == whole.contrastive
    assert mini.augment == whole.augment
    assert mini.encoder.fc_only == whole.encoder.fc_only
    assert mini.encoder.width * 4 == whole.encoder.width
    starts = [config.encoder.start and Path(config.encoder.start).stem for config in (whole, mini)]
    assert starts[0] == starts[1]
    roles = {"audioset": "esc40", "fsd50k": "esc10", "speech_commands": "fsdd"}
    assert mini.data.name == roles[whole.data.name]


# --- and it can be run ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def starts(tmp_path_factory) -> dict[float, Path]:
    """An encoder of each width, as if it had been pretrained."""
    folder = tmp_path_factory.mktemp("starts")
    for width in (0.25, 0.5):
        save_checkpoint(folder / f"{width}.safetensors", CNN12(width=width).eval(), {"name": "x"})
    return {width: folder / f"{width}.safetensors" for width in (0.25, 0.5)}


def prepared(path: Path, starts: dict[float, Path], data_root: Path | None):
    config = load_config(path)
    start = None if config.encoder.start is None else starts[config.encoder.width]
    return prepare(config, data_root=data_root, start=start)


@pytest.mark.parametrize("stem", STEMS)
def test_the_miniature_fits_its_recordings(stem, starts, data_root):
    """Classes, labels, crops and batches agree."""
    experiment = prepared(CONFIGS / "mini" / f"{stem}.yaml", starts, data_root)
    assert len(experiment.train_data) >= 5 * experiment.config.optimiser.batch_size
    assert clip_ids(experiment.train_data).isdisjoint(clip_ids(experiment.test_data))


def clip_ids(data) -> set[str]:
    return {entry.clip_id for entry in data.entries}


@pytest.mark.parametrize("stem", MULTILABEL)
def test_the_miniature_with_several_labels_fits_its_scenes(stem, starts):
    experiment = prepared(CONFIGS / "mini" / f"{stem}.yaml", starts, None)
    assert experiment.train_data.task == "multi-label"
    assert experiment.config.objective == "binary_cross_entropy"
