"""The commands by which DevLake's server calls a plugin, each in a process of its own."""

import gc
import json
import signal
import sys
import traceback
from collections.abc import Generator
from contextlib import closing
from inspect import Parameter, signature
from logging import CRITICAL, DEBUG, NOTSET, disable
from types import FrameType
from typing import Any, Callable, Optional, get_origin

from pydevlake.channel import Channel, wait_until_read
from pydevlake.context import Context
from pydevlake.database import create_db_engine
from pydevlake.failure import Failure, describe
from pydevlake.logger import configure, logger
from pydevlake.message import Message

# A `Plugin`, whose `start` imports this module.
Plugin = Any
Messages = Generator[Message, None, None]

_CANCELLED_STATUS = 128 + signal.SIGTERM


class _Cancelled(SystemExit):
    """The process got SIGTERM. Not an Exception, so that no plugin's `except` catches it."""


def main(plugin_type: type[Plugin], arguments: list[str]) -> int:
    """Carry out one call, `VERB CONFIG ARG...`, and return the process's exit status.

    CONFIG and each ARG are JSON documents. Answers are written to file descriptor 3. A failure is
    one line on stderr (and a traceback at log level debug) and status 1; SIGTERM is status 143.
    """
    status = _call(plugin_type, arguments)
    sys.stdout.flush()
    wait_until_read(1, 2, 3)
    return status


def _call(plugin_type: type[Plugin], arguments: list[str]) -> int:
    # Imported objects stay until the end, and collecting garbage takes longer than most calls.
    gc.freeze()
    configure(None)
    # A pipe would buffer the output of a plugin.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, _cancel)
    commands = Commands(plugin_type)
    try:
        _dispatch(commands, arguments)
    except _Cancelled:
        return _report_cancellation(commands)
    except Exception as error:
        if _cancel.is_requested:  # a driver may raise an error of its own for the interruption
            return _report_cancellation(commands)
        # Ended before the line is written: a SIGTERM now would add a second one.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if logger.isEnabledFor(DEBUG):
            traceback.print_exc()
        print(describe(commands._subject, error), file=sys.stderr)
        return 1
    return _report_cancellation(commands) if _cancel.is_requested else 0


class _Cancel:
    """A handler of SIGTERM: raises `_Cancelled`, and records it in case it gets lost.

    During a driver's call or the deletion of an object, another error may replace it, or it may be
    ignored.
    """

    is_requested = False

    def __call__(self, number: int, frame: Optional[FrameType]) -> None:
        # A second one must not interrupt the rollback.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.is_requested = True
        # An interrupted statement is no error to be reported.
        disable(CRITICAL)
        sys.unraisablehook = _ignore_unraisable
        raise _Cancelled(_CANCELLED_STATUS)

    def check(self) -> None:
        """Raise it again if it was lost."""
        if self.is_requested:
            raise _Cancelled(_CANCELLED_STATUS)


_cancel = _Cancel()


def _ignore_unraisable(unraisable: Any) -> None:
    """Ignore an exception that could not be raised."""


def _report_cancellation(commands: "Commands") -> int:
    disable(NOTSET)
    logger.info("%s was cancelled and rolled back", commands._subject)
    return _CANCELLED_STATUS


def _dispatch(commands: "Commands", arguments: list[str]) -> None:
    verbs = [name for name in vars(Commands) if not name.startswith("_")]
    verb, *documents = arguments or ["--help"]
    verb = "--help" if verb == "--help" else verb.replace("-", "_")
    if verb not in (*verbs, "--help"):
        # Fire would print a page of usage.
        recognized = ", ".join(name.replace("_", "-") for name in verbs)
        raise Failure(f"there is no verb {arguments[0]!r}", f"Use one of {recognized}.")
    if verb == "--help":
        import fire  # slow, and not needed by calls of the server

        fire.Fire(commands, command=[verb], name="run.sh")
    else:
        getattr(commands, verb)(*documents)


