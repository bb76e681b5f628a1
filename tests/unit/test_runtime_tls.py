"""The certificates of a link: when they end is there to be watched."""

from datetime import timedelta
from pathlib import Path

from cryptography import x509
from prometheus_client import REGISTRY

from portcullis.runtime.devca import init_ca, issue
from portcullis.runtime.tls import TlsConfig, TlsFiles


def told(table: str) -> float | None:
    """What Prometheus reads."""
    name = "portcullis_tls_certificate_expires_timestamp_seconds"
    return REGISTRY.get_sample_value(name, {"table": table})


def test_when_a_links_certificate_ends_is_told_and_follows_the_file(tmp_path: Path) -> None:
    """Of certificate and CA the one that ends first."""
    init_ca(tmp_path)
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    config = TlsConfig(*(str(tmp_path / name) for name in ("ca.pem", "emmg.pem", "emmg.key")))
    issue(tmp_path, "emmg", ["127.0.0.1"], timedelta(days=9))
    files = TlsFiles(config, "emmg.tls")
    first = x509.load_pem_x509_certificate((tmp_path / "emmg.pem").read_bytes())
    assert told("emmg.tls") == first.not_valid_after_utc.timestamp()
    issue(tmp_path, "emmg", ["127.0.0.1"], timedelta(days=9000))
    assert files.changed()
    second = x509.load_pem_x509_certificate((tmp_path / "emmg.pem").read_bytes())
    ends = min(second.not_valid_after_utc, ca.not_valid_after_utc)
    assert told("emmg.tls") == ends.timestamp()
    assert ends > first.not_valid_after_utc
