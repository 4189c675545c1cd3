"""The network: CNN12, its layers, checkpoints, and any 1-D CNN as a stack of blocks."""
