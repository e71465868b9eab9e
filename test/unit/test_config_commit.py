"""How a change becomes durable and known: shared writes, failures, crashes, nodes that are away."""

import errno
import json

import pytest

from ganeti import config, errors, pathutils, serializer
from ganeti.config import commit, distribution, fake
from ganeti.runtime import fake as runtime_fake
from ganeti.runtime import simulation
from ganeti.utils import filedelta

_PATH = pathutils.CLUSTER_CONF_FILE
_NODE1, _NODE2, _NODE3 = (fake.NodeName(number) for number in (1, 2, 3))
_INST = "inst1.example.com"


@pytest.fixture
def rt():
    return runtime_fake.NewRuntime()


@pytest.fixture
def nodes():
    return fake.FakeDistributor()


@pytest.fixture
def cfg(rt, nodes):
    return fake.NewWriter(rt, nodes=3, candidates=2, distributor=nodes)


def _Stored(rt):
    return json.loads(rt.files.read(_PATH))


class TestDistribution:
    """Local file first, then the other candidates, then ssconf for all online nodes."""

    def test_order_and_receivers(self, cfg, rt, nodes):
        seen = []
        nodes.before_upload = lambda: seen.append(
            (_Stored(rt)["instances"].keys(), list(nodes.ssconf))
        )
        fake.AddInstance(cfg, _INST, _NODE1)
        assert seen == [({_INST}, [])]
        assert nodes.uploads == [(_PATH, [_NODE2])]
        assert sorted(nodes.ssconf) == [_NODE1, _NODE2, _NODE3]
        assert nodes.ssconf[_NODE3]["instance_list"] == _INST
        assert nodes.ssconf[_NODE3]["master_candidates"] == f"{_NODE1}\n{_NODE2}"

    def test_first_write_brings_ssconf_whatever_it_is(self, cfg, nodes):
        cfg.AllocatePort()
        assert len(nodes.ssconf_rounds) == 1

    def test_ssconf_only_when_the_cluster_serial_rose(self, cfg, nodes):
        fake.AddInstance(cfg, _INST, _NODE1)
        rounds = len(nodes.ssconf_rounds)
        cfg.MarkInstanceUp(_INST)
        cfg.AllocatePort()
        assert len(nodes.ssconf_rounds) == rounds
        cfg.SetVGName("other")
        assert len(nodes.ssconf_rounds) == rounds + 1

    def test_rename_reaches_ssconf(self, cfg, nodes):
        fake.AddInstance(cfg, _INST, _NODE1)
        cfg.RenameInstance(_INST, "new")
        assert nodes.ssconf[_NODE2]["instance_list"] == "new"

    def test_offline_nodes_get_nothing_until_they_are_back(self, cfg, nodes):
        node = cfg.GetNodeInfo(_NODE3)
        node.offline = True
        cfg.Update(node)
        assert nodes.ssconf_rounds[-1] == [_NODE1, _NODE2]
        node.offline = False
        cfg.Update(node)
        assert _NODE3 in nodes.ssconf_rounds[-1]
        assert nodes.ssconf[_NODE3]["offline_nodes"] == ""

    def test_lists_are_in_natural_order(self, rt, nodes):
        cfg = fake.NewWriter(rt, nodes=11, candidates=1, distributor=nodes)
        for number in (10, 9, 1):
            fake.AddInstance(cfg, f"inst{number}", _NODE1)
        values = nodes.ssconf[_NODE1]
        assert values["instance_list"].split() == ["inst1", "inst9", "inst10"]
        assert values["node_list"].split()[-2:] == [fake.NodeName(10), fake.NodeName(11)]

    def test_offline_writer_tells_nobody(self, rt, nodes):
        fake.NewWriter(rt, nodes=3, distributor=nodes)
        cfg = config.ConfigWriter(offline=True, runtime=rt, distributor=nodes)
        fake.AddInstance(cfg, _INST, _NODE1)
        assert nodes.uploads == []
        assert nodes.ssconf_rounds == []
        assert cfg.DistributeStale() == set()
        assert cfg.GetStatistics()["stale_nodes"] == 0


