"""TLS of the services' own links: certificates from PEM files, read anew when they change."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from portcullis.runtime.config import ConfigError, Section
from portcullis.runtime.logging import get_logger
from portcullis.runtime.metrics import CERTIFICATE_EXPIRES

log = get_logger("portcullis.tls")


class TlsConfig(Section, frozen=True):
    """A `tls` table of a link whose both ends have certificates.

    ca_file: the certificates that the other end's must come from.
    cert_file: this end's certificate, and what it was issued by, if that is not the CA itself.
    key_file: this end's private key.
    """

    ca_file: str
    cert_file: str
    key_file: str


@dataclass(frozen=True)
class Pem:
    """What the files hold."""

    ca: bytes
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "Pem(***)"


class TlsFiles:
    """The files of one `tls` table. `where`: its name in the configuration, for errors."""

    def __init__(self, config: TlsConfig, where: str) -> None:
        """Read the files; raises ConfigError."""
        self._paths = {
            name: Path(getattr(config, name)) for name in ("ca_file", "cert_file", "key_file")
        }
        self._where = where
        self._seen = self._signature()
        self.pem = self._read()

    @classmethod
    def of(cls, config: TlsConfig | None, where: str) -> "TlsFiles | None":
        """The files of a table, if there is one; raises ConfigError."""
        return None if config is None else cls(config, where)

    def changed(self) -> bool:
        """Read the files again if they have changed; whether there is something new in `pem`.

        What cannot be used (half of a pair that is being replaced, say) is left, with a warning;
        the files are read again when they change once more.
        """
        signature = self._signature()
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            found = self._read()
        except ConfigError as error:
            log.warning("certificates not taken", reason=str(error))
            return False
        is_new = found != self.pem
        if is_new:
            log.info("certificates read anew", table=self._where)
        self.pem = found
        return is_new

    def client_context(self) -> ssl.SSLContext:
        """For a connection as a client, by the files as they are now."""
        return self._context(ssl.Purpose.SERVER_AUTH)

    def server_context(self) -> ssl.SSLContext:
        """For connections of clients that must show a certificate."""
        context = self._context(ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def refresh(self, context: ssl.SSLContext) -> None:
        """Have a server's context use the files as they are now; a CA that is gone stays believed.

        Raises OSError where a file has gone meanwhile.
        """
        if self.changed():
            context.load_cert_chain(self._paths["cert_file"], self._paths["key_file"])
            context.load_verify_locations(self._paths["ca_file"])

    def _context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        context = ssl.create_default_context(purpose, cafile=str(self._paths["ca_file"]))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._paths["cert_file"], self._paths["key_file"])
        return context

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when a file is replaced."""
        found: list[tuple[int, int, int] | None] = []
        for path in self._paths.values():
            try:
                stat = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _read(self) -> Pem:
        from cryptography import x509  # noqa: PLC0415 (8 MB, for those that have certificates)
        from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
            Encoding,
            PublicFormat,
            load_pem_private_key,
        )

        data = {}
        for name, path in self._paths.items():
            try:
                data[name] = path.read_bytes()
            except OSError as error:
                raise ConfigError(
                    f"{self._where}.{name}: {path} cannot be read: {error.strerror}"
                ) from error
        try:
            authorities = x509.load_pem_x509_certificates(data["ca_file"])
        except ValueError as error:
            raise ConfigError(f"{self._where}.ca_file: holds no certificate") from error
        try:
            certificate, *issuers = x509.load_pem_x509_certificates(data["cert_file"])
        except ValueError as error:
            raise ConfigError(f"{self._where}.cert_file: holds no certificate") from error
        try:
            key = load_pem_private_key(data["key_file"], None)
        except (ValueError, TypeError):
            # The cause is left out: nothing of a key belongs in a text.
            raise ConfigError(f"{self._where}.key_file: holds no plain private key") from None
        public = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*public) != certificate.public_key().public_bytes(*public):
            raise ConfigError(f"{self._where}: key_file is not the key of cert_file")
        ends = [one.not_valid_after_utc for one in (certificate, *issuers)]
        ends.append(max(one.not_valid_after_utc for one in authorities))
        CERTIFICATE_EXPIRES.labels(self._where).set(min(ends).timestamp())
        return Pem(data["ca_file"], data["cert_file"], data["key_file"])
