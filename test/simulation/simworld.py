"""A whole master in a simulated world: clients, jobs, locks, configuration, nodes; and what must
always hold of them.

C{World(seed).Run()} lets a few clients send random jobs to a master whose nodes fail at random,
then lets everything become well again, waits for the end of all jobs and compares. All of it, the
order of the threads included, comes from the seed.
"""

from __future__ import annotations

import logging
from collections import Counter
from unittest import mock

from simmaster import CountingProcessor, SimMaster, Violation, WriteCluster
from simnodes import DrawEpisodes, SimNodes
from simwork import OpMaker

from ganeti import (
    constants,
    errors,
    jstore,
    mcpu,
    objects,
    opcodes,
    pathutils,
    serializer,
)
from ganeti.config import fake as config_fake
from ganeti.jqueue import CalcJobStatus, QueuedJob
from ganeti.runtime.fake import FakeRandom
from ganeti.runtime.simulation import Simulation

#: Seconds of virtual time after which a job that has not ended is said to hang. A job that blocks
#: has tried for two and a half minutes before, and stands behind others that did.
PATIENCE = 3000.0

_ONE_STEP = {}
for (_old, _event), _new in constants.OP_TRANSITIONS.items():
    _ONE_STEP.setdefault(_old, set()).add(_new)


def _Reachable():
    """Which statuses an opcode may have some time after which."""
    result = {status: {status} for status in constants.OP_STATUS_ALL}
    for _ in result:
        for reached in result.values():
            for status in list(reached):
                reached |= _ONE_STEP.get(status, set())
    return result


REACHABLE = _Reachable()

#: Errors that no job may end with here, where every disk works.
_NEVER = frozenset(["ConfigurationError", "JobQueueError", "LockError", "ProgrammerError"])


class Immortal:
    """A process that no test ends."""

    def CheckAlive(self):
        """It is."""


