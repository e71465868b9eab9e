"""Instances that are created, moved and lost while nodes and masters die; what must hold of them.

C{GuestWorld(seed).Run()} is a cluster through several lives of its master: each works until it is
killed, the last one until its end. Then everything becomes well, an administrator does what the
failed jobs said is to be done, and that has to lead to a good end. All of it comes from the seed.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from unittest import mock

from simdisk import KILLED, POWER_LOSS, Crash, MortalDisk
from simguests import DrawEvents, GuestNodes
from simmaster import CountingProcessor, Violation, WriteCluster
from simwork import OpMaker
from simworld import World

from ganeti import constants, errors, mcpu, opcodes, pathutils
from ganeti.cmdlib import fakedisks, fakemigration
from ganeti.config import fake as config_fake
from ganeti.jqueue import job as jobs
from ganeti.runtime.fake import FakeRandom
from ganeti.runtime.simulation import SimulationError

MASTER = config_fake.NodeName(1)
#: Commands after which what went wrong has to be right again.
MAX_COMMANDS = 6

_COMMAND = re.compile(
    r"gnt-instance (migrate --cleanup|activate-disks|failover|startup|shutdown)([^']*)'"
)
#: Units after whose failure an instance must be as it was, or their text says what is to be done.
_CAREFUL = (opcodes.OpInstanceFailover, opcodes.OpInstanceMigrate, opcodes.OpInstanceMove)
_CANCELABLE = (*_CAREFUL, opcodes.OpInstanceCreate)


class GuestMaker(OpMaker):
    """Draws what happens to instances and, now and then, to their nodes."""

    def __init__(self, rng, nodes, names):
        super().__init__(rng, len(names))
        self.instances = self.instances[: rng.choice([1, 2, 3])]
        self._guests = nodes
        self._names = names
        #: The configuration: who gives commands knows what there is, as a rule.
        self.cfg = None
        kinds = [
            (1, self._CreateGuest),
            (3, self._Startup),
            (3, self._Shutdown),
            (1, self._Remove),
            (1, self._Reboot),
            (2, self._Disks),
            (6, self._Failover),
            (9, self._Migrate),
            (3, self._Cleanup),
            (3, self._Move),
            (5, self._MarkNode),
        ]
        self._kinds = [kind for kind in kinds if rng.random() < 0.75] or kinds
        templates = [
            constants.DT_DISKLESS,
            constants.DT_SHARED_FILE,
            constants.DT_SHARED_FILE,
            constants.DT_DRBD8,
            constants.DT_DRBD8,
            constants.DT_DRBD8,
            constants.DT_FILE,
        ]
        self._templates = rng.sample(templates, 3)
        #: How often the administrator is reckless.
        self._reckless = rng.choice([0.0, 0.0, 0.3])

    def Choose(self, templates, work):
        """Draw nothing but instances with these disk templates, and this work on them."""
        self._templates = list(templates)
        self._kinds = [(1, getattr(self, f"_{name}")) for name in work]
        self._reckless = 0.0

    def Draw(self, depends=None):
        name = self._Instance()
        if self.cfg.GetInstanceInfo(name) is None and self._rng.random() < 0.8:
            op = self._CreateGuest(name)
        else:
            op = None
        return super().Draw(depends) if op is None else self.Finish(op, depends)

    def Finish(self, op, depends=None):
        op = super().Finish(op, depends)
        op.dry_run = False
        return op

    def _CreateGuest(self, name=None):
        """An opcode that creates an instance."""
        choose = self._rng.choice
        template = choose(self._templates)
        first, second = self._rng.sample(self._names, 2)
        return opcodes.OpInstanceCreate(
            instance_name=name or self._Instance(),
            mode=constants.INSTANCE_CREATE,
            disks=[] if template == constants.DT_DISKLESS else [{"size": 100}],
            nics=[],
            start=choose([True, True, True, True, False]),
            wait_for_sync=choose([True, False]),
            ip_check=False,
            name_check=False,
            hvparams={},
            beparams={constants.BE_MEMORY: 128},
            os_type="noop+default",
            disk_template=template,
            hypervisor=choose([constants.HT_FAKE, constants.HT_KVM]),
            pnode=first,
            snode=second if template == constants.DT_DRBD8 else None,
        )

    def _Pick(self, templates):
        """An instance, one with such disks as a rule, and a node that it may go to."""
        infos = [self.cfg.GetInstanceInfo(name) for name in self.instances]
        fit = [info for info in infos if info is not None and info.disk_template in templates]
        if not fit or self._rng.random() < 0.05:
            return self._Instance(), self._rng.choice([None, self._Node()])
        info = self._rng.choice(fit)
        if info.disk_template == constants.DT_DRBD8:
            return info.name, None
        return info.name, self._rng.choice(sorted(set(self._names) - {info.primary_node}))

    def _Failover(self):
        name, target = self._Pick(constants.DTS_MIRRORED)
        return opcodes.OpInstanceFailover(
            instance_name=name,
            ignore_consistency=self._rng.random() < self._reckless,
            shutdown_timeout=10,
            target_node=target,
        )

    def _Migrate(self):
        name, target = self._Pick(constants.DTS_MIRRORED)
        return opcodes.OpInstanceMigrate(
            instance_name=name, live=self._rng.random() < 0.7, cleanup=False, target_node=target
        )

    def _Cleanup(self):
        name, target = self._Pick(constants.DTS_MIRRORED)
        return opcodes.OpInstanceMigrate(
            instance_name=name,
            live=True,
            cleanup=True,
            target_node=self._rng.choice([None, target]),
        )

    def _Move(self):
        name, target = self._Pick([constants.DT_FILE, constants.DT_DISKLESS])
        return opcodes.OpInstanceMove(
            instance_name=name, target_node=target or self._Node(), shutdown_timeout=10
        )

    def _MarkNode(self):
        """Who marks a node as offline has pulled its plug before."""
        nodes = self._guests
        dead = sorted((nodes.dark | nodes.cut) - nodes.held - {MASTER})
        if nodes.held and (not dead or self._rng.random() < 0.5):
            name, offline = self._rng.choice(sorted(nodes.held)), False
            nodes.Release(name)
        elif dead:
            name, offline = self._rng.choice(dead), True
            nodes.Hold(name)
        else:
            return self._Migrate()
        return opcodes.OpNodeSetParams(
            node_name=name, force=False, auto_promote=True, offline=offline
        )


class GuestProcessor(CountingProcessor):
    """Tells the world of the begin and the end of each unit, while its locks are held."""

    def _ExecLU(self, lu):
        world = self.context.world
        world.NoteBegin(lu)
        try:
            result = super()._ExecLU(lu)
        except Exception as err:
            world.NoteEnd(lu, err)
            raise
        world.NoteEnd(lu, None)
        return result


@dataclasses.dataclass
class Record:
    """What is known of an instance beyond the configuration.

    @ivar advice: commands that jobs named since it was in a good state, the last ones first
    @ivar excused: why its state may be anything: an administrator wanted that
    @ivar interrupted: a unit on it did not come to its end
    @ivar half: it was just being created or removed then: it may have lost a disk
    @ivar moving: units on it that may have it open twice
    @ivar twice: it was left open on two nodes, and that was said
    """

    advice: list[str] = dataclasses.field(default_factory=list)
    excused: str = ""
    interrupted: bool = False
    half: bool = False
    moving: int = 0
    twice: bool = False


class Life(World):
    """One life of a master.

    @param story: what all of them have in common
    """

    def __init__(self, story, number):
        super().__init__(story.seed + 1_000_000 * number, faults=False, jobs=story.jobs)
        self.story = story
        self.number = number
        self.last = number == story.deaths
        self.disk = MortalDisk(self.rt.clock.time)
        self.rt = dataclasses.replace(self.rt, files=self.disk)
        self.sim.now = story.now
        self.nodes, self.maker = story.nodes, story.maker
        self.accepted, self.runs = story.accepted, story.runs
        self.ports_may_be_lost = story.deaths > 0
        self.nodes.Attach(self.rt, self.disk)
        self.nodes.watch = self.CheckGuests
        self.nodes.die = self._Die
        self.begun = {}

    def _Die(self):
        self.disk.dead = True

    def Run(self):
        with mock.patch.object(mcpu, "Processor", GuestProcessor):
            try:
                self.sim.Run(self._Main)
            except (Crash, SimulationError) as err:
                if not (isinstance(err, Crash) or isinstance(err.__cause__, Crash)):
                    raise

    def _Main(self):
        if self.number == 0:
            WriteCluster(self.rt, self.NODES, self.NODES, [constants.HT_FAKE, constants.HT_KVM])
        else:
            for path, data in self.story.left.items():
                self.rt.files.write(path, data)
            self.rt.files.mkdir(pathutils.QUEUE_DIR)
            self.rt.files.mkdir(pathutils.JOB_QUEUE_ARCHIVE_DIR)
        self.StartMaster()
        self.maker.cfg = self.master.cfg
        if self.number == 0:
            for name in self.maker.instances:
                self._Submit(self.maker.Finish(self.maker._CreateGuest(name)))
            if self.rng.random() < 0.7:
                self.WaitForJobs()
        if not self.last:
            if self.rng.random() < 0.5:
                self.disk.left = self.disk.steps + self.rng.randint(10, 150)
            else:
                self.nodes.deadline = self.rng.randint(10, 250)
                self.nodes.dies_after = self.rng.random() < 0.5
        clients = [
            self.rt.threads.start(self._Client, (number,), name=f"client{number}")
            for number in range(self.rng.randint(1, 2))
        ]
        self.rt.threads.start(self._Monitor, name="monitor")
        for client in clients:
            client.join()
        if not self.last:
            # It is killed at the latest now, whatever is under way.
            self.rt.clock.sleep(self.rng.uniform(0.0, 20.0))
            self._Die()
            raise Crash
        self.Settle()

    def _Client(self, number):
        queue = self.master.jobqueue
        for _ in range(self.jobs):
            action = self.rng.random()
            if action < 0.9 - self.story.cancels:
                self._Submit(self.maker.Draw())
            elif action < 0.9:
                queue.CancelJob(self._AnyJob())
            else:
                self._Follow(self._AnyJob())
            if self.rng.random() < 0.8:
                self.rt.clock.sleep(self.rng.uniform(0.0, self.pace))

    def _Submit(self, op):
        job_id = self.master.jobqueue.SubmitJob([op])
        self.Accept(job_id, [op.comment])

    def Accept(self, job_id, comments):
        self.disk.CheckAlive()
        super().Accept(job_id, comments)

    # What units do

    def NoteBegin(self, lu):
        """A unit begins; it holds its locks."""
        self.disk.CheckAlive()
        name = getattr(lu.op, "instance_name", None)
        if name is None:
            return
        self.nodes.Advance()
        record = self.story.Record(name)
        instance = self.master.cfg.GetInstanceInfo(name)
        self.begun[lu.op.comment] = (
            self.rt.clock.monotonic(),
            self.Problems(name),
            set(instance.all_nodes) if instance is not None else set(),
            instance.primary_node if instance is not None else None,
        )
        record.interrupted = False
        if isinstance(lu.op, opcodes.OpInstanceCreate) and instance is None:
            record.half = False
        self.story.running[lu.op.comment] = name
        if isinstance(lu.op, opcodes.OpInstanceMigrate):
            record.moving += 1

    def NoteEnd(self, lu, err):
        """A unit has ended; it holds its locks still."""
        self.disk.CheckAlive()
        name = getattr(lu.op, "instance_name", None)
        if name is None:
            return
        self.nodes.Advance()
        record = self.story.Record(name)
        del self.story.running[lu.op.comment]
        begin, before, old_nodes, source = self.begun.pop(lu.op.comment)
        job_id = self._JobOf(lu.op)
        met = {node for job, node in self.nodes.books.met if job == job_id}
        if getattr(lu.op, "ignore_consistency", False) and source in met:
            record.excused = "consistency was ignored"
        if isinstance(lu.op, opcodes.OpInstanceMigrate):
            record.moving -= 1
        if isinstance(lu.op, opcodes.OpInstanceRemove) and isinstance(err, errors.OpExecError):
            record.half = True
        commands = [] if err is None and not met else self._Advice(lu.op, job_id, err)
        problems = self.Problems(name)
        if not problems:
            record.advice.clear()
            record.excused = ""
            return
        if commands:
            record.advice[:0] = commands
        instance = self.master.cfg.GetInstanceInfo(name)
        nodes = old_nodes | (set(instance.all_nodes) if instance is not None else set())
        failed = any(
            time >= begin for node in nodes for time in self.nodes.books.failures.get(node, ())
        )
        new = [item for item in problems if item not in before]
        if new and not commands and not failed and not record.excused:
            what = "succeeded" if err is None else f"failed ({err})"
            if isinstance(lu.op, _CAREFUL) or (err is None and not met):
                self._Raise(f"{lu.op.Summary()} {what}, but {'; '.join(new)}")
        record.twice = record.twice or self._OpenElsewhere(name)

    def _JobOf(self, op):
        for job in self.master.jobqueue._jobs.values():
            if any(item.input.comment == op.comment for item in job.ops):
                return str(job.id)
        raise AssertionError(f"no job has {op.comment}")

    def _Advice(self, op, job_id, err):
        """The commands that the texts of a job name, in order, the certain ones first."""
        job = self.master.jobqueue._jobs[int(job_id)]
        texts = [str(err or "")]
        texts += [
            str(entry[-1]) for item in job.ops if item.input.comment == op.comment
            for entry in item.log
        ]  # fmt: skip
        found = [match for text in texts for match in _COMMAND.findall(text)]
        if "The same command tries it again" in texts[0]:
            found.insert(0, ("migrate --cleanup", ""))
        kinds = ["migrate --cleanup", "activate-disks", "shutdown", "startup", "failover"]
        named = {kind for kind, rest in found if "--ignore-consistency" not in rest}
        return [kind for kind in kinds if kind in named]

    # What must hold

    def Problems(self, name):
        """What is not as it should be with an instance, as the nodes really are."""
        nodes = self.nodes.nodes
        instance = self.master.cfg.GetInstanceInfo(name)
        running = list(fakemigration.FindRunning(nodes, name))
        problems = []
        for what in ("paused", "incoming", "outgoing"):
            problems += [
                f"{what} on {node}" for node, item in nodes.items() if name in getattr(item, what)
            ]
        if instance is None:
            return problems + [f"runs on {node}, but is not configured" for node in running]
        primary = instance.primary_node
        problems += [f"runs on {node}, not on {primary}" for node in running if node != primary]
        if instance.admin_up and not running:
            problems.append("does not run")
        if running and not instance.admin_up:
            problems.append("runs, but is marked down")
        for node, device in self._OpenDevices(name):
            if node != primary:
                problems.append(f"open on {node}")
            if device.network == "dual":
                problems.append(f"dual on {node}")
        return problems

    def _OpenDevices(self, name):
        instance = self.master.cfg.GetInstanceInfo(name)
        ids = [disk.logical_id[:5] for disk in instance.disks] if instance is not None else []
        for (node, key), mirror in self.nodes.mirrors.items():
            device = self.nodes.nodes[node].drbd.get(key)
            if mirror.owner != name or device is None or not device.primary:
                continue
            if instance is None or mirror.logical_id in ids:
                # Not what is left of one that had this name before.
                yield node, device

    def _OpenTwice(self, name):
        return len({node for node, _ in self._OpenDevices(name)}) > 1

    def _OpenElsewhere(self, name):
        instance = self.master.cfg.GetInstanceInfo(name)
        primary = instance.primary_node if instance is not None else None
        return any(
            node != primary or device.network == "dual" for node, device in self._OpenDevices(name)
        )

    def _Raise(self, text):
        """Here jobs, and what they undo with, may catch it: it is not forgotten."""
        self.story.violations.append(text)
        raise Violation(text)

    def CheckGuests(self):
        """After every call, and now and then."""
        nodes = self.nodes.nodes
        for name in self.maker.instances:
            record = self.story.Record(name)
            if record.excused or self._Ignoring(name):
                continue
            running = fakemigration.FindRunning(nodes, name)
            if len(running) > 1:
                self._Raise(f"{name} runs on {' and '.join(running)}")
            if not self._OpenElsewhere(name):
                record.twice = False
            elif not (record.moving or record.twice) and self._OpenTwice(name):
                self._Raise(f"{name} is open for writing on two nodes")
        for name, node in self.nodes.books.stale_starts:
            if not (self.story.Record(name).excused or self._Ignoring(name) or self._IsLost(name)):
                self._Raise(f"{name} was started on old data on {node}")
        self.nodes.books.stale_starts.clear()

    def _IsLost(self, name):
        """Is the newest data on a node that an administrator has given up?"""
        instance = self.master.cfg.GetInstanceInfo(name)
        return instance is not None and bool(set(instance.all_nodes) & self.nodes.held)

    def _Ignoring(self, name):
        """Does a job just now what may have it running twice?"""
        for comment, (_, _, _, source) in self.begun.items():
            op = self.maker.made[comment]
            if op.instance_name == name and getattr(op, "ignore_consistency", False):
                job_id = self._JobOf(op)
                if (job_id, source) in self.nodes.books.met:
                    return True
        return False

    def CheckNow(self):
        super().CheckNow()
        self.nodes.Advance()
        self.CheckGuests()

    def CheckFailureText(self, job, op):
        if op.result != jobs.UNCLEAN_TEXT:
            super().CheckFailureText(job, op)

    @staticmethod
    def _CanInterrupt(op):
        return isinstance(op, _CANCELABLE) or World._CanInterrupt(op)

    # The end

    def Settle(self):
        self.nodes.Heal()
        self.WaitForJobs()
        self.CheckJobs()
        self.CheckLocks()
        self._BringNodesBack()
        for name in self.maker.instances:
            self._PutRight(name)
        for name in self.maker.instances:
            self._CheckSettled(name)
        self.CheckConfiguration()
        self._RemoveAll()
        self.CheckLocks()
        self.CheckConfiguration()
        self._CheckLeft()
        self.done = True
        self.master.jobqueue.Shutdown()

    def _PutRight(self, name):
        """Do what was said is to be done, or else what an administrator would."""
        record = self.story.Record(name)
        instance = self.master.cfg.GetInstanceInfo(name)
        if instance is not None and record.half:
            self.Do(
                opcodes.OpInstanceRemove(
                    instance_name=name, ignore_failures=False, shutdown_timeout=10
                )
            )
            instance = None
        self._StopByHand(name, record, instance)
        if instance is None:
            return
        # The commands alone: each once.
        told = list(dict.fromkeys(record.advice))
        for _ in range(MAX_COMMANDS):
            problems = self.Problems(name)
            if not problems:
                break
            record.advice.clear()
            self._Command(name, told.pop(0) if told else self._Guess(problems))
            told = list(dict.fromkeys(record.advice)) or told
        else:
            problems = self.Problems(name)
            if problems:
                raise Violation(f"{name}: nothing helps against {'; '.join(problems)}")

    def _StopByHand(self, name, record, instance):
        """What only hands can do: one of two that run, and what nobody knows any more."""
        running = list(fakemigration.FindRunning(self.nodes.nodes, name))
        keep = instance.primary_node if instance is not None else None
        if len(running) > 1 or (running and instance is None):
            if not (record.excused or record.interrupted or self._GoneBadly(name)):
                raise Violation(f"{name} runs on {running} in the end")
            for node in running:
                if node != keep:
                    self._Kill(node, name)
        for mirror in self.nodes.mirrors.values():
            devices = self.nodes._Devices(mirror)
            if mirror.owner == name and devices and all(device.degraded for device in devices):
                # Split: somebody has to say whose data counts.
                index = [node for node, _ in mirror.sides].index(keep) if keep else 0
                devices[index].degraded = False
        self.nodes.Advance()

    def _Kill(self, node, name):
        item = self.nodes.nodes[node]
        item.running.pop(name, None)
        item.outgoing.pop(name, None)
        item.incoming.discard(name)
        for device_node, device in self._OpenDevices(name):
            if device_node == node:
                device.primary = False

    def _GoneBadly(self, name):
        """Was it removed though its node could not be asked?"""
        return (
            any(
                op.OP_ID == "OP_INSTANCE_REMOVE"
                and op.ignore_failures
                and op.instance_name == name
                and self.runs[op.comment]
                for op in self.maker.made.values()
            )
            or name in self.story.cleared
        )

    @staticmethod
    def _Guess(problems):
        if any(not item.startswith(("does not run", "runs, but")) for item in problems):
            return "migrate --cleanup"
        return "startup" if "does not run" in problems else "shutdown"

    def _Command(self, name, command):
        instance = self.master.cfg.GetInstanceInfo(name)
        if command == "migrate --cleanup":
            op = opcodes.OpInstanceMigrate(
                instance_name=name, live=True, cleanup=True, target_node=None
            )
        elif command == "startup":
            op = opcodes.OpInstanceStartup(instance_name=name, force=False)
        elif command == "activate-disks":
            op = opcodes.OpInstanceActivateDisks(instance_name=name)
        elif command == "shutdown":
            op = opcodes.OpInstanceShutdown(instance_name=name, timeout=10)
        else:
            target = None
            if instance.disk_template == constants.DT_SHARED_FILE:
                target = min(set(self.nodes.nodes) - {instance.primary_node})
            op = opcodes.OpInstanceFailover(
                instance_name=name,
                ignore_consistency=False,
                shutdown_timeout=10,
                target_node=target,
            )
        self._Try(op)

    def _Try(self, op):
        """One more job; its status."""
        queue = self.master.jobqueue
        self.maker.Finish(op)
        job_id = queue.SubmitJob([op])
        self.accepted[job_id] = [op.comment]
        self.WaitForJobs()
        return queue.QueryJobs([job_id], ["status", "opresult"])[0]

    def _CheckSettled(self, name):
        """It is as the configuration has it, mirrors included."""
        instance = self.master.cfg.GetInstanceInfo(name)
        problems = self.Problems(name)
        if instance is None:
            # Of one that was removed by force nodes may remember that it migrated.
            problems = [item for item in problems if "runs" in item]
        if problems:
            raise Violation(f"{name} in the end: {'; '.join(problems)}")
        if instance is None or not instance.disks:
            return
        for disk in instance.disks:
            for node in disk.GetNodes(instance.primary_node):
                self.master.cfg.SetDiskID(disk, node)
                for part in disk.IterTree():
                    key = fakedisks.DeviceKey(part)
                    item = self.nodes.nodes[node]
                    if key not in self.nodes._Store(item, key).disks:
                        raise Violation(f"{name} has lost {key} on {node}")
        if instance.disk_template != constants.DT_DRBD8:
            return
        self.Do(opcodes.OpInstanceActivateDisks(instance_name=name))
        self.rt.clock.sleep(10.0)
        self.nodes.Advance()
        for mirror in self.nodes.mirrors.values():
            if mirror.logical_id in [disk.logical_id[:5] for disk in instance.disks]:
                devices = self.nodes._Devices(mirror)
                if not self.nodes.Connected(mirror) or any(item.degraded for item in devices):
                    raise Violation(f"{name}: its mirror does not connect: {devices}")

    def _RemoveAll(self):
        for name in self.master.cfg.GetInstanceList():
            self.Do(
                opcodes.OpInstanceRemove(
                    instance_name=name, ignore_failures=False, shutdown_timeout=10
                )
            )

    def _CheckLeft(self):
        """Nodes keep what they could not remove, or what nobody told them to, and nothing else."""
        for node, item in self.nodes.nodes.items():
            if item.running:
                raise Violation(f"{node} has {item.running} when all are removed")
            keys = set(item.disks) | set(item.drbd)
            for key in keys:
                owner = self.nodes.owners[node, key]
                if owner not in self.story.cleared and not self._Met(owner, node):
                    raise Violation(f"{node} still has {key} of {owner}")
        for key in self.nodes.shared.disks:
            owner = key.split("/")[-2]
            if owner not in self.story.cleared and not self._Met(owner, None):
                raise Violation(f"the shared directory still has {key}")

    def _Met(self, name, node):
        """Did a job on an instance meet a node that was not well?"""
        jobs_of = {
            job_id
            for job_id, comments in self.accepted.items()
            for comment in comments
            if getattr(self.maker.made[comment], "instance_name", None) == name
        }
        return any(job in jobs_of and node in (None, where) for job, where in self.nodes.books.met)


class GuestWorld:
    """A cluster through all lives of its master; see the module.

    @ivar left: files that the master which died has left
    @ivar running: comment of each unit that is at work -> its instance
    @ivar cleared: instances on which a unit was at work when its master died
    """

    LIFE = Life
    NODES = Life.NODES

    def __init__(self, seed):
        self.seed = seed
        rng = self.rng = FakeRandom(seed * 2 + 7)
        self.names = [config_fake.NodeName(number) for number in range(1, self.NODES + 1)]
        self.nodes = GuestNodes(self.names, seed * 2)
        self.maker = GuestMaker(rng, self.nodes, self.names)
        self.deaths = rng.choice([0, 0, 0, 1, 2])
        self.jobs = rng.randint(5, 16) // (self.deaths + 1) + 1
        if rng.random() < 0.6:
            self.nodes.events = DrawEvents(rng, self.names[1:], 80.0)
        self.accepted, self.running, self.records = {}, {}, {}
        self.runs = Counter()
        self.cleared = set()
        self.left = {}
        self.violations = []
        #: Of what clients do.
        self.cancels = 0.15
        self.now = 0.0
        self.life = None

    def Record(self, name):
        """What is known of an instance."""
        return self.records.setdefault(name, Record())

    def Run(self):
        """Let it happen.

        @raise Exception: whatever went wrong, with the seed
        """
        try:
            for number in range(self.deaths + 1):
                self.life = self.LIFE(self, number)
                self.life.Run()
                if self.violations:
                    raise Violation(self.violations[0])
                if self.life.disk.dead:
                    self._Bury()
        except BaseException as err:
            err.add_note(f"{type(self).__name__}({self.seed})")
            raise

    def _Bury(self):
        life = self.life
        power_loss = self.rng.random() < 0.4
        self.now = life.sim.now + self.rng.uniform(1.0, 30.0)
        self.left = life.disk.Left(POWER_LOSS if power_loss else KILLED, self.rng)
        if power_loss:
            self.nodes.PowerOff(MASTER)
            self.nodes.Release(MASTER)
        for comment, name in self.running.items():
            record = self.Record(name)
            record.interrupted = True
            record.advice.clear()
            op = self.maker.made[comment]
            if isinstance(op, opcodes.OpInstanceMigrate):
                record.twice = True
            if isinstance(op, opcodes.OpInstanceCreate | opcodes.OpInstanceRemove):
                record.half = True
            self.cleared.add(name)
        for record in self.records.values():
            record.moving = 0
        self.running.clear()
        self.nodes.deadline = None
        self.nodes._checks.clear()
