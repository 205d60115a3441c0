"""The commands of the collector."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import List, NoReturn, Optional

from collector.errors import AnotherRun, CollectorError
from collector.figures import NameRules
from collector.installer import Machine, install, uninstall
from collector.own_page import open_in_browser, request_page
from collector.paths import Folders, default_folders, home_folder, this_system
from collector.runs import last_run, make_sender, run_once, send_now
from collector.settings import (
    Settings,
    check_token,
    check_url,
    read_settings,
    write_settings,
)
from collector.sources.system import user_name
from collector.status import clock, describe, describe_pause
from collector.store import Store
from collector.timers.base import MINUTES
from collector.timers.choice import timers
from collector.version import NAME, VERSION

# A run that hangs ends here; the next one repeats it.
LONGEST_RUN_SECONDS = 600.0
TEMPORARY_FAILURE = 75


def main(arguments: Optional[List[str]] = None) -> None:
    """Run one command and exit: 0 done, 1 refused or not possible, 75 to be repeated later."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except AnotherRun as error:
        print(error, file=sys.stderr)
    except CollectorError as error:
        sys.exit(f"{NAME}: {error}")
    except (sqlite3.Error, OSError) as error:
        print(f"{NAME}: {error}; the next run tries again", file=sys.stderr)
        sys.exit(TEMPORARY_FAILURE)


def machine(config: str = "") -> Machine:
    """Return this machine and this user."""
    system, home = this_system(), home_folder()
    folders = default_folders(system, home, os.environ)
    if config:
        folders = Folders(os.path.dirname(os.path.abspath(config)), folders.program, folders.state)
    return Machine(system, home, folders, os.environ, timers(system, home, folders, os.environ))


def is_root() -> bool:
    """Return true for the superuser, who has no work of its own."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _refuse_root() -> None:
    if is_root():
        raise CollectorError(
            "run this as the developer, not as root; for another user: `sudo -u USER python3 ...`"
        )


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[tuple[Settings, Store]]:
    settings = read_settings(machine(options.config).config)
    store = Store(settings.state)
    try:
        yield settings, store
    finally:
        store.close()


# Commands.


def _install(options: argparse.Namespace) -> None:
    _refuse_root()
    token = check_token(_read_token()) if options.token_stdin else ""
    here = machine(options.config)
    settings = Settings(
        url=check_url(options.url),
        token=token,
        developer=options.developer or user_name(),
        emails=options.email,
        name=options.name,
        roots=[os.path.abspath(root) for root in options.root],
        depth=options.depth,
        histories=[os.path.abspath(history) for history in options.history],
        excluded=options.exclude,
        hidden=options.hide,
        ca_file=os.path.abspath(options.ca_file) if options.ca_file else "",
        proxy=options.proxy,
    )
    if not settings.developer:
        raise CollectorError("this user has no name; name the developer with --developer")
    settings = install(here, settings, not options.no_timer)
    run_once(settings, sends=False)
    print(f"Installed. It reports as {settings.developer} to {settings.url}.")
    for command, purpose in (
        ("status", "shows what it does"),
        ("show", "shows the next report, exactly as it is sent"),
        ("pause", "stops it, `resume` goes on"),
        ("uninstall", "removes all of it"),
    ):
        print(f'  python3 "{here.program}" {command:10} {purpose}')


def _read_token() -> str:
    """Return a line of the standard input; ask for it at a terminal, which does not show it."""
    if sys.stdin.isatty():
        return getpass.getpass("Paste the token and press Enter (it is not shown): ")
    return sys.stdin.readline()


def _uninstall(options: argparse.Namespace) -> None:
    remaining = uninstall(machine(options.config))
    if remaining:
        raise CollectorError("these folders can't be deleted: " + ", ".join(remaining))
    print("Removed: the timer, the program, the settings and the stored days.")


def _run(options: argparse.Namespace) -> None:
    _refuse_root()
    _begin_politely()
    run_once(read_settings(machine(options.config).config))


def _begin_politely() -> None:
    """Take the lowest priority, and end a run that hangs."""
    if hasattr(os, "nice"):
        os.nice(19)
    watchdog = threading.Timer(LONGEST_RUN_SECONDS, os._exit, [TEMPORARY_FAILURE])
    watchdog.daemon = True
    watchdog.start()


def _send(options: argparse.Namespace) -> None:
    _refuse_root()
    with _opened(options) as (settings, store):
        if describe_pause(store, time.time()):
            raise CollectorError("it is paused; `resume` first")
        send_now(settings, time.time())
        _print_waiting(store)


def _print_waiting(store: Store) -> None:
    waiting = store.waiting()
    for day in waiting:
        status = f"{day.status} " if day.status else ""
        print(f"{day.day} waits: {status}{day.answer or 'not sent yet'}")
    if waiting:
        sys.exit(1)
    print("All days are sent.")


def _status(options: argparse.Namespace) -> None:
    here = machine(options.config)
    with _opened(options) as (settings, store):
        on = next((timer for timer in here.timers if timer.is_on()), None)
        timer = f"every {MINUTES} minutes, by a {on.description}" if on else "not by itself"
        print(describe(store, settings, timer, last_run(settings), time.time()))
    if options.open:
        _open_page(settings)


def _open_page(settings: Settings) -> None:
    url = request_page(settings, settings.developer)
    print("This page has what this machine has reported. The link can be opened for 15 minutes:")
    print(url, flush=True)
    if not open_in_browser(url):
        print("No browser opened it here; copy the link into one.", file=sys.stderr)


def _show(options: argparse.Namespace) -> None:
    with _opened(options) as (settings, store):
        sender = make_sender(store, settings, time.time())
        bodies = sender.next_bodies()
        if options.day:
            bodies = {day: body for day, body in bodies.items() if day == options.day}
    if not bodies:
        print("No report waits.", file=sys.stderr)
    for body in bodies.values():
        sys.stdout.buffer.write(body + b"\n")


def _sent(options: argparse.Namespace) -> None:
    with _opened(options) as (_, store):
        if options.day:
            body = store.sent_body(options.day)
            if body is None:
                raise CollectorError(f"no report of {options.day} was sent")
            sys.stdout.buffer.write(body + b"\n")
            return
        for day in store.days():
            if day.delivered_at:
                newer = ", newer figures wait" if day.revision > day.delivered else ""
                print(f"{day.day}  sent at {clock(day.delivered_at)}{newer}")
    print("`sent DAY` shows a report.", file=sys.stderr)


def _pause(options: argparse.Namespace) -> None:
    until = parse_time(options.until) if options.until else None
    if until is not None and until <= time.time():
        raise CollectorError(f"{options.until} is over already")
    with _opened(options) as (_, store):
        with store.transaction():
            store.pause(time.time(), until)
        print(f"Paused {describe_pause(store, time.time())}: nothing is read or sent.")


def parse_time(text: str) -> float:
    """Return a local time of `HH:MM` today, `YYYY-MM-DD` or both, in seconds."""
    match = re.fullmatch(r"(\d{4}-\d{2}-\d{2})?[ T]?(\d{1,2}:\d{2})?", text.strip())
    if not match or not text.strip():
        raise CollectorError(f"{text!r} is no time; write HH:MM, YYYY-MM-DD or YYYY-MM-DD HH:MM")
    day = match[1] or time.strftime("%Y-%m-%d")
    try:
        return time.mktime(time.strptime(day + " " + (match[2] or "00:00"), "%Y-%m-%d %H:%M"))
    except (ValueError, OverflowError):
        raise CollectorError(f"{text!r} is no time of the calendar") from None


def _resume(options: argparse.Namespace) -> None:
    with _opened(options) as (_, store), store.transaction():
        store.resume(time.time())
    print("It goes on; what was done during the pause is never read.")


def _exclude(options: argparse.Namespace) -> None:
    here = machine(options.config)
    with _opened(options) as (settings, store):
        patterns = [_pattern(text) for text in options.repository]
        before = set(settings.hidden if options.hide else settings.excluded)
        after = sorted(before - set(patterns) if options.remove else before | set(patterns))
        if patterns:
            changed = {"hidden": after} if options.hide else {"excluded": after}
            write_settings(here.config, Settings(**{**settings._asdict(), **changed}))
            repositories = [state.repository for state in store.repositories(with_gone=True)]
            with store.transaction():
                store.touch_days_of(NameRules(settings, repositories).matching(patterns))
        settings = read_settings(here.config)
    for title, listed in (("Left out", settings.excluded), ("Name hidden", settings.hidden)):
        for pattern in listed:
            print(f"{title:12} {pattern}")


def _pattern(text: str) -> str:
    """Return a folder's name as it is, and a path in full."""
    return os.path.realpath(text) if os.sep in text or text in (".", "..") else text


