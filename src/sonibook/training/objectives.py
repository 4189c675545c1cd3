"""What a network is trained to do, and the head that the contrastive objective trains with it.

Each objective gives the mean over the whole batch: a process computes the mean over its own part,
and the runtime averages over processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sonibook.model.encoder import CNN12
from sonibook.model.layers import he_normal
from sonibook.training.distributed import Runtime


def cross_entropy(
    logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """Categorical cross-entropy against target probabilities, in nats (paper, appendix A.3).

    Each row of `targets` sums to 1; mixup makes it a mixture of two labels.
    """
    return F.cross_entropy(logits, targets)


#: What classifiers are trained to do: to name one class, or to judge each class by itself (paper,
#: appendix A.3: multilabel).
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
}


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
        reaches them all.

    Returns
    -------
    Tensor, shape ()
        Mean over this process's rows, in nats.

    Raises
    ------
    ValueError
        If the number of rows is odd.
    """
    rows = len(z)
    if rows % 2:
        raise ValueError(f"{rows} rows are not pairs: give all first views, then all second ones.")
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


class ContrastiveNetwork(nn.Module):
    """An encoder and its projection head.

    Parameters
    ----------
    encoder : CNN12
        With `features` "mean", its last linear layer is frozen.
    projection : int
        Units of the output z.
    seed : int
        Of the head's initial weights (He, with zero biases).
    hidden : sequence of int, or None
        Units of the head's hidden layers, each with a ReLU. None is the paper's head (section 3.1):
        one layer, as wide as z.
    features : {"h", "mean"}
        What the head sees: h, the encoder's output, or the mean feature maps of its last block.
    """

    def __init__(
        self,
        encoder: CNN12,
        *,
        projection: int,
        seed: int,
        hidden: Sequence[int] | None = None,
        features: Literal["h", "mean"] = "h",
    ) -> None:
        super().__init__()
        self.encoder, self.features = encoder, features
        if features == "mean":
            encoder.fc1.requires_grad_(False)
        widths = [encoder.dim if features == "h" else encoder.channels]
        self.projection = nn.Sequential()
        for units in (projection,) if hidden is None else hidden:
            self.projection.extend([nn.Linear(widths[-1], units), nn.ReLU()])
            widths.append(units)
        self.projection.append(nn.Linear(widths[-1], projection))
        generator = torch.Generator().manual_seed(seed)
        for module in self.projection:
            if isinstance(module, nn.Linear):
                he_normal(module, generator)

    def forward(
        self, x: Float[Tensor, "batch 1 time"], *, kept: Tensor | None = None
    ) -> Float[Tensor, "batch projection"]:
        """z, shape (batch, projection), of waveforms, shape (batch, 1, time)."""
        return self.projected(self.encoder, x, kept=kept)

    def projected(
        self, encoder: CNN12, x: Float[Tensor, "batch 1 time"], *, kept: Tensor | None = None
    ) -> Float[Tensor, "batch projection"]:
        """The z that this head makes of another encoder of the same size."""
        pooled = self.features == "mean"
        return self.projection(encoder.pooled(x) if pooled else encoder(x, kept=kept))
