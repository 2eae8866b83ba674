"""Layer 2: environments by name: our own, and adapters to those that packages carry."""
