"""Test what deploy/ says agrees with the code: settings, ports, addresses, figures, times, folders.

Whether each file is well-formed, `make check` asks the programs that read it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from developer_telemetry.cli.main import app
from developer_telemetry.config import SETTINGS
from developer_telemetry.connections.report_url import BULK_PATH, REPORT_PATHS
from developer_telemetry.database.engine import open_engine
from developer_telemetry.receiver.app import THREAD_SECONDS
from developer_telemetry.receiver.http.refusals import REASONS
from developer_telemetry.receiver.ingest.batching import ANSWER_SECONDS
from developer_telemetry.receiver.main import MAX_OPEN_FILES, STOP_SECONDS
from developer_telemetry.receiver.metrics import Metrics
from developer_telemetry.reports.limits import MANY_REPORTS
from developer_telemetry.storage.fleet.fleet_counts import OTHER, FleetCounts
from developer_telemetry.storage.fleet.machines import QUIET
from tests.support.receivers import Receiver
from tests.support.sites import missing

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
INSTALL = ROOT / "docs/install.md"
FILES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [*sorted(DEPLOY.rglob("*")), INSTALL]
    if path.is_file()
}
ALERTS = FILES["deploy/prometheus/alerts.yml"]
LOCATION = FILES["deploy/nginx/developer-telemetry.conf"]
UNIT = FILES["deploy/systemd/developer-telemetry.service"]
DEFAULTS = {setting.name: setting.default for setting in SETTINGS}
PORT = DEFAULTS["TELEMETRY_PORT"]
# What ends after one another when the receiver is told to stop: answers, then three threads.
STOPPING_SECONDS = STOP_SECONDS + 3 * THREAD_SECONDS


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    folder = tmp_path_factory.mktemp("receiver")
    with Receiver(f"sqlite:///{folder}/telemetry.db", folder) as started:
        yield started


def compose() -> Any:
    return yaml.safe_load(FILES["deploy/compose.override.yml"])["services"]["telemetry-receiver"]


def kubernetes(kind: str) -> Any:
    [found] = [
        each
        for each in yaml.safe_load_all(FILES["deploy/kubernetes/receiver.yaml"])
        if each["kind"] == kind
    ]
    return found["spec"]


def pod() -> Any:
    return kubernetes("StatefulSet")["template"]["spec"]


def container() -> Any:
    [only] = pod()["containers"]
    return only


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load(ALERTS)["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def instructions(dockerfile: str, name: str) -> list[str]:
    """The arguments of one kind of instruction, continued lines joined."""
    text = FILES[f"deploy/{dockerfile}"].replace("\\\n", "")
    return re.findall(rf"^{name} +(.*)$", text, re.MULTILINE)


def environment(dockerfile: str) -> dict[str, str]:
    return dict(
        pair.split("=", 1) for line in instructions(dockerfile, "ENV") for pair in line.split()
    )


@pytest.mark.parametrize("name", FILES)
def test_every_setting_that_is_named_exists(name: str) -> None:
    named = re.findall(r"\b(?:TELEMETRY|DEVLAKE|DB|ENCRYPTION)_[A-Z_]+\b", FILES[name])
    # DevLake's own, of its chart and its images, and what the compose file asks for.
    others = {"DEVLAKE_IMAGE", "DEVLAKE_ENDPOINT"}
    assert {each.removesuffix("_FILE") for each in named} - others <= set(DEFAULTS)


@pytest.mark.parametrize("name", FILES)
def test_every_command_that_is_named_exists(name: str) -> None:
    groups = [group.name for group in app.registered_groups]
    commands = [
        command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        for command in app.registered_commands
    ]
    named = re.findall(r"developer-telemetry ([a-z][a-z-]+)(?![\w./-])", _code(FILES[name]))
    assert set(named) <= {*groups, *commands}


def _code(text: str) -> str:
    """Return what is typed or run, without sentences about developer-telemetry."""
    quoted = re.findall(r"`([^`\n]+)`", text)
    typed = [line for line in text.splitlines() if "/developer-telemetry " in line]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return "\n".join([*quoted, *typed, *blocks])


def test_everybody_names_the_port_that_the_receiver_listens_on() -> None:
    assert f"$telemetry telemetry-receiver:{PORT};" in LOCATION
    assert instructions("receiver.Dockerfile", "EXPOSE") == [PORT]
    assert compose()["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    [named] = container()["ports"]
    assert str(named["containerPort"]) == PORT
    [service] = kubernetes("Service")["ports"]
    assert (str(service["port"]), service["targetPort"]) == (PORT, named["name"])
    [rule] = kubernetes("NetworkPolicy")["ingress"]
    assert rule["ports"] == [{"port": named["name"]}]
    annotations = kubernetes("StatefulSet")["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == PORT
    values = yaml.safe_load(FILES["deploy/kubernetes/devlake-values.yaml"])
    for path in values["ingress"]["extraPaths"]:
        assert str(path["backend"]["service"]["port"]["number"]) == PORT


def test_the_ingress_takes_every_report_path_and_no_route_of_devlakes() -> None:
    values = yaml.safe_load(FILES["deploy/kubernetes/devlake-values.yaml"])
    paths = values["ingress"]["extraPaths"]
    prefixes = [each["path"] for each in paths if each["pathType"] == "Prefix"]
    exact = [each["path"] for each in paths if each["pathType"] == "Exact"]
    ours = ["/api" + path.format(connection_id=1) for path in (*REPORT_PATHS, BULK_PATH)]
    assert len(paths) == len(prefixes) + len(exact)
    assert prefixes == ["/api/plugins/developer-telemetry"]
    assert [each for each in ours if not each.startswith(prefixes[0] + "/")] == exact


def test_the_charts_paths_make_an_ingress_that_kubernetes_takes(tmp_path: Path) -> None:
    values = yaml.safe_load(FILES["deploy/kubernetes/devlake-values.yaml"])["ingress"]
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "devlake", "annotations": values["annotations"]},
        "spec": {"rules": [{"http": {"paths": values["extraPaths"]}}]},
    }
    (tmp_path / "ingress.json").write_text(json.dumps(ingress))
    validator = Path(sys.executable).with_name("kubernetes-validate")
    run = [str(validator), "--strict", "-k", "1.28", "ingress.json"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everybody_looks_at_addresses_that_the_receiver_has(receiver: Receiver) -> None:
    texts = {name: re.findall(r"/(?:health|metrics)\b[\w/]*", text) for name, text in FILES.items()}
    looks = {look for found in texts.values() for look in found} - {"/health"}
    assert {"/health/live", "/health/ready", "/metrics"} <= looks
    assert {look: receiver.status(look) for look in looks} == dict.fromkeys(looks, 200)


def test_the_images_health_check_tells_a_receiver_from_none(receiver: Receiver) -> None:
    [line] = instructions("receiver.Dockerfile", "HEALTHCHECK")
    command = json.loads(line.partition(" CMD ")[2])
    assert command[:2] == ["python", "-c"]

    def status(port: int) -> int:
        settings = {"TELEMETRY_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
        run = [sys.executable, *command[1:]]
        return subprocess.run(run, env=settings, stderr=subprocess.DEVNULL).returncode

    assert status(receiver.port) == 0
    assert status(1) != 0


def test_every_figure_in_an_alert_is_one_that_the_receiver_tells(receiver: Receiver) -> None:
    told = set(re.findall(r"^# TYPE (\w+)", receiver.client.get("/metrics").text, re.MULTILINE))
    told |= {f"{name}_{part}" for name in told for part in ("bucket", "count")}
    asked = {name for rule in alerts() for name in re.findall(r"\btelemetry_\w+", rule["expr"])}
    assert asked
    assert asked <= told


def test_every_label_in_an_alert_is_one_that_the_receiver_gives() -> None:
    metrics = Metrics()
    metrics.stored([1])
    metrics.spooled([1])
    metrics.answered(200, 0.1)
    metrics.answered(503, 0.1)
    for reason in REASONS.values():
        metrics.refused(1, reason)
    metrics.fleet(lambda: FleetCounts({(1, QUIET): 1}, {(1, OTHER): 1}, {1: 0.0}))
    given = set(re.findall(r'(\w+)="([^"]*)"', metrics.exposition().decode()))
    asked = {
        (label, value)
        for rule in alerts()
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', rule["expr"])
        for value in values.split("|")
    } - {("job", "developer-telemetry")}
    assert asked
    assert asked <= given
    by = {name for rule in alerts() for name in re.findall(r"by \((.*?)\)", rule["expr"])}
    labels = {label for label, _ in given} | {"instance"}
    assert {name.strip() for names in by for name in names.split(",")} <= labels


def test_every_alert_is_seen_to_fire_by_a_test() -> None:
    tested = "".join(text for name, text in FILES.items() if name.endswith("_test.yml"))
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names) > 10
    fired = re.findall(
        r'alertname: (\w+)\n +eval_time: \S+\n +exp_alerts:|alertname="(\w+)"}\'', tested
    )
    assert {first or second for first, second in fired} == set(names)


def test_everybody_waits_longer_for_the_receiver_to_stop_than_it_takes() -> None:
    assert float(compose()["stop_grace_period"].rstrip("s")) > STOPPING_SECONDS
    sleep = float(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod()["terminationGracePeriodSeconds"] > STOPPING_SECONDS + sleep
    assert float(_in_unit("TimeoutStopSec")) > STOPPING_SECONDS


def test_the_proxy_waits_for_the_answer_and_lets_the_receiver_refuse_sizes() -> None:
    [wait] = re.findall(r"proxy_read_timeout (\d+)s;", LOCATION)
    [size] = re.findall(r"client_max_body_size (\d+)m;", LOCATION)
    assert int(wait) > ANSWER_SECONDS
    assert int(size) << 20 > MANY_REPORTS.sent


def test_the_spool_is_on_a_volume_that_its_user_may_write() -> None:
    folder = environment("receiver.Dockerfile")["TELEMETRY_DATA_DIR"]
    [(user, group)] = [line.split(":") for line in instructions("receiver.Dockerfile", "USER")]
    assert instructions("receiver.Dockerfile", "VOLUME") == [folder]
    assert (
        f"install -d -o {user} -g {group} -m 0700 {folder}" in FILES["deploy/receiver.Dockerfile"]
    )
    assert compose()["read_only"] is True
    assert [each.split(":")[1] for each in compose()["volumes"]] == [folder]

    security = pod()["securityContext"]
    assert {str(security[name]) for name in ("runAsUser", "runAsGroup", "fsGroup")} == {user, group}
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True
    [claim] = kubernetes("StatefulSet")["volumeClaimTemplates"]
    mounts = {each["name"]: each["mountPath"] for each in container()["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == folder
    values = {each["name"]: each.get("value") for each in container()["env"]}
    gibibytes = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
    assert gibibytes << 10 >= 2 * int(values["TELEMETRY_SPOOL_MAX_MB"])

    assert _in_unit("StateDirectory") == Path(folder).name
    assert f"TELEMETRY_DATA_DIR=%S/{Path(folder).name}" in UNIT
    assert _in_unit("LimitNOFILE") == str(MAX_OPEN_FILES)


def _in_unit(name: str) -> str:
    [value] = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def test_the_database_address_of_the_cluster_is_one_that_we_read() -> None:
    [url] = [each["value"] for each in container()["env"] if each["name"] == "DB_URL"]
    chart = {"USER": "merico", "PASSWORD": "secret", "SERVER": "db", "PORT": "3306"}
    for name, value in {**chart, "DATABASE": "lake"}.items():
        url = url.replace(f"$(MYSQL_{name})", value)
    engine = open_engine(url)
    assert (engine.url.host, engine.url.port, engine.url.database) == ("db", 3306, "lake")
    assert (engine.url.username, engine.url.password) == ("merico", "secret")


@pytest.mark.parametrize("name", ["plugin.Dockerfile", "receiver.Dockerfile"])
def test_an_image_is_made_of_what_the_context_has(name: str) -> None:
    listed = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in listed if line.startswith("!")}
    copied = [
        source.removeprefix("./")
        for line in instructions(name, "COPY")
        if not line.startswith("--from=")
        for source in line.split()[:-1]
    ]
    assert copied
    assert set(copied) <= allowed
    refused = [line for line in listed if line and line[0] not in "#!*"]
    for source in copied:
        assert (ROOT / source).exists()
        assert not any(fnmatch(source, pattern) for pattern in refused)


BLOCKS = re.findall(r"^```sh\n(.*?)^```", FILES["docs/install.md"], re.MULTILINE | re.DOTALL)
MARK = "# needs "


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.startswith(MARK)])
def test_commands_in_the_guide_that_need_nothing_special_work(
    receiver: Receiver, block: str
) -> None:
    if "promtool" in block and shutil.which("promtool") is None:
        missing("there is no promtool")
    settings = {**os.environ, "RECEIVER": receiver.url, "no_proxy": "*"}
    done = subprocess.run(
        ["sh", "-euc", block], cwd=ROOT, env=settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_that_the_guide_names_exist() -> None:
    text = FILES["docs/install.md"]
    named = re.findall(r"\b(?:deploy|tests|docs)/[\w./*-]*[\w*]", text)
    for cell in re.findall(r"^\| \[.*?\| (.*) \|$", text, re.MULTILINE):
        named += [f"deploy/{name}" for name in re.findall(r"`([^`]+)`", cell)]
    assert len(named) > 15
    assert [name for name in named if not list(ROOT.glob(name))] == []
