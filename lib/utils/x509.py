"""Certificates and keys of the cluster.

The cluster has few certificates and no authority: each is self-signed, lies with its private key
in one PEM file, and is trusted because it is the same on both sides. They carry everything that a
strict verifier asks of a self-signed certificate (key identifiers, usages, basic constraints), so
that any TLS library can take them as their own root.

Loading, writing and comparing is pyOpenSSL's; building goes through cryptography, which pyOpenSSL
stands on: it has no way of its own any more to set the alternative names.
"""

import calendar
import datetime
import ipaddress
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .. import constants, errors, runtime
from . import io

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from OpenSSL import crypto

KEY_RSA: Final = "rsa"
KEY_EC: Final = "ec"
KEY_TYPES: Final = frozenset([KEY_RSA, KEY_EC])
RSA_KEY_BITS: Final = 3072

DEFAULT_COMMON_NAME: Final = "ganeti.example.com"
#: Seconds: 1825 days.
DEFAULT_VALIDITY: Final = 1825 * 24 * 60 * 60
#: Certificates begin to be valid this many seconds ago: clocks of nodes differ.
_BACKDATE: Final = 2 * constants.NODE_MAX_CLOCK_SKEW
#: Nobody may read, write or run anything but the owner, who may read.
_PEM_MODE: Final = 0o400

_ASN1_TIME: Final = re.compile(r"([0-9]{14})(?:Z|([-+])([0-9]{2})([0-9]{2}))")

_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL
)

VERIFY_WARNING: Final = "WARNING"
VERIFY_ERROR: Final = "ERROR"


# Making


@dataclass(frozen=True)
class KeyPair:
    """A private key and its self-signed certificate, as PEM texts."""

    key_pem: str
    cert_pem: str

    @property
    def pem(self) -> str:
        """Key and certificate in the order in which files of the suite have them."""
        return self.key_pem + self.cert_pem


