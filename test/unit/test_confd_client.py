"""confd, the asking side: whom to ask, whom to believe, when to stop waiting."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti import constants, errors, objects, pathutils
from ganeti.confd import client, protocol, server
from ganeti.runtime import fake
from ganeti.tools import confd_client

_KEY = b"0123456789abcdef0123456789abcdef01234567\n"
_PEERS = [f"192.0.2.{number}" for number in range(1, 11)]


class _Net:
    """A network of servers that are functions; waiting for nobody lets time pass.

    @ivar sent: (datagram, address) in order
    """

    def __init__(self, clock):
        self._clock = clock
        self.servers = {}
        self.sent = []
        self.inbox = []

    def Send(self, payload, ip, port):
        self.sent.append((payload, ip))
        answer = self.servers.get(ip, lambda payload: None)(payload)
        for datagram in answer if isinstance(answer, list) else [answer]:
            if datagram is not None:
                self.inbox.append((datagram, ip, port))

    def Receive(self, timeout):
        if self.inbox:
            return self.inbox.pop(0)
        self._clock.Advance(timeout)
        return None

    def Fileno(self):
        return 7

    def Close(self):
        self.closed = True


def _Server(answer, serial=1, status=0, key=_KEY):
    """A server that gives one answer to everything."""

    def _Reply(payload):
        message, _ = protocol.Unpack(payload, _KEY)
        reply = {"protocol": 1, "status": status, "answer": answer, "serial": serial}
        return protocol.Pack(reply, key, message["rsalt"])

    return _Reply


class _World:
    def __init__(self, peers=_PEERS):
        self.rt = fake.NewRuntime()
        self.net = _Net(self.rt.clock)
        self.upcalls = []
        self.client = client.ConfdClient(
            _KEY, list(peers), self.upcalls.append, endpoint=self.net, runtime=self.rt
        )

    def Send(self, **kwargs):
        request = client.ConfdClientRequest(type=constants.CONFD_REQ_PING)
        self.client.SendRequest(request, async_=False, **kwargs)
        return request


class TestRequest:
    """CF4: requests."""

    def test_defaults(self):
        first = client.ConfdClientRequest(type=constants.CONFD_REQ_PING)
        second = client.ConfdClientRequest(type=constants.CONFD_REQ_PING)
        assert first.protocol == 1
        assert first.rsalt
        assert first.rsalt != second.rsalt

    def test_given_salt(self):
        request = client.ConfdClientRequest(type=0, rsalt="mine")
        assert request.rsalt == "mine"

    @pytest.mark.parametrize("type_", [None, 99, "0"])
    def test_invalid_type(self, type_):
        with pytest.raises(errors.ConfdClientError):
            client.ConfdClientRequest(type=type_)

    def test_null_query_is_left_out(self):
        world = _World()
        world.Send(coverage=1)
        message, _ = protocol.Unpack(world.net.sent[0][0], _KEY)
        assert "query" not in message


class TestClient:
    """CF4: asking several, matching salts, expiry."""

    def test_wrong_use(self):
        with pytest.raises(errors.ProgrammerError):
            client.ConfdClient(_KEY, ("a",), print)
        with pytest.raises(errors.ProgrammerError):
            client.ConfdClient(_KEY, ["a"], None)
        with pytest.raises(errors.ProgrammerError):
            _World().client.UpdatePeerList("192.0.2.1")

    def test_peer_list_is_copied(self):
        peers = ["192.0.2.1"]
        world = _World(peers)
        peers.append("192.0.2.2")
        world.client.UpdatePeerList(["192.0.2.3"])
        world.Send(coverage=-1)
        assert [ip for _, ip in world.net.sent] == ["192.0.2.3"]

    @pytest.mark.parametrize(
        ("peers", "coverage", "asked"), [(10, 0, 6), (3, 0, 3), (10, -1, 10), (10, 2, 2), (0, 0, 0)]
    )
    def test_coverage(self, peers, coverage, asked):
        world = _World(_PEERS[:peers])
        world.Send(coverage=coverage)
        assert len({ip for _, ip in world.net.sent}) == asked
        assert len({payload for payload, _ in world.net.sent}) == min(asked, 1)

    @pytest.mark.parametrize("coverage", [11, -2])
    def test_impossible_coverage(self, coverage):
        with pytest.raises(errors.ConfdClientError):
            _World().Send(coverage=coverage)

    def test_peers_are_chosen_at_random(self):
        world = _World()
        chosen = set()
        for _ in range(30):
            world.Send(coverage=1)
            chosen.add(world.net.sent[-1][1])
        assert len(chosen) > 3

    def test_salt_is_the_clock(self):
        world = _World()
        world.Send(coverage=1)
        _, salt = protocol.Unpack(world.net.sent[0][0], _KEY)
        assert salt == str(int(fake.EPOCH))

    def test_async_waits_for_the_flush(self):
        world = _World()
        world.client.SendRequest(client.ConfdClientRequest(type=0), coverage=2)
        assert not world.net.sent
        world.client.FlushSendQueue()
        assert len(world.net.sent) == 2

    def test_one_unreachable_peer_does_not_matter(self):
        world = _World(_PEERS[:3])
        send = world.net.Send

        def _Refuse(payload, ip, port):
            if ip == _PEERS[1]:
                raise OSError("Network is unreachable")
            send(payload, ip, port)

        world.net.Send = _Refuse
        world.Send(coverage=-1)
        assert len(world.net.sent) == 2

    def test_refused_requests(self):
        world = _World()
        request = world.Send()
        with pytest.raises(errors.ConfdClientError, match="outstanding"):
            world.client.SendRequest(request)
        with pytest.raises(errors.ConfdClientError, match="rsalt"):
            world.client.SendRequest(objects.ConfdRequest(type=0, protocol=1))
        with pytest.raises(errors.ConfdClientError, match="type"):
            world.client.SendRequest(objects.ConfdRequest(type=77, protocol=1, rsalt="x"))
        big = client.ConfdClientRequest(type=1, query="x" * 61440)
        with pytest.raises(errors.ConfdClientError, match="61440"):
            world.client.SendRequest(big)
        assert len(world.net.sent) == 6

    def test_reply(self):
        world = _World()
        world.net.servers = dict.fromkeys(_PEERS, _Server("ok", serial=5))
        request = world.Send(args="mine", coverage=1)
        assert world.client.ReceiveReply()
        (up,) = world.upcalls
        assert (up.salt, up.type) == (request.rsalt, client.UPCALL_REPLY)
        assert up.orig_request is request
        assert (up.server_reply.status, up.server_reply.answer) == (0, "ok")
        assert up.server_reply.serial == 5
        assert up.server_ip == world.net.sent[0][1]
        assert up.server_port == 1814
        assert up.extra_args == "mine"
        assert up.client is world.client

    @pytest.mark.parametrize(
        "datagram",
        [
            b"",
            b"plj1x",
            b"plj0x",
            protocol.Pack({"status": 0, "serial": 1}, b"another key", "salt"),
            protocol.Pack({"status": 0, "serial": 1}, _KEY, "unknown salt"),
            protocol.Pack({"status": 0}, _KEY, "salt"),
            protocol.Pack({"status": "x", "serial": 1}, _KEY, "salt"),
        ],
    )
    def test_dropped(self, datagram):
        world = _World()
        world.client.SendRequest(client.ConfdClientRequest(type=0, rsalt="salt"))
        world.client.HandleResponse(datagram, "192.0.2.1", 1814)
        assert not world.upcalls
        good = protocol.Pack({"status": 0, "serial": 1}, _KEY, "salt")
        world.client.HandleResponse(good, "192.0.2.1", 1814)
        assert len(world.upcalls) == 1

    def test_every_request_expires(self):
        world = _World()
        world.net.servers = dict.fromkeys(_PEERS, _Server("ok"))
        answered = world.Send(args=1)
        while world.client.ReceiveReply(timeout=0):
            pass
        world.net.servers = {}
        unanswered = world.Send(args=2)
        world.rt.clock.Advance(10.1)
        world.client.ExpireRequests()
        expired = {
            up.salt: up.extra_args for up in world.upcalls if up.type == client.UPCALL_EXPIRE
        }
        assert expired == {answered.rsalt: 1, unanswered.rsalt: 2}
        world.client.ExpireRequests()
        assert len(world.upcalls) == 6 + 2

    def test_late_answer_is_dropped(self):
        world = _World()
        request = world.Send()
        world.rt.clock.Advance(10.1)
        late = protocol.Pack({"status": 0, "serial": 1}, _KEY, request.rsalt)
        world.client.HandleResponse(late, "192.0.2.1", 1814)
        assert [up.type for up in world.upcalls] == [client.UPCALL_EXPIRE]

    @pytest.mark.parametrize(
        ("peers", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (8, 5)]
    )
    def test_enough_replies(self, peers, needed):
        assert client.NeededReplies(peers) == needed

    def test_wait_for_enough(self):
        world = _World(_PEERS[:5])
        world.net.servers = dict.fromkeys(_PEERS[:5], _Server("ok"))
        request = world.Send(coverage=-1)
        assert world.client.WaitForReply(request.rsalt) == (False, 5, 3)

    def test_wait_counts_servers_not_datagrams(self):
        world = _World(_PEERS[:3])
        twice = _Server("ok")
        world.net.servers[_PEERS[0]] = lambda payload: [twice(payload)] * 5
        request = world.Send(coverage=-1)
        assert world.client.WaitForReply(request.rsalt, timeout=3) == (True, 3, 1)
        assert world.rt.clock.monotonic() == pytest.approx(3)

    def test_wait_in_vain(self):
        world = _World(_PEERS[:3])
        request = world.Send()
        assert world.client.WaitForReply(request.rsalt, timeout=10) == (True, 3, 0)
        assert world.client.WaitForReply("unknown") == (True, 0, 0)

    def test_wait_makes_the_request_live_longer(self):
        world = _World(_PEERS[:1])
        request = world.Send()
        world.client.WaitForReply(request.rsalt, timeout=15)
        assert not world.upcalls

    def test_for_a_node_of_a_cluster(self):
        rt = fake.NewRuntime()
        rt.files.write(f"{pathutils.DATA_DIR}/ssconf_master_candidates_ips", b"192.0.2.1\n")
        rt.files.write(pathutils.CONFD_HMAC_KEY, _KEY)
        made = client.GetConfdClient(print, runtime=rt)
        assert made.Fileno() > 2
        made.Close()
        with pytest.raises(errors.ConfigurationError):
            client.GetConfdClient(print, runtime=fake.NewRuntime())


def _Up(answer, serial, salt="s", ip="192.0.2.1", status=0, type_=client.UPCALL_REPLY):
    reply = None
    if type_ == client.UPCALL_REPLY:
        reply = objects.ConfdReply(protocol=1, status=status, answer=answer, serial=serial)
    return client.ConfdUpcallPayload(
        salt=salt,
        type=type_,
        orig_request=objects.ConfdRequest(),
        server_reply=reply,
        server_ip=ip,
    )


class TestFilter:
    """CF4: only news pass; the highest serial wins; contradictions are named."""

    @pytest.mark.parametrize(
        ("second", "passed", "consistent", "kept"),
        [
            (("other", 6), True, True, ("other", 6)),
            (("same", 6), False, True, ("same", 6)),
            (("same", 5), False, True, ("same", 5)),
            (("other", 5), False, False, ("same", 5)),
            (("other", 4), False, True, ("same", 5)),
            (("same", 4), False, True, ("same", 5)),
        ],
    )
    def test_table(self, second, passed, consistent, kept):
        news = []
        filter_ = client.ConfdFilterCallback(news.append)
        filter_(_Up("same", 5))
        filter_(_Up(*second, ip="192.0.2.2"))
        assert len(news) == (2 if passed else 1)
        assert filter_.consistent["s"] == consistent
        stored = filter_.GetBest("s").server_reply
        assert (stored.answer, stored.serial) == kept

    def test_an_error_code_is_no_role(self):
        """Status 1 with code 2 is not the role 2."""
        filter_ = client.ConfdFilterCallback(lambda up: None)
        filter_(_Up(2, 5))
        filter_(_Up(2, 5, status=1, ip="192.0.2.2"))
        assert not filter_.consistent["s"]

    def test_expire_clears_and_passes(self):
        news = []
        filter_ = client.ConfdFilterCallback(news.append)
        filter_(_Up("x", 5))
        filter_(_Up(None, 0, type_=client.UPCALL_EXPIRE))
        assert [up.type for up in news] == [client.UPCALL_REPLY, client.UPCALL_EXPIRE]
        assert filter_.consistent == {}
        filter_(_Up("x", 4))
        assert len(news) == 3

    def test_agreement(self):
        filter_ = client.ConfdFilterCallback(lambda up: None)
        filter_(_Up("x", 5, ip="a"))
        filter_(_Up("x", 5, ip="b"))
        filter_(_Up("x", 5, ip="b"))
        assert filter_.CountAgreeing("s") == 2
        filter_(_Up("x", 6, ip="c"))
        assert filter_.CountAgreeing("s") == 1
        assert filter_.CountAgreeing("other") == 0

    def test_must_have_a_callback(self):
        for cls in (client.ConfdFilterCallback, client.ConfdCountingCallback):
            with pytest.raises(errors.ProgrammerError):
                cls("no function")

    @given(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.sampled_from(["i", "j", "k"])),
            min_size=1,
            max_size=12,
        )
    )
    def test_last_news_is_an_answer_of_the_highest_serial(self, replies):
        news = []
        filter_ = client.ConfdFilterCallback(news.append, logging.getLogger("quiet"))
        for answer, serial, ip in replies:
            filter_(_Up(answer, serial, ip=ip))
        highest = max(serial for _, serial, _ in replies)
        first = next(answer for answer, serial, _ in replies if serial == highest)
        assert news[-1].server_reply.answer == first
        shown = [up.server_reply.serial for up in news]
        assert shown == sorted(set(shown))


class TestOtherCallbacks:
    """CF4: counting and storing."""

    def test_counting(self):
        passed = []
        counting = client.ConfdCountingCallback(passed.append)
        assert counting.AllAnswered()
        counting.RegisterQuery("s")
        counting.RegisterQuery("t")
        with pytest.raises(errors.ProgrammerError):
            counting.RegisterQuery("s")
        counting(_Up("x", 1))
        counting(_Up("x", 1, salt="not registered"))
        assert not counting.AllAnswered()
        counting(_Up(None, 0, salt="t", type_=client.UPCALL_EXPIRE))
        assert counting.AllAnswered()
        assert len(passed) == 3

    def test_store(self):
        store = client.StoreResultCallback()
        assert store.GetResponse("s") == (False, None)
        store(_Up("x", 1))
        store(_Up("y", 2))
        store(_Up(None, 0, type_=client.UPCALL_EXPIRE))
        found, up = store.GetResponse("s")
        assert found
        assert up.server_reply.answer == "y"

    def test_store_is_bounded(self):
        store = client.StoreResultCallback()
        for number in range(client.MAX_STORED + 5):
            store(_Up("x", 1, salt=str(number)))
        assert store.GetResponse("4") == (False, None)
        assert store.GetResponse("5")[0]


class TestAsk:
    """CF4, CF5: what several candidates say, some of them dead, stale or lying."""

    def _Ask(self, servers, coverage=-1):
        world = _World()
        world.net.servers = servers
        return client.Ask(
            lambda callback: client.ConfdClient(
                _KEY, list(servers), callback, endpoint=world.net, runtime=world.rt
            ),
            client.ConfdClientRequest(type=constants.CONFD_REQ_CLUSTER_MASTER),
            coverage=coverage,
        )

    def test_newest_wins(self):
        answer = self._Ask({"a": _Server("old", 4), "b": _Server("new", 5)})
        assert answer.reply.answer == "new"
        assert answer.server_ip == "b"
        assert (answer.consistent, answer.agreeing, answer.timed_out) == (True, 1, False)

    def test_newest_wins_though_it_says_the_same(self):
        answer = self._Ask({"a": _Server("same", 4), "b": _Server("same", 5)})
        assert (answer.reply.serial, answer.server_ip, answer.agreeing) == (5, "b", 1)
        answer = self._Ask({"b": _Server("same", 5), "a": _Server("same", 4)})
        assert (answer.reply.serial, answer.server_ip, answer.agreeing) == (5, "b", 1)

    def test_dead_ones(self):
        answer = self._Ask({"a": lambda payload: None, "b": _Server("x", 5), "c": _Server("x", 5)})
        assert (answer.reply.answer, answer.sent, answer.received) == ("x", 3, 2)
        assert not answer.timed_out

    def test_forged_ones(self):
        answer = self._Ask({"a": _Server("forged", 99, key=b"guess"), "b": _Server("true", 5)})
        assert answer.reply.answer == "true"
        assert answer.timed_out

    def test_contradiction(self):
        answer = self._Ask({"a": _Server("x", 5), "b": _Server("y", 5)})
        assert not answer.consistent

    def test_nobody(self):
        answer = self._Ask({"a": lambda payload: None})
        assert answer.reply is None
        assert answer.timed_out


class TestTool:
    """CF4: the command line client."""

    def _Run(self, argv, capsys, servers=None):
        rt = fake.NewRuntime()
        rt.files.write(f"{pathutils.DATA_DIR}/ssconf_master_candidates_ips", b"a\nb\n")
        rt.files.write(pathutils.CONFD_HMAC_KEY, _KEY)
        network = _Net(rt.clock)
        if servers is None:
            servers = dict.fromkeys("ab", self._RealServer(rt))
        network.servers = servers
        code = confd_client.Main(argv, rt=rt, endpoint=network)
        return (code, *capsys.readouterr())

    @staticmethod
    def _RealServer(rt):
        config = {
            "serial_no": 42,
            "cluster": {"master_node": "n1", "master_ip": "192.0.2.100"},
            "nodes": {
                "n1": {"primary_ip": "192.0.2.1", "master_candidate": True},
                "n2": {"primary_ip": "192.0.2.2", "offline": True},
            },
            "instances": {
                "inst": {
                    "primary_node": "n2",
                    "nics": [{"ip": "192.0.2.77", "nicparams": {"link": "br7"}}],
                }
            },
        }
        rt.files.write("/config.data", json.dumps(config).encode())
        processor = server.ConfdProcessor(_KEY, "/config.data", runtime=rt)
        processor.Enable()
        return lambda payload: processor.ExecQuery(payload, "192.0.2.9", 1)

    @pytest.mark.parametrize(
        ("argv", "output"),
        [
            (["ping"], "ok\n"),
            (["node-role", "n1"], "master\n"),
            (["node-role", "n2"], "offline\n"),
            (["master"], "n1\n"),
            (
                ["master-info"],
                "name: n1\ncluster IP: 192.0.2.100\nprimary IP: 192.0.2.1\n",
            ),
            (["node-ips"], "192.0.2.1\n192.0.2.2\n"),
            (["candidate-ips"], "192.0.2.1\n"),
            (["instance-ips"], ""),
            (["instance-ips", "-l", "br7"], "192.0.2.77\n"),
            (
                ["instance-node", "--link", "br7", "192.0.2.77", "192.0.2.78"],
                "192.0.2.77 192.0.2.2\n192.0.2.78 -\n",
            ),
        ],
        ids=str,
    )
    def test_queries(self, argv, output, capsys):
        assert self._Run(argv, capsys) == (0, output, "")

    def test_unknown(self, capsys):
        code, out, err = self._Run(["node-role", "nosuch"], capsys)
        assert (code, out) == (1, "")
        assert "no such thing" in err

    def test_json(self, capsys):
        code, out, _ = self._Run(["--json", "master"], capsys)
        assert code == 0
        shown = json.loads(out)
        assert (shown["answer"], shown["serial"], shown["status"]) == ("n1", 42, 0)
        assert (shown["asked"], shown["answered"], shown["agreeing"]) == (2, 2, 2)

    def test_verbose(self, capsys):
        _, _, err = self._Run(["-v", "ping"], capsys)
        assert err.count('"answer": "ok"') == 2

    def test_nobody_answers(self, capsys):
        code, out, err = self._Run(["ping"], capsys, servers={})
        assert (code, out) == (1, "")
        assert "None of the 2 candidates" in err

    def test_contradiction(self, capsys):
        servers = {"a": _Server("x", 5), "b": _Server("y", 5)}
        code, out, err = self._Run(["master"], capsys, servers)
        assert (code, out) == (1, "")
        assert "differently" in err

    def test_few_answers(self, capsys):
        code, out, err = self._Run(["master"], capsys, {"a": _Server("x", 5)})
        assert (code, out) == (0, "x\n")
        assert "1 of 2" in err

    def test_addresses_of_elsewhere(self, capsys):
        servers = {"c": _Server("x", 5)}
        assert self._Run(["-a", "c", "master"], capsys, servers)[:2] == (0, "x\n")

    def test_no_cluster(self, capsys):
        code = confd_client.Main(["ping"], rt=fake.NewRuntime())
        assert code == 1
        assert "ssconf" in capsys.readouterr().err

    def test_usage(self, capsys):
        with pytest.raises(SystemExit) as err:
            confd_client.Main(["nonsense"])
        assert err.value.code == 2
        assert "invalid choice" in capsys.readouterr().err
