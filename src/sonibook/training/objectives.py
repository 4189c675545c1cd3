"""What a network is trained to do.

Each objective gives the mean over the whole batch: a process computes the mean over its own part,
and the runtime averages over processes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sonibook.training.distributed import Runtime

Logits = Float[Tensor, "batch classes"]
Targets = Float[Tensor, "batch classes"]


def cross_entropy(logits: Logits, targets: Targets) -> Float[Tensor, ""]:
    """Categorical cross-entropy against target probabilities, in nats (paper, appendix A.3).

    Parameters
    ----------
    logits, targets : Tensor, shape (batch, classes)
        Each row of `targets` sums to 1; mixup makes it a mixture of two labels.

    Returns
    -------
    Tensor, shape ()
        Mean over the batch.
    """
    return F.cross_entropy(logits, targets)


def binary_cross_entropy(logits: Logits, targets: Targets) -> Float[Tensor, ""]:
    """Binary cross-entropy of every class by itself, in nats (paper, appendix A.3: multilabel)."""
    return F.binary_cross_entropy_with_logits(logits, targets)


def nt_xent(
    z: Float[Tensor, "rows dim"], *, temperature: float = 0.1, runtime: Runtime | None = None
) -> Float[Tensor, ""]:
    """Normalised temperature-scaled cross-entropy of a batch of pairs (paper, equation 1).

    Every row must find its partner among all other rows of the whole batch, by cosine similarity.
    The paper's sum runs to N; this is SimCLR's, over the 2N rows of N pairs, a row's similarity to
    itself left out (Chen et al. 2020).

    Parameters
    ----------
    z : Tensor, shape (2 * pairs, dim)
        Row i and row i + pairs are two views of one clip.
    temperature : float > 0
        Divides the cosine similarities (tau).
    runtime : Runtime or None
        Where there are several processes: all rows of all of them are candidates, and the gradient
        reaches them all. The loss is then the mean over this process's rows.

    Returns
    -------
    Tensor, shape ()
        Mean over the rows, in nats.

    Raises
    ------
    ValueError
        If the number of rows is odd.
    """
    rows = len(z)
    if rows % 2:
        raise ValueError(f"{rows} rows are no pairs: give all first views, then all second ones.")
    unit = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=1)
    everything = unit if runtime is None else runtime.gather(unit)
    own = torch.arange(rows, device=z.device) + (0 if runtime is None else runtime.rank * rows)
    # Cosines are divided by a small number: half precision would blur who is near whom.
    with torch.autocast(z.device.type, enabled=False):
        similarity = unit @ everything.T / temperature
    # Not minus infinity: its product with a gradient of zero would be no number.
    itself = F.one_hot(own, len(everything)).bool()
    similarity = similarity.masked_fill(itself, torch.finfo(similarity.dtype).min)
    return F.cross_entropy(similarity, own.roll(rows // 2))
