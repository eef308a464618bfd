"""A certificate authority for tests, made on the spot, and the files that it hands out."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import trustme


@dataclass(frozen=True)
class Authority:
    """A certificate authority that signs for servers and clients, with its files."""

    ca: trustme.CA
    directory: Path

    @property
    def bundle(self) -> str:
        """The path of its own certificate."""
        path = self.directory / "ca.pem"
        self.ca.cert_pem.write_to_path(str(path))
        return str(path)

    def server_context(self, *names: str, **more: Any) -> ssl.SSLContext:
        """Return a server's context with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names, **more).configure_cert(context)
        return context

    def client_files(self, name: str = "client", **more: Any) -> tuple[Path, Path]:
        """Return the paths of a client's certificate and of its key, readable by nobody else."""
        leaf = self.ca.issue_cert(f"{name}@example.org", **more)
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.write_bytes(leaf.private_key_pem.bytes())
        certificate.chmod(0o600)
        key.chmod(0o600)
        return certificate, key
