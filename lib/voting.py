"""Who is master? The votes of all nodes, and what a starting master daemon makes of them.

Half of the I{other} nodes must agree that this node is the master, and no other node may have more
votes; nodes that do not answer count as other nodes. So a cluster of two needs its other node, and
a single node needs nobody. Requirement JQ5.
"""

from __future__ import annotations

import enum
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import errors, rpc, runtime, ssconf

#: Votes are asked for that many times, so many seconds apart, while most nodes do not answer.
VOTE_ROUNDS: Final = 6
VOTE_DELAY: Final = 10.0

#: A node that is believed to be the master (None: no answer), and by how many.
Vote = tuple[str | None, int]


class Outcome(enum.Enum):
    """What the votes say."""

    ELECTED = "elected"
    #: Too few answers to say; ask again.
    UNDECIDED = "undecided"
    REFUSED = "refused"


@dataclass(frozen=True)
class Decision:
    """What the votes say, and why, for the log and the user."""

    outcome: Outcome
    reason: str


def CountVotes(answers: Iterable[str | None]) -> list[Vote]:
    """Add up the answers of the nodes; most votes first, no answer last among equals."""
    counted = Counter(answers)
    return sorted(
        counted.items(),
        key=lambda vote: (vote[1], vote[0] is not None, vote[0] or ""),
        reverse=True,
    )


def Decide(votes: Sequence[Vote], myself: str) -> Decision:
    """May this node be the master?

    @param votes: of all other nodes, from L{CountVotes}
    """
    if not votes:
        return Decision(Outcome.ELECTED, "there is no other node to ask")
    top, top_votes = votes[0]
    others = sum(count for _, count in votes)
    if top is None:
        return Decision(
            Outcome.UNDECIDED, f"{top_votes} of {others} other nodes did not answer or do not know"
        )
    if top != myself:
        return Decision(
            Outcome.REFUSED,
            f"{top_votes} of {others} other nodes say that {top} is the master, not {myself}",
        )
    if top_votes < others - top_votes:
        return Decision(
            Outcome.REFUSED,
            f"only {top_votes} of {others} other nodes say that {myself} is the master; half of"
            " them must",
        )
    return Decision(
        Outcome.ELECTED, f"{top_votes} of {others} other nodes say that {myself} is the master"
    )


def ParseAnswer(result: Any) -> str | None:
    """The name of the master in what a node answered to C{master_info}; None if there is none."""
    if result.fail_msg or not isinstance(result.payload, (list, tuple)) or len(result.payload) < 3:
        return None
    master = result.payload[2]
    return master if isinstance(master, str) else None


#: Asks nodes for their master: list of names -> name -> RpcResult.
AskFn = Callable[[Sequence[str]], Mapping[str, Any]]


def GatherMasterVotes(
    node_list: Iterable[str],
    myself: str,
    ask: AskFn = rpc.RpcRunner.call_master_info,
) -> list[Vote]:
    """Ask all other nodes, also those marked offline, who the master is.

    @param node_list: names of all nodes
    @return: as L{CountVotes}; empty if there is no other node
    """
    others = [name for name in node_list if name != myself]
    if not others:
        return []
    try:
        results = ask(others)
    except (OSError, errors.GenericError):
        logging.exception("Asking %d nodes for the master failed", len(others))
        return [(None, len(others))]
    answers = []
    for name in others:
        result = results[name]
        if result.fail_msg:
            logging.warning("Node %s has no vote: %s", name, result.fail_msg)
        answers.append(ParseAnswer(result))
    return CountVotes(answers)


def CheckAgreement(
    node_list: Iterable[str],
    myself: str,
    ask: AskFn = rpc.RpcRunner.call_master_info,
    rt: runtime.Runtime = runtime.DEFAULT,
) -> Decision:
    """Find out whether this node may be the master; takes about a minute if most do not answer.

    @param node_list: names of all nodes, from the node's own configuration
    @return: elected, or refused and why
    """
    names = list(node_list)
    for attempt in range(1, VOTE_ROUNDS + 1):
        decision = Decide(GatherMasterVotes(names, myself, ask), myself)
        if decision.outcome is not Outcome.UNDECIDED:
            break
        logging.warning("Voting, round %d of %d: %s", attempt, VOTE_ROUNDS, decision.reason)
        if attempt < VOTE_ROUNDS:
            rt.clock.sleep(VOTE_DELAY)
    else:
        decision = Decision(Outcome.REFUSED, decision.reason)
    logging.info("Voting: %s, since %s", decision.outcome.value, decision.reason)
    return decision


def FindSuccessor(
    answers: Mapping[str, Any], myself: str, own: ssconf.Version | None
) -> str | None:
    """Who was made the master after this node; None if nobody was, as far as these nodes know.

    A node that was down while this one was made the master names an earlier one, but its copies are
    older, too.

    @param answers: what nodes answered to C{master_info}
    @param own: version of the ssconf files that this node, as the master, has written
    """
    latest: tuple[int, str] | None = None
    for result in answers.values():
        master = ParseAnswer(result)
        if master in (None, myself) or own is None:
            continue
        text = [*result.payload, None, None][4]
        version = ssconf.ParseVersion(text) if isinstance(text, str) else None
        if version is None or version.uuid != own.uuid or version.serial_no <= own.serial_no:
            continue
        if latest is None or version.serial_no > latest[0]:
            latest = (version.serial_no, str(master))
    return None if latest is None else latest[1]
