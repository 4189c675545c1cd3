"""Pictures: sounds, networks, and results over layers; each draws what it is handed."""

from sonibook._rooms import names_of

__getattr__ = names_of(
    __name__,
    basics="alias_of resolutions sample_stems timeline",
    evolution="evolution_figure growth_figure",
    features="activations_figure coherence_figure layers_figure selectivity_figure",
    sonification="coherence_walks",
    training="crops intervals probabilities shares similarity_matrix",
)
