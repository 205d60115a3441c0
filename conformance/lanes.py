"""Lanes of trials that run at the same time: SDKs alone, and DevLake's servers on a database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Callable, NamedTuple, Union

from conformance.devlakes import DevLake, names
from conformance.environments import genuine_environment, versions
from conformance.handover import HandOver
from conformance.installs import clone, install_in_tree, install_on_ours, python_of
from conformance.life import Life
from conformance.others import others_run
from conformance.outcomes import Outcomes
from conformance.sdks import copy_of, genuine_on_ours, ours_on_genuine, plugins_of, plugins_on_ours
from conformance.standalone import Standalone
from conformance.taking_over import prepare_go_plugin, take_over
from conformance.upgrade import Installed, Upgrade
from tests.support.servers import Running, Server, create_database, drop_database, execute

OURS_ON_GENUINE = "Our tests on the genuine SDK"
GENUINE_ON_OURS = "The genuine SDK's tests on ours"
OTHERS_ON_OURS = "Other Python plugins of DevLake's tree on our SDK"
OTHERS_UNDER_SERVERS = "The same under DevLake's server"
LIVES = "An operator's life under DevLake's server"
STANDALONES = "Beside a DevLake that loads no Python plugin"
HAND_OVERS = "Handed over from the plugin, and back"
UPGRADES = "DevLake upgraded, and put back"
HAND_OVER_ROWS = 100_000
# The page's tables in their order, and the text above each.
TABLES = {
    OURS_ON_GENUINE: "",
    GENUINE_ON_OURS: "",
    OTHERS_ON_OURS: "",
    OTHERS_UNDER_SERVERS: "",
    LIVES: """\
All calls over HTTP, to a server of its own on an empty database, by the operator and by
machines that report without a pause from the first run to the last.""",
    STANDALONES: """\
