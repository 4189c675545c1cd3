"""The clips that excite a filter most, among those that the explorer offers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from sonibook.analysis.activations import LayerActivations, TopClip, top_activations
from sonibook.widgets.choices import Choices


class TopClips:
    """For each filter of some networks, its top clips; found when first asked for.

    Parameters
    ----------
    networks : mapping from str to torch.nn.Module
        By name; each as `sonibook.model.stack.blocks_of` takes it.
    choices : Choices
    k : int >= 1
        How many clips a filter.
    """

    def __init__(self, networks: Mapping[str, nn.Module], choices: Choices, *, k: int = 3) -> None:
        self.networks, self.choices, self.k = networks, choices, k
        self._found: dict[str, tuple[LayerActivations, ...]] = {}
        self._seen: dict[str, int] = {}

    def known(self, network: str) -> bool:
        """Whether a network's top clips were found, among all clips there are now."""
        return self._seen.get(network) == self.choices.changes

    def find(self, network: str) -> None:
        """Pass every clip through a network, once.

        Raises
        ------
        AnalysisError
            If no clip can be measured.
        """
        result = top_activations({network: self.networks[network]}, self.choices, k=self.k)
        self._found[network] = result.activations[0].layers
        self._seen[network] = self.choices.changes

    def of(self, network: str, layer: int, filter: int) -> tuple[TopClip, ...]:
        """A filter's top clips, most energy first; none where it is dead or nothing was found."""
        if not self.known(network):
            return ()
        return self._found[network][layer - 1].filters[filter].top
