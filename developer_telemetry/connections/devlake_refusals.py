"""The reason why DevLake, or a proxy in front of it, does not do what a command asks.

Written for DevLake's servers of 2026. Whether they take an API key, basic auth or a forwarded user
changed from month to month, so a refusal names the login that this server needs.
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
# DevLake's answer to a request without a user, also for paths that don't exist.
BARE = "unauthorized"
# An older server's answer about a secret in AES-GCM, and any server's about a secret that another
# ENCRYPTION_SECRET has encrypted.
TOO_NEW = "data to be decrypted"

SET_IDENTITY = "set DEVLAKE_API_KEY, or DEVLAKE_USER and DEVLAKE_PASSWORD"
PASS_SIGN_ON = (
    "give the address of DevLake's server behind it, or let the sign-on pass /api/rest/ and set"
    " DEVLAKE_API_KEY"
)


class AccessDenied(ConfigurationError):
    """DevLake, or a proxy in front of it, does not accept the login."""


class ServerError(Unavailable):
    """DevLake's server answered with an error of its own (500)."""


def json_of(answer: httpx.Response) -> Any:
    """Return the body as JSON; None if it is none."""
    try:
        return answer.json()
    except ValueError:
        return None


def message_of(answer: httpx.Response) -> str:
    """Return DevLake's message, without the chain of causes at its end."""
    content = json_of(answer)
    message = content.get("message") if isinstance(content, dict) else None
    first, _, _ = str(message or "").strip().partition("\n")
    return re.sub(r" \(\d{3}\)$", "", first)


def rank_explanation(answer: httpx.Response) -> int:
    """Return how well an answer explains a failure; 0 for not at all."""
    status = answer.status_code
    if status in DENIED_STATUSES and json_of(answer) is not None:
        return 1 if message_of(answer) == BARE else 3
    return 0 if status in (200, 404) else 2


def read_page_title(answer: httpx.Response) -> str:
    """Return the title of an answer that is a page, quoted; `""` for any other."""
    return _http_answer(answer).title


class Refusal:
    """An answer other than the wanted one, and the request, such as `GET /version`."""

    def __init__(self, access: DevLakeAccess, base: str, answer: httpx.Response, what: str) -> None:
        self._access = access
        self._base = base
        self._answer = answer
        self._what = what
        self._server = f"DevLake at {access.url}"
        self._reason = message_of(answer)
        self._is_json = json_of(answer) is not None
        self._http_answer = _http_answer(answer)

    def error(self) -> TelemetryError:
        """Return the error to raise; its remedy follows the last semicolon."""
        status = self._answer.status_code
        if self._http_answer.is_sign_on:
            return self._sign_on_error()
        if self._http_answer.is_redirect:
            return self._redirect_error()
        if status in DENIED_STATUSES:
            return AccessDenied(
                f"{self._server} {self._describe_missing_login(self._reason or str(status))}"
            )
        if status == MIGRATION_PENDING:
            return self._migration_error()
        path = self._what.partition(" ")[2]
        if status == 404 and not self._is_json and path.startswith("/plugins"):
            return ConfigurationError(
                f"{self._server} has no plugin {PLUGIN}, or one of that name without scopes: put"
                " ours into its plugins folder, run build.sh there, and restart DevLake; or work"
                " without it: unset DEVLAKE_URL, set DB_URL and ENCRYPTION_SECRET to those of"
                " DevLake's server, and run `developer-telemetry migrate --standalone`"
            )
        if status in (502, 503, 504) and not self._is_json:
            return Unavailable(
                f"the proxy at {self._access.url} can't reach DevLake's server ({status});"
                " see whether that runs, then run this again"
            )
        return self._unexpected_answer(status)

    def _sign_on_error(self) -> AccessDenied:
        sign_on = self._http_answer
        how = f"sends to {sign_on.target}" if sign_on.is_redirect else f"answers {sign_on.status}"
        page = f" with the page {sign_on.title}" if sign_on.title else ""
        return AccessDenied(f"a sign-on in front of {self._server} {how}{page}; {PASS_SIGN_ON}")

    def _redirect_error(self) -> ConfigurationError:
        to = self._http_answer.target
        if self._http_answer.is_redirect_to_same_path:
            # The target differs from the configured address by scheme, host or folder.
            to = to.removesuffix(self._http_answer.url[len(self._access.url) :])
            return ConfigurationError(
                f"{self._server} redirects to {to}; give that address instead"
            )
        return AccessDenied(
            f"{self._server} redirects to {to}; give that address instead, or if that is a sign-on,"
            f" {PASS_SIGN_ON}"
        )

    def _describe_missing_login(self, reason: str) -> str:
        access = self._access
        if self._http_answer.asks_for_password and not access.user:
            return (
                "is behind a proxy that asks for a password (basic auth); set DEVLAKE_USER and"
                " DEVLAKE_PASSWORD"
                + (", and unset DEVLAKE_API_KEY, or let /api/rest/ pass" if access.api_key else "")
            )
        if access.api_key:
            return self._describe_refused_key(reason)
        if access.user:
            return self._describe_refused_password(reason)
        if access.forwarded_user:
            return (
                f"does not take DEVLAKE_FORWARDED_USER: {reason}; give its server's"
                " FORWARDED_USER_SECRET as DEVLAKE_FORWARDED_USER_SECRET, and see that no proxy on"
                " the way drops X-Forwarded-User-Secret"
            )
        other = "" if self._is_json else f", or where that is a sign-on {PASS_SIGN_ON}"
        return f"needs a login: {reason}; {SET_IDENTITY}{other}"

    def _describe_refused_key(self, reason: str) -> str:
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

    def _describe_refused_password(self, reason: str) -> str:
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

    def _migration_error(self) -> TelemetryError:
        if "in progress" in self._reason:
            return Unavailable(
                f"{self._server} is migrating its database; try again when it is done"
            )
        # A key for reports may not do this, so the path is without /rest.
        base = (self._base or self._access.url).removesuffix("/rest")
        user = '--user "$DEVLAKE_USER:$DEVLAKE_PASSWORD" ' if self._access.user else ""
        return ConfigurationError(
            f"{self._server} waits for you to confirm a migration of its database; do so in its web"
            f" UI or with `curl {user}{base}/proceed-db-migration`, then run this again"
        )

    def _unexpected_answer(self, status: int) -> TelemetryError:
        unclear = "an answer that this command does not understand"
        reason = self._reason or (unclear if self._answer.is_success else "no reason given")
        reason += _prefix(", but the page ", self._http_answer.title)
        answered = f"{self._server} answered {self._what} with {status}: {reason}"
        if status == 500 and TOO_NEW in reason:
            return ServerError(
                f"{answered}: it is older than what has encrypted its connections, or has another"
                " ENCRYPTION_SECRET; compare that with the one here, and if they are equal, let"
                " `developer-telemetry token rewrite` (with DB_URL) make it readable"
            )
        again = "; run this again, which continues where it stopped" if status >= 500 else ""
        kind = ServerError if status == 500 else Unavailable
        return kind(f"{answered}; its log has details{again}")


def _http_answer(answer: httpx.Response) -> HttpAnswer:
    return HttpAnswer(str(answer.request.url), answer.status_code, answer.headers, answer.text)


def _prefix(words: str, text: str) -> str:
    return words + text if text else ""
