"""Certificates of the cluster."""

import os
import ssl
import stat

import pytest
from cryptography import x509 as cx509
from OpenSSL import crypto

from ganeti import errors
from ganeti.runtime import fake
from ganeti.utils import io, x509

DAY = 24 * 3600


@pytest.fixture(scope="module")
def pair():
    return x509.GenerateSelfSignedX509Cert(
        "cluster.example.com", 30 * DAY, x509.KEY_EC, alt_names=["node1.example.com", "127.0.0.1"]
    )


@pytest.fixture(scope="module")
def other():
    return x509.GenerateSelfSignedX509Cert(key_type=x509.KEY_EC)


class TestAsn1Time:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("19700101000000Z", 0),
            ("20100222174152Z", 1266860512),
            ("20380119031407Z", 2147483647),
            ("20100223051808-0800", 1266931088),
            ("20100224002135+1100", 1266931295),
            ("19700101000000-0100", 3600),
        ],
    )
    def testGood(self, value, expected):
        assert x509.ParseAsn1GeneralizedTime(value) == expected

    @pytest.mark.parametrize(
        "value",
        ["", "invalid", "20100222174152", "Mon Feb 22 17:47:02 UTC 2010", "2010-02-22 17:42:02",
         "20100222174160Z", "20100222174152+11", "20101322174152Z", "20100222174152Z\n"],
    )  # fmt: skip
    def testBad(self, value):
        with pytest.raises(ValueError):  # noqa: PT011
            x509.ParseAsn1GeneralizedTime(value)


class TestGenerate:
    @pytest.mark.parametrize(("key_type", "bits"), [(x509.KEY_RSA, 3072), (x509.KEY_EC, 256)])
    def testKeyAndSignature(self, key_type, bits):
        made = x509.GenerateSelfSignedX509Cert(key_type=key_type)
        x509.CheckPem(made.pem)
        cert = x509.LoadCertificate(made.pem).to_cryptography()
        assert x509.LoadPrivateKey(made.pem).bits() == bits
        assert cert.signature_hash_algorithm.name == "sha256"
        assert cert.subject == cert.issuer
        assert cert.version.name == "v3"

    def testNames(self, pair):
        cert = x509.LoadCertificate(pair.cert_pem).to_cryptography()
        assert cert.subject.rfc4514_string() == "CN=cluster.example.com"
        names = cert.extensions.get_extension_for_class(cx509.SubjectAlternativeName)
        assert names.value.get_values_for_type(cx509.DNSName) == [
            "cluster.example.com",
            "node1.example.com",
        ]
        assert [str(ip) for ip in names.value.get_values_for_type(cx509.IPAddress)] == ["127.0.0.1"]

    def testValidityInTheTimeOfTheClock(self):
        rt = fake.NewRuntime()
        made = x509.GenerateSelfSignedX509Cert("x", 1000, x509.KEY_EC, runtime=rt)
        now = int(rt.clock.time())
        cert = x509.LoadCertificate(made.pem)
        before, after = x509.GetX509CertValidity(cert)
        assert after == now + 1000
        # clocks of other nodes may be behind
        assert before == now - 300

    def testSerialNumbersDiffer(self, pair, other):
        serials = [
            x509.LoadCertificate(p.pem).to_cryptography().serial_number for p in (pair, other)
        ]
        assert serials[0] != serials[1]

    def testUnknownKeyType(self):
        with pytest.raises(errors.ProgrammerError, match="dsa"):
            x509.GenerateSelfSignedX509Cert(key_type="dsa")

    def testUsableByBothSidesAsTheirOnlyRoot(self, pair, other, tmp_path):
        """The same certificate on both sides is the rule of trust, also for a strict verifier."""
        assert _Handshake(tmp_path, server=pair, client=pair, trusted=pair)
        assert not _Handshake(tmp_path, server=pair, client=other, trusted=pair)
        assert not _Handshake(tmp_path, server=other, client=pair, trusted=pair)


def _Context(tmp_path, side, own, trusted):
    path = str(tmp_path / "own.pem")
    x509.WritePemFile(path, own.pem)
    context = ssl.SSLContext(side)
    context.load_cert_chain(path)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=trusted.cert_pem)
    return context


