"""Test what drivers say of an error, told without what they quote of a row."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

import pymysql
import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from developer_telemetry.database.error_texts import describe_error
from developer_telemetry.errors import ConfigurationError
from developer_telemetry.receiver.logging import TextLines

SECRET = "Zoe Lee's \"zoe.lee@example.com"
TABLE = "CREATE TABLE picky (name VARCHAR(60), email VARCHAR(90) NOT NULL, number INTEGER, day DATE"
CHECK = ", CONSTRAINT no_zoe CHECK (name <> 'zoe'), CONSTRAINT one UNIQUE (email))"


@pytest.fixture
def picky(engine: Engine) -> Any:
    with engine.begin() as connection:
        connection.exec_driver_sql(TABLE + CHECK)
        connection.exec_driver_sql(
            "INSERT INTO picky (name, email) VALUES ('x', '{}')".format(SECRET.replace("'", "''"))
        )
    yield engine
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE picky")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"name": "zoe", "email": SECRET + "2"}, "no_zoe"),
        ({"name": SECRET, "email": None}, "email"),
        ({"name": "y", "email": SECRET}, "one|picky.email"),
        ({"name": SECRET * 9, "email": SECRET + "3"}, "name|too long|truncation"),
        ({"number": SECRET, "email": SECRET + "4"}, "number|integer|invalid"),
        ({"day": SECRET, "email": SECRET + "5"}, "day|invalid"),
        ({"number": 99**9, "email": SECRET + "6"}, "number|out of range"),
        ({"missing": SECRET, "email": SECRET + "7"}, "missing"),
    ],
    ids=lambda each: "+".join(each) if isinstance(each, dict) else "",
)
def test_of_a_row_only_names_of_columns_and_constraints_are_repeated(
    picky: Engine, values: dict[str, Any], told: str
) -> None:
    mark = "?" if picky.dialect.name == "sqlite" else "%s"
    marks = ", ".join([mark] * len(values))
    try:
        with picky.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO picky ({', '.join(values)}) VALUES ({marks})", tuple(values.values())
            )
    except Exception as error:
        raised = error
    else:
        pytest.skip("this database takes it")

    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(TextLines())
    info = (type(raised), raised, raised.__traceback__)
    record = logging.LogRecord("x", 40, "f", 1, "refused: %s", (raised,), info)
    handler.handle(record)
    for text in (describe_error(raised), log.getvalue()):
        assert re.search(told, text), text
        for part in ("Zoe", "zoe.lee", "example"):
            assert part not in text.replace("no_zoe", ""), text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            pymysql.IntegrityError(1062, "Duplicate entry '1-x' for key 'zoe'-2' for key 't.one'"),
            "(1062) Duplicate entry '...' for key 't.one'",
        ),
        (
            pymysql.DataError(
                1366, "Incorrect string value: '\\xF0 zoe' for column `a`.`b`.`name` at row 1"
            ),
            "(1366) Incorrect string value: '...' for column `a`.`b`.`name` at row 1",
        ),
        (
            pymysql.DataError(1366, "Falscher Wert »zoe« für 'zoe"),
            "(1366) Falscher Wert '...' für '...'",
        ),
        (
            pymysql.IntegrityError(1062, f"Duplicate entry '{'a' * 90}' zoe{'b' * 400}"),
            "(1062) Duplicate entry '...'",
        ),
        (
            pymysql.ProgrammingError(1064, "You have an error near 'zoe' AND \"zoe\" at line 1"),
            "(1064) You have an error near '...' at line 1",
        ),
        (
            pymysql.DataError(1406, "Data too long for column 'name' at row 1"),
            "(1406) Data too long for column 'name' at row 1",
        ),
        (
            pymysql.OperationalError(1045, "Access denied for user 'merico'@'h' (using password)"),
            "(1045) Access denied for user 'merico'@'h' (using password)",
        ),
        (KeyError("zoe"), "KeyError"),
        (ValueError("can't read 'zoe's name' here"), "can't read '...' here"),
        (OSError(28, "No space left on device", "/home/zoe/x"), "No space left on device"),
        (ConfigurationError("there is no 'x'; make one"), "there is no 'x'; make one"),
    ],
)
def test_what_is_quoted_is_left_out(error: Exception, text: str) -> None:
    assert describe_error(error) == text
    assert describe_error(DBAPIError("INSERT zoe", ("zoe",), error)) == text


def test_a_text_that_an_encoding_lacks_is_not_repeated() -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        "zo\u0142".encode("latin-1")

    assert describe_error(raised.value) == (
        "a text that latin-1 does not have: ordinal not in range(256)"
    )
