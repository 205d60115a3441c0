"""Settings: where they come from, what a bad one is answered with, where they are written down."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from developer_telemetry.config import (
    SETTINGS,
    DevLakeAccess,
    Setting,
    Settings,
    load_settings,
)
from developer_telemetry.connections.embedded_database import ensure_secret
from developer_telemetry.errors import ConfigurationError
from tests.support.receivers import run_command

LAKE = "mysql://merico:merico@mysql:3306/lake?charset=utf8mb4&parseTime=True"

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)


def test_the_command_names_each_setting(tmp_path: Path) -> None:
    shown = run_command(tmp_path, "--help").stdout

    assert [setting.name for setting in SETTINGS if setting.name not in shown] == []


def test_nothing_set_gives_an_embedded_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    settings = load_settings({})

    assert settings == Settings(
        db_url=f"sqlite:///{tmp_path}/data/telemetry.db",
        encryption_secret="",
        host="127.0.0.1",
        port=8090,
        require_token=False,
        log_level="info",
        log_format="text",
        spool_dir=Path("data/spool"),
        spool_max_bytes=512 << 20,
        embedded=True,
    )
    assert list(tmp_path.iterdir()) == []


def test_the_secret_of_the_embedded_database_is_made_once_and_readable_by_its_owner_alone(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    lines: list[str] = []
    made = ensure_secret(load_settings({"TELEMETRY_DATA_DIR": str(folder)}), lines.append)
    again = load_settings({"TELEMETRY_DATA_DIR": str(folder)})

    assert ensure_secret(again, lines.append) == again == made
    assert lines == [f"A new encryption secret is made at {folder}/encryption_secret"]
    assert len(made.encryption_secret) >= 32
    assert (folder / "encryption_secret").stat().st_mode & 0o777 == 0o600


def test_a_secret_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "encryption_secret").write_bytes(b"\xff")

    with pytest.raises(ConfigurationError, match=f"secret in {tmp_path}/encryption_secret"):
        load_settings({"TELEMETRY_DATA_DIR": str(tmp_path)})


def test_values_from_the_environment_are_in_force() -> None:
    settings = load_settings(
        {
            "DB_URL": LAKE,
            "ENCRYPTION_SECRET": "secret",
            "TELEMETRY_HOST": "0.0.0.0",
            "TELEMETRY_PORT": "80",
            "TELEMETRY_REQUIRE_TOKEN": "True",
            "TELEMETRY_LOG_LEVEL": "DEBUG",
        }
    )

    assert settings == Settings(
        LAKE, "secret", "0.0.0.0", 80, True, "debug", "text", Path("data/spool"), 512 << 20, False
    )


def test_an_empty_value_means_the_default() -> None:
    # Compose files pass variables on that nobody has set: FOO=${FOO:-}.
    empty = {setting.name: "" for setting in SETTINGS}

    settings = load_settings({**empty, "DB_URL": LAKE, "ENCRYPTION_SECRET": "secret"})

    assert (settings.host, settings.port, settings.log_level) == ("127.0.0.1", 8090, "info")


@each_setting
def test_each_value_may_come_from_a_file(setting: Setting, tmp_path: Path) -> None:
    values = {
        "DB_URL": LAKE,
        "ENCRYPTION_SECRET": "secret",
        "TELEMETRY_STANDALONE": "true",
        "TELEMETRY_DATA_DIR": str(tmp_path / "elsewhere"),
        "TELEMETRY_HOST": "::",
        "TELEMETRY_PORT": "80",
        "TELEMETRY_REQUIRE_TOKEN": "true",
        "TELEMETRY_ADMIN_TOKEN": "sixteen letters.",
        "TELEMETRY_LOG_LEVEL": "debug",
        "TELEMETRY_LOG_FORMAT": "json",
        "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool"),
        "TELEMETRY_SPOOL_MAX_MB": "5",
        "TELEMETRY_TRUSTED_PROXIES": "10.0.0.5, 172.16.0.0/12,2001:db8::/32",
        "TELEMETRY_RETIRE_DAYS": "90",
        "TELEMETRY_PRIVACY_CONTACT": "privacy@example.com",
        "TELEMETRY_PUBLIC_URL": "https://devlake.example.com/api",
        "DEVLAKE_URL": "https://devlake.example.com",
        "DEVLAKE_USER": "operator",
        "DEVLAKE_PASSWORD": "hidden",
        "DEVLAKE_FORWARDED_USER": "operator",
        "DEVLAKE_FORWARDED_USER_SECRET": "shared",
    }
    if setting.name == "DEVLAKE_API_KEY":
        values["DEVLAKE_API_KEY"] = "key"
        del values["DEVLAKE_USER"], values["DEVLAKE_PASSWORD"]
    expected = load_settings(values)
    file = tmp_path / "value"
    file.write_text(values.pop(setting.name) + "\n")

    assert load_settings({**values, f"{setting.name}_FILE": str(file)}) == expected


def test_a_file_wins_over_a_value() -> None:
    settings = load_settings(
        {"DB_URL": LAKE, "ENCRYPTION_SECRET_FILE": __file__, "ENCRYPTION_SECRET": "x"}
    )

    assert settings.encryption_secret == Path(__file__).read_text().strip()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TELEMETRY_PORT", "http"),
        ("TELEMETRY_PORT", "0"),
        ("TELEMETRY_PORT", "65536"),
        ("TELEMETRY_PORT", "-1"),
        ("TELEMETRY_PORT", "80²"),
        ("TELEMETRY_REQUIRE_TOKEN", "maybe"),
        ("TELEMETRY_LOG_LEVEL", "loud"),
        ("TELEMETRY_LOG_FORMAT", "xml"),
        ("TELEMETRY_SPOOL_MAX_MB", "0"),
    ],
)
def test_a_bad_value_is_named_and_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is '{value}'; set it to"):
        load_settings({"DB_URL": LAKE, "ENCRYPTION_SECRET": "secret", name: value})


def test_devlakes_database_needs_devlakes_secret() -> None:
    with pytest.raises(ConfigurationError, match="ENCRYPTION_SECRET is not set; give it"):
        load_settings({"DB_URL": LAKE})


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not-text"])
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, content: Optional[bytes]) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigurationError, match=f"ENCRYPTION_SECRET_FILE: can't read {file}"):
        load_settings({"DB_URL": LAKE, "ENCRYPTION_SECRET_FILE": str(file)})


def test_a_data_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()

    with pytest.raises(ConfigurationError, match=f"can't keep data in {in_the_way}/data"):
        ensure_secret(load_settings({"TELEMETRY_DATA_DIR": str(in_the_way / "data")}), print)


ACCESS = {"DEVLAKE_URL": "http://devlake:4000/", "TELEMETRY_DATA_DIR": "nowhere"}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, ("", "", "")),
        ({"DEVLAKE_API_KEY": " key\n"}, ("key", "", "")),
        ({"DEVLAKE_USER": "operator", "DEVLAKE_PASSWORD": "pä:ss"}, ("", "operator", "pä:ss")),
    ],
    ids=["nothing", "key", "user"],
)
def test_devlakes_api_is_used_without_a_database(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shown: dict[str, str],
    expected: tuple[str, str, str],
) -> None:
    monkeypatch.chdir(tmp_path)

    settings = load_settings({**ACCESS, **shown}, with_database=False)

    assert settings.devlake == DevLakeAccess("http://devlake:4000", *expected)
    assert (settings.db_url, settings.embedded) == ("", False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"DEVLAKE_API_KEY": "k", "DEVLAKE_USER": "u"}, "both set"),
        ({"DEVLAKE_USER": "u"}, "DEVLAKE_USER and DEVLAKE_PASSWORD together"),
        ({"DEVLAKE_PASSWORD": "p"}, "DEVLAKE_USER and DEVLAKE_PASSWORD together"),
        ({"DEVLAKE_API_KEY": "hidden\nkey"}, "DEVLAKE_API_KEY is no key"),
        ({"DEVLAKE_URL": "devlake.example.com"}, "DEVLAKE_URL is no address"),
        ({"DEVLAKE_URL": "ftp://devlake"}, "DEVLAKE_URL is no address"),
        ({"DEVLAKE_URL": "http://u:hidden@devlake"}, "DEVLAKE_URL is no address.*DEVLAKE_USER"),
        ({"DEVLAKE_URL": "http://devlake:port"}, "DEVLAKE_URL is no address"),
        ({"TELEMETRY_PUBLIC_URL": "/api"}, "TELEMETRY_PUBLIC_URL is no address"),
        ({"TELEMETRY_TRUSTED_PROXIES": "nginx"}, "TELEMETRY_TRUSTED_PROXIES: 'nginx'.*10.0.0.5"),
        ({"TELEMETRY_RETIRE_DAYS": "-1"}, "TELEMETRY_RETIRE_DAYS is '-1'"),
    ],
)
def test_an_access_that_can_not_work_is_named_and_not_repeated(
    shown: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_settings({**ACCESS, **shown}, with_database=False)

    assert "hidden" not in str(caught.value)