def _Handshake(tmp_path, server, client, trusted):
    """Mutual TLS in memory; whether both sides accept each other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_context = _Context(tmp_path, ssl.PROTOCOL_TLS_SERVER, server, trusted)
    client_context = _Context(tmp_path, ssl.PROTOCOL_TLS_CLIENT, client, trusted)
    sides = [
        client_context.wrap_bio(to_client, to_server),
        server_context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return all(side.getpeercert(binary_form=True) for side in sides)


class TestFiles:
    def testPrivateFromTheFirstByte(self, tmp_path, monkeypatch):
        modes = []
        real_write = os.write

        def Write(fd, data):
            modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
            return real_write(fd, data)

        monkeypatch.setattr(os, "write", Write)
        path = str(tmp_path / "server.pem")
        x509.GenerateSelfSignedSslCert(path, key_type=x509.KEY_EC)
        assert set(modes) == {0o400}
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o400
        x509.CheckPem(io.ReadFile(path))

    def testReplacing(self, tmp_path, pair, other):
        path = str(tmp_path / "server.pem")
        x509.WritePemFile(path, pair.pem)
        x509.WritePemFile(path, other.pem, backup=True)
        assert io.ReadFile(path) == other.pem
        assert len(os.listdir(tmp_path)) == 2


class TestCheckPem:
    def testOrderDoesNotMatter(self, pair):
        x509.CheckPem(pair.cert_pem + pair.key_pem)
        x509.CheckPem(pair.pem.encode())

    def testMissingParts(self, pair):
        with pytest.raises(errors.GenericError, match="private key"):
            x509.CheckPem(pair.cert_pem)
        with pytest.raises(errors.GenericError, match="certificate"):
            x509.CheckPem(pair.key_pem)
        for text in ("", "junk", "\udcff"):
            with pytest.raises(errors.GenericError):
                x509.CheckPem(text)

    def testForeignKey(self, pair, other):
        with pytest.raises(errors.GenericError, match="belong"):
            x509.CheckPem(pair.key_pem + other.cert_pem)

    def testDerIsThatOfTheCertificate(self, pair):
        cert = crypto.load_certificate(crypto.FILETYPE_PEM, pair.pem.encode())
        assert x509.GetCertificateDer(pair.pem) == crypto.dump_certificate(
            crypto.FILETYPE_ASN1, cert
        )

    @pytest.mark.parametrize(
        "text", ["", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----", "nothing"]
    )
    def testDerOfWhatIsNoCertificate(self, text):
        with pytest.raises(errors.GenericError, match="No certificate can be loaded"):
            x509.GetCertificateDer(text)


class TestCheckValidity:
    NOW = 1_000_000_000

    @pytest.mark.parametrize(
        ("before", "after", "severity", "text"),
        [
            (-DAY, 31 * DAY, None, None),
            (-DAY, 31 * DAY - 1, "WARNING", "30 days"),
            (-DAY, 8 * DAY, "WARNING", "8 days"),
            (-DAY, 8 * DAY - 1, "ERROR", "7 days"),
            (-DAY, 0, "ERROR", "0 days"),
            (-DAY, -1, "ERROR", "expired"),
            (1, 100 * DAY, "WARNING", "not yet valid"),
            (None, 100 * DAY, None, None),
            (-DAY, None, None, None),
            (None, None, None, None),
            (None, -1, "ERROR", "expired"),
        ],
    )
    def testTable(self, before, after, severity, text):
        result = x509.CheckValidity(
            None if before is None else self.NOW + before,
            None if after is None else self.NOW + after,
            now=self.NOW,
        )
        assert result[0] == severity
        assert (text is None and result[1] is None) or text in result[1]

    def testDatesInUtc(self):
        _, text = x509.CheckValidity(0, DAY, now=2 * DAY)
        assert "1970-01-01 00:00:00 UTC to 1970-01-02 00:00:00 UTC" in text

    def testFile(self, tmp_path, pair):
        path = str(tmp_path / "server.pem")
        severity, text = x509.VerifyCertificateFile(path)
        assert severity == "ERROR"
        assert path in text
        x509.WritePemFile(path, pair.pem)
        severity, text = x509.VerifyCertificateFile(path)
        assert severity == "WARNING"
        assert text.startswith("While verifying server.pem: Certificate expires in about")