def GenerateSelfSignedX509Cert(
    common_name: str = DEFAULT_COMMON_NAME,
    validity: int = DEFAULT_VALIDITY,
    key_type: str = KEY_EC,
    alt_names: Iterable[str] = (),
    runtime: runtime.Runtime = runtime.DEFAULT,
) -> KeyPair:
    """A new key (EC on P-256, or RSA with 3072 bits) and certificate, signed with SHA-256.

    Each end of a handshake signs: with RSA that costs a hundred times as much.

    Arguments:
      - common_name: subject, issuer and first alternative name
      - validity: seconds from now on
      - alt_names: further host names and addresses it is good for
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    from OpenSSL import crypto

    private = _GenerateKey(key_type)
    public = private.public_key()
    now = datetime.datetime.fromtimestamp(int(runtime.clock.time()), tz=datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName(_GeneralNames(common_name, alt_names)), False),
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=key_type == KEY_RSA,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        ),
        (
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            False,
        ),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=_BACKDATE))
        .not_valid_after(now + datetime.timedelta(seconds=validity))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    cert = crypto.X509.from_cryptography(builder.sign(private, hashes.SHA256()))
    key_pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return KeyPair(
        key_pem.decode("ascii"),
        crypto.dump_certificate(crypto.FILETYPE_PEM, cert).decode("ascii"),
    )


def _GenerateKey(key_type: str) -> "rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if key_type == KEY_EC:
        return ec.generate_private_key(ec.SECP256R1())
    if key_type == KEY_RSA:
        return rsa.generate_private_key(public_exponent=65537, key_size=RSA_KEY_BITS)
    raise errors.ProgrammerError(
        f"Unknown key type '{key_type}': use one of {', '.join(sorted(KEY_TYPES))}"
    )


def _GeneralNames(common_name: str, alt_names: Iterable[str]) -> "list[x509.GeneralName]":
    from cryptography import x509

    names: list[x509.GeneralName] = []
    for name in dict.fromkeys([common_name, *alt_names]):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            names.append(x509.DNSName(name))
    return names


def GenerateSelfSignedSslCert(
    file_name: str,
    validity: int = DEFAULT_VALIDITY,
    common_name: str = DEFAULT_COMMON_NAME,
    key_type: str = KEY_EC,
    alt_names: Iterable[str] = (),
    backup: bool = False,
    runtime: runtime.Runtime = runtime.DEFAULT,
) -> None:
    """Make a key and certificate (GenerateSelfSignedX509Cert) and write them to one PEM file."""
    pair = GenerateSelfSignedX509Cert(common_name, validity, key_type, alt_names, runtime)
    WritePemFile(file_name, pair.pem, backup=backup)


def WritePemFile(file_name: str, pem: str, backup: bool = False) -> None:
    """Replace a PEM file; it has mode 0400 before the first byte of the key is in it."""
    io.WriteFile(file_name, data=pem, mode=_PEM_MODE, backup=backup)


# Loading


def LoadCertificate(pem: str | bytes) -> "crypto.X509":
    """The (first) certificate of a PEM text.

    Raises: GenericError.
    """
    from OpenSSL import crypto

    try:
        return crypto.load_certificate(crypto.FILETYPE_PEM, _Bytes(pem))
    except (crypto.Error, ValueError) as err:
        raise errors.GenericError(f"No certificate can be loaded: {_Reason(err)}") from err


def LoadPrivateKey(pem: str | bytes) -> "crypto.PKey":
    """The private key of a PEM text; it must not need a passphrase.

    Raises: GenericError.
    """
    from OpenSSL import crypto

    try:
        # An empty passphrase keeps the library from asking on the terminal.
        return crypto.load_privatekey(crypto.FILETYPE_PEM, _Bytes(pem), b"")
    except (crypto.Error, ValueError, TypeError) as err:
        raise errors.GenericError(f"No private key can be loaded: {_Reason(err)}") from err


def CheckPem(pem: str | bytes) -> None:
    """Check that a PEM text has a private key and a certificate that belong together.

    Raises: GenericError, saying what is missing.
    """
    key = LoadPrivateKey(pem)
    cert = LoadCertificate(pem)
    if _PublicDer(key) != _PublicDer(cert.get_pubkey()):
        raise errors.GenericError("The private key does not belong to the certificate")


def GetCertificateDer(pem: str | bytes) -> bytes:
    """The (first) certificate of a PEM text in DER form: compare it with what a peer presented.

    Node daemons need no more than this, for which the standard library will do: the other one is
    ten times as big, and would be locked into the memory of each of them.

    Raises: GenericError.
    """
    import ssl

    found = _CERTIFICATE.search(_Bytes(pem))
    if found is None:
        raise errors.GenericError("No certificate can be loaded: there is none in the text")
    try:
        return ssl.PEM_cert_to_DER_cert(found[0].decode("ascii"))
    except ValueError as err:
        raise errors.GenericError(f"No certificate can be loaded: {err}") from err


def _PublicDer(key: "crypto.PKey") -> bytes:
    from OpenSSL import crypto

    return crypto.dump_publickey(crypto.FILETYPE_ASN1, key)


def _Bytes(pem: str | bytes) -> bytes:
    return pem.encode("utf-8", "surrogateescape") if isinstance(pem, str) else pem


#: What the TLS library says of a text that has no such block at all.
_NOTHING_FOUND: Final = frozenset(["", "unsupported", "no start line"])


def _Reason(err: Exception) -> str:
    """Text of an error of the TLS library, which may be a list of triples, or empty."""
    if err.args and isinstance(err.args[0], list):
        reason = "; ".join(str(part[-1]) for part in err.args[0])
    else:
        reason = str(err)
    return "none found" if reason in _NOTHING_FOUND else reason


# Validity


def ParseAsn1GeneralizedTime(value: str) -> int:
    """Epoch seconds of C{YYYYMMDDhhmmssZ} or C{YYYYMMDDhhmmss+hhmm}.

    Raises: ValueError, also without a time zone.
    """
    match = _ASN1_TIME.fullmatch(value)
    if not match:
        raise ValueError(f"Invalid ASN.1 time '{value}': expected YYYYMMDDhhmmss and a time zone")
    digits, sign, hours, minutes = match.groups()
    parsed = datetime.datetime.strptime(digits, "%Y%m%d%H%M%S")
    seconds = calendar.timegm(parsed.timetuple())
    if sign is None:
        return seconds
    offset = int(hours) * 3600 + int(minutes) * 60
    return seconds - offset if sign == "+" else seconds + offset


def GetX509CertValidity(cert: "crypto.X509") -> tuple[int | None, int | None]:
    """(not before, not after) of a certificate in epoch seconds; None for what it does not say."""

    def Seconds(value: bytes | None) -> int | None:
        return None if value is None else ParseAsn1GeneralizedTime(value.decode("ascii"))

    return Seconds(cert.get_notBefore()), Seconds(cert.get_notAfter())


def CheckValidity(
    not_before: float | None,
    not_after: float | None,
    now: float,
    warn_days: int | None = constants.SSL_CERT_EXPIRATION_WARN,
    error_days: int | None = constants.SSL_CERT_EXPIRATION_ERROR,
) -> tuple[str | None, str | None]:
    """What is wrong with a period of validity (times in epoch seconds, shown in UTC).

    Returns: (VERIFY_ERROR, text) if it is over or ends within error_days, (VERIFY_WARNING, text)
    if it did not begin or ends within warn_days, else (None, None).
    """
    if not_after is not None and now > not_after:
        if not_before is None:
            return VERIFY_ERROR, f"Certificate is expired (valid until {_ShowTime(not_after)})"
        return VERIFY_ERROR, (
            f"Certificate is expired (valid from {_ShowTime(not_before)} to {_ShowTime(not_after)})"
        )
    if not_before is not None and not_before > now:
        return VERIFY_WARNING, f"Certificate not yet valid (valid from {_ShowTime(not_before)})"
    if not_after is not None:
        days = int((not_after - now) / (24 * 3600))
        message = f"Certificate expires in about {days} days"
        if error_days is not None and days <= error_days:
            return VERIFY_ERROR, message
        if warn_days is not None and days <= warn_days:
            return VERIFY_WARNING, message
    return None, None


def _ShowTime(value: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(value))


def VerifyCertificateFile(
    file_name: str, runtime: runtime.Runtime = runtime.DEFAULT
) -> tuple[str | None, str | None]:
    """What is wrong with the certificate of a PEM file, as CheckValidity, naming the file."""
    name = os.path.basename(file_name)
    try:
        cert = LoadCertificate(io.ReadBinary(file_name))
    except (OSError, errors.GenericError) as err:
        return VERIFY_ERROR, f"Failed to load X509 certificate {file_name}: {err}"
    severity, message = CheckValidity(*GetX509CertValidity(cert), now=runtime.clock.time())
    return severity, message and f"While verifying {name}: {message}"
