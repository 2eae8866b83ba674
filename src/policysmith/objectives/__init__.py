"""Layer 2: what is minimised or estimated, as pure functions of tensors."""
