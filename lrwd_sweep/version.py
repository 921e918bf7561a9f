"""The version, for the package itself and for what it says of itself to others."""

__version__ = "0.1.0"
