"""How fast, against the plain alternatives, on the same task in the same run."""