class TestUnreachable:
    """A node that is away is reported, costs one attempt, and gets its copy later."""

    def test_reported_not_fatal(self, cfg, nodes, caplog):
        instance = fake.AddInstance(cfg, _INST, _NODE1)
        nodes.Cut(_NODE2)
        told = []
        cfg.Update(instance, told.append)
        assert told == [f"Node {_NODE2} did not get the configuration: Connection timed out"]
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert len(nodes.uploads) == 2
        nodes.Mend(_NODE2)
        assert cfg.DistributeStale() == set()
        cfg.Update(instance, told.append)
        assert len(told) == 1
        assert nodes.uploads[2:] == [(_PATH, [_NODE2])] * 2

    def test_later_changes_do_not_wait_for_it(self, cfg, nodes):
        instance = fake.AddInstance(cfg, _INST, _NODE1)
        nodes.Cut(_NODE2)
        nodes.Cut(_NODE3)
        cfg.SetVGName("other")
        uploads, rounds = len(nodes.uploads), len(nodes.ssconf_rounds)
        told = []
        cfg.Update(instance, told.append)
        fake.AddInstance(cfg, "another", _NODE1)
        assert told == [
            f"Node {_NODE2} did not get the configuration: Connection timed out; it is tried again"
            " in the background"
        ]
        assert len(nodes.uploads) == uploads
        assert nodes.ssconf_rounds[rounds:] == [[_NODE1]]

    def test_asked_at_once_when_its_own_state_changes(self, cfg, nodes):
        """Also: what changes nothing, as redist-conf does, is a wish to send it to everybody."""
        nodes.Cut(_NODE2)
        cfg.SetVGName("other")
        nodes.Mend(_NODE2)
        cfg.AllocatePort()
        assert cfg.GetStatistics()["stale_nodes"] == 1
        node = cfg.GetNodeInfo(_NODE2)
        node.AddTag("x")
        cfg.Update(node)
        assert cfg.GetStatistics()["stale_nodes"] == 0
        nodes.Cut(_NODE2)
        cfg.SetVGName("third")
        nodes.Mend(_NODE2)
        cluster = cfg.GetClusterInfo()
        cluster.AddTag("x")
        cfg.Update(cluster)
        assert cfg.GetStatistics()["stale_nodes"] == 1
        cfg.Update(cluster)
        assert cfg.GetStatistics()["stale_nodes"] == 0

    def test_a_try_in_the_background_holds_up_nobody(self):
        """A node that hangs, and changes meanwhile: none of them waits, none is lost."""
        sim = simulation.Simulation(3)
        rt = sim.runtime
        nodes = _HangingNodes(rt)

        def _Run():
            cfg = fake.NewWriter(
                runtime_fake.NewRuntime(clock=rt.clock, random=rt.random, threads=rt.threads),
                nodes=2,
                distributor=nodes,
            )
            cfg.SetVGName("first")
            nodes.Cut(_NODE2)
            began = rt.clock.monotonic()
            cfg.SetVGName("second")
            assert rt.clock.monotonic() - began <= distribution.COMMIT_TIMEOUT
            retry = rt.threads.start(cfg.DistributeStale)
            rt.clock.sleep(1)
            began = rt.clock.monotonic()
            for number in range(10):
                fake.AddInstance(cfg, f"inst{number}", _NODE1)
            cfg.Update(cfg.GetClusterInfo())
            assert rt.clock.monotonic() == began
            assert retry.is_alive()
            nodes.Mend(_NODE2)
            retry.join()
            assert cfg.DistributeStale() == set()
            assert len(nodes.ssconf[_NODE2]["instance_list"].split()) == 10

        sim.Run(_Run)

    def test_one_time_out_a_round(self, cfg, nodes):
        """Who did not take the configuration is not asked to take the ssconf files."""
        nodes.Cut(_NODE2)
        cfg.SetVGName("other")
        assert nodes.uploads[-1] == (_PATH, [_NODE2])
        assert nodes.ssconf_rounds == [[_NODE1, _NODE3]]

    def test_ssconf_failure(self, cfg, nodes, caplog):
        nodes.Cut(_NODE3)
        told = []
        cluster = cfg.GetClusterInfo()
        cfg.Update(cluster, told.append)
        assert told == [f"Node {_NODE3} did not get the ssconf files: Connection timed out"]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        # A node that is away must not slow down each later change.
        cfg.AllocatePort()
        assert len(nodes.ssconf_rounds) == 1
        cfg.Update(cluster)
        assert nodes.ssconf_rounds[1] == [_NODE1, _NODE2, _NODE3]

    def test_stale_nodes_are_served_later(self, cfg, nodes):
        nodes.Cut(_NODE2)
        nodes.Cut(_NODE3)
        cfg.SetVGName("other")
        assert cfg.GetStatistics()["stale_nodes"] == 2
        assert cfg.DistributeStale() == {_NODE2, _NODE3}
        nodes.Mend(_NODE3)
        assert cfg.DistributeStale() == {_NODE2}
        assert nodes.ssconf_rounds[-1] == [_NODE3]
        nodes.Mend(_NODE2)
        assert cfg.DistributeStale() == set()
        assert nodes.uploads[-1] == (_PATH, [_NODE2])
        rounds = len(nodes.uploads)
        assert cfg.DistributeStale() == set()
        assert len(nodes.uploads) == rounds

    def test_a_new_start_knows_nothing_of_the_nodes(self, cfg, rt, nodes):
        cfg.SetVGName("other")
        restarted = fake.OpenWriter(rt, nodes)
        assert restarted.GetStatistics()["stale_nodes"] == 3
        assert restarted.DistributeStale() == set()