# The command line.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description="Report a developer's day to DevLake; run as the developer."
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {VERSION}")
    parser.add_argument("--config", default="", metavar="FILE", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    parser.set_defaults(command=lambda options: _usage(parser))
    _add_install(commands)
    for name, command, text in (
        ("uninstall", _uninstall, "remove all of it"),
        ("run", _run, "collect what is new and send what is due; the timer does this"),
        ("status", _status, "show when it ran, what waits and why"),
        ("show", _show, "show the next reports, exactly as they are sent"),
        ("sent", _sent, "list what was sent, or show a day of it"),
        ("send", _send, "send all days that wait, now"),
        ("pause", _pause, "read and send nothing until `resume`"),
        ("resume", _resume, "end a pause"),
        ("exclude", _exclude, "leave out repositories, or hide their names; list them"),
    ):
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        if name in ("show", "sent"):
            added.add_argument("day", nargs="?", default="", metavar="YYYY-MM-DD")
        elif name == "status":
            added.add_argument("--open", action="store_true", help="open your own page, too")
        elif name == "pause":
            added.add_argument("--until", default="", metavar="TIME", help="HH:MM or YYYY-MM-DD")
        elif name == "exclude":
            added.add_argument("repository", nargs="*", help="a folder's name, or a path")
            added.add_argument("--hide", action="store_true", help="count it under another name")
            added.add_argument("--remove", action="store_true", help="take it in again")
    return parser


def _add_install(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "install it for this user; again to change or update it"
    added = commands.add_parser("install", help=text, description=text)
    added.set_defaults(command=_install)
    added.add_argument("--url", required=True, help="the connection's report URL")
    added.add_argument("--token-stdin", action="store_true", help="read the token from stdin")
    added.add_argument("--developer", default="", help="the developer's id (the user's name)")
    added.add_argument("--name", default="", help="the developer's name (git's user.name)")
    for option, text in (
        ("--email", "an address of the developer's commits, besides git's user.email"),
        ("--root", "a folder with repositories (the home)"),
        ("--history", "a shell's history at an unusual path"),
        ("--exclude", "a repository to leave out"),
        ("--hide", "a repository whose name is hidden"),
    ):
        added.add_argument(option, action="append", default=[], help=text + "; can be repeated")
    added.add_argument("--depth", type=int, default=4, help="folders below a root to search (4)")
    added.add_argument("--ca-file", default="", help="certificates of a private authority")
    added.add_argument("--proxy", default="", help="an HTTP proxy")
    added.add_argument("--no-timer", action="store_true", help="have `run` started elsewhere")


def _usage(parser: argparse.ArgumentParser) -> NoReturn:
    parser.print_help()
    sys.exit(2)
