"""A certificate authority of a test's own, and a server that serves by its certificates."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates for 127.0.0.1.

    Attributes:
        key: Its own key.
        certificate: Its own certificate, good for months.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("an authority of a test")
        builder = _validity(_builder(name, name, key), days_left=90)
        ca = x509.BasicConstraints(ca=True, path_length=0)
        return cls(key, builder.add_extension(ca, critical=True).sign(key, hashes.SHA256()))

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def leaf(self, *, days_left: int) -> bytes:
        """Certificate and key, PEM; below 0 its time is over for so many days."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name("127.0.0.1"), self.certificate.subject, key)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        leaf = (
            _validity(builder, days_left=days_left)
            .add_extension(names, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return leaf.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


@dataclass(frozen=True, slots=True)
class ServerTls:
    """A server's side of TLS, whose certificate can be exchanged while it serves.

    Attributes:
        context: What the server is started with.
        file: Where its certificate is kept.
    """

    context: ssl.SSLContext
    file: Path

    @classmethod
    def new(cls, file: Path, certificate_and_key: bytes) -> ServerTls:
        tls = cls(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), file)
        tls.serve(certificate_and_key)
        return tls

    def serve(self, certificate_and_key: bytes) -> None:
        """From the next connection on."""
        self.file.write_bytes(certificate_and_key)
        self.context.load_cert_chain(self.file)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
    )


def _validity(builder: x509.CertificateBuilder, *, days_left: int) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return builder.not_valid_before(now - 30 * _DAY).not_valid_after(now + days_left * _DAY)