class World:
    """One cluster and the books that are kept about it.

    @ivar accepted: id -> comments of its opcodes, of each job whose id was returned
    @ivar runs: comment -> how often its logical unit began its work
    """

    NODES = 3
    #: Wanted number of candidates; None = drawn.
    pool_size = None

    def __init__(self, seed, faults=None, jobs=None):
        self.seed = seed
        self.rng = FakeRandom(seed * 2 + 1)
        # A scheduler that seldom takes the baton away finds other things than one that always does.
        self.sim = Simulation(
            seed, max_switches=50_000, preempt=self.rng.choice([0.05, 0.2, 0.5, 1.0])
        )
        self.rt = self.sim.runtime
        names = [config_fake.NodeName(number) for number in range(1, self.NODES + 1)]
        self.nodes = SimNodes(names, seed * 2)
        self.nodes.Attach(self.rt, Immortal())
        self.faults = self.rng.random() < 0.6 if faults is None else faults
        if self.faults:
            self.nodes.episodes = DrawEpisodes(self.rng, names, 40.0)
        self.maker = OpMaker(self.rng, self.NODES)
        self.jobs = self.rng.randint(3, 9) if jobs is None else jobs
        self.workers = self.rng.choice([1, 2, 3, 6])
        #: Seconds that a client waits between what it does.
        self.pace = self.rng.choice([0.0, 0.5, 3.0, 6.0])
        self.accepted = {}
        self.runs = Counter()
        self.drained_ever = False
        self.archived = set()
        self.statuses = {}
        self.master = None
        self.done = False
        self.tainted = set()

    # The run

    def Run(self):
        """Let it happen.

        @raise Exception: whatever went wrong, with the seed
        """
        with mock.patch.object(mcpu, "Processor", CountingProcessor):
            try:
                self.sim.Run(self._Main)
            except BaseException as err:
                err.add_note(f"World({self.seed})")
                raise

    def _Main(self):
        pool_size = self.pool_size or self.rng.randint(1, self.NODES)
        WriteCluster(self.rt, self.NODES, pool_size, [constants.HT_FAKE, constants.HT_KVM])
        self._AddFirstInstances()
        self.first_config = self.rt.files.read(pathutils.CLUSTER_CONF_FILE)
        self.StartMaster()
        clients = [
            self.rt.threads.start(self._Client, (number,), name=f"client{number}")
            for number in range(self.rng.randint(1, 3))
        ]
        self.rt.threads.start(self._Monitor, name="monitor")
        self.rt.threads.start(self._ServeStaleNodes, name="stale")
        for client in clients:
            client.join()
        self.Settle()

    def StartMaster(self):
        """A master daemon begins with what is on the disk."""
        self.master = SimMaster(self.rt, self.nodes, self, self.workers)
        self.master.jobqueue.Start()

    def _AddFirstInstances(self):
        """Some that there are already, each with a disk."""
        cfg = config_fake.OpenWriter(self.rt)
        for name in self.maker.instances:
            if self.rng.random() < 0.3:
                continue
            node_name = config_fake.NodeName(self.rng.randint(1, self.NODES))
            up = self.rng.choice([True, False])
            paths = [
                f"{cfg.GetFileStorageDir()}/{name}/disk{index}"
                for index in range(self.rng.randint(1, 2))
            ]
            disks = [
                objects.Disk(
                    dev_type=constants.LD_FILE,
                    size=100,
                    mode=constants.DISK_RDWR,
                    iv_name=f"disk/{index}",
                    logical_id=("loop", path),
                )
                for index, path in enumerate(paths)
            ]
            config_fake.AddInstance(
                cfg,
                name,
                node_name,
                admin_up=up,
                disks=disks,
                disk_template=constants.DT_FILE,
                os="noop+default",
            )
            node = self.nodes.nodes[node_name]
            node.disks.update(paths)
            if up:
                node.running[name] = 128
                node.active.update(paths)

    def NoteRun(self, op):
        """The logical unit of an opcode begins; told by the processor."""
        self.runs[op.comment] += 1
        if self.runs[op.comment] > 1:
            raise Violation(f"{op.comment} ({op.Summary()}) runs a second time")

    def _ServeStaleNodes(self):
        while not self.done:
            self.master.cfg.DistributeStale()
            self.rt.clock.sleep(30.0)

    # Clients

    def _Client(self, number):
        queue = self.master.jobqueue
        for _ in range(self.jobs):
            action = self.rng.random()
            if action < 0.5:
                self._Submit()
            elif action < 0.58:
                self._SubmitMany()
            elif action < 0.67:
                queue.CancelJob(self._AnyJob())
            elif action < 0.78:
                self._Archive()
            elif action < 0.86:
                queue.ChangeJobPriority(self._AnyJob(), self.rng.choice([-15, 0, 15]))
            elif action < 0.89:
                self._Drain(number)
            elif action < 0.93:
                queue.QueryJobs(None, ["id", "status", "opresult", "wait_reason"])
            else:
                self._Follow(self._AnyJob())
            if self.rng.random() < 0.6:
                self.rt.clock.sleep(self.rng.uniform(0.0, self.pace))
        if self.rng.random() < 0.5:
            self._Follow(self._AnyJob())

    def _AnyJob(self):
        """One of the last few, as a rule: there, more happens."""
        known = list(self.accepted)
        return self.rng.choice(known[-self.rng.choice([1, 3, 100]) :]) if known else "1"

    def _Depends(self):
        if not self.accepted or self.rng.random() < 0.6:
            return None
        states = self.rng.choice([[], ["success"], ["success", "error"], ["canceled"]])
        return [[int(self._AnyJob()), states]]

    def _Submit(self):
        ops = [self.maker.Draw(self._Depends())]
        if self.rng.random() < 0.25:
            ops.append(self.maker.Draw())
        try:
            job_id = self.master.jobqueue.SubmitJob(ops)
        except errors.JobQueueDrainError:
            if not self.drained_ever:
                raise
        else:
            self.Accept(job_id, [op.comment for op in ops])

    def Accept(self, job_id, comments):
        """A client was told the id of its job."""
        self.accepted[job_id] = comments

    def _SubmitMany(self):
        jobs = [[self.maker.Draw(self._Depends())] for _ in range(self.rng.randint(1, 3))]
        jobs.append([self.maker.Draw([[-self.rng.randint(1, len(jobs)), []]])])
        for job, (ok, value) in zip(jobs, self.master.jobqueue.SubmitManyJobs(jobs), strict=True):
            if ok:
                self.Accept(value, [op.comment for op in job])
            elif "drain" not in value or not self.drained_ever:
                raise Violation(f"job refused: {value}")

    def _Archive(self):
        queue = self.master.jobqueue
        if self.rng.random() < 0.5:
            job_id = self._AnyJob()
            if queue.ArchiveJob(job_id):
                self.archived.add(job_id)
        else:
            queue.AutoArchiveJobs(self.rng.choice([-1, 5]), 20)

    def _Drain(self, number):
        if number == 0:
            self.drained_ever = True
            self.master.jobqueue.SetDrainFlag(True)
            self.rt.clock.sleep(2.0)
        self.master.jobqueue.SetDrainFlag(False)

    def _Follow(self, job_id):
        """Wait for a job, as a client does; it must never go backwards."""
        queue = self.master.jobqueue
        fields = ["status", "opstatus"]
        info, serial, last = None, -1, None
        while True:
            change = queue.WaitForJobChanges(job_id, fields, info, serial, 29)
            if change is None:
                return
            if change == constants.JOB_NOTCHANGED:
                continue
            info, entries = change
            for entry in entries:
                if entry[0] <= serial:
                    raise Violation(f"job {job_id}: log entry {entry[0]} after {serial}")
                serial = entry[0]
            status, statuses = info
            if status != CalcJobStatus(statuses):
                raise Violation(f"job {job_id} is {status}, but {statuses}")
            self._CheckSteps(job_id, last, statuses)
            last = statuses
            if status in constants.JOBS_FINALIZED:
                if self.rng.random() < 0.5 and queue.ArchiveJob(job_id):
                    self.archived.add(job_id)
                return
            if status == constants.JOB_STATUS_CANCELING:
                # Answered at once, over and over.
                self.rt.clock.sleep(0.1)

    # What must hold at any time

    @staticmethod
    def _CheckSteps(job_id, before, after):
        for old, new in zip(before or after, after, strict=True):
            if new not in REACHABLE[old]:
                raise Violation(f"job {job_id}: an opcode went from {old} to {new}")

    def _Monitor(self):
        while not self.done:
            # Never at the same moment as anybody else: all others sleep when this wakes up.
            self.rt.clock.sleep(self.rng.uniform(0.01, 4.0))
            self.CheckNow()

    def CheckNow(self):
        """All that must hold while everybody sleeps."""
        queue = self.master.jobqueue
        if queue.mutex.locked():
            raise Violation("somebody sleeps with the mutex of the queue")
        if self.master.cfg._engine.lock._lock.locked():
            raise Violation("somebody sleeps with the mutex of the configuration")
        self.master.glm.CheckSettled()
        for job in queue._jobs.values():
            job._CheckInvariants()
            statuses = [op.status for op in job.ops]
            self._CheckSteps(job.id, self.statuses.get(job.id), statuses)
            self.statuses[job.id] = statuses

    # The end

    def Settle(self):
        """Everything becomes well, everything ends; then all books must agree."""
        self.nodes.Heal()
        self.master.jobqueue.SetDrainFlag(False)
        self.WaitForJobs()
        self.master.cfg.DistributeStale()
        self.tainted |= self._TaintedInstances()
        self.CheckJobs()
        self.CheckTags()
        self.CheckLocks()
        self._BringNodesBack()
        self.CheckCluster(self.tainted)
        self._Repair()
        self.CheckCluster(set())
        self.CheckConfiguration()
        self.CheckCopies()
        self.done = True
        self.master.jobqueue.Shutdown()
        self.CheckLocks()
        self.CheckFiles()

    def WaitForJobs(self):
        """Until no job is left that has not ended."""
        clock = self.rt.clock
        end = clock.monotonic() + PATIENCE
        queue = self.master.jobqueue
        while True:
            left = [job for job in queue._jobs.values() if not job.final or job.claimed is not None]
            if not left:
                # What the last of them does after its end.
                clock.sleep(1.0)
                return
            if clock.monotonic() > end:
                waits = [(job, job.lock_status, job.claimed) for job in left]
                raise Violation(f"never ended: {waits}\n{self.sim.Describe()}")
            clock.sleep(3.0)

    def Do(self, op):
        """One more job, which must succeed."""
        queue = self.master.jobqueue
        self.maker.Finish(op)
        op.dry_run = False
        job_id = queue.SubmitJob([op])
        self.accepted[job_id] = [op.comment]
        self.WaitForJobs()
        ((status, result),) = queue.QueryJobs([job_id], ["status", "opresult"])
        if status != constants.JOB_STATUS_SUCCESS:
            raise Violation(f"{op.Summary()} on a cluster that is well: {status}, {result}")

    def _TaintedInstances(self):
        """Instances of which not everything can be known: a node was not well for one of their
        jobs.
        """
        jobs = {label.partition("/")[0].removeprefix("Job ") for label in self.nodes.disturbed}
        return {
            name
            for job_id in jobs
            for comment in self.accepted.get(job_id, ())
            if (name := getattr(self.maker.made[comment], "instance_name", None)) is not None
        }

    def _BringNodesBack(self):
        for node in self.master.cfg.GetAllNodesInfo().values():
            if node.offline:
                self.Do(
                    opcodes.OpNodeSetParams(
                        node_name=node.name, force=False, auto_promote=False, offline=False
                    )
                )

    def _Repair(self):
        """What watcher and administrator would do about instances that met a bad node."""
        for name, instance in sorted(self.master.cfg.GetAllInstancesInfo().items()):
            node = self.nodes.nodes[instance.primary_node]
            paths = {disk.logical_id[1] for disk in instance.disks}
            if name in self.tainted:
                # Lost disks: copied back.
                node.disks |= paths
                for path in self._PathsOf(name) - paths:
                    node.disks.discard(path)
                    node.active.discard(path)
                node.active &= node.disks
            if instance.admin_up and (
                name not in node.running or (paths and not paths & node.active)
            ):
                self.Do(opcodes.OpInstanceStartup(instance_name=name, force=False))
            elif not instance.admin_up and (name in node.running or paths & node.active):
                self.Do(opcodes.OpInstanceShutdown(instance_name=name, timeout=10))
        for name in self.tainted - set(self.master.cfg.GetInstanceList()):
            for node in self.nodes.nodes.values():
                node.running.pop(name, None)
                for path in self._PathsOf(name):
                    node.disks.discard(path)
                    node.active.discard(path)
        for name in self.tainted:
            instance = self.master.cfg.GetInstanceInfo(name)
            for node_name, node in self.nodes.nodes.items():
                if instance is not None and node_name == instance.primary_node:
                    continue
                node.running.pop(name, None)
                for path in self._PathsOf(name):
                    node.disks.discard(path)
                    node.active.discard(path)

    def _PathsOf(self, name):
        return {
            path for node in self.nodes.nodes.values() for path in node.disks if f"/{name}/" in path
        }

    def CheckJobs(self):
        """Every accepted job has ended, and its opcodes did what their statuses say."""
        for job, comments in zip(self._AllJobs(), self.accepted.values(), strict=True):
            status = job.CalcStatus()
            if status not in constants.JOBS_FINALIZED:
                raise Violation(f"job {job.id} is {status} in the end")
            if job.end_timestamp is None:
                raise Violation(f"{job!r} has no end")
            if [op.input.comment for op in job.ops] != comments:
                raise Violation(f"{job!r} has other opcodes than it was made of")
            for op in job.ops:
                self._CheckOp(job, op)

    def _CheckOp(self, job, op):
        runs = self.runs[op.input.comment]
        if runs > 1:
            raise Violation(f"{job!r}: {op.input.comment} ran {runs} times")
        started = op.exec_timestamp is not None
        if op.status == constants.OP_STATUS_SUCCESS and not (runs == 1 and started):
            raise Violation(f"{job!r}: {op.input.comment} succeeded without having run")
        if op.status == constants.OP_STATUS_CANCELED and runs and not self._CanInterrupt(op.input):
            raise Violation(f"{job!r}: {op.input.comment} is canceled, but ran")
        if "on which this one depends, does not exist" in str(op.result):
            raise Violation(f"{job!r}: {op.result}, though it was accepted")
        if op.status == constants.OP_STATUS_ERROR and op.result[0] in _NEVER:
            raise Violation(f"{job!r}: {op.result}")
        if op.status == constants.OP_STATUS_ERROR and isinstance(op.result, str):
            # Errors of the suite have a class; a text is what no unit may raise.
            self.CheckFailureText(job, op)

    def CheckFailureText(self, job, op):
        """A result that is no error of the suite: is it allowed?"""
        raise Violation(f"{job!r}: a mistake in the program: {op.result}")

    def CheckTags(self):
        """The tags of cluster and nodes are those that some order of the jobs would leave.

        What counts for a tag is the last change of it; of changes that overlapped, any may be.
        """
        changes = {}
        uncertain = set()
        # Jobs whose id nobody was told, as the daemon died, count as well.
        known = {job.id: job for job in self._AllJobs()} | self.master.jobqueue._jobs
        for job in known.values():
            for op in job.ops:
                if not isinstance(op.input, (opcodes.OpTagsSet, opcodes.OpTagsDel)):
                    continue
                key = (op.input.kind, op.input.name or "", op.input.tags[0])
                if op.status == constants.OP_STATUS_SUCCESS:
                    is_set = isinstance(op.input, opcodes.OpTagsSet)
                    span = (tuple(op.exec_timestamp), tuple(op.end_timestamp))
                    changes.setdefault(key, []).append((span, is_set))
                elif isinstance(op.result, str) and op.exec_timestamp is not None:
                    # Interrupted: it may have got so far, or not.
                    uncertain.add(key)
        cfg = self.master.cfg
        for (kind, name, tag), found in changes.items():
            if kind == constants.TAG_INSTANCE or (kind, name, tag) in uncertain:
                continue
            target = cfg.GetNodeInfo(name) if name else cfg.GetClusterInfo()
            last_start = max(span[0] for span, _ in found)
            allowed = {is_set for span, is_set in found if span[1] >= last_start}
            if (tag in target.GetTags()) not in allowed:
                raise Violation(f"tag {tag} of {name or 'the cluster'}: {found}")

    def _AllJobs(self):
        jobs = self.master.jobqueue._jobs
        for job_id in self.accepted:
            job = jobs.get(int(job_id))
            if job is None:
                data = self.rt.files.read(jstore.GetArchivedJobPath(int(job_id)))
                job = QueuedJob.Restore(data, int(job_id))
            yield job

    @staticmethod
    def _CanInterrupt(op):
        return bool(getattr(op, "interruptible", False))

    def CheckLocks(self):
        """Nothing is left of what jobs held."""
        self.master.glm.CheckFree()
        statistics = self.master.cfg.GetStatistics()
        left = {key: n for key, n in statistics.items() if key.startswith("reserved_") and n}
        if left:
            raise Violation(f"reservations left over: {left}")
        wanted = {
            (kind, name)
            for kind, names in (
                (1, self.master.cfg.GetInstanceList()),
                (2, self.master.cfg.GetNodeList()),
            )
            for name in names
        }
        there = {(level, name) for level in (1, 2) for name in self.master.glm._names(level)}
        if wanted != there:
            raise Violation(f"locks and objects differ: {sorted(wanted ^ there)}")

    def CheckConfiguration(self):
        """It is consistent, every port is used or in the pool, and the file says the same."""
        cfg = self.master.cfg
        # An administrator may ask for fewer candidates than the pool has room for.
        problems = [p for p in cfg.VerifyConfig() if "master candidates, there should" not in p]
        if problems:
            raise Violation(f"the configuration is not consistent: {problems}")
        cluster = cfg.GetClusterInfo()
        instances = cfg.GetAllInstancesInfo().values()
        used = [i.network_port for i in instances if i.network_port]
        used += [
            disk.logical_id[2]
            for i in instances
            for disk in i.disks
            if disk.dev_type == constants.LD_DRBD8
        ]
        ports = sorted([*used, *cluster.tcpudp_port_pool])
        given = list(range(constants.FIRST_DRBD_PORT, cluster.highest_used_port + 1))
        if ports != given and not self.ports_may_be_lost:
            raise Violation(f"ports given out: {given}; used or in the pool: {ports}")
        if len(set(ports)) != len(ports):
            raise Violation(f"a port is used twice: {ports}")

        stored = serializer.Load(self.rt.files.read(pathutils.CLUSTER_CONF_FILE))
        store = cfg._engine.store
        serials = {
            kind: {name: obj.serial_no for name, obj in objs.items()}
            for kind, objs in (("instances", store.instances), ("nodes", store.nodes))
        }
        on_disk = {
            kind: {name: obj["serial_no"] for name, obj in stored[kind].items()} for kind in serials
        }
        if on_disk != serials or stored["cluster"]["serial_no"] != cluster.serial_no:
            raise Violation(f"the file of the configuration has {on_disk}, memory {serials}")

    #: A daemon that died may have had a port in its hands.
    ports_may_be_lost = False

    def CheckCluster(self, ignored):
        """Nodes have what the configuration says, and nothing else.

        @param ignored: instances of which that can not be expected
        """
        wanted = {name: (set(), set()) for name in self.nodes.nodes}
        for name, instance in self.master.cfg.GetAllInstancesInfo().items():
            if name in ignored:
                continue
            running, disks = wanted[instance.primary_node]
            paths = {disk.logical_id[1] for disk in instance.disks}
            disks |= paths
            if instance.admin_up:
                running.add(name)
            node = self.nodes.nodes[instance.primary_node]
            if instance.admin_up and paths and not paths & node.active:
                raise Violation(f"{name} is up, its disks are not")
        for name, node in self.nodes.nodes.items():
            running = {item for item in node.running if item not in ignored}
            disks = {path for path in node.disks if path.split("/")[-2] not in ignored}
            if (running, disks) != wanted[name]:
                raise Violation(
                    f"node {name} has {sorted(running)}, {sorted(disks)}; the configuration says"
                    f" {wanted[name]}"
                )

    def CheckCopies(self):
        """Every candidate has the newest configuration and all of the queue."""
        # Whoever is being tried by the periodic duty just now is left to it.
        for _ in range(5):
            stale = self.master.cfg.DistributeStale()
            if not stale:
                break
            self.rt.clock.sleep(60.0)
        if stale:
            raise Violation(f"nodes lack something though all are well: {stale}")
        content = self.rt.files.read(pathutils.CLUSTER_CONF_FILE)
        queue = self.master.jobqueue
        for name in queue._replicator.GetTargets():
            end = self.rt.clock.monotonic() + 600.0
            while not queue._replicator.WaitSent(name, 60.0) and self.rt.clock.monotonic() < end:
                self.rt.clock.sleep(5.0)
            while (
                queue._replicator.GetStatistics()[name]["pending"]
                and self.rt.clock.monotonic() < end
            ):
                self.rt.clock.sleep(1.0)
            if not queue._replicator.WaitSent(name, 60.0):
                raise Violation(f"candidate {name} is well, but does not get the queue's copies")
        nodes = self.master.cfg.GetAllNodesInfo()
        wanted = {jstore.GetJobPath(job_id): job.Serialize() for job_id, job in queue._jobs.items()}
        targets = set(queue._replicator.GetTargets())
        candidates = {
            name
            for name, node in nodes.items()
            if node.master_candidate and name != config_fake.NodeName(1)
        }
        if targets != candidates:
            raise Violation(f"copies of the queue go to {targets}, candidates are {candidates}")
        for name in sorted(candidates):
            if self.nodes.config.get(name, content) != content:
                raise Violation(f"candidate {name} has another configuration")
            files = self.nodes.files.get(name, {})
            there = {
                path: data
                for path, data in files.items()
                if jstore.ParseJobFileName(path.rpartition("/")[2]) is not None
                and path.rpartition("/")[0] == pathutils.QUEUE_DIR
            }
            if there != wanted:
                different = [
                    path for path in {*there, *wanted} if there.get(path) != wanted.get(path)
                ]
                raise Violation(f"candidate {name} has other jobs: {sorted(different)}")

    def CheckFiles(self):
        """After the end: a power failure changes nothing, the files say what memory said."""
        queue = self.master.jobqueue
        self.rt.files.Crash()
        found = jstore.ListJobIds(self.rt)
        if found != sorted(queue._jobs):
            raise Violation(f"job files {found}, jobs {sorted(queue._jobs)}")
        for job_id, job in queue._jobs.items():
            if self.rt.files.read(jstore.GetJobPath(job_id)) != job.Serialize():
                raise Violation(f"the file of {job!r} says something else")


def RunSeeds(seeds, world=World):
    """Run a world for each of these seeds; logging is off, it is not what is tested here."""
    logging.disable(logging.CRITICAL)
    try:
        for seed in seeds:
            world(seed).Run()
    finally:
        logging.disable(logging.NOTSET)
