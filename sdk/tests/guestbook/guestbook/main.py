# mypy: ignore-errors
from collections.abc import Iterable

from guestbook.models import Book, BookConfig, GuestbookConnection
from guestbook.streams import Entries, Replies
from pydevlake import DomainType, Plugin, RemoteScopeGroup, TestConnectionResult
from pydevlake.domain_layer.code import Repo
from pydevlake.domain_layer.devops import CicdScope
from pydevlake.message import PipelineTask
from pydevlake.pipeline_tasks import gitextractor


class GuestbookPlugin(Plugin):
    connection_type = GuestbookConnection
    tool_scope_type = Book
    scope_config_type = BookConfig
    streams = [Entries, Replies]

    def domain_scopes(self, tool_scope: Book) -> Iterable[object]:
        yield CicdScope(name=tool_scope.name, createdDate=tool_scope.opened_at)
        yield Repo(name=tool_scope.name, forked_from="https://example.org")

    def remote_scope_groups(self, connection: GuestbookConnection) -> list[RemoteScopeGroup]:
        return [RemoteScopeGroup(id="shelf", name="Shelf")]

    def remote_scopes(self, connection: GuestbookConnection, group_id: str) -> list[Book]:
        if group_id == "attic":
            return [Book(id="big", name="x" * (6 * 1024 * 1024), source="")]
        return [Book(id="b1", name="Lobby", source="lobby.json")]

    def test_connection(self, connection: GuestbookConnection) -> TestConnectionResult:
        class Response:
            status = 200 if connection.token.get_secret_value() == "good" else 401

        return TestConnectionResult.from_api_response(Response())

    def extra_tasks(
        self, scope: Book, config: BookConfig, connection: GuestbookConnection
    ) -> list[PipelineTask]:
        if DomainType.CODE not in config.domain_types:
            return []
        return [gitextractor("https://example.org", scope.name, scope.domain_id(), None)]


if __name__ == "__main__":
    GuestbookPlugin.start()
