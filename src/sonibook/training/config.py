"""What an experiment is: one small typed file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sonibook.errors import ConfigError
from sonibook.files import parse_yaml

_Precision = Literal["float32", "bfloat16"]
#: That training may compute in.
PRECISIONS: tuple[_Precision, ...] = get_args(_Precision)
#: Settings that came later: written down where they are used alone, so that what was written
#: before them still names the same run.
_LATER = {
    "encoder": ("downsample",),
    "data": ("joined", "weight", "stretch_seconds", "least_sound", "in_memory", "hold_out"),
    "contrastive": ("hidden", "features", "pair_level_db"),
    "augment": (
        "speed", "equalise_db", "low_pass_hz", "high_pass_hz", "reverberation_seconds",
        "background_min_snr_db", "polarity", "level_db", "shares",
    ),
}  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class JoinedConfig(_Section):
    """A data set that is trained on beside the first, of which no labels are used."""

    name: str
    train: dict[str, Any] = Field(default_factory=dict)
    #: How often an epoch goes through it: 0.5 is half of it, another half every time.
    weight: float = Field(default=1.0, gt=0)


class DataConfig(_Section):
    """Which clips: a data set's name, options for its training and test part, and the crop."""

    name: str
    train: dict[str, Any] = Field(default_factory=dict)
    test: dict[str, Any] = Field(default_factory=dict)
    #: The share of training clips that are drawn at random and tested on in place of `test`, to
    #: choose settings by (paper, A.2: 0.1); 0 trains on all.
    hold_out: float = Field(default=0.0, ge=0, lt=1)
    #: Length of a training crop. Evaluation is on whole clips.
    crop_seconds: float = Field(default=2.5, gt=0)
    #: Train on labels dealt out at random, once (Adebayo et al. 2018): a control.
    shuffle_labels: bool = False
    #: Without labels: for the objective nt_xent alone.
    joined: tuple[JoinedConfig, ...] = ()
    #: How often an epoch goes through the training part.
    weight: float = Field(default=1.0, gt=0)
    #: A training clip that holds several such stretches counts as so many; null: each is one.
    stretch_seconds: float | None = Field(default=None, gt=0)
    #: Training clips and stretches that hold less, in s, are left out.
    least_sound: float = Field(default=0.0, ge=0)
    #: Read every training clip once, and hold it as 16-bit samples.
    in_memory: bool = False


class EncoderConfig(_Section):
    """Which CNN12 (see there for `norm` and `downsample`), and what it starts from."""

    #: Null is the checkpoint's with `start`, else 0.25.
    width: float | None = Field(default=None, ge=1 / 64)
    norm: Literal["none", "weight", "batch"] = "weight"
    downsample: Literal["max", "stride"] = "max"
    #: Blocks to keep (paper, appendix B).
    depth: int | None = Field(default=None, ge=1, le=11)
    #: What to fine-tune: a shipped name, a .safetensors file, or another configuration (.yaml,
    #: relative to this one), whose run lies beside this one. Null starts from He weights.
    start: str | None = None
    #: Train the classifier alone, on the frozen encoder's features (the paper's fc-only).
    fc_only: bool = False

    @model_validator(mode="after")
    def _start_is_plain(self) -> EncoderConfig:
        if self.start is not None and self.norm != "none":
            raise ValueError("norm must be none with start (a published network is plain)")
        if self.start is not None and self.downsample != "max":
            raise ValueError("downsample is the checkpoint's with start: leave it out")
        return self


class ContrastiveConfig(_Section):
    """What only the objective nt_xent knows (paper, section 3.1 and appendix A.2)."""

    temperature: float = Field(default=0.1, gt=0)
    #: Units of z, the projection head's output.
    projection: int = Field(default=512, ge=1)
    #: Units of the head's hidden layers; null is the paper's: one, as wide as z.
    hidden: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    #: What the head sees; see `ContrastiveNetwork`.
    features: Literal["h", "mean"] = "h"
    #: Two crops are drawn anew until their levels differ by no more; see `two_crops`.
    pair_level_db: float | None = Field(default=None, gt=0)


