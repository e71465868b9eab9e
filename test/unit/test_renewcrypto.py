"""The renewal of secrets: its decisions. How it goes is in the component tests."""

from __future__ import annotations

import pytest

from ganeti import errors, renewcrypto
from ganeti.renewcrypto import CONFD_KEY, RAPI_CERT, SERVER_CERT, Plan, Preview, Wishes
from ganeti.utils import x509


def _Plan(*changed, installed=False):
    return Plan(frozenset(changed), frozenset(["node3"]), installed)


class TestPlan:
    def test_round_trip(self):
        for plan in (_Plan(SERVER_CERT), _Plan(installed=True)):
            assert renewcrypto.ParsePlan(plan.Dump()) == plan

    @pytest.mark.parametrize("content", ["", "x", "[]", "{}", '{"changed": 1}', "\0"])
    def test_broken(self, content):
        assert renewcrypto.ParsePlan(content) is None


class TestResume:
    """What was begun is finished with the same files, and never done twice."""

    @pytest.mark.parametrize(
        ("plan", "wishes", "resumed"),
        [
            (None, Wishes(), False),
            (None, Wishes(cluster_cert=True), False),
            (_Plan(SERVER_CERT), Wishes(), True),
            (_Plan(SERVER_CERT), Wishes(cluster_cert=True), True),
            (_Plan(SERVER_CERT, CONFD_KEY), Wishes(confd_hmac_key=True), True),
            # All but some nodes have them: it was done.
            (_Plan(SERVER_CERT, installed=True), Wishes(), True),
            (_Plan(SERVER_CERT, installed=True), Wishes(cluster_cert=True), False),
            (_Plan(SERVER_CERT, installed=True), Wishes(rapi_cert=True), False),
        ],
    )
    def test_table(self, plan, wishes, resumed):
        assert renewcrypto.IsResumed(plan, wishes, None) is resumed

    def test_something_else_is_wanted(self):
        with pytest.raises(errors.OpPrereqError, match="certificate of the node daemons, was"):
            renewcrypto.IsResumed(_Plan(SERVER_CERT), Wishes(rapi_cert=True), None)

    def test_another_certificate_is_wanted(self):
        plan = _Plan(RAPI_CERT)
        assert renewcrypto.IsResumed(plan, Wishes(rapi_cert_pem="a\n"), "a\n")
        with pytest.raises(errors.OpPrereqError, match="was interrupted"):
            renewcrypto.IsResumed(plan, Wishes(rapi_cert_pem="b\n"), "a\n")

    def test_certificate_without_a_newline_at_its_end(self):
        """The staged one has got one."""
        assert renewcrypto.IsResumed(_Plan(RAPI_CERT), Wishes(rapi_cert_pem="a"), "a\n")


class TestRapiCertificate:
    def test_pair(self):
        renewcrypto.CheckRapiPem(x509.GenerateSelfSignedX509Cert().pem, "/x.pem")

    def test_not_a_pair(self):
        one, other = (x509.GenerateSelfSignedX509Cert() for _ in range(2))
        with pytest.raises(errors.OpPrereqError, match="/x.pem .* does not belong"):
            renewcrypto.CheckRapiPem(one.key_pem + other.cert_pem, "/x.pem")


class TestPreview:
    def test_nothing_special(self):
        assert Preview(None, ["node2"]).Describe() == []

    def test_all(self):
        preview = Preview(_Plan(SERVER_CERT), ["node2"], {"node2": "gone"}, ["node4"], ["7"])
        assert [line.split(" of ")[0] for line in preview.Describe()] == [
            "An earlier renewal",
            "Node node2 can not be reached (gone). It gets the files when this command is run"
            " again, without options, once it is back.",
            "Offline nodes get the files when they are re-added: node4.",
            "Running jobs end with an error unless they are done within half a minute: 7.",
        ]
