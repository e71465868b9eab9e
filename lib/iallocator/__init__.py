"""Asking instance allocators: scripts on the master that know where instances should go.

L{IAllocator} asks one script and checks what it says. L{Choose} is what logical units need: the
script that the user named or, without one, those of the cluster in their order, and the nodes or an
error that says why there are none. The caller holds the locks of all nodes.

Interface: the instance allocators of Ganeti 2.1, and C{hail} of Ganeti 3.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from .. import constants, errors, serializer
from . import answer, document

if TYPE_CHECKING:
    from .. import config, objects, rpc

#: What can be asked for.
MODES: Final = (
    constants.IALLOCATOR_MODE_ALLOC,
    constants.IALLOCATOR_MODE_RELOC,
    constants.IALLOCATOR_MODE_MEVAC,
)


class Unit(Protocol):
    """What L{Choose} needs of a logical unit."""

    cfg: config.ConfigWriter
    rpc: rpc.RpcRunner

    def LogInfo(self, message: str, *args: Any) -> None:
        """Inform in the job's log."""

    def LogWarning(self, message: str, *args: Any, hint: str | None = None) -> None:
        """Warn in the job's log."""


class IAllocator:
    """A question to an allocator, and its answer.

    @ivar mode: C{constants.IALLOCATOR_MODE_*}
    @ivar in_data: the document; C{in_text} the same as it is sent
    @ivar required_nodes: how many nodes the answer must name; None if it names moves
    @ivar unusable: node -> why it can not be used, though it is not marked offline
    @ivar out_text: what the script answered, None before L{Run}; likewise C{success}, C{info} and
        C{result}, which is empty unless it succeeded
    """

    def __init__(
        self, cfg: config.ConfigWriter, rpc_runner: rpc.RpcRunner, mode: str, **request: Any
    ) -> None:
        """Ask the nodes how they are, and put the document together.

        The request:

          - allocate: C{name} (full), C{disk_template}, C{disks} (each with C{size} in MiB and
            C{mode}), C{nics} (C{objects.NIC} with final MACs, or dictionaries), C{os}, C{memory}
            (MiB) and C{vcpus} (filled), C{tags}, C{hypervisor} (default: the cluster's)
          - relocate: C{name} (full), C{relocate_from} (default: the node to leave)
          - multi-evacuate: C{evac_nodes} (full names)

        @raise errors.OpPrereqError: the instance is not known, or can not be relocated
        """
        self._cfg = cfg
        self._rpc = rpc_runner
        self.mode = mode
        self.out_text: str | None = None
        self.success: bool | None = None
        self.info: str | None = None
        self.result: list[Any] | None = None

        cluster = cfg.GetClusterInfo()
        nodes, instances = cfg.GetAllNodesInfo(), cfg.GetAllInstancesInfo()
        self._instance_nodes: list[str] = []
        if mode == constants.IALLOCATOR_MODE_ALLOC:
            asked = document.BuildAllocate(cluster, **request)
            hypervisor = asked["hypervisor"]
        elif mode == constants.IALLOCATOR_MODE_RELOC:
            instance = _GetInstance(instances, **request)
            asked = document.BuildRelocate(instance, request.get("relocate_from"))
            hypervisor = instance.hypervisor
            self._instance_nodes = [instance.primary_node, *instance.secondary_nodes]
        elif mode == constants.IALLOCATOR_MODE_MEVAC:
            asked = document.BuildEvacuate(**request)
            hypervisor = cluster.enabled_hypervisors[0]
        else:
            raise errors.OpPrereqError(
                f"Allocators can not be asked to '{mode}', only to {', '.join(MODES)}",
                errors.ECODE_INVAL,
            )
        self.required_nodes: int | None = asked.get("required_nodes")
        online = sorted(name for name, node in nodes.items() if not node.offline)
        answers = _AskNodes(cfg, rpc_runner, online, hypervisor, cluster.enabled_hypervisors)
        self.unusable = answers.unusable
        self.in_data = {
            **document.BuildCluster(cluster, nodes.values(), instances.values(), answers),
            "request": asked,
        }
        self.in_text = serializer.Dump(self.in_data, indent=True)

    def Run(self, name: str, validate: bool = True) -> None:
        """Ask a script, and set C{out_text}; with C{validate}, check it and set the others.

        A script that does not know how to evacuate several nodes in the way of 2.1 is asked in the
        way of later versions.

        @raise errors.OpExecError: the script is missing or failed, or its answer is wrong
        """
        fallback = validate and self.mode == constants.IALLOCATOR_MODE_MEVAC
        result = self._Call(name, self.in_text)
        if result.fail_msg and fallback:
            evac_nodes = self.in_data["request"]["evac_nodes"]
            leaving = answer.GetEvacuees(self.in_data, evac_nodes)
            later = document.BuildEvacuateOfLater(self.in_data, evac_nodes, leaving)
            again = self._Call(name, serializer.Dump(later, indent=True))
            if not again.fail_msg:
                self.out_text = again.payload
                found = answer.TranslateEvacuation(name, answer.Parse(name, again.payload))
                self._Take(answer.Check(name, found, self.in_data))
                return
        result.Raise(f"Failure while running the iallocator script '{name}'")
        self.out_text = result.payload
        if validate:
            found = answer.Parse(name, result.payload)
            self._Take(answer.Check(name, found, self.in_data, self._instance_nodes))

    def _Call(self, name: str, text: str) -> rpc.RpcResult:
        master = self._cfg.GetMasterNode()
        result: rpc.RpcResult = self._rpc.call_iallocator_runner(master, name, text)
        return result

    def _Take(self, found: answer.Answer) -> None:
        self.success, self.info, self.result = found.success, found.info, found.result


