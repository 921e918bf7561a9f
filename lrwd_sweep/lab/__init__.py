"""Check and measure the engine: verify, bench."""
