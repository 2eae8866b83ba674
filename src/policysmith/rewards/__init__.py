"""Layer 5: what is good: verifiers, rewards of form, and how several are put together."""
