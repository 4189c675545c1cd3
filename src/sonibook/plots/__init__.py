"""Pictures: sounds, networks, and results over layers; each draws what it is handed."""

from sonibook import _names_of

__getattr__ = _names_of(
    __name__,
    basics="alias_of resolutions sample_stems timeline",
    claims="SIGNS claim_figure claims_table listening_report paper_tables",
    features="Panel activations_figure coherence_figure figure_over_layers first_of_regimes "
    "layers_figure listeners_figure selectivity_figure separation_figure top_clips_figure",
    interventions="ablation_figure downsampling_figure explanations_figure faithfulness_figure "
    "sanity_figure shifts_figure stimulation_figure unpooling_figure",
    training="crops evolution_figure growth_figure intervals probabilities shares "
    "similarity_matrix",
)
