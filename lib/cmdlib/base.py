"""What every logical unit is made of: life cycle, locks, names, messages.

A logical unit (LU) is the code behind one opcode. L{mcpu.Processor <ganeti.mcpu.Processor>} makes
a new object for every attempt to get its locks and calls, in this order:
L{LogicalUnit.CheckArguments}, L{LogicalUnit.ExpandNames}, L{LogicalUnit.DeclareLocks} (once for
each level that has an entry), L{LogicalUnit.CheckPrereq}, L{LogicalUnit.BuildHooksEnv},
L{LogicalUnit.Exec}, L{LogicalUnit.HooksCallBack}. Everything a unit may use is handed to it: its
opcode, the configuration, the RPC runner, its locks and the feedback function.

Because a unit is built anew from the I{same} opcode for each attempt, argument checks and name
expansion run again on values that they have normalized already: they must be idempotent.

Interface: LogicalUnit, NoHooksLU and Tasklet of Ganeti 2.1; names of LU classes are those of 2.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .. import errors, locking
from ..utils import params, text
from . import announce

if TYPE_CHECKING:
    from .. import config, mcpu, objects, opcodes, rpc, runtime, ssh

#: Takes a text (or a message type and a text) to the job's log.
FeedbackFn = Callable[..., None]

#: Environment, nodes of the pre phase, nodes of the post phase.
HooksEnv = tuple[dict[str, Any], Sequence[str], Sequence[str]]

#: For C{recalculate_locks}: what L{LogicalUnit._LockInstancesNodes} does with the nodes it finds.
LOCKS_REPLACE = "replace"
LOCKS_APPEND = "append"

_UNIT_NAME_PREFIX = "LU"


class Context(Protocol):
    """What there is once in a master daemon, handed to whoever runs opcodes."""

    @property
    def cfg(self) -> config.ConfigWriter:
        """The configuration."""

    @property
    def glm(self) -> locking.GanetiLockManager:
        """All locks."""

    @property
    def jobqueue(self) -> Any:
        """The job queue."""

    @property
    def rpc(self) -> rpc.RpcRunner:
        """Calls to node daemons."""

    @property
    def runtime(self) -> runtime.Runtime:
        """The outside world."""

    def AddNode(self, node: objects.Node, ec_id: str | None) -> None:
        """Take a new node into configuration, job queue replication and locks, in this order."""

    def ReaddNode(self, node: objects.Node) -> None:
        """Bring the job queue of a node in line with its role."""

    def RemoveNode(self, name: str) -> None:
        """Drop a node from configuration, job queue replication and locks, in this order."""


class LogicalUnit:
    """Base of all logical units.

    A unit says which locks it needs, and one that says nothing does not load: a class named
    C{LU...} must either set C{REQ_BGL = True} or have its own L{ExpandNames}.

    Steering attributes, all keyed by lock level (C{locking.LEVEL_INSTANCE}, C{LEVEL_NODE}):

    @ivar needed_locks: level -> list of names, one name, or C{locking.ALL_SET}; a level without an
        entry needs none and L{DeclareLocks} is not called for it; C{{}} = no locks at all
    @ivar share_locks: level -> true to acquire shared (default: all exclusive)
    @ivar add_locks: level -> names of I{new} locks, created and held
    @ivar remove_locks: level -> names removed from the lock manager when the level ends; delete the
        entry once the object is safely in the configuration
    @ivar acquired_locks: level -> names got (filled in by the processor)
    @ivar recalculate_locks: level -> C{LOCKS_REPLACE} or C{LOCKS_APPEND}, consumed by
        L{_LockInstancesNodes}
    @ivar tasklets: set in L{ExpandNames} or L{DeclareLocks}: what L{CheckPrereq} and L{Exec}
        consist of; None = the unit has its own
    @ivar dry_run_result: what a dry run returns; set by L{CheckPrereq}
    @ivar unchecked: what only a real run can check, for the report of a dry run

    In a dry run all but L{Exec} runs, with a context through which nothing can be changed
    (L{dryrun}); then L{DescribeChanges} tells what L{Exec} would do.
    """

    #: Directory base of the hooks, and type of the object; None = no hooks.
    HPATH: ClassVar[str | None] = None
    HTYPE: ClassVar[str | None] = None
    #: Must the unit run alone (Big Ganeti Lock held exclusively)?
    REQ_BGL: ClassVar[bool] = False
    #: Does its work change nothing? Then a dry run has nothing to announce.
    LOOKS_ONLY: ClassVar[bool] = False
    #: Parameters that must be there and not None, beyond what the opcode itself declares.
    _OP_REQP: ClassVar[Sequence[str]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if (
            cls.__name__.startswith(_UNIT_NAME_PREFIX)
            and not cls.REQ_BGL
            and cls.ExpandNames is LogicalUnit.ExpandNames
        ):
            raise TypeError(
                f"{cls.__name__} declares no locks: write ExpandNames() or set REQ_BGL = True"
            )

    def __init__(
        self,
        processor: mcpu.Processor,
        op: opcodes.OpCode,
        context: Context,
        rpc_runner: rpc.RpcRunner,
    ) -> None:
        """Take over what the unit works with and check the arguments.

        @raise errors.OpPrereqError: a parameter is missing or wrong
        """
        self.proc = processor
        # Any: each unit reads the parameters of its own opcode.
        self.op: Any = op
        self.cfg = context.cfg
        self.context = context
        self.rpc = rpc_runner
        self.needed_locks: dict[int, Any] | None = None
        self.share_locks: dict[int, int | bool] = dict.fromkeys(locking.LEVELS, 0)
        self.add_locks: dict[int, Any] = {}
        self.remove_locks: dict[int, Any] = {}
        self.acquired_locks: dict[int, set[str]] = {}
        self.recalculate_locks: dict[int, str] = {}
        self.dry_run_result: Any = None
        self.unchecked: list[str] = []
        self.tasklets: list[Tasklet] | None = None
        self._ssh: ssh.SshRunner | None = None

        if not op.IsSet("debug_level"):
            self.op.debug_level = 0

        for name in self._OP_REQP:
            if getattr(op, name, None) is None:
                raise errors.OpPrereqError(
                    f"Required parameter '{name}' missing", errors.ECODE_INVAL
                )

        self.CheckArguments()

    # What a unit implements

    def CheckArguments(self) -> None:
        """Check and normalize the opcode's parameters by themselves; must be idempotent.

        Must not look at the state of the cluster.

        @raise errors.OpPrereqError: a parameter is wrong
        """

    def ExpandNames(self) -> None:
        """Expand names to full names and set the locks needed (or tasklets); must be idempotent.

        Only the Big Ganeti Lock is held. Must set C{needed_locks}; must not change anything.

        @raise errors.OpPrereqError: an object is not known
        """
        if not self.REQ_BGL:
            raise NotImplementedError(f"{self.__class__.__name__}.ExpandNames")
        self.needed_locks = {}  # Alone: the exclusive Big Ganeti Lock is enough.

    def DeclareLocks(self, level: int) -> None:
        """Compute the locks of a level from what was acquired at the levels before it.

        Called just before the level is acquired, only for levels in C{needed_locks} or
        C{add_locks}: put an empty list there to be asked.
        """

    def CheckPrereq(self) -> None:
        """Check that the operation can be done, with all locks held; must change nothing.

        @raise errors.OpPrereqError: it can not; the job ends with nothing changed
        """
        if self.tasklets is None:
            raise NotImplementedError(f"{self.__class__.__name__}.CheckPrereq")
        for tasklet in self.tasklets:
            tasklet.CheckPrereq()

    def DescribeChanges(self) -> list[announce.Change]:
        """What L{Exec} would do, for the report of a dry run; must change nothing.

        Called after L{CheckPrereq}; may ask nodes. Each object of the configuration that would
        change has a line, and each node on which something would be done. Every unit that does not
        only look has one of its own, as only it knows: the default names what it holds for itself.
        """
        if self.LOOKS_ONLY:
            return []
        if self.tasklets is not None:
            return [line for tasklet in self.tasklets for line in tasklet.DescribeChanges()]
        return [
            announce.Change("may be changed", f"{locking.LEVEL_NAMES[level]} {name}")
            for level, names in sorted(self.acquired_locks.items())
            if not self.share_locks[level]
            for name in text.NiceSort(names)
        ]

    def Exec(self, feedback_fn: FeedbackFn) -> Any:
        """Do the work.

        @param feedback_fn: takes a text to the job's log and to whoever waits for the job
        @return: the result of the opcode; must survive JSON
        @raise errors.OpExecError: it failed; parts of it may have been done
        """
        if self.tasklets is None:
            raise NotImplementedError(f"{self.__class__.__name__}.Exec")
        for tasklet in self.tasklets:
            tasklet.Exec(feedback_fn)

    def BuildHooksEnv(self) -> HooksEnv:
        """Environment (names without C{GANETI_}) and nodes of both phases; empty, never None.

        Called once, after L{CheckPrereq}, and only if the unit has an HPATH.
        """
        raise NotImplementedError(f"{self.__class__.__name__}.BuildHooksEnv")

    def HooksCallBack(
        self, phase: str, hook_results: Any, feedback_fn: FeedbackFn, lu_result: Any
    ) -> Any:
        """Look at the results of a hooks phase.

        @param phase: C{constants.HOOKS_PHASE_PRE} or C{HOOKS_PHASE_POST}
        @param hook_results: node -> RpcResult, or None if no node was asked
        @param lu_result: what L{Exec} returned; None in the pre phase
        @return: the opcode's new result (ignored in the pre phase)
        """
        return lu_result

    # What a unit uses

    def LogWarning(self, message: str, *args: Any, hint: str | None = None) -> None:
        """Warn in the daemon's and in the job's log; %-formatted only if there are arguments.

        @param hint: what to do about it; with an empty message only the hint is shown
        """
        self.proc.LogWarning(message, *args, hint=hint)

    def LogInfo(self, message: str, *args: Any) -> None:
        """Inform in the daemon's and in the job's log; %-formatted only if there are arguments."""
        self.proc.LogInfo(message, *args)

    def LogStep(self, current: int, total: int, message: str) -> None:
        """Say in the job's log which step of how many begins."""
        self.proc.LogStep(current, total, message)

    def CheckCancel(self) -> None:
        """A place where a running unit can be cancelled without harm.

        @raise mcpu.CancelJob: somebody asked for it; let it through
        """
        self.proc.CheckCancel()

    @property
    def ssh(self) -> ssh.SshRunner:
        """Runs commands on other nodes; made at its first use."""
        if self._ssh is None:
            from .. import ssh

            self._ssh = ssh.GetRunner(self.cfg.GetClusterName())
        return self._ssh

    def _ExpandAndLockInstance(self) -> None:
        """Expand C{op.instance_name} and need the lock of that instance.

        @raise errors.OpPrereqError: no such instance
        """
        if self.needed_locks is None:
            self.needed_locks = {}
        elif locking.LEVEL_INSTANCE in self.needed_locks:
            raise errors.ProgrammerError(
                f"{self.__class__.__name__}: instance locks are declared already"
            )
        self.op.instance_name = ExpandInstanceName(self.cfg, self.op.instance_name)
        self.needed_locks[locking.LEVEL_INSTANCE] = self.op.instance_name

    def _LockInstancesNodes(self, primary_only: bool = False) -> None:
        """In L{DeclareLocks} for nodes: need the nodes of all instances acquired.

        Replaces or extends what C{needed_locks} has for nodes, as C{recalculate_locks} says, and
        consumes that entry. The instances are locked, so that their nodes can not change any more.

        @param primary_only: leave out the secondary nodes
        """
        how = self.recalculate_locks.get(locking.LEVEL_NODE)
        if how not in (LOCKS_REPLACE, LOCKS_APPEND):
            raise errors.ProgrammerError(
                f"{self.__class__.__name__}: recalculate_locks of the node level is {how!r},"
                f" not '{LOCKS_REPLACE}' or '{LOCKS_APPEND}'"
            )
        if self.needed_locks is None:
            raise errors.ProgrammerError(f"{self.__class__.__name__}: no locks declared yet")

        wanted: list[str] = []
        for name in sorted(self.acquired_locks[locking.LEVEL_INSTANCE]):
            instance = self.cfg.GetInstanceInfo(name)
            if instance is None:
                # Possible with whole sets only: it went between the two looks.
                continue
            wanted.append(instance.primary_node)
            if not primary_only:
                wanted.extend(instance.secondary_nodes)

        if how == LOCKS_APPEND:
            before = self.needed_locks.get(locking.LEVEL_NODE) or []
            wanted = [*([before] if isinstance(before, str) else before), *wanted]
        self.needed_locks[locking.LEVEL_NODE] = text.UniqueSequence(wanted)
        del self.recalculate_locks[locking.LEVEL_NODE]


