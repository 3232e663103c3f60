"""Fetch a video from an address that a request names: from hosts that the server's owner allows, and only if they are
public.

In: an address of http or https. Out: a file. A name is resolved once, all its addresses are checked, and the connection
goes to the one that was checked, so that an answer of the name server that changes leads nowhere else. A redirect is
checked as the first address is. No proxy, cookie or credential is used."""

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from descore.serving.problems import ServiceError

if TYPE_CHECKING:
    import httpx2

    from descore.serving.settings import ServerSettings

REDIRECTS = 5
"""That are followed."""
_PORTS = {"http": 80, "https": 443}
_MAY_HOLD_OTHERS = [
    ipaddress.IPv6Network(network)
    for network in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10")
]
"""Networks of addresses that stand for IPv4 addresses, or for places of one site."""
_REDIRECTED = (301, 302, 303, 307, 308)
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "descore"}


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: not loopback, private, link-local, multicast or the like."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if any(ip in network for network in _MAY_HOLD_OTHERS):
            return False
        ip = ip.ipv4_mapped or ip
    return ip.is_global and not ip.is_multicast


async def fetch(address: str, target: Path, *, bounds: "ServerSettings") -> None:
    """Write what is at the address into a new file.

    ServiceError: request for an address that is not allowed, no_video where nothing is to be had, too_large beyond the
    bound of an upload; no_video also where it takes longer than an upload may."""
    try:
        async with asyncio.timeout(bounds.upload_seconds):
            await _follow(address, target, bounds=bounds)
    except TimeoutError:
        raise ServiceError("no_video", f"video.url: not here after {bounds.upload_seconds:g} s") from None


async def _follow(address: str, target: Path, *, bounds: "ServerSettings") -> None:
    httpx: Any = import_module("httpx2")
    # Without connections that are kept, each one is to the name that its certificate was checked for.
    limits = httpx.Limits(max_keepalive_connections=0)
    try:
        async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=bounds.upload_seconds) as client:
            for _ in range(REDIRECTS + 1):
                url = httpx.URL(address)
                async with client.stream("GET", **await _pinned(url, bounds.allow_urls)) as answer:
                    if answer.status_code not in _REDIRECTED or "location" not in answer.headers:
                        await _store(answer, target, most=bounds.max_upload)
                        return
                    address = str(url.join(answer.headers["location"]))
    except httpx.InvalidURL as error:
        raise ServiceError("request", f"video.url: no address ({error})") from None
    except httpx.HTTPError as error:
        raise ServiceError("no_video", f"video.url: cannot be fetched ({type(error).__name__})") from None
    raise ServiceError("no_video", f"video.url: more than {REDIRECTS} redirects")


async def _pinned(url: "httpx2.URL", allowed: Collection[str]) -> dict[str, Any]:
    """The arguments of a request to an address of the URL's host that was checked."""
    host, scheme = url.raw_host.decode("ascii").casefold(), url.scheme
    if scheme not in _PORTS:
        raise ServiceError("request", f"video.url: an address of {scheme or 'no scheme'}; expected http or https")
    port = url.port or _PORTS[scheme]
    name = host if port == _PORTS[scheme] else f"{host}:{port}"
    if name not in {one.casefold() for one in allowed}:
        raise ServiceError("request", f"video.url: this server does not fetch from {name}")
    if url.userinfo:
        raise ServiceError("request", "video.url: has a name or a password; expected none")
    ip = await _address_of(host, port)
    return {
        "url": url.copy_with(host=ip),
        "headers": {**_HEADERS, "Host": url.netloc.decode("ascii")},
        "extensions": {"sni_hostname": host},
    }


async def _address_of(host: str, port: int) -> str:
    """An address of a host, all of whose addresses are public."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ServiceError("no_video", f"video.url: the host {host} is not known") from None
    addresses = [str(one[4][0]) for one in found]
    if not addresses or not all(map(is_public, addresses)):
        raise ServiceError("request", f"video.url: the host {host} is not public")
    return addresses[0]


async def _store(answer: "httpx2.Response", target: Path, *, most: int) -> None:
    if answer.status_code != 200:
        raise ServiceError("no_video", f"video.url: answered with status {answer.status_code}")
    length = 0
    with target.open("xb") as file:
        async for part in answer.aiter_raw():
            length += len(part)
            if length > most:
                raise ServiceError("too_large", f"video.url: more than {most:,} bytes")
            await asyncio.to_thread(file.write, part)