class TestFailedWrite:
    """Disk full and the like: the change was not made, the daemon stays usable."""

    @pytest.mark.parametrize(
        "change",
        [
            lambda cfg: cfg.AllocatePort(),
            lambda cfg: cfg.SetVGName("other"),
            lambda cfg: cfg.AddNode(fake.NewNode(9), "test"),
            lambda cfg: cfg.RemoveNode(_NODE3),
            lambda cfg: fake.AddInstance(cfg, "new", _NODE1),
            lambda cfg: cfg.RemoveInstance(_INST),
            lambda cfg: cfg.RenameInstance(_INST, "new"),
            lambda cfg: cfg.MarkInstanceUp(_INST),
            lambda cfg: cfg.Update(cfg.GetInstanceInfo(_INST)),
            lambda cfg: cfg.MaintainCandidatePool([_NODE2]),
        ],
    )
    def test_nothing_changed(self, cfg, rt, nodes, change):
        fake.AddInstance(cfg, _INST, _NODE1)
        before = (_Stored(rt), cfg.GetClusterInfo().ToDict(), len(nodes.uploads))
        names = (sorted(cfg.GetNodeList()), cfg.GetInstanceList())
        rt.files.Fail("write", code=errno.ENOSPC)
        with pytest.raises(errors.ConfigurationError, match="No space left.*was not made"):
            change(cfg)
        assert (_Stored(rt), cfg.GetClusterInfo().ToDict(), len(nodes.uploads)) == before
        assert (sorted(cfg.GetNodeList()), cfg.GetInstanceList()) == names
        rt.files.Heal()
        change(cfg)
        assert _Stored(rt)["serial_no"] > before[0]["serial_no"]
        assert fake.OpenWriter(rt).VerifyConfig() == cfg.VerifyConfig()

    def test_object_can_be_stored_again(self, cfg, rt):
        instance = fake.AddInstance(cfg, _INST, _NODE1)
        serial = instance.serial_no
        instance.admin_up = True
        rt.files.Fail("write", times=1)
        with pytest.raises(errors.ConfigurationError):
            cfg.Update(instance)
        assert instance.serial_no == serial
        cfg.Update(instance)
        assert _Stored(rt)["instances"][_INST]["admin_up"] is True

    @pytest.mark.parametrize("reader", ["GetClusterInfo", "GetInstanceInfo"])
    def test_what_was_read_of_an_undone_change_is_stale(self, cfg, rt, reader):
        """A serial number never stands for two contents."""
        fake.AddInstance(cfg, _INST, _NODE1)
        args = [_INST] if reader == "GetInstanceInfo" else []
        mine = getattr(cfg, reader)(*args)
        mine.AddTag("undone")
        peeked = []
        write = rt.files.write

        def _PeekAndFail(*args_, **kwargs):
            peeked.append(getattr(cfg, reader)(*args))
            raise OSError(errno.EIO, "broken")

        rt.files.write = _PeekAndFail
        with pytest.raises(errors.ConfigurationError):
            cfg.Update(mine)
        rt.files.write = write
        (dirty,) = peeked
        assert dirty.GetTags() == {"undone"}
        mine = getattr(cfg, reader)(*args)
        assert not mine.GetTags()
        cfg.Update(mine)
        with pytest.raises(errors.ConfigurationError, match="updated since"):
            cfg.Update(dirty)
        cfg.Update(mine)

    def test_minors_stay_reserved(self, cfg, rt):
        cfg.AllocateDRBDMinor([_NODE1], _INST)
        rt.files.Fail("write", times=1)
        with pytest.raises(errors.ConfigurationError):
            fake.AddInstance(cfg, _INST, _NODE1)
        assert cfg.GetStatistics()["reserved_minors"] == 1
        fake.AddInstance(cfg, _INST, _NODE1)
        assert cfg.GetStatistics()["reserved_minors"] == 0

    def test_failure_after_the_rename(self, cfg, rt):
        """The file was replaced, only its directory could not be synced: it is still ours."""
        write = rt.files.write

        def _ReplaceAndFail(*args, **kwargs):
            write(*args, **kwargs)
            raise OSError(errno.EIO, "fsync of the directory")

        rt.files.write = _ReplaceAndFail
        with pytest.raises(errors.ConfigurationError):
            cfg.SetVGName("other")
        rt.files.write = write
        assert cfg.GetVGName() == "xenvg"
        dirty = _Stored(rt)
        cfg.AllocatePort()
        assert _Stored(rt)["cluster"]["volume_group_name"] == "xenvg"
        assert _Stored(rt)["serial_no"] > dirty["serial_no"]

    def test_crash(self, cfg, rt):
        """What a method returned from is there after a power failure."""
        for number in range(5):
            fake.AddInstance(cfg, f"inst{number}", _NODE1)
            rt.files.Crash()
            assert len(_Stored(rt)["instances"]) == number + 1

    def test_load_that_can_not_write_its_upgrade(self, rt):
        document = fake.NewConfigData(rt)
        del document["cluster"]["uuid"]
        rt.files.write(_PATH, json.dumps(document).encode())
        rt.files.Fail("write", times=1)
        with pytest.raises(errors.ConfigurationError):
            fake.OpenWriter(rt)
        fake.OpenWriter(rt)
        assert _Stored(rt)["cluster"]["uuid"]


