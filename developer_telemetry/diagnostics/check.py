"""The result of a check of `doctor`, and the results and remedies that several checks share."""

from __future__ import annotations

from typing import NamedTuple

from developer_telemetry.diagnostics.facts import Facts

OK = "ok"
FAILED = "failed"
SKIPPED = "skipped"

# Part of the message of a DevLake server whose ENCRYPTION_SECRET is not that of its rows.
OTHER_SECRET = "invalid encryptionSecret"

SET_DATABASE = "set DB_URL and ENCRYPTION_SECRET to the values that DevLake's server has"
SET_DEVLAKE = "set DEVLAKE_URL (or --devlake-url), and DEVLAKE_API_KEY if DevLake asks for one"
SEE_DATABASE = "see `database` and `schema` above"
SEE_DEVLAKE = "see `devlake` and `plugin` above"
MAKE_CONNECTION = "make one: `developer-telemetry connect NAME`"


class Check(NamedTuple):
    """The result of one check: OK, FAILED or SKIPPED, the finding, and its remedy."""

    name: str
    state: str
    message: str
    remedy: str = ""


def failed_with_remedy(name: str, message: str, otherwise: str) -> Check:
    """Return a fault whose message has its remedy after the last semicolon, or else `otherwise`."""
    fault, separator, remedy = message.rpartition("; ")
    return Check(name, FAILED, fault if separator else message, remedy if separator else otherwise)


def without_database(facts: Facts, name: str) -> Check:
    """Return a skipped check, for lack of a database that can be used."""
    if facts.database.is_set:
        return Check(name, SKIPPED, "the database can't be used from here", SEE_DATABASE)
    return Check(name, SKIPPED, "no database is set here", SET_DATABASE)


def without_devlake(facts: Facts, name: str) -> Check:
    """Return a skipped check, for lack of an answer of DevLake."""
    if facts.devlake.is_set:
        return Check(name, SKIPPED, "DevLake did not answer", SEE_DEVLAKE)
    return Check(name, SKIPPED, "no DevLake is set here", SET_DEVLAKE)


def has_other_secret(facts: Facts) -> bool:
    """Return true if DevLake's server has a secret that does not decrypt its database."""
    return OTHER_SECRET in facts.devlake.plugin_error


def may_be_older_release(facts: Facts) -> bool:
    """Return true if DevLake may be an older release that can't read a newer secret."""
    return facts.devlake.has_failed and bool(facts.database.newer_secrets)
