"""Layer 3: what acts."""