class NoHooksLU(LogicalUnit):
    """Base of units that run no hooks of their own: queries, tags, tests, repairs."""

    HPATH = None
    HTYPE = None

    def BuildHooksEnv(self) -> HooksEnv:
        """Never called."""
        raise AssertionError(f"{self.__class__.__name__} has no hooks")


class ResultWithJobs:
    """What a unit returns when the rest of its work is done by jobs of their own.

    The processor submits them; the opcode's result then is a dictionary with what else the unit had
    to say and, as C{jobs}, for each job [True, id] or [False, error text].
    """

    def __init__(self, jobs: list[list[opcodes.OpCode]], **other: Any) -> None:
        """@param jobs: a list of opcodes for each job

        @param other: further keys of the result
        """
        self.jobs = jobs
        self.other = other


class Tasklet:
    """A building block of a logical unit that knows nothing of locks.

    The unit holds all locks the tasklet needs; several tasklets run one after the other.
    """

    def __init__(self, lu: LogicalUnit) -> None:
        self.lu = lu
        self.cfg = lu.cfg
        self.rpc = lu.rpc

    def CheckPrereq(self) -> None:
        """As L{LogicalUnit.CheckPrereq}."""
        raise NotImplementedError(f"{self.__class__.__name__}.CheckPrereq")

    def DescribeChanges(self) -> list[announce.Change]:
        """As L{LogicalUnit.DescribeChanges}."""
        raise NotImplementedError(f"{self.__class__.__name__}.DescribeChanges")

    def Exec(self, feedback_fn: FeedbackFn) -> Any:
        """As L{LogicalUnit.Exec}; the result is dropped."""
        raise NotImplementedError(f"{self.__class__.__name__}.Exec")


