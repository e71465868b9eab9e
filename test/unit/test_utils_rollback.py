"""What was begun and failed is undone."""

import pytest

from ganeti.utils.rollback import Rollback


class TestRollback:
    def test_reverse_order_on_failure(self):
        done, told = [], []
        with pytest.raises(ValueError, match="third"), Rollback(told.append) as undo:
            undo.Add("one", done.append, 1)
            undo.Add("two", done.append, 2)
            raise ValueError("third")
        assert done == [2, 1]
        assert told == ["Undoing: two", "Undoing: one"]

    def test_nothing_on_success(self):
        done = []
        with Rollback() as undo:
            undo.Add("one", done.append, 1)
        assert done == []

    def test_commit_forgets(self):
        done = []
        with pytest.raises(ValueError), Rollback() as undo:
            undo.Add("one", done.append, 1)
            undo.Commit()
            raise ValueError
        assert done == []

    def test_failing_step_is_told_and_the_rest_runs(self):
        done, told = [], []

        def Broken():
            raise OSError("disk on fire")

        with pytest.raises(ValueError), Rollback(told.append) as undo:
            undo.Add("one", done.append, 1)
            undo.Add("two", Broken)
            raise ValueError
        assert done == [1]
        assert "Could not undo (two): disk on fire" in told
