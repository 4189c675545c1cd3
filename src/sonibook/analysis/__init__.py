"""What one measures on sonifications; nothing here knows of a data set by name, or a notebook.

Each analysis runs on `sonibook.analysis.stream`, and gives a table
(`sonibook.analysis.result.ResultTable`), which writes and reads JSON and has its figure in
`sonibook.plots`; some tables carry more.
What all of them take:

- ``networks`` or ``classifiers``: modules by name, or a sequence of
  `sonibook.analysis.networks.Network`, each as `sonibook.sonify` takes it.
- ``data``: a `sonibook.datasets.base.Dataset`.
- ``layers``, counted from 1; None for all.
- ``seed``, an int >= 0: of random weights, controls, draws and intervals. What is random is drawn
  for each clip by its id, whatever the order.
- ``**streaming``: `parts`, `chunk`, `processes` and `limit`, as
  `sonibook.analysis.stream.Streaming` says. Where another clip is a control, it is one of the same
  chunk.

All raise `AnalysisError` if there is no network, nothing to measure, or an argument is not among
its choices; `StackError` if a network cannot be inverted; and `LayerError` if it has no such layer.
"""

from sonibook import _names_of
from sonibook.analysis.activations import top_activations
from sonibook.analysis.coherence import coherence_by_layer, selectivity_by_layer, spectral_shape
from sonibook.analysis.evolution import feature_evolution
from sonibook.metrics.similarity import coherence, mean_top_coherence

__all__ = [
    "coherence",
    "coherence_by_layer",
    "feature_evolution",
    "mean_top_coherence",
    "selectivity_by_layer",
    "spectral_shape",
    "top_activations",
]

__getattr__ = _names_of(
    __name__,
    ablation="AblationResult ablate",
    activations="ActivationsResult TopClipsResult",
    alternatives="ExplanationResult STARTS compare_unpoolings unpooled",
    controls="CONTROLS perturbations projection",
    evolution="EvolutionResult sonify_through_training",
    machine_listeners="LISTENERS",
    layers="layer_importances",
    listeners="listen",
    networks="mixed random_twin untrained with_random_weights",
    result="ResultTable estimate",
    sanity="RUNNER_UP_LESS_RANDOM",
    separation="SeparationResult choose",
    sources="SOURCE_SCORES SceneClips si_sdr source_scores",
)
