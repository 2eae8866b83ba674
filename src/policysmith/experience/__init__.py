"""Layer 4: what is learnt from: recording, episodes in memory and on disk, windows, acting."""