class AugmentShares(_Section):
    """The share of crops that get each augmentation, in [0, 1]."""

    noise: float = Field(default=1.0, ge=0, le=1)
    time_mask: float = Field(default=1.0, ge=0, le=1)
    speed: float = Field(default=0.6, ge=0, le=1)
    equalise: float = Field(default=0.8, ge=0, le=1)
    low_pass: float = Field(default=0.2, ge=0, le=1)
    high_pass: float = Field(default=0.2, ge=0, le=1)
    reverberation: float = Field(default=0.3, ge=0, le=1)
    background: float = Field(default=0.5, ge=0, le=1)


class AugmentConfig(_Section):
    """Which augmentations (see `sonibook.training.augment`); null leaves one out.

    The paper's are gain, noise, time mask, and mix-back or mixup; the others are ours.
    """

    gain_db: float | None = Field(default=6.0, ge=0)
    noise_min_snr_db: float | None = 15.0
    time_mask_share: float | None = Field(default=0.2, ge=0, le=1)
    mix_back_min_snr_db: float | None = None
    mixup_alpha: float | None = Field(default=None, gt=0)
    speed: float | None = Field(default=None, gt=0, le=1, description="0.25: 0.8 to 1.25 times")
    equalise_db: float | None = Field(default=None, ge=0)
    low_pass_hz: float | None = Field(default=None, gt=0, le=3500, description="lowest corner")
    high_pass_hz: float | None = Field(default=None, ge=80, description="highest corner")
    reverberation_seconds: float | None = Field(default=None, ge=0.05, le=0.5)
    background_min_snr_db: float | None = None
    polarity: bool = False
    level_db: float | None = Field(default=None, ge=0, description="below unit peak, at most")
    shares: AugmentShares = AugmentShares()


class OptimiserConfig(_Section):
    """Adam and its schedule: linear warm-up, then cosine to zero, per step."""

    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    #: Decay the weights (AdamW), not the gradients (L2).
    decoupled: bool = True
    epochs: int = Field(default=100, ge=1)
    warmup_epochs: float = Field(default=10, ge=0)
    #: Clips a step, over all processes together.
    batch_size: int = Field(default=64, ge=1)
    #: Of convolutions and products; weights and moments are float32. See `Runtime`.
    precision: _Precision = "float32"


class LogConfig(_Section):
    """What a run tells while it goes on; ``log.csv`` is always written."""

    #: Each needs the extra of its name.
    to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    #: Epochs between two sets of sonifications, logged as sounds; null logs none.
    sounds_every: int | None = Field(default=None, ge=1)


