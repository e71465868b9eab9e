"""The cluster's configuration: the only reader-writer of C{config.data}.

L{writer} is what the rest of the suite uses. Below it: L{engine} makes changes durable and known,
L{commit} groups them, L{store} holds the objects and their text, L{claims} who uses what, L{verify}
the rules, L{distribution} who gets what, L{reservations} what is promised but not configured yet,
L{history} the log of all changes, L{difference} what it says of each, L{past} the questions to it.
"""

from __future__ import annotations

from .distribution import Distributor, RpcDistributor
from .reservations import TemporaryReservationManager
from .writer import ConfigWriter

__all__ = ["ConfigWriter", "Distributor", "RpcDistributor", "TemporaryReservationManager"]
