"""confd-client: one question to the master candidates, from the command line.

Works on any host that has the cluster's confd key and knows addresses of candidates; on a node both
are found by themselves. The master daemon and even the master node may be down.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .. import constants, errors, pathutils, runtime, serializer, ssconf
from ..confd import client as confd_client

#: Nobody answered, too few, or contradictions.
EXIT_NO_ANSWER: Final = constants.EXIT_FAILURE

_ROLES: Final[Mapping[int, str]] = {
    constants.CONFD_NODE_ROLE_MASTER: "master",
    constants.CONFD_NODE_ROLE_CANDIDATE: "candidate",
    constants.CONFD_NODE_ROLE_OFFLINE: "offline",
    constants.CONFD_NODE_ROLE_DRAINED: "drained",
    constants.CONFD_NODE_ROLE_REGULAR: "regular",
}
_ERRORS: Final[Mapping[int, str]] = {
    constants.CONFD_ERROR_UNKNOWN_ENTRY: "there is no such thing in the cluster",
    constants.CONFD_ERROR_INTERNAL: "the server can't answer this, or not in one datagram",
    constants.CONFD_ERROR_ARGUMENT: "the server does not understand the argument",
}
_MASTER_FIELDS: Final = (
    constants.CONFD_REQFIELD_NAME,
    constants.CONFD_REQFIELD_IP,
    constants.CONFD_REQFIELD_MNODE_PIP,
)


class _Query(NamedTuple):
    """One subcommand.

    @ivar arguments: names of its arguments; one with dots may be there several times
    @ivar make: options -> value of the request
    @ivar lines: answer, options -> what is printed
    """

    type: int
    arguments: tuple[str, ...]
    help: str
    make: Callable[[argparse.Namespace], Any]
    lines: Callable[[Any, argparse.Namespace], list[str]]


def _One(answer: Any, options: argparse.Namespace) -> list[str]:
    return [str(answer)]


def _Many(answer: Any, options: argparse.Namespace) -> list[str]:
    return [str(item) for item in answer]


def _IpQuery(options: argparse.Namespace) -> dict[str, Any]:
    query: dict[str, Any] = {constants.CONFD_REQQ_IPLIST: options.ip}
    if options.link:
        query[constants.CONFD_REQQ_LINK] = options.link
    return query


def _IpLines(answer: Any, options: argparse.Namespace) -> list[str]:
    # Later versions answer in triples.
    return [
        f"{ip} {item[1] if item[0] == constants.CONFD_REPL_STATUS_OK else '-'}"
        for ip, item in zip(options.ip, answer, strict=False)
    ]


def _MasterLines(answer: Any, options: argparse.Namespace) -> list[str]:
    names = ("name", "cluster IP", "primary IP")
    return [f"{name}: {value}" for name, value in zip(names, answer, strict=False)]


QUERIES: Final[Mapping[str, _Query]] = {
    "ping": _Query(constants.CONFD_REQ_PING, (), "is anybody there?", lambda options: None, _One),
    "node-role": _Query(
        constants.CONFD_REQ_NODE_ROLE_BYNAME,
        ("node",),
        "role of a node, by its full name",
        lambda options: options.node,
        lambda answer, options: [_ROLES.get(answer, f"unknown role {answer}")],
    ),
    "instance-node": _Query(
        constants.CONFD_REQ_NODE_PIP_BY_INSTANCE_IP,
        ("ip...",),
        "primary IPs of the nodes that run the instances with these IPs",
        _IpQuery,
        _IpLines,
    ),
    "master": _Query(
        constants.CONFD_REQ_CLUSTER_MASTER,
        (),
        "name of the master node",
        lambda options: None,
        _One,
    ),
    "master-info": _Query(
        constants.CONFD_REQ_CLUSTER_MASTER,
        (),
        "name and addresses of the master node",
        lambda options: {constants.CONFD_REQQ_FIELDS: list(_MASTER_FIELDS)},
        _MasterLines,
    ),
    "node-ips": _Query(
        constants.CONFD_REQ_NODE_PIP_LIST,
        (),
        "primary IPs of all nodes",
        lambda options: None,
        _Many,
    ),
    "candidate-ips": _Query(
        constants.CONFD_REQ_MC_PIP_LIST,
        (),
        "primary IPs of the master candidates",
        lambda options: None,
        _Many,
    ),
    "instance-ips": _Query(
        constants.CONFD_REQ_INSTANCES_IPS_LIST,
        (),
        "IPs of all instances on a link",
        lambda options: options.link,
        _Many,
    ),
}


def BuildParser() -> argparse.ArgumentParser:
    """Options and subcommands."""
    parser = argparse.ArgumentParser(
        prog="confd-client", description="Asks the master candidates about the cluster."
    )
    parser.add_argument("-d", "--debug", action="store_true", help="show what is dropped and why")
    parser.add_argument(
        "-a",
        "--address",
        action="append",
        metavar="IP",
        help="ask this candidate (may be repeated; default: those of this node's cluster)",
    )
    parser.add_argument("-p", "--port", type=int, help="UDP port")
    parser.add_argument(
        "-k",
        "--hmac-key",
        metavar="FILE",
        default=pathutils.CONFD_HMAC_KEY,
        help="file with the cluster's confd key (default: %(default)s)",
    )
    parser.add_argument(
        "-c",
        "--coverage",
        type=int,
        default=0,
        metavar="N",
        help="how many candidates to ask; 0 = up to 6 of them (default), -1 = all",
    )
    parser.add_argument(
        "-t",
        "--timeout",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for answers (default: %(default)s)",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show each server's answer on stderr"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--version", action="version", version=constants.RELEASE_VERSION)
    commands = parser.add_subparsers(dest="query", required=True, metavar="QUERY")
    for name, query in QUERIES.items():
        command = commands.add_parser(name, help=query.help, description=query.help)
        for argument in query.arguments:
            if argument.endswith("..."):
                command.add_argument(argument[:-3], nargs="+")
            else:
                command.add_argument(argument)
        if name in ("instance-node", "instance-ips"):
            command.add_argument(
                "-l", "--link", help="link of the NICs (default: the cluster's default link)"
            )
    return parser


def _ReadPeersAndKey(options: argparse.Namespace, rt: runtime.Runtime) -> tuple[list[str], bytes]:
    peers = options.address or ssconf.SimpleStore(runtime=rt).GetMasterCandidatesIPList()
    return list(peers), rt.files.read(options.hmac_key)


def _ShowReply(up: confd_client.ConfdUpcallPayload) -> None:
    if up.type == confd_client.UPCALL_REPLY and up.server_reply is not None:
        reply = serializer.Dump(up.server_reply.ToDict()).strip()
        sys.stderr.write(f"{up.server_ip}: {reply}\n")


def _AsDict(answer: confd_client.Answer) -> dict[str, Any]:
    reply = answer.reply
    return {
        "status": reply.status if reply else None,
        "answer": reply.answer if reply else None,
        "serial": reply.serial if reply else None,
        "server": answer.server_ip,
        "consistent": answer.consistent,
        "agreeing": answer.agreeing,
        "asked": answer.sent,
        "answered": answer.received,
    }


def DescribeProblem(answer: confd_client.Answer) -> str | None:
    """What is wrong with what the candidates said; None if it can be relied on."""
    reply = answer.reply
    if reply is None:
        return (
            f"None of the {answer.sent} candidates that were asked answered; is ganeti-confd"
            " running there, is the key right, and are the clocks?"
        )
    if not answer.consistent:
        return "Candidates with the same serial number answer differently"
    if reply.status != constants.CONFD_REPL_STATUS_OK:
        return f"Error: {_ERRORS.get(reply.answer, reply.answer)}"
    return None


def Report(answer: confd_client.Answer, options: argparse.Namespace) -> int:
    """Print an answer.

    @return: exit code
    """
    problem = DescribeProblem(answer)
    if options.json:
        sys.stdout.write(serializer.Dump(_AsDict(answer)))
    if problem is not None:
        sys.stderr.write(problem + "\n")
        return EXIT_NO_ANSWER
    assert answer.reply is not None
    if answer.timed_out:
        sys.stderr.write(
            f"Warning: only {answer.received} of {answer.sent} candidates answered in time\n"
        )
    if not options.json:
        for line in QUERIES[options.query].lines(answer.reply.answer, options):
            sys.stdout.write(line + "\n")
    return constants.EXIT_SUCCESS


def Main(
    argv: Sequence[str] | None = None,
    rt: runtime.Runtime = runtime.DEFAULT,
    endpoint: confd_client.Endpoint | None = None,
) -> int:
    """The command."""
    options = BuildParser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.debug else logging.ERROR, format="%(message)s"
    )
    query = QUERIES[options.query]
    request = confd_client.ConfdClientRequest(type=query.type, query=query.make(options))
    try:
        peers, key = _ReadPeersAndKey(options, rt)
        answer = confd_client.Ask(
            lambda callback: confd_client.ConfdClient(
                key, peers, callback, port=options.port, endpoint=endpoint, runtime=rt
            ),
            request,
            coverage=options.coverage,
            timeout=options.timeout,
            observers=[_ShowReply] if options.verbose else [],
        )
    except (errors.GenericError, OSError) as err:
        sys.stderr.write(f"Can't ask: {errors.FormatError(err)}\n")
        return constants.EXIT_FAILURE
    return Report(answer, options)
