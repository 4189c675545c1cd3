"""The network: CNN12, its layers, checkpoints, and any 1-D CNN as a stack of blocks."""

from sonibook import _names_of

__getattr__ = _names_of(
    __name__,
    checkpoint="imported kept_checkpoints load_classifier load_encoder networks_folder "
    "open_network read_card shipped",
    elsewhere="import_crepe import_soundnet",
    encoder="CNN12 Classifier",
    operations="max_unpool transposed_convolution",
    stack_file="sample_rate_of save_network",
    stack="blocks_of check_filters check_layer least_length out_length receptive_field stride",
)
