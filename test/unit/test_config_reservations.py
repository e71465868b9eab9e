"""Resources that are promised but not configured yet."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ganeti import config, errors
from ganeti.config import reservations


@pytest.fixture
def manager():
    return config.TemporaryReservationManager()


class TestReservations:
    def test_nothing_at_first(self, manager):
        assert not manager.Reserved("a")
        assert manager.GetReserved() == set()

    def test_reserve(self, manager):
        manager.Reserve("job1", "a")
        assert manager.Reserved("a")
        assert not manager.Reserved("job1")
        assert manager.GetReserved() == {"a"}

    @pytest.mark.parametrize("ec_id", ["job1", "job2"])
    def test_only_once(self, manager, ec_id):
        manager.Reserve("job1", "a")
        with pytest.raises(errors.ReservationError, match="job1"):
            manager.Reserve(ec_id, "a")

    def test_drop(self, manager):
        manager.Reserve("job1", "a")
        manager.Reserve("job1", "b")
        manager.Reserve("job2", "c")
        manager.DropECReservations("job1")
        assert manager.GetReserved() == {"c"}
        manager.DropECReservations("job1")
        manager.DropECReservations("nobody")
        manager.Reserve("job2", "a")

    def test_answer_is_a_copy(self, manager):
        manager.Reserve("job1", "a")
        manager.GetReserved().clear()
        assert manager.Reserved("a")

    def test_generate_avoids_what_is_taken(self, manager):
        manager.Reserve("job1", "reserved")
        candidates = iter(["existing", None, "reserved", "free", "never asked for"])
        found = manager.Generate({"existing"}, lambda: next(candidates), "job2")
        assert found == "free"
        assert manager.GetReserved() == {"reserved", "free"}
        assert next(candidates) == "never asked for"
        manager.DropECReservations("job2")
        assert not manager.Reserved("free")

    def test_generate_gives_up(self, manager):
        tries = []

        def _Taken():
            tries.append(1)
            return "existing"

        with pytest.raises(errors.ConfigurationError, match="64"):
            manager.Generate(["existing"], _Taken, "job1")
        assert len(tries) == reservations.MAX_TRIES == 64
        assert manager.GetReserved() == set()

    def test_generate_finds_it_at_the_last_try(self, manager):
        candidates = iter(["existing"] * 63 + ["free"])
        assert manager.Generate(["existing"], lambda: next(candidates), "job1") == "free"


_CONTEXTS = st.sampled_from(["job1", "job2", "job3"])
_RESOURCES = st.integers(0, 6)


class _Machine(RuleBasedStateMachine):
    """Against the obvious model: a set for each context."""

    @initialize()
    def Begin(self):
        self.manager = config.TemporaryReservationManager()
        self.model = {}

    def _Holder(self, resource):
        holders = [ec_id for ec_id, held in self.model.items() if resource in held]
        assert len(holders) <= 1
        return holders[0] if holders else None

    @rule(ec_id=_CONTEXTS, resource=_RESOURCES)
    def Reserve(self, ec_id, resource):
        if self._Holder(resource) is None:
            self.manager.Reserve(ec_id, resource)
            self.model.setdefault(ec_id, set()).add(resource)
        else:
            with pytest.raises(errors.ReservationError):
                self.manager.Reserve(ec_id, resource)

    @rule(ec_id=_CONTEXTS, existing=st.sets(_RESOURCES))
    def Generate(self, ec_id, existing):
        numbers = iter(range(1000))
        found = self.manager.Generate(existing, lambda: next(numbers), ec_id)
        assert found not in existing
        assert self._Holder(found) is None
        self.model.setdefault(ec_id, set()).add(found)

    @rule(ec_id=_CONTEXTS)
    def Drop(self, ec_id):
        self.manager.DropECReservations(ec_id)
        self.model.pop(ec_id, None)

    @invariant()
    def Agree(self):
        if hasattr(self, "manager"):
            self.manager._CheckInvariants()
            held = set().union(*self.model.values()) if self.model else set()
            assert self.manager.GetReserved() == held


TestAgainstModel = _Machine.TestCase
