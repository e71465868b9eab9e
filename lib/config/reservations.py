"""Resources that a job was given but that are not in the configuration yet.

Between the moment a job is told "this MAC is yours" and the moment its instance is in the
configuration, nobody else may get it. The execution context of the job (I{ec_id}) holds the
reservation and drops all of its own at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final, Generic, TypeVar

from .. import errors

#: How often L{TemporaryReservationManager.Generate} tries.
MAX_TRIES: Final = 64

_T = TypeVar("_T")


class TemporaryReservationManager(Generic[_T]):
    """Who holds which resource until it is configured.

    Invariant: a resource is held by one execution context at most, and what is held by a context is
    known under it. Has no lock of its own: the owner serialises all calls.
    """

    def __init__(self) -> None:
        self._holders: dict[_T, str] = {}
        self._by_context: dict[str, set[_T]] = {}

    def _CheckInvariants(self) -> None:
        listed = [(item, ec_id) for ec_id, items in self._by_context.items() for item in items]
        assert len(listed) == len(self._holders)
        assert dict(listed) == self._holders
        assert all(self._by_context.values()), "a context that holds nothing is not kept"

    def Reserved(self, resource: _T) -> bool:
        """Does anybody hold it?"""
        return resource in self._holders

    def Reserve(self, ec_id: str, resource: _T) -> None:
        """Hold a resource. Raises ReservationError if anybody, the caller too, holds it."""
        holder = self._holders.get(resource)
        if holder is not None:
            raise errors.ReservationError(
                f"{resource} is reserved already, by the execution context {holder}"
            )
        self._holders[resource] = ec_id
        self._by_context.setdefault(ec_id, set()).add(resource)

    def DropECReservations(self, ec_id: str) -> None:
        """Release everything a context holds; an unknown one holds nothing."""
        for resource in self._by_context.pop(ec_id, ()):
            del self._holders[resource]

    def GetReserved(self) -> set[_T]:
        """Everything that anybody holds."""
        return set(self._holders)

    def Generate(self, existing: Container[_T], one_fn: Callable[[], _T | None], ec_id: str) -> _T:
        """Find a resource that nobody has, and hold it.

        @param existing: what is in use
        @param one_fn: makes a candidate, None if it could not

        Raises: ConfigurationError after 64 candidates that were of no use.
        """
        for _ in range(MAX_TRIES):
            resource = one_fn()
            if resource is not None and resource not in existing and resource not in self._holders:
                self.Reserve(ec_id, resource)
                return resource
        raise errors.ConfigurationError(
            f"Not able to generate a resource that is not in use, in {MAX_TRIES} tries"
        )

    def GetStatistics(self) -> dict[str, int]:
        """How many resources and contexts."""
        return {"resources": len(self._holders), "contexts": len(self._by_context)}
