"""Lattice, trial, surface, separability: numpy and scipy only."""
