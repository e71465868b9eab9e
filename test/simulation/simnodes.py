"""Node daemons that answer, hang, refuse, vanish or lose their answers, as a seed has it."""

from __future__ import annotations

from dataclasses import dataclass

from ganeti import locking, rpc
from ganeti.cmdlib import fake as cmdlib_fake
from ganeti.config.distribution import Results
from ganeti.runtime.fake import FakeRandom
from ganeti.utils import filedelta

#: The connection is refused at once.
DEAD = "dead"
#: No answer until the caller gives up.
HANGS = "hangs"
#: It answers that it can not.
REFUSES = "refuses"
#: It does what it was asked, but the answer does not arrive.
LOSES = "loses"

KINDS = (DEAD, HANGS, REFUSES, LOSES)

#: Seconds until a caller gives up.
RPC_TIMEOUT = 7.0


@dataclass(frozen=True)
class Episode:
    """Seconds of virtual time during which a node is not well."""

    start: float
    end: float
    kind: str


def DrawEpisodes(rng, names, span):
    """What happens to which node, and when.

    @param span: seconds in which all of it begins
    """
    result = {}
    for name in names:
        episodes = []
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            start = rng.uniform(0.0, span)
            episodes.append(Episode(start, start + rng.uniform(0.5, 20.0), rng.choice(KINDS)))
        result[name] = episodes
    return result


class SimNodes(cmdlib_fake.FakeNodes):
    """All nodes of a cluster, for one simulated master daemon after the other.

    @ivar episodes: node -> when it is not well
    @ivar disturbed: labels of the callers that met a node which was not well
    @ivar alive: False once the calling process is dead; whatever it still does has no effect
    @ivar config: node -> its copy of the configuration
    """

    def __init__(self, names, seed):
        super().__init__(names)
        self._rng = FakeRandom(seed)
        #: Seconds that an answer may take.
        self.latencies = self._rng.choice([[0.002, 0.05], [0.01, 0.3], [0.05, 3.0]])
        self.episodes = {}
        self.disturbed = set()
        self.config = {}
        self.ssconf = {}
        self._rt = None
        self._process = None

    def Attach(self, rt, process):
        """Another process makes the calls from now on.

        @param process: its C{CheckAlive} raises once it is dead
        """
        self._rt = rt
        self._process = process

    def Heal(self):
        """All nodes are well from now on."""
        super().Heal()
        self.episodes = {}

    def _Kind(self, name):
        now = self._rt.clock.monotonic()
        for episode in self.episodes.get(name, ()):
            if episode.start <= now < episode.end:
                return episode.kind
        return None

    def _Disturb(self):
        self.disturbed.add(locking.GetOwnerLabel(self._rt))

    def _Answer(self, call, name, payload=None):
        self._process.CheckAlive()
        if self._rng.random() < 0.7:
            self._rt.clock.sleep(self._rng.choice(self.latencies))
        kind = self._Kind(name)
        if kind == HANGS:
            self._rt.clock.sleep(RPC_TIMEOUT)
        self._process.CheckAlive()
        if kind in (DEAD, HANGS):
            self._Disturb()
            return rpc.RpcResult(f"{name} does not answer", failed=True, call=call, node=name)
        if kind == REFUSES:
            self._Disturb()
            return rpc.RpcResult([False, "out of order"], call=call, node=name)
        return super()._Answer(call, name, payload)

    def _Lose(self, call, results):
        """The node did it; does anybody learn of it?"""
        for name, result in results.items():
            if not result.fail_msg and self._Kind(name) == LOSES:
                self._Disturb()
                results[name] = rpc.RpcResult("answer lost", failed=True, call=call, node=name)
        return results

    def _One(self, call, name, fn):
        if self.offline(name):
            # So said an administrator: it is not even asked.
            self._Disturb()
        return self._Lose(call, {name: super()._One(call, name, fn)})[name]

    def call_jobqueue_update_many(self, node_list, address_list, files):
        results = super().call_jobqueue_update_many(node_list, address_list, files)
        return self._Lose("jobqueue_update_many", results)

    def call_jobqueue_rename(self, node_list, address_list, rename):
        results = super().call_jobqueue_rename(node_list, address_list, rename)
        return self._Lose("jobqueue_rename", results)

    def call_test_delay(self, node_list, duration):
        self._process.CheckAlive()
        self._rt.clock.sleep(duration)
        return super().call_test_delay(node_list, duration)

    # The distributor of the configuration

    def UploadConfig(self, path, addresses, _timeout) -> Results:
        """As C{Distributor.UploadConfig}: the file as it is when it is read."""
        data = self._rt.files.read(path)
        results = {name: self._Answer("upload_file", name) for name in addresses}
        for name, result in results.items():
            if not result.fail_msg:
                self.config[name] = data
        return _Texts(self._Lose("upload_file", results))

    def UpdateConfig(self, change, addresses, _timeout):
        """As C{Distributor.UpdateConfig}."""
        results = {name: self._Answer("config_update", name) for name in addresses}
        unfit = set()
        for name, result in results.items():
            if result.fail_msg:
                if result.data is not None:
                    unfit.add(name)
                continue
            new = filedelta.Apply(change.instructions, self.config[name], change.checksum)
            if new is None:
                unfit.add(name)
                results[name] = rpc.RpcResult(
                    [False, "another version"], call="config_update", node=name
                )
            else:
                self.config[name] = new
        return _Texts(self._Lose("config_update", results)), unfit

    def WriteSsconf(self, values, addresses, _timeout) -> Results:
        """As C{Distributor.WriteSsconf}."""
        results = {name: self._Answer("write_ssconf_files", name) for name in addresses}
        for name, result in results.items():
            if not result.fail_msg:
                self.ssconf[name] = dict(values)
        return _Texts(self._Lose("write_ssconf_files", results))


def _Texts(results) -> Results:
    return {
        name: str(result.fail_msg) if result.fail_msg else None for name, result in results.items()
    }
