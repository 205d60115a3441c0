"""The IP address of a sender, behind proxies that an operator trusts."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Optional, Union

from developer_telemetry.config import Network
from developer_telemetry.receiver.http.message_parser import Headers

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

# Proxies in one chain.
MAX_PROXIES = 10


def find_sender_address(peer: str, headers: Headers, trusted: Sequence[Network]) -> str:
    """Return the address of the last sender that is no trusted proxy.

    Each proxy adds the address of its own peer at the end of X-Forwarded-For. So the header is read
    from its end, as long as a trusted proxy has written the address.

    Args:
        peer: The address at the other end of the connection.
        headers: Those of the request.
        trusted: The networks of proxies that write this header.
    """
    sender = _read_address(peer)
    if sender is None:
        return ""
    if _is_trusted(sender, trusted):
        values = [value for name, value in headers if name == b"x-forwarded-for"]
        forwarded = b",".join(values).decode("ascii", "replace").split(",")
        for text in forwarded[: -MAX_PROXIES - 1 : -1]:
            address = _read_address(text.strip())
            if address is None:
                break
            sender = address
            if not _is_trusted(sender, trusted):
                break
    return str(sender)


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _read_address(text: str) -> Optional[Address]:
    """Return an address, perhaps with a port behind it as some proxies write it."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket of both families has the addresses of IPv4 in those of IPv6.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