class TrainConfig(_Section):
    """One training run."""

    #: Names the run's folder and its checkpoint.
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    #: Everything random in the run follows from it.
    seed: int = Field(default=0, ge=0, lt=2**63)
    data: DataConfig
    encoder: EncoderConfig = EncoderConfig()
    objective: Literal["cross_entropy", "binary_cross_entropy", "nt_xent"] = "cross_entropy"
    contrastive: ContrastiveConfig = ContrastiveConfig()
    augment: AugmentConfig = AugmentConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    log: LogConfig = LogConfig()
    #: Epochs between two evaluations on the test part (logged, never used to choose).
    evaluate_every: int = Field(default=10, ge=1)
    #: Epochs between two published copies of the network that are kept, for watching features grow
    #: (paper, section 3.4); null keeps the last alone. Epoch 0, before any step, is kept.
    keep_every: int | None = Field(default=None, ge=1)
    #: CPU threads; null leaves PyTorch's choice. Results are bit-identical only for equal counts.
    threads: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _parts_agree(self) -> TrainConfig:
        contrastive = self.objective == "nt_xent"
        if contrastive and self.augment.mixup_alpha is not None:
            raise ValueError("augment.mixup_alpha mixes labels, of which nt_xent has none")
        if contrastive and (self.encoder.fc_only or self.data.shuffle_labels):
            raise ValueError("encoder.fc_only and data.shuffle_labels need labels, unlike nt_xent")
        if not contrastive and self.contrastive != ContrastiveConfig():
            raise ValueError("contrastive belongs to the objective nt_xent alone")
        if not contrastive and self.data.joined:
            raise ValueError("data.joined has no labels: it belongs to the objective nt_xent alone")
        if self.encoder.fc_only and self.encoder.norm == "batch":
            raise ValueError("encoder.fc_only freezes the encoder: encoder.norm cannot be batch")
        return self

    def described(self) -> dict[str, Any]:
        """What is written down of it: as JSON, without the folder that `start` lies in."""
        content = self.model_dump(mode="json")
        for section, names in _LATER.items():
            used = getattr(self, section).model_dump(mode="json", exclude_defaults=True)
            for name in names:
                if name not in used:
                    del content[section][name]
        if self.encoder.start is not None:
            content["encoder"]["start"] = Path(self.encoder.start).name
        return content

    def what_matters(self) -> dict[str, Any]:
        """What of that has a bearing on the weights, up to the order of sums, by dotted names."""
        flat: dict[str, Any] = {}
        for key, value in self.described().items():
            if isinstance(value, dict):
                flat |= {f"{key}.{name}": one for name, one in value.items()}
            else:
                flat[key] = value
        aside = ("log.", "evaluate_every", "keep_every", "threads")
        return {key: value for key, value in flat.items() if not key.startswith(aside)}


def load_config(path: str | Path, *, changes: tuple[str, ...] = ()) -> TrainConfig:
    """Read a configuration file.

    Parameters
    ----------
    path : str or Path
        YAML, as in ``configs/``, which an installed wheel carries: ``configs/contrastive.yaml``
        is the package's own where the working directory has none.
    changes : tuple of str
        Such as ``"seed=1"`` or ``"optimiser.epochs=20"``: values, in YAML, that replace the
        file's.

    Returns
    -------
    TrainConfig
        Where `start` names another configuration, its path is made absolute.

    Raises
    ------
    ConfigError
        If the file is missing or no YAML, a key is unknown or missing, or a value impossible;
        the message names the key.
    """
    path = Path(path)
    if path.parts[:1] == ("configs",) and not path.exists():
        path = next(filter(Path.is_file, [Path(__file__).parents[1] / path]), path)
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file.") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not YAML ({error}).") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, as in configs/esc50-supervised.yaml.")
    for change in changes:
        _change(content, change)
    encoder = content.get("encoder")
    if isinstance(encoder, dict) and str(encoder.get("start")).endswith(".yaml"):
        try:
            start = (path.parent / encoder["start"]).resolve()
        except ValueError:
            raise ConfigError(f"{path}: encoder.start is not the name of a file.") from None
        content["encoder"] = {**encoder, "start": str(start)}
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_in_one_line(error)}.") from None


def _change(content: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not all(sections) or not last:
        raise ConfigError(
            f"{change!r} is not a change: write KEY=VALUE, such as optimiser.epochs=20."
        )
    for section in sections:
        inner = content.get(section) or {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{change!r}: {section} is not a section with keys of its own.")
        content[section] = dict(inner)
        content = content[section]
    try:
        content[last] = parse_yaml(value)
    except ValueError:
        raise ConfigError(f"{change!r}: its value is not YAML.") from None


def _in_one_line(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        told = f"{key}: {message[0].lower()}{message[1:]}" if key else message
        known = {"extra_forbidden": f"{key} is not a known key", "missing": f"{key} is missing"}
        parts.append(known.get(problem["type"], told))
    return "; ".join(parts)
