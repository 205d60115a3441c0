"""DevLake's own server as a child process, and calls of its API."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

import httpx

from conformance.outcomes import Unmet
from tests.support.receivers import SECRET, eventually
from tests.support.servers import HOST, free_port

# The first start makes some three hundred tables.
START_SECONDS = 300.0
STOP_SECONDS = 30.0
RUN_SECONDS = 180.0
MIGRATION_PENDING = 428
ENDED = ("TASK_COMPLETED", "TASK_FAILED", "TASK_PARTIAL", "TASK_CANCELLED")


def resources_of(binary: Path, devlake: Path) -> Path:
    """Return the folder of the files that the server reads from its working directory.

    :raises Unmet: it is neither beside the binary nor in the checkout.
    """
    for position in (binary.parent / "resources", devlake / "backend" / "resources"):
        if (position / "swagger").is_dir():
            return position
    raise Unmet(f"no resources/swagger beside {binary.name} or in the checkout's backend folder")


class Lake:
    """The server on a free port of this machine; `with` starts and stops it.

    `plugins` is its REMOTE_PLUGIN_DIR, None an empty one; it may be another after `stop`. A server
    that asks before it migrates, as is its default, is told to go on. `settings` are environment
    variables of its own, and come before those set here.
    """

    def __init__(
        self,
        binary: Path,
        resources: Path,
        database_url: str,
        folder: Path,
        plugins: Optional[Path] = None,
        go_plugins: Optional[Path] = None,
        **settings: str,
    ) -> None:
        self.has_org = go_plugins is not None and (go_plugins / "org" / "org.so").is_file()
        self.url = f"http://{HOST}:{free_port()}"
        self.asked_to_migrate = False
        self._binary = binary
        self._plugins = plugins
        self.folder = folder
        self._log = folder / "server.log"
        self._process: Optional[subprocess.Popen[bytes]] = None
        folder.mkdir()
        (folder / "logs").mkdir()
        (folder / "no-plugins").mkdir()
        (folder / "resources").symlink_to(resources.resolve())
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "DB_URL": database_url,
            "PORT": self.url.rpartition(":")[2],
            "MODE": "release",
            "ENCRYPTION_SECRET": SECRET,
            "PLUGIN_DIR": str(go_plugins.resolve() if go_plugins else folder / "no-plugins"),
            "LOGGING_DIR": str(folder / "logs"),
            "PIPELINE_MAX_PARALLEL": "1",
            # The default of whether to ask differs between releases.
            "AUTH_ENABLED": "false",
            **settings,
        }
        self._client = httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def __enter__(self) -> Lake:
        try:
            self.start(self._plugins)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.stop()
        self._client.close()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def complaints(self) -> str:
        """Return the last errors in its log."""
        words = re.compile("error|panic", re.IGNORECASE)
        return " ".join([line for line in self.log.splitlines() if words.search(line)][-3:])

    def start(self, plugins: Optional[Path] = None) -> None:
        """Start, and wait until it has migrated; set `asked_to_migrate` if it asked.

        :raises Unmet: it ended or didn't answer in time; the message has the end of its log.
        """
        self.asked_to_migrate = False
        remote = str(plugins or self.folder / "no-plugins")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary],
                cwd=self.folder,
                env={**self._environment, "REMOTE_PLUGIN_DIR": remote},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while (status := self._status("/plugins")) != 200:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise Unmet(f"the server did not start: {self.log[-1500:]}")
            if status == MIGRATION_PENDING:
                self.asked_to_migrate = True
                self._status("/proceed-db-migration")
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _status(self, path: str) -> int:
        try:
            return self._client.get(path).status_code
        except httpx.ConnectError:
            return 0

    def call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """Return the JSON of an answer; `status` is compared by its hundred.

        :raises Unmet: the status is another.
        """
        answer = self._client.request(method, path, json=body)
        if answer.status_code // 100 != status // 100:
            raise Unmet(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def blueprint(self, *connections: tuple[str, int, str]) -> int:
        """Make a blueprint of plugins, connection ids and scope ids, in a project if possible.

        Without its org plugin DevLake takes no blueprint of a project.
        """
        if self.has_org:
            project = {"name": "p1", "description": "", "metrics": []}
            blueprint = self.call("POST", "/projects", project)["blueprint"]
        else:
            alone = {"name": "b1", "mode": "NORMAL", "enable": True, "isManual": True}
            blueprint = self.call("POST", "/blueprints", {**alone, "cronConfig": "manual"})
        blueprint_id: int = blueprint["id"]
        self.use(blueprint_id, *connections)
        return blueprint_id

    def use(self, blueprint_id: int, *connections: tuple[str, int, str]) -> None:
        """Replace the connections of a blueprint."""
        used = [
            {"pluginName": plugin, "connectionId": connection, "scopes": [{"scopeId": scope}]}
            for plugin, connection, scope in connections
        ]
        self.call("PATCH", f"/blueprints/{blueprint_id}", {"connections": used})

    def run(self, blueprint_id: int, **how: bool) -> list[list[str]]:
        """Trigger a blueprint, wait for its end, and return the subtasks of its tasks in order.

        :raises Unmet: it did not complete; the message says why.
        """
        pipeline = self.call("POST", f"/blueprints/{blueprint_id}/trigger", how)
        path = f"/pipelines/{pipeline['id']}"

        def ended() -> Any:
            results = self.get(path)
            return results if results["status"] in ENDED else None

        results = eventually(ended, RUN_SECONDS)
        if results["status"] != "TASK_COMPLETED":
            raise Unmet(f"the pipeline ended as {results['status']}: {results.get('message')}")
        tasks = self.get(f"{path}/tasks")["tasks"]
        return [task["subtasks"] for task in sorted(tasks, key=lambda item: item["id"])]