# Names


def ExpandNodeName(cfg: config.ConfigWriter, name: str) -> str:
    """Full name of a node.

    @raise errors.OpPrereqError: no or no single such node
    """
    full_name = cfg.ExpandNodeName(name) if isinstance(name, str) else None
    if full_name is None:
        raise errors.OpPrereqError(f"Node '{name}' not known", errors.ECODE_NOENT)
    return full_name


def ExpandInstanceName(cfg: config.ConfigWriter, name: str) -> str:
    """Full name of an instance.

    @raise errors.OpPrereqError: no or no single such instance
    """
    full_name = cfg.ExpandInstanceName(name) if isinstance(name, str) else None
    if full_name is None:
        raise errors.OpPrereqError(f"Instance '{name}' not known", errors.ECODE_NOENT)
    return full_name


def GetWantedNodes(lu: LogicalUnit, names: list[str]) -> list[str]:
    """Full names of the nodes given, naturally sorted, each once.

    @param names: not empty: a unit that means all nodes says C{locking.ALL_SET}
    @raise errors.OpPrereqError: not a list, or a node is not known
    """
    _CheckNameList("nodes", names)
    if not names:
        raise errors.ProgrammerError("GetWantedNodes() needs names; for all nodes use ALL_SET")
    return text.NiceSort({ExpandNodeName(lu.cfg, name) for name in names})