The same servers with `DISABLED_REMOTE_PLUGINS=true` on an empty database, the receiver with
`TELEMETRY_STANDALONE=true`, and the commands that [install.md](install.md) names.""",
    HAND_OVERS: f"""\
{HAND_OVER_ROWS:,} reports of 1,000 people, stored and converted by the plugin in a project's
blueprint; then [operate.md](operate.md#hand-over-from-the-plugin), step by step, there and back.
Compared each time: all rows of the connection in the raw and the tool layer, its accounts, links
to users, tasks and watermarks, the project's mapping, and the answers to all queries of the
dashboards.""",
    UPGRADES: """\
The newest server on the oldest one's database, the oldest one again, and the newest once more.
After every step reports of both connections have to go on, with tokens and with an API key of
DevLake's. Since June 2026 servers encrypt secrets as AES-GCM whenever they save a connection;
what older ones write is AES-CBC, which all of them read.""",
}
BEGINS_AND_LASTS = "the server begins with an empty database and lasts to the end"
WITHOUT_PLUGINS = {"DISABLED_REMOTE_PLUGINS": "true"}
LIBRARIES = ["pydantic", "sqlmodel", "SQLAlchemy", "fire"]
DRIVERS = ["mysqlclient", "PyMySQL", "psycopg2", "psycopg2-binary", "psycopg"]
NAMED = [*LIBRARIES, *DRIVERS, "msgspec"]
Database = Union[Server, Running]


class Plugins(NamedTuple):
    """The folders of plugins: ours on our SDK, ours in each DevLake's tree, and DevLake's own."""

    on_ours: Path
    in_trees: dict[str, Path]
    others: dict[str, Path]


class Lane:
    """The outcome of a lane: columns for the page's tables, and the versions used."""

    def __init__(self) -> None:
        self.used: dict[str, str] = {}
        self.columns: defaultdict[str, list[Outcomes]] = defaultdict(list)


def install(groups: Sequence[list[DevLake]], folder: Path) -> tuple[Plugins, dict[str, str]]:
    """Install the plugin as documented, once for each SDK; return the installed versions, too.

    :raises Unmet: build.sh failed.
    """
    plugins = Plugins(install_on_ours(folder / "on-ours"), {}, {})
    used = {"our SDK": versions(python_of(plugins.on_ours), NAMED)}
    for number, group in enumerate(groups):
        tree = install_in_tree(group[0].sdk, folder / f"tree-{number}")
        used[f"genuine SDK, {names(group)}, as build.sh installs it"] = versions(
            python_of(tree), NAMED
        )
        for item in group:
            plugins.in_trees[item.name] = tree
            others = plugins.others[item.name] = folder / f"others-{item.name}"
            for plugin in plugins_of(item.checkout):
                copy_of(plugin, others)
    return plugins, used


def try_sdks(groups: Sequence[list[DevLake]], plugins: Plugins, folder: Path) -> Lane:
    """Run the trials without a server, once for each SDK."""
    lane = Lane()
    for number, group in enumerate(groups):
        one, name = group[0], names(group)
        made_by = python_of(plugins.in_trees[one.name])
        outcomes = Outcomes(name)
        with outcomes.record_outcome("an environment with the versions that it pins"):
            genuine = genuine_environment(one.sdk, made_by, folder / f"environment-{number}")
            lane.used[f"genuine SDK, {name}, as it pins"] = versions(genuine, NAMED)
            ours_on_genuine(outcomes, genuine, clone(folder / f"ours-{number}"))
        lane.columns[OURS_ON_GENUINE].append(outcomes)
        theirs = genuine_on_ours(name, one.sdk, folder / f"theirs-{number}")
        lane.columns[GENUINE_ON_OURS].append(theirs)
    for name, others in plugins.others.items():
        lane.columns[OTHERS_ON_OURS].append(plugins_on_ours(name, others))
    return lane


def try_servers(
    name: str,
    make: Callable[[], Database],
    devlakes: Sequence[DevLake],
    plugins: Plugins,
    folder: Path,
) -> Lane:
    """Run the trials with DevLake's servers on one database."""
    lane = Lane()
    with make() as server:
        [(version,)] = execute(server.url(""), "SELECT VERSION()")
        lane.used[name] = version.partition(" (")[0].removeprefix("PostgreSQL ")
        for item in devlakes:
            title = f"{item.name}, {name}"
            for sdk, position in (
                ("our SDK", plugins.on_ours),
                ("genuine SDK", plugins.in_trees[item.name]),
            ):
                life = _life(item, server, position, folder, f"{title}, {sdk}")
                lane.columns[LIVES].append(life)
            lane.columns[STANDALONES].append(
                _standalone(item, server, plugins.in_trees[item.name], folder, title)
            )
            others = _others(item, server, plugins.others[item.name], folder, title)
            lane.columns[OTHERS_UNDER_SERVERS].append(others)
        newest = devlakes[-1]
        tree = plugins.in_trees[newest.name]
        title = f"{newest.name}, {name}"
        lane.columns[HAND_OVERS].append(_hand_over(newest, server, tree, folder, title))
        if len(devlakes) > 1:
            ends = [Installed(item, plugins.in_trees[item.name]) for item in devlakes]
            title = f"{devlakes[0].name} to {devlakes[-1].name}, {name}"
            lane.columns[UPGRADES].append(_upgrade(ends[0], ends[-1], server, folder, title))
    return lane


def _life(devlake: DevLake, server: Database, plugins: Path, folder: Path, title: str) -> Outcomes:
    outcomes = Outcomes(title)
    name = _database_name(title)
    url = server.url(name)
    with (
        outcomes.record_outcome(BEGINS_AND_LASTS),
        _database(url),
        devlake.server(url, folder / name) as lake,
    ):
        Life(lake, url, plugins, outcomes).live()
    if server.name != "postgresql":  # on which the Go plugin does not run
        with (
            outcomes.record_outcome(
                "the server begins with the Go plugin's tables and lasts to the end"
            ),
            _database(url),
        ):
            prepare_go_plugin(url)
            with devlake.server(url, folder / f"{name}_go", plugins) as lake:
                take_over(lake, url, outcomes)
    return outcomes


def _others(
    devlake: DevLake, server: Database, plugins: Path, folder: Path, title: str
) -> Outcomes:
    outcomes = Outcomes(title)
    name = _database_name(f"others {title}")
    url = server.url(name)
    with (
        outcomes.record_outcome(BEGINS_AND_LASTS),
        _database(url),
        devlake.server(url, folder / name, plugins) as lake,
    ):
        others_run(lake, url, [item.name for item in plugins_of(devlake.checkout)], outcomes)
    return outcomes


def _standalone(
    devlake: DevLake, server: Database, plugins: Path, folder: Path, title: str
) -> Outcomes:
    outcomes = Outcomes(title)
    name = _database_name(f"standalone {title}")
    url = server.url(name)
    with (
        outcomes.record_outcome(BEGINS_AND_LASTS),
        _database(url),
        devlake.server(url, folder / name, plugins, **WITHOUT_PLUGINS) as lake,
    ):
        Standalone(lake, url, outcomes).live()
    return outcomes


def _hand_over(
    devlake: DevLake,
    server: Database,
    plugins: Path,
    folder: Path,
    title: str,
    rows: int = HAND_OVER_ROWS,
) -> Outcomes:
    outcomes = Outcomes(title)
    name = _database_name(f"hand-over {title}")
    url = server.url(name)
    with (
        outcomes.record_outcome(BEGINS_AND_LASTS),
        _database(url),
        closing(devlake.server(url, folder / name, plugins)) as with_plugin,
        closing(devlake.server(url, folder / f"{name}_2", plugins, **WITHOUT_PLUGINS)) as without,
    ):
        HandOver(with_plugin, without, plugins, url, outcomes, rows).live()
    return outcomes


def _upgrade(
    older: Installed, newer: Installed, server: Database, folder: Path, title: str
) -> Outcomes:
    outcomes = Outcomes(title)
    name = _database_name(f"upgrade {server.name}")
    url = server.url(name)
    with outcomes.record_outcome("both servers start on one database"), _database(url):
        Upgrade(older, newer, url, folder / name, outcomes).live()
    return outcomes


def _database_name(title: str) -> str:
    return "lake_" + "_".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


@contextmanager
def _database(url: str) -> Iterator[None]:
    create_database(url)
    try:
        yield
    finally:
        drop_database(url)
