"""Layer 6: learners, the one loop, run state, run directories."""
