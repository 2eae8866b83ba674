"""Layer 9: the recipes, one module each, named as in the catalogue."""
