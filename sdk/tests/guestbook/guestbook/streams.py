# mypy: ignore-errors
import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

from sqlalchemy import text

import pydevlake.domain_layer.crossdomain as cross
from guestbook.models import Entry, Reply
from pydevlake import Context, DomainType, Stream, Substream


class Entries(Stream):
    tool_model = Entry
    domain_types = [DomainType.CROSS]
    domain_models = [cross.Account]

    def collect(self, state: dict[str, Any], context: Context) -> Iterable[tuple[Any, Any]]:
        source = context.scope.source
        if source == "endless":
            for number in range(10**9):
                time.sleep(0.001)
                yield {"id": number, "guest": {"name": "Ann"}}, {"last": number}
        elif source == "silent":
            yield {"id": 1, "guest": {"name": "Ann"}}, {}
            while True:
                time.sleep(0.05)
        elif source in ("another error", "no error", "forgotten"):
            # As drivers do with an exception that comes while they talk to their server.
            yield {"id": 1, "guest": {"name": "Ann"}}, {}
            try:
                while True:
                    time.sleep(0.05)
            except BaseException:
                logging.getLogger("driver").error("reset failed", exc_info=True)
                if source == "another error":
                    raise RuntimeError("the connection is in the middle of a statement") from None
            if source == "no error":
                return
            for number in range(2, 10**9):
                yield {"id": number, "guest": {"name": "Ann"}}, {}
        elif source.startswith("SELECT"):
            with context.engine.connect() as connection:
                connection.execute(text(source))
        elif source == "broken":
            yield {"id": 1, "guest": {"name": "Ann"}}, {}
            raise RuntimeError("the guestbook\nburnt down")
        for entry in json.loads(Path(source).read_text()):
            if entry["id"] > state.get("last", 0):
                entry["x_request_url"] = "https://guests.example.org/entries"
                entry["x_request_input"] = {"book": context.scope.id}
                yield entry, {"last": entry["id"]}

    def convert(self, tool_model: Entry, context: Context) -> Optional[Iterable[cross.Account]]:
        pattern = context.scope_config.hidden_pattern
        if pattern is not None and pattern.search(tool_model.guest):
            return
        yield cross.Account(full_name=tool_model.guest, user_name=tool_model.mood.value)


class Replies(Substream):
    tool_model = Reply
    domain_types = [DomainType.CROSS]
    parent_stream = Entries

    def should_run_on(self, scope: Any) -> bool:
        return bool(scope.source != "no replies")

    def collect(
        self, state: dict[str, Any], context: Context, parent: Entry
    ) -> Iterable[tuple[Any, Any]]:
        yield {"id": f"{parent.id}-1", "entryId": parent.id, "text": "Thanks!"}, state

    def convert(self, tool_model: Reply, context: Context) -> None:
        return None