class TestForeignChange:
    """Somebody else wrote the file: it is never overwritten."""

    @pytest.mark.parametrize("how", ["edited", "same bytes", "removed"])
    def test_refused(self, cfg, rt, how):
        cfg.AllocatePort()
        if how == "removed":
            rt.files.remove(_PATH)
        else:
            document = _Stored(rt)
            if how == "edited":
                document["cluster"]["volume_group_name"] = "edited"
            rt.clock.Advance(1)
            rt.files.write(_PATH, (json.dumps(document, indent=2) + "\n").encode())
        for _ in range(2):
            with pytest.raises(errors.ConfigurationError, match="restart|Restart"):
                cfg.SetVGName("ours")
        assert cfg.GetVGName() == "xenvg"
        if how == "edited":
            assert _Stored(rt)["cluster"]["volume_group_name"] == "edited"
            assert fake.OpenWriter(rt).GetVGName() == "edited"

    def test_two_writers(self, cfg, rt):
        other = fake.OpenWriter(rt)
        other.SetVGName("other")
        with pytest.raises(errors.ConfigurationError, match="somebody else"):
            cfg.SetVGName("ours")
        other.SetVGName("again")
        assert _Stored(rt)["cluster"]["volume_group_name"] == "again"


class _SlowNodes(fake.FakeDistributor):
    """Each round takes its time."""

    def __init__(self, rt, seconds):
        super().__init__()
        self._rt = rt
        self._seconds = seconds

    def UploadConfig(self, path, addresses, timeout):
        results = super().UploadConfig(path, addresses, timeout)
        self._rt.clock.sleep(self._seconds)
        return results


class _HangingNodes(fake.FakeDistributor):
    """Who is cut off makes its caller wait as long as that wants to."""

    def __init__(self, rt):
        super().__init__()
        self._rt = rt

    def _Answer(self, names, timeout):
        results = super()._Answer(names, timeout)
        if any(results.values()):
            self._rt.clock.sleep(timeout)
        return results


