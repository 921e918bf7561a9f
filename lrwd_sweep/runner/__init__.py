"""Train a study's missing lanes and store them."""
