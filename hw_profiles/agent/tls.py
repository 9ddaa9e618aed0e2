"""Trust: decides which server certificates an agent accepts."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx

from hw_profiles.agent.proxy import is_loopback
from hw_profiles.errors import InvalidInput


def trusting(ca: Path | None, url: str) -> ssl.SSLContext | bool:
    """Return what httpx checks certificates against: the file `ca` alone if it is given, else the usual CAs or
    $SSL_CERT_FILE.

    The file may hold the server's own certificate or the certificate of its CA. If the server is reached on loopback,
    as through a tunnel, the certificate need not name the address: hardly any certificate names 127.0.0.1, and the file
    identifies the server.

    Raises:
        InvalidInput: `ca` cannot be read or holds no certificate.
    """
    if ca is None:
        return True
    try:
        context = ssl.create_default_context(cafile=str(ca))
    except ssl.SSLError as error:
        raise InvalidInput("ca", str(ca), "this file holds no certificate in PEM form") from error
    except OSError as error:
        raise InvalidInput("ca", str(ca), f"cannot be read: {error.strerror}") from error
    # Trust the server's own certificate too, even if a CA issued it (the default since Python 3.13).
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = not is_loopback(httpx.URL(url).host)
    return context


def distrust(error: BaseException) -> str | None:
    """Return why a certificate was not trusted, if that caused the error; else None."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    return None if cause is None else cause.verify_message