class _SlowFiles(runtime_fake.MemoryFiles):
    """A disk whose writes take their time; the content is there only at the end."""

    def __init__(self, rt, seconds):
        super().__init__(rt.clock.time)
        self._rt = rt
        self._seconds = seconds

    def write(self, path, data, *args, **kwargs):
        self._rt.clock.sleep(self._seconds)
        super().write(path, data, *args, **kwargs)


def _RunThreads(rt, functions):
    handles = [rt.threads.start(fn, name=f"t{idx}") for idx, fn in enumerate(functions)]
    for handle in handles:
        handle.join()


def _SlowRuntime(sim, seconds):
    base = sim.runtime
    files = _SlowFiles(base, seconds)
    return runtime_fake.NewRuntime(
        clock=base.clock, random=base.random, threads=base.threads, files=files
    )


class TestGroupCommit:
    """Commits that arrive together share one write and one round."""

    @pytest.mark.parametrize("seed", range(10))
    def test_shared_and_durable(self, seed):
        sim = simulation.Simulation(seed)
        rt = _SlowRuntime(sim, 0.01)
        nodes = _SlowNodes(rt, 1.0)

        def _Run():
            cfg = fake.NewWriter(rt, nodes=3, candidates=2, distributor=nodes)
            rt.files.writes.clear()

            def _Add(number):
                name = f"inst{number}"
                fake.AddInstance(cfg, name, _NODE1)
                # Returned: so it is on disk, and was offered to the candidate.
                assert name in _Durable(rt)["instances"]
                serials = [serial for serial, names in offered if name in names]
                assert serials

            offered = []
            nodes.before_upload = lambda: offered.append(
                (_Stored(rt)["serial_no"], set(_Stored(rt)["instances"]))
            )
            began = rt.clock.monotonic()
            _RunThreads(rt, [lambda number=number: _Add(number) for number in range(40)])
            assert len(cfg.GetInstanceList()) == 40
            assert rt.files.writes.count(("write", _PATH)) == cfg.write_count <= 4
            assert len(nodes.uploads) <= 3
            assert rt.clock.monotonic() - began < 4
            assert _Stored(rt)["serial_no"] == 1 + cfg.write_count
            assert cfg.VerifyConfig() == []

        sim.Run(_Run)

    def test_alone_it_waits_for_nobody(self):
        sim = simulation.Simulation(1)
        rt = _SlowRuntime(sim, 0.01)

        def _Run():
            cfg = fake.NewWriter(rt, nodes=1)
            began = rt.clock.monotonic()
            cfg.AllocatePort()
            assert rt.clock.monotonic() - began == pytest.approx(0.01)

        sim.Run(_Run)

    def test_the_next_write_does_not_wait_for_the_nodes(self):
        """A slow candidate delays answers, not the disk."""
        sim = simulation.Simulation(1)
        rt = _SlowRuntime(sim, 0.01)
        nodes = _SlowNodes(rt, 5.0)

        def _Run():
            cfg = fake.NewWriter(rt, nodes=2, distributor=nodes)
            first = rt.threads.start(lambda: fake.AddInstance(cfg, "a", _NODE1))
            rt.clock.sleep(0.5)
            second = rt.threads.start(lambda: fake.AddInstance(cfg, "b", _NODE1))
            rt.clock.sleep(0.5)
            assert set(_Durable(rt)["instances"]) == {"a", "b"}
            assert sorted(cfg.GetInstanceList()) == ["a", "b"], "readers wait for nobody"
            assert first.is_alive()
            first.join()
            assert second.is_alive()
            second.join()
            assert len(nodes.uploads) == 2

        sim.Run(_Run)

    @pytest.mark.parametrize("seed", range(15))
    def test_failed_writes_among_many(self, seed):
        """Who was told of a failure has no change on disk; who was not, has."""
        sim = simulation.Simulation(seed)
        rt = _SlowRuntime(sim, 0.01)

        def _Run():
            cfg = fake.NewWriter(rt, nodes=1)
            outcome = {}

            def _Add(number):
                rt.clock.sleep(rt.random.uniform(0, 0.08))
                name = f"inst{number}"
                try:
                    fake.AddInstance(cfg, name, _NODE1)
                    cfg.MarkInstanceUp(name)
                    outcome[name] = "up"
                except errors.ConfigurationError:
                    outcome[name] = "failed"

            def _Saboteur():
                for _ in range(3):
                    rt.clock.sleep(rt.random.uniform(0, 0.03))
                    rt.files.Fail("write", times=1)

            _RunThreads(rt, [_Saboteur, *(lambda n=n: _Add(n) for n in range(25))])
            assert len(outcome) == 25
            rt.files.Heal()
            stored = _Durable(rt)["instances"]
            for name, result in outcome.items():
                if result == "up":
                    assert stored[name]["admin_up"] is True
                elif name in stored:
                    assert stored[name]["admin_up"] is False, "only the second change failed"
            assert sorted(stored) == sorted(cfg.GetInstanceList())
            reopened = fake.OpenWriter(rt)
            assert {n: i.ToDict() for n, i in reopened.GetAllInstancesInfo().items()} == {
                n: i.ToDict() for n, i in cfg.GetAllInstancesInfo().items()
            }
            assert cfg.VerifyConfig() == []
            return outcome

        sim.Run(_Run)

    @pytest.mark.parametrize("seed", range(10))
    def test_many_update_one_object(self, seed):
        """No update is lost: each either counts or is refused."""
        sim = simulation.Simulation(seed)
        rt = _SlowRuntime(sim, 0.01)

        def _Run():
            cfg = fake.NewWriter(rt, nodes=1)
            fake.AddInstance(cfg, _INST, _NODE1)
            done = []

            def _Tag(number):
                while True:
                    instance = cfg.GetInstanceInfo(_INST)
                    instance.AddTag(f"t{number}")
                    try:
                        cfg.Update(instance)
                    except errors.ConfigurationError:
                        continue
                    done.append(number)
                    return

            _RunThreads(rt, [lambda n=n: _Tag(n) for n in range(12)])
            instance = cfg.GetInstanceInfo(_INST)
            assert instance.GetTags() == {f"t{number}" for number in range(12)}
            assert instance.serial_no == 1 + 12
            assert _Durable(rt)["instances"][_INST]["serial_no"] == 13

        sim.Run(_Run)

    @pytest.mark.parametrize("seed", range(5))
    def test_ports_and_macs_of_many(self, seed):
        sim = simulation.Simulation(seed)
        rt = _SlowRuntime(sim, 0.01)

        def _Run():
            cfg = fake.NewWriter(rt, nodes=1)
            ports, macs, minors = [], [], []

            def _Take(number):
                ports.append(cfg.AllocatePort())
                macs.append(cfg.GenerateMAC(f"job{number}"))
                minors.extend(cfg.AllocateDRBDMinor([_NODE1, _NODE1], f"i{number}"))

            _RunThreads(rt, [lambda n=n: _Take(n) for n in range(20)])
            assert sorted(ports) == list(range(11000, 11020))
            assert len(set(macs)) == 20
            assert sorted(minors) == list(range(40))

        sim.Run(_Run)


