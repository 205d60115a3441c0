"""The addresses on which the receiver listens, and the health check of its image."""

from __future__ import annotations

import errno
import socket
import sys
from http.client import HTTPConnection, HTTPException
from typing import Any, Optional

from developer_telemetry.errors import ConfigurationError

# The system's buffer for unread answers of each connection. The default grows to 4 MiB; a day's
# answers to one machine are below 1 KiB.
UNSENT_BYTES = 128 << 10
IPV4 = "0.0.0.0"
BOTH = "::"
HEALTH_SECONDS = 4.0


def answering_host(host: str) -> str:
    """Return the host, for a URL, of a receiver on this machine that listens on `host`."""
    if host in (IPV4, BOTH):
        return "127.0.0.1"
    # In a URL, `%25` precedes the name of the interface of a link-local address.
    return f"[{host.replace('%', '%25')}]" if ":" in host else host


def find_own_address() -> str:
    """Return the address by which other machines most likely reach this one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of no machine; this sends nothing
            return str(probe.getsockname()[0])
        except OSError:  # there is no route
            return socket.gethostname()


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of `host`; `::` means all addresses of IPv4 and IPv6.

    Raises:
        ConfigurationError: if that fails.
    """
    hosts = (BOTH, IPV4) if host == BOTH else (host,)
    sockets: list[socket.socket] = []
    failure: Optional[OSError] = None
    for family, address in _addresses(hosts, port):
        try:
            sockets.append(_bind(family, address))
        except OSError as error:
            failure = error
            # This machine may have no IPv6, and a name may have addresses of other machines.
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                break
    if failure is not None and (not sockets or failure.errno == errno.EADDRINUSE):
        for bound in sockets:
            bound.close()
        raise _unusable(host, port, failure)
    return sockets


def _addresses(hosts: tuple[str, ...], port: int) -> list[tuple[int, Any]]:
    addresses: dict[tuple[int, Any], None] = {}
    for host in hosts:
        try:
            for family, *_, address in socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                addresses[int(family), address] = None
        except (OSError, UnicodeError):
            raise ConfigurationError(
                f"TELEMETRY_HOST is {host!r}, which is not an address or a name of this machine;"
                " set it to one, to 0.0.0.0 for all of IPv4, or to :: for all of both families"
            ) from None
    return list(addresses)


def _bind(family: int, address: Any) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNSENT_BYTES)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _unusable(host: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"port {port} is taken (on {host}); stop the program that listens there, or set"
            " TELEMETRY_PORT to another port"
        )
    remedy = "set TELEMETRY_HOST to an address of this machine"
    if error.errno in (errno.EACCES, errno.EPERM):
        remedy = "set TELEMETRY_PORT to a port above 1023"
    return ConfigurationError(f"can't listen on {host} port {port} ({error.strerror}); {remedy}")


def is_alive(host: str, port: int) -> bool:
    """Return true if a receiver that listens on `host` and `port` answers."""
    # urllib would use a proxy from the environment.
    name = answering_host(host).strip("[]").replace("%25", "%")
    connection = HTTPConnection(name, port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def main() -> None:
    """Exit with 0 if the receiver of these settings is alive, else with 1."""
    from developer_telemetry.config import load_settings

    settings = load_settings(with_database=False)
    sys.exit(0 if is_alive(settings.host, settings.port) else 1)