def _GetInstance(
    instances: dict[str, objects.Instance], name: str, relocate_from: Sequence[str] | None = None
) -> objects.Instance:
    instance = instances.get(name)
    if instance is None:
        raise errors.OpPrereqError(f"Instance '{name}' not known", errors.ECODE_NOENT)
    return instance


def _AskNodes(
    cfg: config.ConfigWriter,
    rpc_runner: rpc.RpcRunner,
    nodes: Sequence[str],
    hypervisor: str,
    hypervisors: Sequence[str],
) -> document.NodeAnswers:
    infos = rpc_runner.call_node_info(nodes, cfg.GetVGName(), hypervisor)
    instances = rpc_runner.call_all_instances_info(nodes, hypervisors)
    info, running, unusable = {}, {}, {}
    for node in nodes:
        problem = infos[node].fail_msg or instances[node].fail_msg
        problem = problem or document.CheckNodeInfo(infos[node].payload)
        if problem:
            unusable[node] = problem
            continue
        info[node] = infos[node].payload
        running[node] = {
            name: values["memory"]
            for name, values in instances[node].payload.items()
            if document.IsNumber(values.get("memory"))
        }
    return document.NodeAnswers(info, running, unusable)


def GetScripts(cfg: config.ConfigWriter, script: str | None, mode: str) -> list[str]:
    """The scripts to ask, in the order in which they are tried; at least one.

    @param script: the one that the user named; None: the cluster's own for this mode
    @raise errors.OpPrereqError: C{wrong_input}: there is none
    """
    if script is not None:
        return [script]
    scripts = list(cfg.GetClusterInfo().default_iallocator.get(mode, ()))
    if not scripts:
        raise errors.OpPrereqError(
            f"No allocator is given, and the cluster has no default one for the mode '{mode}'; name"
            " one, or set it with 'gnt-cluster modify --default-iallocator'",
            errors.ECODE_INVAL,
        )
    return scripts


def Choose(lu: Unit, script: str | None, mode: str, /, **request: Any) -> list[Any]:
    """Let an allocator choose, tell the job's log, and raise if it does not.

    @param script: its name; None: those of the cluster for this mode, until one succeeds
    @param mode: C{constants.IALLOCATOR_MODE_*}
    @param request: as for L{IAllocator}
    @return: names of nodes, the primary first (relocate: the new node); multi-evacuate: rows of
        instance and new secondary
    @raise errors.OpPrereqError: C{insufficient_resources}: it refuses; C{internal_error}: not as
        many nodes as needed; C{wrong_input}: no script is named, and the cluster has none
    @raise errors.OpExecError: the script is missing or failed, or its answer is wrong
    """
    scripts = GetScripts(lu.cfg, script, mode)
    question = IAllocator(lu.cfg, lu.rpc, mode, **request)
    for node, problem in sorted(question.unusable.items()):
        lu.LogWarning("Node %s is not told to the allocator as usable: %s", node, problem)
    for one in scripts[:-1]:
        try:
            return _ChooseWith(lu, question, one)
        except (errors.OpPrereqError, errors.OpExecError) as err:
            lu.LogWarning("%s; trying the next allocator", err.args[0])
    return _ChooseWith(lu, question, scripts[-1])


def _ChooseWith(lu: Unit, question: IAllocator, script: str) -> list[Any]:
    question.Run(script)
    request = question.in_data["request"]
    what = f"instance {request['name']}" if "name" in request else "the instances"
    if not question.success:
        raise errors.OpPrereqError(
            f"Can't compute nodes for {what} using iallocator '{script}': {question.info}",
            errors.ECODE_NORES,
        )
    result = question.result or []
    wanted = question.required_nodes
    if wanted is None:
        if result:
            lu.LogInfo("Moves chosen via iallocator %s: %d", script, len(result))
        return result
    if len(result) != wanted:
        raise errors.OpPrereqError(
            f"iallocator '{script}' returned {len(result)} nodes ({', '.join(result)}) for {what},"
            f" which needs {wanted}",
            errors.ECODE_FAULT,
        )
    lu.LogInfo("Selected nodes for %s via iallocator %s: %s", what, script, ", ".join(result))
    return result