def GetWantedInstances(lu: LogicalUnit, names: list[str]) -> list[str]:
    """Full names of the instances given, in their order, each once; all if none are given.

    @raise errors.OpPrereqError: not a list, or an instance is not known
    """
    _CheckNameList("instances", names)
    if not names:
        return text.NiceSort(lu.cfg.GetInstanceList())
    return text.UniqueSequence([ExpandInstanceName(lu.cfg, name) for name in names])


def _CheckNameList(parameter: str, names: object) -> None:
    if not isinstance(names, list):
        raise errors.OpPrereqError(
            f"Parameter '{parameter}' must be a list of names, not {names!r}", errors.ECODE_INVAL
        )


# Checks


def CheckOutputFields(
    static: text.FieldSet, dynamic: text.FieldSet, selected: Iterable[str]
) -> None:
    """Check that all fields asked for exist.

    @raise errors.OpPrereqError: some do not; they are named
    """
    unknown = dynamic.NonMatching(static.NonMatching(selected))
    if unknown:
        raise errors.OpPrereqError(
            f"Unknown output fields selected: {', '.join(unknown)}", errors.ECODE_INVAL
        )


def CheckNodeOnline(lu: LogicalUnit, node_name: str) -> None:
    """Check that a node (full name) is not marked offline.

    @raise errors.OpPrereqError: it is
    """
    if GetNode(lu, node_name).offline:
        raise errors.OpPrereqError(
            f"Node {node_name} is marked offline; bring it back with"
            f" 'gnt-node modify --offline=no {node_name}' or choose another one",
            errors.ECODE_INVAL,
        )


