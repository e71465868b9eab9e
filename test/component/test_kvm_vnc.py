"""VNC of KVM instances, with a client: passwords, TLS, certificates (BASE2)."""

import contextlib
import datetime
import ssl

import pytest
import rfb
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ONE = "inst1.example.com"
HOST = "node1.example.com"
ADDRESS = ("127.0.0.1", 11001)
#: Longer than RFB's eight characters.
PASSWORD = "very secret indeed"
SCREEN = f"QEMU ({ONE})"


class Authority:
    """Makes certificates."""

    def __init__(self, name):
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._Sign(name, self._key, x509.BasicConstraints(True, None), None)

    def _Sign(self, name, key, constraints, usage):
        def _Name(text):
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_Name(name))
            .issuer_name(_Name(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(constraints, critical=True)
        )
        if usage is None:
            builder = builder.add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), True
            )
        else:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())

    def Write(self, directory, role, name, usage):
        """A certificate and its key, named as QEMU wants them."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._Sign(name, key, x509.BasicConstraints(False, None), usage)
        pem = serialization.Encoding.PEM
        directory.chmod(0o700)
        (directory / f"{role}-key.pem").touch(0o600)
        (directory / "ca-cert.pem").write_bytes(self.cert.public_bytes(pem))
        (directory / f"{role}-cert.pem").write_bytes(cert.public_bytes(pem))
        (directory / f"{role}-key.pem").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """Directories: of the server and a client, and of a client of somebody else's authority."""
    ours, theirs = (tmp_path_factory.mktemp(name) for name in ("ours", "theirs"))
    authority, other = Authority("ours"), Authority("theirs")
    authority.Write(ours, "server", HOST, ExtendedKeyUsageOID.SERVER_AUTH)
    authority.Write(ours, "client", "user", ExtendedKeyUsageOID.CLIENT_AUTH)
    other.Write(theirs, "client", "user", ExtendedKeyUsageOID.CLIENT_AUTH)
    return ours, theirs


def Context(certs, client=None):
    """Of a client that checks the server, and shows a certificate if it is asked for one."""
    context = ssl.create_default_context(cafile=str(certs[0] / "ca-cert.pem"))
    if client is not None:
        context.load_cert_chain(client / "client-cert.pem", client / "client-key.pem")
    return context


@contextlib.contextmanager
def Connected(address=ADDRESS):
    client = rfb.Client(address)
    try:
        yield client
    finally:
        client.Close()


@pytest.fixture
def password_file(lab):
    path = lab.directory / "password"
    path.write_text(PASSWORD + "\n")
    return str(path)


def Start(lab, **hvparams):
    hvparams = {"vnc_bind_address": "127.0.0.1", "kernel_path": "", **hvparams}
    instance = lab.Instance(ONE, disks=0, **hvparams)
    lab.Start(instance)
    return instance


class TestPassword:
    """The password is set before the guest runs; nobody gets in without it."""

    @pytest.mark.parametrize("where", ["address", "directory"])
    def test_password(self, lab, password_file, where):
        socket_path = lab.directory / f"{ONE}.vnc"
        address = {"address": ADDRESS, "directory": str(socket_path)}[where]
        bind = {"address": "127.0.0.1", "directory": str(lab.directory)}[where]
        Start(lab, vnc_bind_address=bind, vnc_password_file=password_file)
        with Connected(address) as client:
            assert client.types == [rfb.PASSWORD]
            assert client.Plain(PASSWORD) == SCREEN
        # The protocol knows eight characters.
        with Connected(address) as client:
            assert client.Plain(PASSWORD[:8]) == SCREEN
        for wrong in ("", PASSWORD[:7], "wrong"):
            with Connected(address) as client, pytest.raises(rfb.Refused):
                client.Plain(wrong)
        lab.hv.StopInstance(None, force=True, name=ONE)
        lab.hv.CleanupInstance(ONE)
        assert not socket_path.exists()

    def test_none(self, lab):
        Start(lab)
        with Connected() as client:
            assert client.types == [rfb.NONE]
            assert client.Plain() == SCREEN

    def test_anonymous_tls(self, lab, password_file):
        """Encrypted, but anybody may be the server."""
        Start(lab, vnc_tls=True, vnc_password_file=password_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ADH:@SECLEVEL=0")
        with Connected() as client:
            assert client.types == [rfb.VENCRYPT]
            assert client.VeNCrypt(rfb.TLS_PASSWORD, context, password=PASSWORD) == SCREEN
            assert client.kinds == [rfb.TLS_PASSWORD]
        with Connected() as client, pytest.raises(rfb.Refused):
            client.VeNCrypt(rfb.TLS_PASSWORD, context, password="wrong")


class TestCertificates:
    """The server shows the one in vnc_x509_path; with vnc_x509_verify the client needs one, too."""

    def test_server(self, lab, certs, password_file):
        Start(lab, vnc_tls=True, vnc_x509_path=str(certs[0]), vnc_password_file=password_file)
        with Connected() as client:
            assert client.types == [rfb.VENCRYPT]
            kind = rfb.X509_PASSWORD
            assert client.VeNCrypt(kind, Context(certs), HOST, PASSWORD) == SCREEN
            assert client.kinds == [kind]
        with Connected() as client, pytest.raises(rfb.Refused):
            client.VeNCrypt(kind, Context(certs), HOST, "wrong")
        # And it is that server and no other.
        with Connected() as client, pytest.raises(rfb.Refused, match="CERTIFICATE_VERIFY"):
            client.VeNCrypt(kind, Context(certs), "node2.example.com", PASSWORD)

    @pytest.mark.parametrize("use_chroot", [False, True])
    def test_client(self, lab, certs, use_chroot):
        ours, theirs = certs
        Start(
            lab,
            vnc_tls=True,
            vnc_x509_path=str(ours),
            vnc_x509_verify=True,
            use_chroot=use_chroot,
            security_model="user",
            security_domain="nobody",
        )
        with Connected() as client:
            assert client.VeNCrypt(rfb.X509_NONE, Context(certs, ours), HOST) == SCREEN
        for wrong in (None, theirs):
            with Connected() as client, pytest.raises(rfb.Refused):
                client.VeNCrypt(rfb.X509_NONE, Context(certs, wrong), HOST)
