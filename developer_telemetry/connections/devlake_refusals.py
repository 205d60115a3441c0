"""The reason why DevLake, or what stands in front of it, does not do what a command asks.

Written for DevLake's servers of 2026: which of them take an API key, basic auth or a forwarded
user changed from month to month, so a refusal names what this one needs.
"""

from __future__ import annotations

import re
from typing import Any

import httpx

from developer_telemetry.config import DevLakeAccess
from developer_telemetry.connections.sign_on import HttpAnswer
from developer_telemetry.errors import ConfigurationError, TelemetryError, Unavailable

PLUGIN = "developer_telemetry"

MIGRATION_PENDING = 428
DENIED_STATUSES = (401, 403)
# DevLake's own word to a request without a user; it says it of paths that don't exist, too.
BARE = "unauthorized"
# A server of before AES-GCM says it of a secret that a newer one has encrypted; a newer one with
# another ENCRYPTION_SECRET says the same.
TOO_NEW = "data to be decrypted"

SET_IDENTITY = "set DEVLAKE_API_KEY, or DEVLAKE_USER and DEVLAKE_PASSWORD"
PASS_SIGN_ON = (
    "give the address of DevLake's server behind it, or let the sign-on pass /api/rest/ and set"
    " DEVLAKE_API_KEY"
)


class AccessDenied(ConfigurationError):
    """DevLake, or what stands in front of it, does not take what was shown to it."""


class ServerError(Unavailable):
    """DevLake's server answered with an error of its own (500)."""


def json_of(answer: httpx.Response) -> Any:
    """Return the body as JSON; None if it is none."""
    try:
        return answer.json()
    except ValueError:
        return None


def message_of(answer: httpx.Response) -> str:
    """Return DevLake's own words, without the chain of causes that it appends."""
    content = json_of(answer)
    message = content.get("message") if isinstance(content, dict) else None
    first, _, _ = str(message or "").strip().partition("\n")
    return re.sub(r" \(\d{3}\)$", "", first)


def rank_explanation(answer: httpx.Response) -> int:
    """Tell how much an answer says of why there is no other; 0 for nothing."""
    status = answer.status_code
    if status in DENIED_STATUSES and json_of(answer) is not None:
        return 1 if message_of(answer) == BARE else 3
    return 0 if status in (200, 404) else 2


def read_page_title(answer: httpx.Response) -> str:
    """Return the title of the page that an answer is, quoted; `""` if it is none."""
    return _http_answer(answer).title


