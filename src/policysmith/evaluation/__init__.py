"""Layer 8: measuring: rollouts, statistics with intervals, plots, videos, reports, the claim record."""