def _Durable(rt):
    """What a power failure now would leave."""
    return json.loads(rt.files._durable[_PATH].data)


class TestBatcher:
    """Whoever asks while a run is under way shares the next one."""

    def _Batcher(self, rt, action, on_error=None):
        cond = rt.threads.Condition(rt.threads.Lock())
        batcher = commit.Batcher(cond, action, on_error)

        def _Use():
            with cond:
                batch = batcher.Join()
            return batcher.Wait(batch)

        return batcher, cond, _Use

    @pytest.mark.parametrize("seed", range(20))
    def test_a_run_begins_after_its_members_joined(self, seed):
        sim = simulation.Simulation(seed)
        rt = sim.runtime
        state = {"joined": 0, "runs": 0}

        def _Action():
            seen = state["joined"]
            state["runs"] += 1
            rt.clock.sleep(1)
            return seen

        def _Run():
            _, _, use = self._Batcher(rt, _Action)

            def _Member():
                rt.clock.sleep(rt.random.uniform(0, 3))
                state["joined"] += 1
                mine = state["joined"]
                assert use() >= mine

            _RunThreads(rt, [_Member] * 20)
            assert state["runs"] <= 6

        sim.Run(_Run)

    def test_failure_reaches_all_members_and_those_who_built_on_it(self):
        sim = simulation.Simulation(3)
        rt = sim.runtime
        undone = []

        def _Action():
            rt.clock.sleep(1)
            if not undone:
                raise ValueError("broken")
            return "fine"

        def _Run():
            _, _, use = self._Batcher(rt, _Action, lambda: undone.append(1))
            results = []

            def _Member(delay):
                rt.clock.sleep(delay)
                try:
                    results.append(use())
                except ValueError as err:
                    results.append(str(err))

            _RunThreads(rt, [lambda d=delay: _Member(d) for delay in (0, 0.2, 0.4, 1.5)])
            assert results == ["broken"] * 3 + ["fine"]
            assert undone == [1]

        sim.Run(_Run)

    def test_without_undo_later_members_have_their_own_run(self):
        sim = simulation.Simulation(3)
        rt = sim.runtime
        runs = []

        def _Action():
            runs.append(1)
            rt.clock.sleep(1)
            if len(runs) == 1:
                raise ValueError("broken")
            return len(runs)

        def _Run():
            _, _, use = self._Batcher(rt, _Action)
            results = []

            def _Member(delay):
                rt.clock.sleep(delay)
                try:
                    results.append(use())
                except ValueError as err:
                    results.append(str(err))

            _RunThreads(rt, [lambda d=delay: _Member(d) for delay in (0, 0.2, 0.4)])
            assert results == ["broken", 2, 2]

        sim.Run(_Run)

    def test_statistics(self, rt):
        batcher, cond, use = self._Batcher(rt, lambda: None)
        use()
        use()
        with cond:
            assert batcher.GetStatistics() == {"runs": 2, "served": 2}


