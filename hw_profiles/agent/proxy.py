"""Proxy: chooses how an agent reaches its server. netlathe/proxy.py is the client's copy; tests cover both.

Loopback addresses are reached directly. Any other server is reached through the proxy that NETLATHE_PROXY names. If
NETLATHE_PROXY is `environment`, the proxies that http_proxy, https_proxy, all_proxy and no_proxy name are used. If it
is not set, the server is reached directly, because a shell's proxy was set for other programs and would see the token.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from typing import Any

import httpx

from hw_profiles.errors import InvalidInput

VARIABLE = "NETLATHE_PROXY"
ENVIRONMENT = "environment"


def is_loopback(host: str) -> bool:
    """Return True for `localhost` and for loopback addresses."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_to(url: str) -> str:
    """Return how to reach a server: "" for no proxy, `environment`, or the URL of a proxy."""
    return "" if is_loopback(httpx.URL(url).host) else os.environ.get(VARIABLE, "").strip()


def shown_proxy(proxy: str) -> str:
    """Return a proxy's address without user and password, so that it can be shown to people."""
    scheme, mark, rest = proxy.rpartition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def through(url: str) -> str:
    """Return the words of a message that name the proxy to `url`; "" if there is no proxy."""
    proxy = proxy_to(url)
    if proxy == ENVIRONMENT:
        return " through the proxy of the environment"
    return f" through the proxy {shown_proxy(proxy)}" if proxy else ""


def http_client(
    url: str, transport: httpx.BaseTransport | None, verify: ssl.SSLContext | bool, **options: Any
) -> httpx.Client:
    """Return an HTTP client that reaches `url` directly or through its proxy; `transport` replaces the network.

    Raises:
        InvalidInput: NETLATHE_PROXY names a proxy that cannot be used.
    """
    proxy = proxy_to(url)
    try:
        if transport is None and proxy != ENVIRONMENT:
            transport = httpx.HTTPTransport(verify=verify, proxy=proxy or None)
        # without a transport, httpx uses the environment's proxies
        return httpx.Client(transport=transport, verify=verify, **options)
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise InvalidInput(VARIABLE, shown_proxy(proxy), _why_not(error, proxy)) from error


def _why_not(error: Exception, proxy: str) -> str:
    named = "a proxy in http_proxy, https_proxy or all_proxy" if proxy == ENVIRONMENT else "this"
    if isinstance(error, ImportError):
        return f"{named} is a SOCKS proxy, which needs: pip install 'httpx[socks]'"
    return f"{named} is not the address of a proxy, such as http://proxy.example:3128"
