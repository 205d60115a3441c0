"""Describe in one screen what the collector does, what waits, and why."""

from __future__ import annotations

import os
import shutil
import time
from typing import List

from collector.evidence import local_moment
from collector.sender import OF_THE_CONNECTION, is_ahead, read_hold
from collector.settings import Settings
from collector.store import Day, Store
from collector.version import NAME, VERSION

MOST_DAYS = 5
SMALL_DISK = 10 * 1024 * 1024
LATE_SECONDS = 3 * 3600.0

ADVICE = {
    401: "the token is wrong or was replaced; install again with the new one",
    403: "this machine may not report there; ask who runs the receiver",
    404: "there is no such connection; install again with the URL that the page shows",
    413: "a proxy before the receiver refuses reports of this size; ask who runs it",
}


def describe(store: Store, settings: Settings, timer: str, last_run: float, now: float) -> str:
    """Return the screen of `status`."""
    rows = [
        ("Reports", f"as {settings.developer} to {settings.url}"),
        ("Runs", timer),
        ("Last run", _last_run(last_run, now)),
        ("Paused", _pause(store, now)),
        *(("Waiting", line) for line in _waiting(store, now)),
        *(("Refused", line) for line in _refused(store)),
        *(("Problem", line) for line in _problems(store, settings)),
        ("Last sent", _last_sent(store)),
    ]
    lines = [f"{NAME} {VERSION}"]
    before = ""
    for title, text in rows:
        lines.append(f"  {title if title != before else '':10} {text}")
        before = title
    lines.append("Every report can be seen: `show` has the next, `sent` those that were sent.")
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """Return a time as the clocks of this machine show it."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def describe_pause(store: Store, now: float) -> str:
    """Return until when the collector is paused; "" if it is not."""
    until = store.paused_until(now)
    if until is None:
        return ""
    return "until `resume`" if until == float("inf") else "until " + clock(until)


def _pause(store: Store, now: float) -> str:
    until = describe_pause(store, now)
    return f"{until}: nothing is read or sent" if until else "no"


def _last_run(last_run: float, now: float) -> str:
    if not last_run:
        return "never"
    late = now - last_run > LATE_SECONDS
    return clock(last_run) + (", which is long ago: was the machine off?" if late else "")


def _waiting(store: Store, now: float) -> List[str]:
    today = local_moment(now).day
    days = store.waiting()
    if not days:
        return ["nothing"]
    lines = [_days(days)]
    ahead = [day.day for day in days if day.day > today]
    if ahead:
        lines.append(
            "{}: the clock was ahead; sent when the day comes".format(", ".join(ahead[:3]))
        )
    hold = read_hold(store)
    if is_ahead(hold, now):
        lines.append("the receiver asked to wait until " + clock(hold.until))
    failed = [day for day in days if day.attempts and not _is_refused(day)]
    if failed:
        newest = max(failed, key=lambda day: day.tried_at or 0.0)
        status = f"{newest.status} " if newest.status else ""
        lines.append(f"{status}{newest.answer}; the next run tries again")
    return lines


def _days(days: List[Day]) -> str:
    if len(days) == 1:
        return days[0].day
    return f"{len(days)} days, {days[0].day} to {days[-1].day}"


def _is_refused(day: Day) -> bool:
    return 300 <= day.status < 500 and day.next_try > 0


def _refused(store: Store) -> List[str]:
    days = [day for day in store.waiting() if _is_refused(day)]
    lines = []
    for day in days[:MOST_DAYS]:
        advice = ADVICE.get(day.status, "")
        then = f"tried again after {clock(day.next_try)}"
        text = "; ".join(filter(None, (f"{day.day}: {day.status} {day.answer}", advice, then)))
        lines.append(text)
        if day.status in OF_THE_CONNECTION and len(days) > 1:
            return [*lines, "and the other days for the same reason"]
    if len(days) > MOST_DAYS:
        lines.append(f"and {len(days) - MOST_DAYS} more")
    return lines


def _problems(store: Store, settings: Settings) -> List[str]:
    problems = [text for text in store.meta("problems").split("\n") if text]
    problems += filter(None, [store.meta("git_problem")])
    unread = [state for state in store.repositories() if state.problem]
    for state in unread[:MOST_DAYS]:
        problems.append(f"repository {state.repository.name}: {state.problem}")
    if len(unread) > MOST_DAYS:
        problems.append(f"and {len(unread) - MOST_DAYS} more repositories")
    if shutil.disk_usage(settings.state).free < SMALL_DISK:
        problems.append("the disk is full; what is done now is read once there is room")
    damaged = [name for name in os.listdir(settings.state) if ".damaged-" in name]
    if damaged:
        problems.append("the stored days were damaged and set aside as " + damaged[0])
    return problems


def _last_sent(store: Store) -> str:
    sent = [day for day in store.days() if day.delivered_at]
    if not sent:
        return "nothing yet"
    newest = max(sent, key=lambda day: day.delivered_at or 0.0)
    return f"{newest.day} at {clock(newest.delivered_at or 0.0)}"
