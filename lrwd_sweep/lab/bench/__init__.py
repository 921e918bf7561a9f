"""Benchmarks of the engine and its plain alternatives on the same task in the same run."""
