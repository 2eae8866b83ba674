"""Layer 1: what everything stands on: errors, seeds, saving, key names, the catalogue."""