def _make_command(answers: Callable[..., Messages]) -> Callable[..., None]:
    """Make a command, from documents to lines on descriptor 3, of a generator of messages.

    The first document is the remote config. An optional last one may be left out.
    """
    parameters = list(signature(answers).parameters.values())[1:]
    required = sum(parameter.default is parameter.empty for parameter in parameters)
    usage = " ".join(["CONFIG", *(parameter.name.upper() for parameter in parameters)])

    def command(self: "Commands", *documents: str) -> None:
        self._subject = answers.__name__.replace("_", "-")
        config, *values = [_parse(document) for document in documents] or [None]
        configure(config)
        if not required <= len(values) <= len(parameters):
            raise Failure(
                f"it got {len(documents)} arguments", f"Call it as {self._subject} {usage}."
            )
        for parameter, value in zip(parameters, values):
            _check_type(parameter, value)
        self._channel = Channel()
        # Closed at once after a signal between two messages, so that it rolls back.
        with closing(answers(self, *values)) as messages:
            for message in messages:
                _cancel.check()
                self._channel.send(message)

    # The help lists a verb by its name and summary.
    command.__name__, command.__doc__ = answers.__name__, answers.__doc__
    return command


def _parse(document: str) -> Any:
    if not document.strip():
        return None
    try:
        return json.loads(document)
    except ValueError as error:
        raise Failure(
            f"an argument is no JSON document ({error})", "Pass each argument as JSON."
        ) from None


def _check_type(parameter: Parameter, value: Any) -> None:
    for wanted, name in ((dict, "object"), (list, "array")):
        if get_origin(parameter.annotation) is wanted and not isinstance(value, wanted):
            raise Failure(f"{parameter.name} is no JSON {name}", f"Pass a JSON {name}.")


class Commands:
    """The commands that DevLake's server sends. Arguments are JSON documents, the config first."""

    def __init__(self, plugin_type: type[Plugin]) -> None:
        self._plugin_type = plugin_type
        self._channel: Channel
        # The subject in messages of failures.
        self._subject = "the call"

    @_make_command
    def plugin_info(self) -> Messages:
        """Describe the plugin."""
        yield self._plugin().plugin_info()

    @_make_command
    def test_connection(self, connection: dict[str, Any]) -> Messages:
        """Test a connection."""
        plugin = self._plugin()
        # A connection that exists already is tested without its name.
        yield plugin.test_connection(
            plugin.connection_type(**{"name": "Test connection", **connection})
        )

    @_make_command
    def remote_scopes(self, connection: dict[str, Any], group_id: Optional[str] = None) -> Messages:
        """List the groups of scopes, or the scopes of one group."""
        plugin = self._plugin()
        yield from plugin.make_remote_scopes(plugin.connection_type(**connection), group_id)

    @_make_command
    def make_pipeline(self, scope_config_pairs: list[Any], connection: dict[str, Any]) -> Messages:
        """Plan a pipeline for scopes, each with its scope config or null."""
        plugin = self._plugin()
        pairs = [
            (plugin.tool_scope_type(**scope), plugin.scope_config_type(**(config or {})))
            for scope, config in scope_config_pairs
        ]
        yield plugin.make_pipeline(pairs, plugin.connection_type(**connection))

    @_make_command
    def collect(self, context: dict[str, Any], stream: str) -> Messages:
        """Run a stream's first step for a scope."""
        yield from self._run("collect", context, stream)

    @_make_command
    def extract(self, context: dict[str, Any], stream: str) -> Messages:
        """Run a stream's second step for a scope."""
        yield from self._run("extract", context, stream)

    @_make_command
    def convert(self, context: dict[str, Any], stream: str) -> Messages:
        """Run a stream's third step for a scope."""
        yield from self._run("convert", context, stream)

    def _plugin(self) -> Plugin:
        return self._plugin_type()

    def _run(self, step: str, data: dict[str, Any], stream: str) -> Messages:
        self._subject = f"{step} {stream}"
        plugin = self._plugin()
        context = _context(plugin, data)
        self._subject += f" (connection {context.connection.id}, scope {context.scope.id})"
        try:
            with self._channel.repeating_progress():
                yield from getattr(plugin, step)(context, stream)
        finally:
            context.engine.dispose()


def _context(plugin: Plugin, data: dict[str, Any]) -> Context:
    missing = [key for key in ("db_url", "connection", "scope") if not data.get(key)]
    if missing:
        raise Failure(
            f"the context lacks {', '.join(missing)}", "Pass the context as DevLake's server does."
        )
    return Context(
        engine=create_db_engine(data["db_url"]),
        connection=plugin.connection_type(**data["connection"]),
        scope=plugin.tool_scope_type(**data["scope"]),
        scope_config=plugin.scope_config_type(**(data.get("scope_config") or {})),
        options=data.get("options"),
    )
