"""Wherever the receiver is told to listen, it is printed, probed and checked where it answers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from developer_telemetry.config import load_settings
from developer_telemetry.receiver.listen_addresses import answering_host
from tests.project.test_deploy import instructions
from tests.support.receivers import (
    TOKEN,
    Receiver,
    add_connection,
    environment,
    report,
    run_command,
)
from tests.support.servers import free_port


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
V4, V6 = "127.0.0.1", "[::1]"
HOSTS = [
    pytest.param("::", [V4, V6], marks=ipv6),
    pytest.param("::1", [V6], marks=ipv6),
    ("0.0.0.0", [V4]),
    ("localhost", ["localhost"]),
]


class Elsewhere(Receiver):
    """A receiver that answers at another address than most."""

    def __init__(self, url: str, folder: Path, host: str, answering: str) -> None:
        super().__init__(url, folder, TELEMETRY_HOST=host)
        self.url = f"http://{answering}:{self.port}"


def health(**settings: str) -> int:
    [line] = instructions("receiver.Dockerfile", "HEALTHCHECK")
    command = json.loads(line.partition(" CMD ")[2])
    run = [sys.executable, *command[1:]]
    proxied = {"http_proxy": "http://127.0.0.1:1", **settings}
    return subprocess.run(run, env=environment(**proxied), stderr=subprocess.DEVNULL).returncode


@pytest.mark.parametrize(("host", "answering"), HOSTS)
def test_it_answers_at_each_address_and_is_printed_and_checked_at_one_that_answers(
    tmp_path: Path, host: str, answering: list[str]
) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    with Elsewhere(url, tmp_path, host, answering[0]) as receiver:
        connection = add_connection(url)
        for each in answering:
            sent = httpx.post(
                f"http://{each}:{receiver.port}/plugins/developer-telemetry/{connection}/report",
                json=report("everywhere"),
                headers={"Authorization": f"Bearer {TOKEN}"},
                trust_env=False,
            )
            assert sent.status_code == 200
        settings = {"TELEMETRY_HOST": host, "TELEMETRY_PORT": str(receiver.port)}
        assert health(**settings) == 0
        assert health(TELEMETRY_HOST=host, TELEMETRY_PORT=str(free_port())) == 1

        [printed] = [line for line in receiver.log.splitlines() if "Reports go to" in line]
        address = printed.split()[-1]
        assert httpx.get(address, trust_env=False).status_code == 401
        if host == "::":
            found = run_command(
                tmp_path,
                "doctor",
                DB_URL=url,
                TELEMETRY_SPOOL_DIR=str(tmp_path / f"spool-{receiver.port}"),
                **settings,
            )
            assert "no receiver answers" not in found.stdout + found.stderr
            assert "receiver" in found.stdout


@pytest.mark.parametrize("text", ["::", "[::]", " * "])
def test_all_addresses_of_both_families_have_several_names(tmp_path: Path, text: str) -> None:
    settings = load_settings({"TELEMETRY_HOST": text, "TELEMETRY_DATA_DIR": str(tmp_path)})
    assert settings.host == "::"
    assert answering_host(settings.host) == "127.0.0.1"


def test_an_address_in_one_network_names_its_interface_as_urls_do() -> None:
    assert answering_host("fe80::1%eth0") == "[fe80::1%25eth0]"


WRONG = {
    "an interface": ("no-such-interface0", "not an address or a name of this machine"),
    "somebody else's": ("192.0.2.77", "can't listen on 192.0.2.77"),
    "no address": ("999.1.1.1", "not an address or a name of this machine"),
}


@pytest.mark.parametrize("case", WRONG)
def test_where_it_can_t_listen_it_says_so_in_one_line(tmp_path: Path, case: str) -> None:
    host, expected = WRONG[case]
    done = run_command(
        tmp_path,
        "serve",
        DB_URL=f"sqlite:///{tmp_path}/telemetry.db",
        TELEMETRY_HOST=host,
        TELEMETRY_PORT=str(free_port()),
    )
    assert done.returncode == 2
    assert expected in done.stderr
    assert "TELEMETRY_HOST" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::", marks=ipv6)])
def test_a_port_in_use_is_named_and_nothing_listens_elsewhere(tmp_path: Path, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_command(
            tmp_path,
            "serve",
            DB_URL=f"sqlite:///{tmp_path}/telemetry.db",
            TELEMETRY_HOST=host,
            TELEMETRY_PORT=str(port),
        )
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "TELEMETRY_PORT" in done.stderr
