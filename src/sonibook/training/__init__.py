"""Training and evaluation: augment, crop, step, log, publish, probe."""
