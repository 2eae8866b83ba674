"""Layer 10: each system's small-scale experiment, in a module of the same name, and its record."""
