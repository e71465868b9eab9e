"""Operations whose steps fail in turn; each test begins with a clean place."""

from cleanplace import CleanPlace

__all__ = ["CleanPlace"]
