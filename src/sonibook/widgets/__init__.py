"""What a reader moves and plays: the explorer, players, sliders, and the export for the lab."""
