"""Maps of cities from satellite and aerial images."""

__version__ = "0.1.0"