class _Result:
    def __init__(self, fail_msg=None):
        self.fail_msg = fail_msg


class _Copies(fake.FakeDistributor):
    """Nodes with copies of the file."""

    def __init__(self):
        super().__init__()
        self.rt = None
        self.copies = {}
        self.whole = []

    def UploadConfig(self, path, addresses, timeout):
        results = super().UploadConfig(path, addresses, timeout)
        for name, problem in results.items():
            if problem is None:
                self.whole.append(name)
                self.copies[name] = self.rt.files.read(path)
        return results

    def UpdateConfig(self, change, addresses, timeout):
        self.changes.append(change)
        results, unfit = self._Answer(addresses, timeout), set()
        for name, problem in results.items():
            if problem is None:
                new = filedelta.Apply(change.instructions, self.copies[name], change.checksum)
                if new is None:
                    unfit.add(name)
                else:
                    self.copies[name] = new
        return results, unfit


class TestWhatCandidatesGet:
    """Architecture, durability: candidates are not sent what they have."""

    def _Open(self, rt, instances):
        nodes = _Copies()
        nodes.rt = rt
        cfg = fake.NewWriter(rt, 3, distributor=nodes)
        for number in range(instances):
            fake.AddInstance(cfg, f"inst{number}.example.com", fake.NodeName(1))
        nodes.whole.clear()
        nodes.changes.clear()
        return cfg, nodes

    def _Flip(self, cfg, number):
        instance = cfg.GetInstanceInfo(f"inst{number}.example.com")
        instance.beparams = {"memory": instance.serial_no + 100}
        cfg.Update(instance, None)

    def _Check(self, rt, nodes):
        content = rt.files.read(pathutils.CLUSTER_CONF_FILE)
        assert nodes.copies == {fake.NodeName(2): content, fake.NodeName(3): content}

    def test_only_what_changed(self, rt):
        cfg, nodes = self._Open(rt, 300)
        for number in (0, 150, 299, 150):
            self._Flip(cfg, number)
            self._Check(rt, nodes)
        assert nodes.whole == []
        sizes = [len(str(change.instructions)) for change in nodes.changes]
        one = len(serializer.Dump(cfg.GetInstanceInfo("inst0.example.com").ToDict(), indent=True))
        assert max(sizes) < 3 * one
        assert len(rt.files.read(pathutils.CLUSTER_CONF_FILE)) > 250 * one

    def test_added_and_removed(self, rt):
        cfg, nodes = self._Open(rt, 150)
        cfg.RemoveInstance("inst70.example.com")
        fake.AddInstance(cfg, "another.example.com", fake.NodeName(2))
        cfg.AddNode(fake.NewNode(4, master_candidate=False), None)
        self._Check(rt, nodes)
        assert nodes.whole == []
        assert max(len(str(change.instructions)) for change in nodes.changes) < 8000

    def test_a_copy_that_is_another(self, rt):
        """It answers so, and gets the whole file in the same round."""
        cfg, nodes = self._Open(rt, 5)
        copy = nodes.copies[fake.NodeName(2)]
        nodes.copies[fake.NodeName(2)] = copy.replace(b"inst0", b"instO")
        self._Flip(cfg, 1)
        self._Check(rt, nodes)
        assert nodes.whole == [fake.NodeName(2)]
        self._Flip(cfg, 2)
        assert nodes.whole == [fake.NodeName(2)]

    def test_one_that_missed_some(self, rt):
        cfg, nodes = self._Open(rt, 5)
        nodes.Cut(fake.NodeName(3))
        for number in range(3):
            self._Flip(cfg, number)
        nodes.Mend(fake.NodeName(3))
        cfg.DistributeStale()
        self._Check(rt, nodes)
        assert nodes.whole == [fake.NodeName(3)]

    def test_after_a_restart(self, rt):
        """Nothing is known of the copies then."""
        _, nodes = self._Open(rt, 5)
        cfg = fake.OpenWriter(rt, nodes)
        self._Flip(cfg, 1)
        assert sorted(nodes.whole) == [fake.NodeName(2), fake.NodeName(3)]
        self._Flip(cfg, 1)
        assert len(nodes.whole) == 2
        self._Check(rt, nodes)


