"""Proxy: chooses how the client reaches its server.

hw_profiles/agent/proxy.py is the agent's copy; tests/test_proxy.py runs both.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any

import httpx

from netlathe.errors import BadProxy

_PROXY_VARIABLE = "NETLATHE_PROXY"
_ENVIRONMENT = "environment"


def is_loopback(host: str) -> bool:
    """Return True for `localhost` and for loopback addresses."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_to(url: str) -> str:
    """Return the proxy to use for a server: "" for no proxy, `environment`, or the proxy's URL.

    A server on loopback is reached directly. Any other server is reached through the proxy that NETLATHE_PROXY names;
    if the variable's value is `environment`, then http_proxy, https_proxy, all_proxy and no_proxy decide. Without
    NETLATHE_PROXY, the server is reached directly, because a shell's proxy was set for other programs and would see the
    token.
    """
    return "" if is_loopback(httpx.URL(url).host) else os.environ.get(_PROXY_VARIABLE, "").strip()


def shown_proxy(proxy: str) -> str:
    """Return a proxy's URL without user and password, so that it can be shown to people."""
    scheme, mark, rest = proxy.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def through(url: str) -> str:
    proxy = proxy_to(url)
    if proxy == _ENVIRONMENT:
        return " through the proxy of the environment"
    return f" through the proxy {shown_proxy(proxy)}" if proxy else ""


def http_client(url: str, transport: httpx.BaseTransport | None, **options: Any) -> httpx.Client:
    """Return an HTTP client for `url` that uses the proxy that `proxy_to` returns. `transport` replaces the network.
    Raises BadProxy if the proxy cannot be used.
    """
    proxy = proxy_to(url)
    try:
        if transport is None and proxy != _ENVIRONMENT:
            transport = httpx.HTTPTransport(proxy=proxy or None)
        return httpx.Client(transport=transport, **options)  # without a transport, httpx uses the environment's proxies
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        why = _why_no_proxy(error, proxy)
        raise BadProxy(f"{_PROXY_VARIABLE} is {shown_proxy(proxy)!r}: {why}") from error


def _why_no_proxy(error: Exception, proxy: str) -> str:
    named = "a proxy in http_proxy, https_proxy or all_proxy" if proxy == _ENVIRONMENT else "this"
    if isinstance(error, ImportError):
        return f"{named} is a SOCKS proxy, which needs: pip install 'httpx[socks]'"
    return f"{named} is not the address of a proxy, such as http://proxy.example:3128"
