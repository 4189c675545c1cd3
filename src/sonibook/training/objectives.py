"""What a network is trained to do."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def cross_entropy(
    logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
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
