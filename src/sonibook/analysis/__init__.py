"""What one measures on sonifications; nothing here knows of a data set by name, or a notebook.

Each analysis takes networks and a data set, runs on `sonibook.analysis.stream`, and gives a typed
result (`sonibook.analysis.result`) that writes and reads JSON and has its figure in
`sonibook.plots`.
"""

from sonibook._rooms import names_of
from sonibook.analysis.activations import top_activations
from sonibook.analysis.coherence import coherence_by_layer
from sonibook.analysis.evolution import feature_evolution
from sonibook.analysis.selectivity import selectivity_by_layer, spectral_shape
from sonibook.metrics.coherence import coherence, mean_top_coherence

__all__ = [
    "coherence",
    "coherence_by_layer",
    "feature_evolution",
    "mean_top_coherence",
    "selectivity_by_layer",
    "spectral_shape",
    "top_activations",
]

__getattr__ = names_of(
    __name__,
    ablation="AblationResult ablate",
    activations="ActivationsResult",
    alternatives="STARTS Unpooled compare_unpoolings",
    coherence="CoherenceResult",
    controls="CONTROLS perturbations projection",
    detectors="choose",
    evolution="EvolutionResult sonify_through_training",
    machine_listeners="LISTENERS",
    faithfulness="FaithfulnessResult",
    grid="GridResult grid",
    layers="LayerResult layer_importances",
    listeners="ListenersResult listen",
    listening="listening_report",
    networks="mixed random_twin untrained with_random_weights",
    result="estimate",
    sanity="RUNNER_UP_LESS_RANDOM SanityResult",
    selectivity="SelectivityResult",
    separation="SeparationResult",
    shifts="ShiftResult",
    sources="SOURCE_SCORES SceneClips si_sdr source_scores",
    stimulation="StimulationResult",
    top_clips="TopClipsResult",
)
