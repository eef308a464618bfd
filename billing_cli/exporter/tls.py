"""TLS as every source gets it: verified, 1.2 or newer, and deaf to the environment."""

from __future__ import annotations

import errno
import ssl
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from billing_cli.exporter.api import CredentialsError

if TYPE_CHECKING:
    from billing_cli.config.source import Source

_READABLE_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH

# Where distributions keep their CAs, for a Python that was built for another one.
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


class TlsContexts:
    """Makes TLS contexts for the sources of one run.

    Sources that trust the same CAs and show no certificate of their own share a context, because
    reading a large CA bundle two hundred times would take seconds. Nothing is kept between runs,
    so that a replaced file is seen by the next one. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[str | None, ssl.SSLContext] = {}

    def context_for(self, source: Source) -> ssl.SSLContext:
        """Return the context for a source; raises CredentialsError that names the wrong file."""
        if source.auth_mode == "mtls" and source.client_cert is None:
            raise CredentialsError("auth_mode mtls needs client_cert and client_key")
        if source.client_key is not None and source.client_cert is None:
            raise CredentialsError("client_key without client_cert")
        if source.client_cert is None:
            with self._lock:
                if source.ca_bundle not in self._shared:
                    self._shared[source.ca_bundle] = verifying_context(source.ca_bundle)
                return self._shared[source.ca_bundle]
        context = verifying_context(source.ca_bundle)
        _load_client_certificate(context, source.client_cert, source.client_key)
        return context


def key_file_notes(source: Source) -> tuple[str, ...]:
    """Return a remark where other users of the machine can read the private key."""
    path = source.client_key or source.client_cert
    if path is None:
        return ()
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return ()  # Replaced this very moment; the next run looks again.
    return (
        (f"the key file {path} can be read by other users",) if mode & _READABLE_BY_OTHERS else ()
    )


def verifying_context(ca_bundle: str | None) -> ssl.SSLContext:
    """Return a context that verifies chain and name against a bundle or the system's CAs.

    Built by hand instead of by `ssl.create_default_context`, which listens to SSL_CERT_FILE,
    SSL_CERT_DIR and SSLKEYLOGFILE.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if ca_bundle is None:
        _load_system_authorities(context)
        return context
    try:
        _check_regular(ca_bundle)
        context.load_verify_locations(cafile=ca_bundle)
    except (OSError, ValueError) as error:
        raise CredentialsError(f"ca_bundle {ca_bundle} cannot be used: {_why(error)}") from None
    if not context.cert_store_stats()["x509_ca"]:
        raise CredentialsError(f"ca_bundle {ca_bundle} cannot be used: it holds no CA certificate")
    return context


def _load_system_authorities(context: ssl.SSLContext) -> None:
    paths = ssl.get_default_verify_paths()
    # The compiled-in places; the attributes without prefix follow the environment.
    cafile, capath = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    if cafile.is_file() or capath.is_dir():
        context.load_verify_locations(
            cafile=str(cafile) if cafile.is_file() else None,
            capath=str(capath) if capath.is_dir() else None,
        )
        return
    for bundle in _SYSTEM_BUNDLES:
        if Path(bundle).is_file():
            context.load_verify_locations(cafile=bundle)
            return
    raise CredentialsError("this system has no CA certificates; set ca_bundle")


def _load_client_certificate(
    context: ssl.SSLContext, client_cert: str, client_key: str | None
) -> None:
    try:
        for path in (client_cert, client_key or client_cert):
            _check_regular(path)
        # An empty password keeps OpenSSL from asking for one on the terminal.
        context.load_cert_chain(client_cert, client_key, password="")
    except (OSError, ValueError) as error:
        files = client_cert if client_key is None else f"{client_cert} with client_key {client_key}"
        raise CredentialsError(f"client_cert {files} cannot be used: {_why(error)}") from None


def _check_regular(path: str) -> None:
    """Raise OSError for what is no plain file: a pipe would hang OpenSSL, and with it the run."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not valid PEM").replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "not a usable path"
