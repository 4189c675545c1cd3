"""Training and evaluation: augment, crop, step, log, publish, probe."""

from sonibook import _names_of

__getattr__ = _names_of(
    __name__,
    augment="augmented source_samples",
    config="AugmentConfig AugmentShares TrainConfig load_config",
    data="CropBatches predict two_crops",
    distributed="Runtime rows_of_all",
    experiment="prepare starting_encoder",
    folder="RunFolder",
    loop="train warmup_cosine",
    objectives="ContrastiveNetwork cross_entropy nt_xent",
    probe="groups_of linear_probe probe_features probed",
    sampling="RandomStreams seeded",
    runs="load_run plan train_seeds",
)
