"""Checking the cluster: gathering what the nodes say, and judging it.

The judgement is in L{verify_checks}, pure functions from facts to problems; this module asks the
nodes, prints what was found and knows what counts as success.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .. import constants, locking, opcodes, pathutils, ssconf
from ..utils import io, text, x509
from . import ancillary, base, verify_simulation, verify_state
from . import verify_checks as checks
from .verify_state import Problem

#: Of what the master itself finds wrong with its configuration.
_CONFIG_ADVICE: Final = "'gnt-cluster history' tells when that was changed, and by which job"

#: Certificates that all nodes have, and the option of renew-crypto that makes a new one.
_CERTIFICATES: Final = {
    pathutils.NODED_CERT_FILE: "--new-cluster-certificate",
    pathutils.RAPI_CERT_FILE: "--new-rapi-certificate",
}


class LUClusterVerify(base.LogicalUnit):
    """Check configuration, certificates, nodes and instances; true if no error was found."""

    LOOKS_ONLY = True
    HPATH = "cluster-verify"
    HTYPE = constants.HTYPE_CLUSTER

    def ExpandNames(self) -> None:
        self.needed_locks = {
            locking.LEVEL_INSTANCE: locking.ALL_SET,
            locking.LEVEL_NODE: locking.ALL_SET,
        }
        self.share_locks = dict.fromkeys(locking.LEVELS, 1)

    def BuildHooksEnv(self) -> base.HooksEnv:
        env = {"CLUSTER_TAGS": " ".join(sorted(self.cfg.GetClusterInfo().GetTags()))}
        for node in self.cfg.GetAllNodesInfo().values():
            env[f"NODE_TAGS_{node.name}"] = " ".join(sorted(node.GetTags()))
        return env, [], self.cfg.GetNodeList()

    def CheckPrereq(self) -> None:
        """Nothing to check: finding problems is the work itself."""

    # Reporting

    def _Report(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._feedback(f"  - {verify_state.FormatProblem(problem, self.op.error_codes)}")
            if problem.severity == constants.CV_ERROR:
                self._bad = True

    def _Header(self, header: str) -> None:
        self._feedback(f"* {header}")

    def _Verbose(self, header: str) -> None:
        if self.op.verbose:
            self._Header(header)

    # Work

    def Exec(self, feedback_fn: base.FeedbackFn) -> bool:
        self._feedback = feedback_fn
        self._bad = False
        if self.op.debug_simulate_errors:
            self._Report(verify_simulation.SimulatedProblems())
        self._Header("Verifying global settings")
        self._Report(
            Problem(constants.CV_ECLUSTERCFG, None, message, advice=_CONFIG_ADVICE)
            for message in self.cfg.VerifyConfig()
        )
        self._Report(self._CheckCertificates())

        state = self._Gather()
        self._Header("Verifying node status")
        for name in text.NiceSort(state.nodes):
            self._VerifyNode(state, name)
        self._Header("Verifying instance status")
        running = checks.FindRunning(state)
        for name in text.NiceSort(state.instances):
            self._Verbose(f"Verifying instance {name}")
            self._Report(checks.CheckInstance(state, name, running))
        self._Header("Verifying orphan volumes")
        if state.vg_name is not None:
            self._Report(checks.CheckOrphanVolumes(state))
        self._Header("Verifying orphan instances")
        self._Report(checks.CheckOrphanInstances(state))
        if constants.VERIFY_NPLUSONE_MEM not in self.op.skip_checks:
            self._Header("Verifying N+1 Memory redundancy")
            self._Report(checks.CheckNPlusOne(state))
        self._Header("Other Notes")
        for note in checks.GetNotes(state):
            feedback_fn(f"  - NOTICE: {note}")
        return not self._bad

    def _CheckCertificates(self) -> list[Problem]:
        problems = []
        for path, option in _CERTIFICATES.items():
            severity, message = x509.VerifyCertificateFile(path, self.context.runtime)
            if severity is not None and message is not None:
                advice = f"'gnt-cluster renew-crypto {option}' makes a new one"
                problems.append(Problem(constants.CV_ECLUSTERCERT, None, message, severity, advice))
        return problems

    def _GetFiles(self) -> dict[str, bool]:
        """Files to compare: path -> is it one that only candidates have?

        Besides those of the cluster itself all that the master sends to the nodes (RC1).
        """
        cluster = self.cfg.GetClusterInfo()
        instances = self.cfg.GetAllInstancesInfo().values()
        files = dict.fromkeys(
            [
                *ssconf.SimpleStore().GetFileList(),
                pathutils.NODED_CERT_FILE,
                pathutils.RAPI_CERT_FILE,
                pathutils.CONFD_HMAC_KEY,
                *ancillary.GetAncillaryFiles(cluster, instances, self.context.runtime),
            ],
            False,
        )
        if cluster.modify_etc_hosts:
            files[pathutils.ETC_HOSTS] = False
        files[pathutils.CLUSTER_CONF_FILE] = True
        return files

    def _Gather(self) -> verify_state.State:
        cluster = self.cfg.GetClusterInfo()
        nodes = self.cfg.GetAllNodesInfo()
        names = text.NiceSort(nodes)
        self._Header(f"Gathering data ({len(names)} nodes)")
        files = self._GetFiles()
        online = [name for name in names if not nodes[name].offline]
        request: dict[str, Any] = {
            constants.NV_FILELIST: list(files),
            constants.NV_NODELIST: online,
            constants.NV_HYPERVISOR: cluster.enabled_hypervisors,
            constants.NV_NODENETTEST: [
                [name, nodes[name].primary_ip, nodes[name].secondary_ip] for name in online
            ],
            constants.NV_INSTANCELIST: cluster.enabled_hypervisors,
            constants.NV_VERSION: None,
            constants.NV_HVINFO: self.cfg.GetHypervisorType(),
            constants.NV_NODESETUP: None,
            constants.NV_TIME: None,
            constants.NV_MASTERIP: [cluster.master_node, cluster.master_ip],
        }
        if cluster.volume_group_name is not None:
            request[constants.NV_VGLIST] = None
            request[constants.NV_LVLIST] = cluster.volume_group_name
            request[constants.NV_PVLIST] = [cluster.volume_group_name]
            request[constants.NV_DRBDLIST] = None
        clock = self.context.runtime.clock
        before = clock.time()
        results = self.rpc.call_node_verify(names, request, cluster.cluster_name)
        after = clock.time()
        return verify_state.State(
            nodes=nodes,
            instances=self.cfg.GetAllInstancesInfo(),
            master=cluster.master_node,
            vg_name=cluster.volume_group_name,
            answers={
                name: _WithOwnPaths(result.payload, name)
                for name, result in results.items()
                if not result.fail_msg
            },
            failures={
                name: result.fail_msg
                for name, result in results.items()
                if result.fail_msg and not result.offline
            },
            files=files,
            checksums=io.FingerprintFiles(files),
            secret=frozenset([pathutils.NODED_CERT_FILE]),
            drbd_map=self.cfg.ComputeDRBDMap(),
            window=(before, after),
            backend={
                instance.name: cluster.FillBE(instance)
                for instance in self.cfg.GetAllInstancesInfo().values()
            },
        )

    def _VerifyNode(self, state: verify_state.State, name: str) -> None:
        node = state.nodes[name]
        if node.offline:
            self._Verbose(f"Skipping offline node {name}")
            return
        role = (
            "master"
            if name == state.master
            else "master candidate"
            if node.master_candidate
            else "drained"
            if node.drained
            else "regular"
        )
        self._Verbose(f"Verifying node {name} ({role})")
        self._Report(checks.CheckNode(state, name))

    def HooksCallBack(
        self, phase: str, hook_results: Any, feedback_fn: base.FeedbackFn, lu_result: Any
    ) -> Any:
        """Failed hooks make the result false; a node marked offline does not change it."""
        if phase != constants.HOOKS_PHASE_POST or not hook_results:
            return lu_result
        self._feedback = feedback_fn
        self._bad = not lu_result
        self._Header("Hooks Results")
        for node in text.NiceSort(hook_results):
            result = hook_results[node]
            if result.offline:
                continue
            if result.fail_msg:
                self._Report(
                    [
                        Problem(
                            constants.CV_ENODEHOOKS,
                            node,
                            f"Communication failure in hooks execution: {result.fail_msg}",
                            advice="see that its node daemon runs, and node-daemon.log on it",
                        )
                    ]
                )
                continue
            for script, status, output in result.payload:
                if status == constants.HKR_FAIL:
                    self._Report(
                        [Problem(constants.CV_ENODEHOOKS, node, f"Script {script} failed, output:")]
                    )
                    for line in output.splitlines():
                        feedback_fn(f"      {line}")
        return not self._bad


def _WithOwnPaths(answer: Any, node: str) -> Any:
    """A node's answer with its files under the names that they have here."""
    if not isinstance(answer, dict) or not isinstance(answer.get(constants.NV_FILELIST), dict):
        return answer
    files = answer[constants.NV_FILELIST]
    own = {pathutils.AsHere(path, node): checksum for path, checksum in files.items()}
    return {**answer, constants.NV_FILELIST: own}


LOGICAL_UNITS: Final = {opcodes.OpClusterVerify: LUClusterVerify}