class Refusal:
    """One answer that is not the wanted one, and what was asked for, such as `GET /version`."""

    def __init__(self, access: DevLakeAccess, base: str, answer: httpx.Response, what: str) -> None:
        self._access = access
        self._base = base
        self._answer = answer
        self._what = what
        self._where = f"DevLake at {access.url}"
        self._reason = message_of(answer)
        self._is_json = json_of(answer) is not None
        self._http_answer = _http_answer(answer)

    def error(self) -> TelemetryError:
        """Return the error to raise; what to do stands after its last semicolon."""
        status = self._answer.status_code
        if self._http_answer.is_sign_on:
            return self._sign_on()
        if self._http_answer.is_redirect:
            return self._redirect()
        if status in DENIED_STATUSES:
            return AccessDenied(f"{self._where} {self._stranger(self._reason or str(status))}")
        if status == MIGRATION_PENDING:
            return self._migration()
        path = self._what.partition(" ")[2]
        if status == 404 and not self._is_json and path.startswith("/plugins"):
            return ConfigurationError(
                f"{self._where} has no plugin {PLUGIN}, or one of that name without scopes: put"
                " ours into its plugins folder, run build.sh there, and restart DevLake; or work"
                " without it: unset DEVLAKE_URL, set DB_URL and ENCRYPTION_SECRET to those of"
                " DevLake's server, and run `developer-telemetry migrate --standalone`"
            )
        if status in (502, 503, 504) and not self._is_json:
            return Unavailable(
                f"the proxy at {self._access.url} can't reach DevLake's server ({status});"
                " see whether that runs, then run this again"
            )
        return self._other(status)

    def _sign_on(self) -> AccessDenied:
        sign_on = self._http_answer
        how = f"sends to {sign_on.target}" if sign_on.is_redirect else f"answers {sign_on.status}"
        page = f" with the page {sign_on.title}" if sign_on.title else ""
        return AccessDenied(f"a sign-on in front of {self._where} {how}{page}; {PASS_SIGN_ON}")

    def _redirect(self) -> ConfigurationError:
        to = self._http_answer.target
        if self._http_answer.is_redirect_to_same_path:
            # Their address is what was given with another scheme, host or folder.
            to = to.removesuffix(self._http_answer.url[len(self._access.url) :])
            return ConfigurationError(f"{self._where} sends on to {to}; give that address instead")
        return AccessDenied(
            f"{self._where} sends on to {to}; give that address instead, or if that is a sign-on,"
            f" {PASS_SIGN_ON}"
        )

    def _stranger(self, reason: str) -> str:
        access = self._access
        if self._http_answer.asks_for_password and not access.user:
            return (
                "is behind a proxy that asks for a password (basic auth); set DEVLAKE_USER and"
                " DEVLAKE_PASSWORD"
                + (", and unset DEVLAKE_API_KEY, or let /api/rest/ pass" if access.api_key else "")
            )
        if access.api_key:
            return self._key_refused(reason)
        if access.user:
            return self._password_refused(reason)
        if access.forwarded_user:
            return (
                f"does not take DEVLAKE_FORWARDED_USER: {reason}; give its server's"
                " FORWARDED_USER_SECRET as DEVLAKE_FORWARDED_USER_SECRET, and see that no proxy on"
                " the way drops X-Forwarded-User-Secret"
            )
        other = "" if self._is_json else f", or where that is a sign-on {PASS_SIGN_ON}"
        return f"wants to know who you are: {reason}; {SET_IDENTITY}{other}"

    def _key_refused(self, reason: str) -> str:
        if reason == BARE and not self._access.forwarded_user:
            return (
                "has AUTH_ENABLED=true, and no release before its pull request #9008 (after June"
                f" 2026) takes API keys then: {reason}; update DevLake, or set"
                " DEVLAKE_FORWARDED_USER and DEVLAKE_FORWARDED_USER_SECRET as well, or in place of"
                " the key DEVLAKE_USER and DEVLAKE_PASSWORD"
            )
        if reason == BARE:
            return (
                f"takes neither DEVLAKE_API_KEY alone nor DEVLAKE_FORWARDED_USER: {reason}; give"
                " its server's FORWARDED_USER_SECRET as DEVLAKE_FORWARDED_USER_SECRET"
            )
        return (
            f"refuses DEVLAKE_API_KEY: {reason}; make one on its page API Keys, with the allowed"
            " path `.*`"
        )

    def _password_refused(self, reason: str) -> str:
        if ":" in self._access.password and self._is_json:
            return (
                f"refuses DEVLAKE_USER and DEVLAKE_PASSWORD: {reason}, since DevLake's own server"
                " takes no password with a colon in it; set one without, or DEVLAKE_API_KEY"
            )
        if self._is_json:
            return (
                f"refuses DEVLAKE_USER and DEVLAKE_PASSWORD: {reason}; set DEVLAKE_API_KEY in place"
                " of them, since DevLake from September 2026 on takes no basic auth"
            )
        return (
            f"refuses DEVLAKE_USER and DEVLAKE_PASSWORD: {reason}; correct them, or where that is a"
            f" sign-on {PASS_SIGN_ON}"
        )

    def _migration(self) -> TelemetryError:
        if "in progress" in self._reason:
            return Unavailable(
                f"{self._where} is migrating its database; try again when it is done"
            )
        # A key for reports has no say in this, so it goes without /rest.
        base = (self._base or self._access.url).removesuffix("/rest")
        user = '--user "$DEVLAKE_USER:$DEVLAKE_PASSWORD" ' if self._access.user else ""
        return ConfigurationError(
            f"{self._where} waits for you to confirm a migration of its database; do so in its web"
            f" UI or with `curl {user}{base}/proceed-db-migration`, then run this again"
        )

    def _other(self, status: int) -> TelemetryError:
        unclear = "nothing that this command understands"
        reason = self._reason or (unclear if self._answer.is_success else "no word of why")
        reason += _before(", but the page ", self._http_answer.title)
        answered = f"{self._where} answered {self._what} with {status}: {reason}"
        if status == 500 and TOO_NEW in reason:
            return ServerError(
                f"{answered}: it is older than what has encrypted its connections, or has another"
                " ENCRYPTION_SECRET; compare that with the one here, and if they are equal, let"
                " `developer-telemetry token rewrite` (with DB_URL) make it readable"
            )
        again = "; run this again, which goes on where it was" if status >= 500 else ""
        kind = ServerError if status == 500 else Unavailable
        return kind(f"{answered}; its log says more{again}")


def _http_answer(answer: httpx.Response) -> HttpAnswer:
    return HttpAnswer(str(answer.request.url), answer.status_code, answer.headers, answer.text)


def _before(words: str, text: str) -> str:
    return words + text if text else ""
