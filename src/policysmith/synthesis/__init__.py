"""Making more experience: synthetic transitions, and data disturbed on purpose."""