class TestRpcDistributor:
    """The real carrier makes the two calls, by address, all nodes at once."""

    def test_calls(self, monkeypatch):
        from ganeti import rpc

        calls = []

        class _Runner:
            @staticmethod
            def call_upload_file(nodes, path, address_list, timeout):
                calls.append(("upload", nodes, path, address_list, timeout))
                return {nodes[0]: _Result(), nodes[1]: _Result("timed out")}

            @staticmethod
            def call_write_ssconf_files(nodes, values, address_list, timeout):
                calls.append(("ssconf", nodes, values, address_list, timeout))
                return {node: _Result() for node in nodes}

        monkeypatch.setattr(rpc, "RpcRunner", _Runner)
        carrier = distribution.RpcDistributor()
        uploaded = carrier.UploadConfig("/p", {"a": "1", "b": "2"}, 3.0)
        assert uploaded == {"a": None, "b": "timed out"}
        assert carrier.WriteSsconf({"k": "v"}, {"a": "1"}, 4.0) == {"a": None}
        assert calls == [
            ("upload", ["a", "b"], "/p", ["1", "2"], 3.0),
            ("ssconf", ["a"], {"k": "v"}, ["1"], 4.0),
        ]

    def test_change(self, monkeypatch):
        """Who answers that it has another copy is to get the whole file; who is silent, not."""
        from ganeti import rpc

        class _Runner:
            @staticmethod
            def call_config_update(nodes, serials, instructions, checksum, address_list, timeout):
                assert (serials, instructions, checksum) == ([7, 8], [[0, 5], "x"], 99)
                assert (address_list, timeout) == (["1", "2", "3"], 3.0)
                return {
                    nodes[0]: rpc.RpcResult([True, None]),
                    nodes[1]: rpc.RpcResult([False, "another version"]),
                    nodes[2]: rpc.RpcResult("timed out", failed=True),
                }

        monkeypatch.setattr(rpc, "RpcRunner", _Runner)
        results, unfit = distribution.RpcDistributor().UpdateConfig(
            filedelta.Delta(7, 8, [[0, 5], "x"], 99), {"a": "1", "b": "2", "c": "3"}, 3.0
        )
        assert results["a"] is None
        assert unfit == {"b"}
        assert "timed out" in results["c"]

    def test_a_file_that_can_not_be_read_fails_nobodys_change(self):
        results = distribution.RpcDistributor().UploadConfig("/nonexistent/f", {"a": "1"}, 1.0)
        assert list(results) == ["a"]
        assert "can't be read" in results["a"]
