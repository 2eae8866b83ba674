"""The base algorithms that many systems build on."""
