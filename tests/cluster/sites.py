"""Two receivers behind a balancer, each with a spool of its own, on one database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.balancer import Balancer
from tests.support.oracle import Oracle
from tests.support.servers import ServerMissing, create_database
from tests.support.sites import Site, missing

# The ordinary account of MariaDB has rights in databases of such names.
DATABASE = "faults_cluster"


class ClusterSite(Site):
    """A site whose receiver has a neighbour; what an oracle sends goes through the balancer."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(None, url, folder)
        spool = folder / "spool of the neighbour"
        self.neighbour = self.another_receiver(TELEMETRY_SPOOL_DIR=str(spool))
        self.receivers = (self.receiver, self.neighbour)
        try:
            self.balancer = Balancer(*self.receivers)
        except ServerMissing as error:
            missing(str(error))

    def oracle(self, senders: int = 8) -> Oracle:
        strategies = {self.overwriting: "", self.summing: "sum"}
        return Oracle(self.receiver, strategies, senders, proxy_port=self.balancer.port)

    def readiness(self) -> list[tuple[int, str]]:
        """Return what each receiver answers whoever asks whether it is ready: status and
        message."""
        answers = [each.client.get("/health/ready") for each in self.receivers]
        return [(answer.status_code, answer.json()["message"]) for answer in answers]

    def is_normal(self) -> bool:
        """Return true if both receivers store what they get, and neither has anything left to
        store."""
        return self.readiness() == [(200, "ready")] * 2

    def is_spooling(self) -> bool:
        """Return true if both receivers have something in their spools."""
        return all("wait in the spool" in message for _, message in self.readiness())


@contextmanager
def cluster_site(url: str, folder: Path) -> Iterator[ClusterSite]:
    """All of it running, on a new database that `url` names."""
    create_database(url)
    site = ClusterSite(url, folder)
    with site.receiver, site.neighbour, site.balancer:
        yield site