def CheckNodeNotDrained(lu: LogicalUnit, node_name: str) -> None:
    """Check that a node (full name) may be given something new.

    @raise errors.OpPrereqError: it is marked drained
    """
    if GetNode(lu, node_name).drained:
        raise errors.OpPrereqError(
            f"Node {node_name} is marked drained; take the mark away with"
            f" 'gnt-node modify --drained=no {node_name}' or choose another one",
            errors.ECODE_INVAL,
        )


def GetNode(lu: LogicalUnit, node_name: str) -> objects.Node:
    """A node by its full name.

    @raise errors.OpPrereqError: no such node (any more)
    """
    node = lu.cfg.GetNodeInfo(node_name)
    if node is None:
        raise errors.OpPrereqError(f"Node '{node_name}' not known", errors.ECODE_NOENT)
    return node


def GetInstance(lu: LogicalUnit, instance_name: str) -> objects.Instance:
    """An instance by its full name.

    @raise errors.OpPrereqError: no such instance (any more)
    """
    instance = lu.cfg.GetInstanceInfo(instance_name)
    if instance is None:
        raise errors.OpPrereqError(f"Instance '{instance_name}' not known", errors.ECODE_NOENT)
    return instance


# Locks


def ReleaseLocks(
    lu: LogicalUnit,
    level: int,
    names: Iterable[str] | None = None,
    keep: Iterable[str] | None = None,
) -> None:
    """Give locks of a level back before the unit ends; it must not use those objects any more.

    @param names: the ones to release; default: all
    @param keep: release all but these; only one of the two may be given
    """
    if names is not None and keep is not None:
        raise errors.ProgrammerError("ReleaseLocks() takes names or keep, not both")
    owned = set(lu.acquired_locks.get(level, ()))
    release = owned if names is None else owned & set(names)
    if keep is not None:
        release = owned - set(keep)
    if release:
        lu.context.glm.release(level, sorted(release))
    lu.acquired_locks[level] = owned - release


# Queries


def CheckStillThere(kind: str, wanted: list[str] | None, present: Iterable[str]) -> list[str]:
    """Names for a query that holds no locks: those wanted, or all there are, naturally sorted.

    @param kind: "node" or "instance", for the message
    @param wanted: full names in the order asked for; None = all
    @raise errors.OpExecError: one of them has gone since it was looked up
    """
    there = set(present)
    if wanted is None:
        return text.NiceSort(there)
    gone = [name for name in wanted if name not in there]
    if gone:
        raise errors.OpExecError(f"The {kind} {', '.join(gone)} was removed in the meantime")
    return wanted


# Parameters


def ForceTypes(what: str, values: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """A copy of parameters with each value of its declared type.

    @param what: name of the opcode's parameter, for the message
    @raise errors.OpPrereqError: C{wrong_input}: an unknown parameter or a wrong value
    """
    typed = dict(values)
    try:
        params.ForceDictType(typed, types)
    except errors.TypeEnforcementError as err:
        raise errors.OpPrereqError(f"{what}: {err}", errors.ECODE_INVAL) from err
    return typed
