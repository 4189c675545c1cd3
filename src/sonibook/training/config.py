"""What an experiment is: one small typed file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sonibook.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Section):
    """Which clips: a data set's name, options for its training and test part, and the crop."""

    name: str
    train: dict[str, Any] = Field(default_factory=dict)
    test: dict[str, Any] = Field(default_factory=dict)
    crop_seconds: float = Field(default=2.5, gt=0, description="length of a training crop, in s")


class EncoderConfig(_Section):
    """Which CNN12."""

    width: float = Field(default=0.25, ge=1 / 64)
    norm: Literal["none", "weight"] = "weight"


class AugmentConfig(_Section):
    """Which augmentations (see `sonibook.training.augment`); null leaves one out."""

    gain_db: float | None = Field(default=6.0, ge=0)
    noise_min_snr_db: float | None = 15.0
    time_mask_share: float | None = Field(default=0.2, ge=0, le=1)
    mixup_alpha: float | None = Field(default=None, gt=0)


class OptimiserConfig(_Section):
    """Adam and its schedule: linear warm-up, then cosine to zero, per step."""

    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    decoupled: bool = Field(
        default=True, description="decay the weights (AdamW), not the gradients (L2)"
    )
    epochs: int = Field(default=100, ge=1)
    warmup_epochs: float = Field(default=10, ge=0)
    batch_size: int = Field(default=64, ge=1)


class TrainConfig(_Section):
    """One training run.

    Attributes
    ----------
    name : str
        Names the run's folder and its checkpoint.
    seed : int >= 0
        Everything random in the run follows from it.
    objective : {"cross_entropy"}
    evaluate_every : int >= 1
        Epochs between two evaluations on the test part (logged, never used to choose).
    threads : int or None
        CPU threads; None leaves PyTorch's choice. Results are bit-identical only for equal counts.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0)
    data: DataConfig
    encoder: EncoderConfig = EncoderConfig()
    objective: Literal["cross_entropy"] = "cross_entropy"
    augment: AugmentConfig = AugmentConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    evaluate_every: int = Field(default=10, ge=1)
    threads: int | None = Field(default=None, ge=1)


def load_config(path: str | Path) -> TrainConfig:
    """Read a configuration file.

    Parameters
    ----------
    path : str or Path
        YAML, as in ``configs/``.

    Returns
    -------
    TrainConfig

    Raises
    ------
    ConfigError
        If the file is missing or no YAML, a key is unknown or missing, or a value impossible;
        the message names the key.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: is not YAML ({reason}).") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, as in configs/esc50-supervised.yaml.")
    try:
        return TrainConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_in_one_line(error)}.") from None


def _in_one_line(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            parts.append(f"{key} is not a known key")
        elif problem["type"] == "missing":
            parts.append(f"{key} is missing")
        else:
            parts.append(f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(parts)
