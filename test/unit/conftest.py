"""Each test of this directory begins with a clean place."""

from cleanplace import CleanPlace

__all__ = ["CleanPlace"]
