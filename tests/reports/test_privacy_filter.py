"""Test what a connection takes out of reports is gone from every layer, and the rest still
counts."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from developer_telemetry.constants import CONNECTION_TABLE, RAW_TABLE
from developer_telemetry.errors import ReportRefused
from developer_telemetry.reports.anonymizer import anonymize
from developer_telemetry.reports.daily_metrics import ToolRow, build_tool_row
from developer_telemetry.reports.parser import Report, parse
from developer_telemetry.reports.privacy_filter import PrivacyRules, strip_paths
from developer_telemetry.reports.pseudonyms import DEVELOPER, EMAIL, HOST, NAME, Pseudonyms
from tests.support.factories import DATE, arrival, body
from tests.support.receivers import SECRET as RECEIVERS_SECRET
from tests.support.receivers import Receiver, add_connection, eventually, migrate, query

SECRET = "an encryption secret as DevLake has it"
HASHES = Pseudonyms(SECRET, 1)
STRIP = PrivacyRules(True, None)
COVER = PrivacyRules(False, HASHES)
BOTH = PrivacyRules(True, HASHES)
ALL = {"strip": STRIP, "cover": COVER, "both": BOTH}
EVERY = pytest.mark.parametrize("privacy", ALL.values(), ids=list(ALL))

PAYLOADS = Path(__file__).parents[1] / "payloads"
ANN = {
    "developer": "ann.lee",
    "email": "ann.lee@example.com",
    "name": "Ann Lee",
    "hostname": "anns-laptop.local",
}
REPOSITORY = {
    "name": "billing",
    "path": "/Users/ann.lee/code/billing",
    "commits": 2,
    "branches_worked": ["main", "feature/login"],
}
SHAPES: dict[str, dict[str, Any]] = {
    "specification": {
        **ANN,
        "metrics": {
            "active_hours": 6,
            "tools_used": ["git", "/Users/ann.lee/bin/deploy"],
            "commands": {"git": 3, "/Users/ann.lee/bin/deploy": 2},
            "projects": ["web-shop", "/Users/ann.lee/code/billing"],
        },
    },
    "script": {
        **ANN,
        "metrics": {"projects": ["billing"], "git_activity": {"repositories": [REPOSITORY]}},
    },
    "flat": {
        **{key: value for key, value in ANN.items() if key != "developer"},
        "developer_id": "ann.lee",
        "active_hours": 6,
        "git_activity": {"repositories": [REPOSITORY]},
        "project_context": [
            {"name": "web-shop", "path": "C:\\Users\\ann.lee\\web-shop", "last_activity": DATE},
            {"path": "/home/ann.lee/code/only-a-path", "last_activity": DATE},
        ],
    },
}
BY_SHAPE = pytest.mark.parametrize("sent", SHAPES.values(), ids=list(SHAPES))


def row_of(report: Report) -> ToolRow:
    return build_tool_row([arrival()._replace(report=report)], 0)


def stored(report: Report) -> str:
    """All that is stored of a report: its payload, and the columns of its row."""
    return "\n".join([report.payload, *map(str, row_of(report))])


@BY_SHAPE
def test_paths_go_and_names_stay(sent: dict[str, Any]) -> None:
    whole = parse(body(**{"developer": None, **sent}))
    report = STRIP.parse(body(**{"developer": None, **sent}))

    assert "/Users" not in stored(report)
    assert "Users" not in stored(report)
    assert "/home" not in stored(report)
    assert '"path"' not in report.payload
    assert row_of(report) == row_of(whole)


def test_the_rest_of_a_body_stays_when_its_paths_go() -> None:
    sent = {**SHAPES["flat"], "unknown": {"deep": [1, None, {"text": "kept", "path": 5}]}}
    expected = json.loads(body(**sent))
    expected["git_activity"]["repositories"][0].pop("path")
    expected["project_context"][0].pop("path")
    expected["project_context"][1] = {"name": "only-a-path", "last_activity": DATE}

    assert json.loads(STRIP.parse(body(**sent)).payload) == expected


@pytest.mark.parametrize("strip", [STRIP, None], ids=["strip", "neither"])
def test_a_body_without_paths_is_kept_exactly_as_it_came(strip: Optional[PrivacyRules]) -> None:
    sent = body(**ANN, metrics={"tools_used": ["git"], "active_hours": 3.50})

    report = strip.parse(sent) if strip else parse(sent)

    assert report.payload == sent.decode()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/Users/ann/code/billing", "billing"),
        ("~/code/billing/", "billing"),
        ("C:\\Users\\ann\\billing", "billing"),
        ("-I/Users/ann/include", "-Iinclude"),
        ("gcc -I/home/ann/include", "gcc -Iinclude"),
        ("[/var/home/ann/x", "[x"),
        ("a,/home/ann/x", "a,x"),
        ("file:///home/ann/x", "x"),
        ("feature/home/page", "feature/home/page"),
        ("apps/web", "apps/web"),
        ("either/or", "either/or"),
    ],
)
def test_a_path_in_any_text_is_cut_to_its_last_name(text: str, left: str) -> None:
    assert strip_paths({"note": text})["note"] == left


def test_who_a_report_is_about_may_have_a_slash() -> None:
    report = STRIP.parse(body(developer="/ann", name="Ann / Lee", hostname="a/b", x="/x"))

    assert (report.developer_id, report.name, report.hostname) == ("/ann", "Ann / Lee", "a/b")


def test_counts_of_commands_that_come_to_one_name_are_added() -> None:
    sent = body(metrics={"commands": {"/a/make": 2, "make": 1, "/b/make": 4}})

    assert json.loads(STRIP.parse(sent).payload)["metrics"]["commands"] == {"make": 7}
    assert row_of(STRIP.parse(sent)).command_counts == row_of(parse(sent)).command_counts


@BY_SHAPE
@pytest.mark.parametrize("privacy", [COVER, BOTH], ids=["cover", "both"])
def test_nothing_of_a_person_is_stored(sent: dict[str, Any], privacy: PrivacyRules) -> None:
    found = stored(privacy.parse(body(**{"developer": None, **sent})))

    for text in ANN.values():
        assert text.lower() not in found.lower()


def test_a_developer_has_one_pseudonym_whatever_the_shape() -> None:
    reports = [COVER.parse(body(**{"developer": None, **each})) for each in SHAPES.values()]

    assert {each.developer_id for each in reports} == {HASHES.pseudonymize(DEVELOPER, "ann.lee")}
    assert {each.email for each in reports} == {HASHES.pseudonymize(EMAIL, "ANN.LEE@example.com")}
    assert {each.name for each in reports} == {HASHES.pseudonymize(NAME, "Ann Lee")}
    assert {each.hostname for each in reports} == {HASHES.pseudonymize(HOST, "anns-laptop.local")}


def test_what_is_counted_is_the_same_with_pseudonyms() -> None:
    sent = body(**SHAPES["script"])
    about = ("developer_id", "email", "name", "hostname")
    covered_row, row = (row_of(each)._asdict() for each in (COVER.parse(sent), parse(sent)))

    assert {key: row[key] for key in row if key not in about} == {
        key: covered_row[key] for key in row if key not in about
    }


@pytest.mark.parametrize("sent", [7, 7.5, "7", " 7 "])
def test_a_number_is_a_developer_like_its_digits(sent: object) -> None:
    expected = "7.5" if sent == 7.5 else "7"

    assert COVER.parse(body(developer=sent)).developer_id == HASHES.pseudonymize(
        DEVELOPER, expected
    )


def test_who_has_no_email_or_name_has_none_then_either() -> None:
    report = COVER.parse(body(email="", name=None, hostname="  "))

    assert (report.email, report.name, report.hostname) == ("", "", "")


@pytest.mark.parametrize(
    ("place", "gone"),
    [
        ({"cwd": "/Users/ann.lee/code"}, "ann.lee"),
        ({"cwd": "/Users/alee/code", "branch": "alee/fix"}, "alee"),
        ({"cwd": "C:\\Users\\Ann Lee\\code"}, "Ann Lee"),
        ({"branch": "ANN.LEE/fix-login"}, "ann.lee"),
        ({"branch": "annlee-fix"}, "annlee"),
        ({"branch": "fix_by_ann_lee"}, "ann_lee"),
        ({"text": "Lee, Ann"}, "Lee, Ann"),
        ({"git_author": "Ann Lee <ann.lee@example.com>"}, "Lee"),
        ({"commits": [{"author": {"name": "A. Lee", "email": "al@home.example"}}]}, "Lee"),
        ({"log": "by Bob <bob@example.org> on monday"}, "bob@example.org"),
        ({"os_info": {"hostname": "Anns-Laptop"}}, "Anns-Laptop"),
        ({"os_info": "Linux anns-laptop 6.1"}, "anns-laptop"),
        ({"os_info": {"computer_name": "DESKTOP-1"}}, "DESKTOP-1"),
        ({"metrics": {"tools_used": ["ann.lee-tool"]}}, "ann.lee"),
        ({"metrics": {"commands": {"ssh ann.lee@anns-laptop.local": 2}}}, "ann.lee"),
        ({"email": ["ann.lee@example.com"], "name": {"first": "Ann"}}, "Ann"),
        ({"developer_id": "a-lee-2"}, "a-lee-2"),
        ({"user": "someone"}, "someone"),
        ({"date": f"{DATE}T10:00 by ann.lee"}, "ann.lee"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_names_elsewhere_in_a_report_are_covered_too(place: dict[str, Any], gone: str) -> None:
    found = stored(COVER.parse(body(**{**ANN, **place})))

    assert gone.lower() not in found.lower()


@pytest.mark.parametrize(("form", "other"), [("José Ñandú", "Jose\u0301 N\u0303andu\u0301")])
def test_a_name_is_found_however_its_accents_are_written(form: str, other: str) -> None:
    payload = COVER.parse(body(name=form, note=f"by {other}")).payload

    assert "andu" not in payload
    assert other not in payload


IDS = {
    "a domain": "CORP\\ann.lee",
    "a domain, as Unix spells it": "CORP/ann.lee",
    "a realm": "ann.lee@CORP",
    "an address": "ann.lee@mail.example",
    "an address with a tag": "ann.lee+telemetry@mail.example",
    "an address of GitHub": "12345678+ann.lee@users.noreply.github.example",
    "a guest": "ann.lee_corp.example#EXT#@tenant.example",
    "a provider": "github|ann.lee",
    "a directory": "CN=ann.lee,OU=people,DC=corp,DC=example",
    "another directory": "uid=ann.lee, ou=people, dc=corp",
}
SPELLINGS = (
    "ann.lee",
    "ANN.LEE",
    "ann-lee",
    "ann_lee",
    "annlee",
    "AnnLee",
    "ann lee",
    "ａｎｎ．ｌｅｅ",
)


@pytest.mark.parametrize("field", ["developer", "email", "name"])
@pytest.mark.parametrize("kind", IDS)
def test_the_user_part_of_an_id_is_covered_however_it_is_spelled(kind: str, field: str) -> None:
    places = [f"{each}/fix" for each in SPELLINGS]
    sent = {
        "developer": "someone-else",
        field: IDS[kind],
        "metrics": {
            "projects": [f"{each}-notes" for each in SPELLINGS],
            "commands": {f"deploy to {each}": 1 for each in SPELLINGS},
            "git_activity": {"repositories": [{"name": "billing", "branches_worked": places}]},
        },
        "users": list(SPELLINGS),
    }

    found = stored(COVER.parse(body(**sent))).casefold()

    for spelled in SPELLINGS:
        assert spelled.casefold() not in found
    pseudonym = HASHES.pseudonymize({"email": EMAIL, "name": NAME}.get(field, DEVELOPER), IDS[kind])
    assert f'"{pseudonym}/fix"' in found
    assert f'"users":["{pseudonym}"' in found.replace(" ", "")


@pytest.mark.parametrize("developer", ["CORP\\ann", "ann@corp.example", "ann+x@corp"])
def test_a_short_user_part_is_covered_as_a_word_of_its_own(developer: str) -> None:
    kept = ["annual", "planner", "channel/ann1"]
    sent = body(developer=developer, metrics={"projects": ["ann/fix", "for ANN", *kept]})

    projects = json.loads(COVER.parse(sent).payload)["metrics"]["projects"]

    who = HASHES.pseudonymize(DEVELOPER, developer)
    assert projects == [f"{who}/fix", f"for {who}", *kept]


@pytest.mark.parametrize(
    "email", ["dev@corp.example", "info@corp.example", "7@x.example", "noreply@x.example"]
)
def test_an_address_of_a_role_covers_no_word_of_everybody(email: str) -> None:
    kept = ["dev/fix", "info", "version 7", "noreply"]

    sent = body(developer="someone", email=email, metrics={"projects": kept})

    assert json.loads(COVER.parse(sent).payload)["metrics"]["projects"] == kept


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("Jörg Straßer", "JÖRG STRASSER"),
        ("JÖRG STRASSER", "jörg straßer"),
        ("Jörg Straßer", "jo\u0308rg-strasser"),
        ("José Ñandú", "JOSE\u0301 N\u0303ANDU\u0301"),
        ("José Ñandú", "jose-nandu"),
        ("Işıl Kılıç", "ISIL KILIC"),
        ("Işıl Kılıç", "IŞIL KILIÇ"),
        ("işıl kılıç", "İŞIL KILIÇ"),
        ("Γιώργος Νικολάου", "ΓΙΏΡΓΟΣ ΝΙΚΟΛΆΟΥ"),
        ("ΓΙΩΡΓΟΣ ΝΙΚΟΛΑΟΥ", "γιωργος-νικολαου"),
        ("ﬁona ﬂynn", "FIONA FLYNN"),
        ("Ann Lee", "Ａｎｎ　Ｌｅｅ"),
        ("Ａｎｎ　Ｌｅｅ", "ann.lee"),
        ("Ann Lee", "an\u200bn\u00adlee"),
        ("김민수", "김민수의 노트북"),
        ("김민수", "\u1100\u1175\u11b7\u1106\u1175\u11ab\u1109\u116e"),
        ("李雷", "李雷的项目"),
    ],
)
def test_a_name_is_found_in_any_case_form_and_width_of_its_letters(name: str, spelled: str) -> None:
    expected = HASHES.pseudonymize(NAME, name)

    projects = [spelled, f"notes/{spelled}"]
    sent = body(developer="someone-else", email="", name=name, metrics={"projects": projects})
    payload = json.loads(COVER.parse(sent).payload)

    for project in payload["metrics"]["projects"]:
        assert expected in project
        rest = project.replace(expected, "")
        assert rest in ("", "notes/", "의 노트북", "notes/의 노트북", "的项目", "notes/的项目")


def test_words_of_everybody_stay() -> None:
    kept = {
        "metrics": {
            "tools_used": ["git", "mariadb", "planner"],
            "projects": ["annual", "@scope/app", "web-shop"],
            "commands": {"kubectl": 3, "npm install react@18.2.0": 1},
            "git_activity": {
                "repositories": [{"name": "and", "branches_worked": ["feature/home/page"]}]
            },
        }
    }
    payload = json.loads(COVER.parse(body(developer="an", name="A. N", **kept)).payload)

    assert payload["metrics"] == kept["metrics"]


def test_who_is_called_like_a_part_of_a_report_does_not_break_it() -> None:
    for developer in ("date", "metrics", "commits", "2026", "name", "dev", "mail"):
        report = COVER.parse(body(developer=developer, metrics={"active_hours": 5}))

        assert (report.active_hours, report.date) == (5, DATE)
        assert report.developer_id == HASHES.pseudonymize(DEVELOPER, developer)


def test_pseudonyms_follow_from_the_secret_and_the_connection() -> None:
    same, other_connection, other_secret = (
        Pseudonyms(SECRET, 1),
        Pseudonyms(SECRET, 2),
        Pseudonyms("another", 1),
    )
    expected = HASHES.pseudonymize(DEVELOPER, "ann.lee")

    assert same.pseudonymize(DEVELOPER, "ann.lee") == expected
    assert other_connection.pseudonymize(DEVELOPER, "ann.lee") != expected
    assert other_secret.pseudonymize(DEVELOPER, "ann.lee") != expected
    # Frozen: another outcome would split every developer in two.
    assert expected == "dev-cddbdcab3d2ccf957b8d"


def test_only_pseudonyms_made_here_pass_for_such() -> None:
    made = HASHES.pseudonymize(DEVELOPER, "ann.lee")

    assert HASHES.pseudonymize(DEVELOPER, made) == made
    assert HASHES.pseudonymize(HOST, made) == made
    forged = made[:-1] + ("0" if made[-1] != "0" else "1")
    assert HASHES.pseudonymize(DEVELOPER, forged) != forged
    assert Pseudonyms(SECRET, 2).pseudonymize(DEVELOPER, made) != made


def refusal_of(read: Callable[[bytes], Report], sent: bytes) -> tuple[str, str]:
    with pytest.raises(ReportRefused) as found:
        read(sent)
    return found.value.field, str(found.value)


@EVERY
@pytest.mark.parametrize("name", sorted(path.stem for path in PAYLOADS.glob("*.body")))
def test_what_is_refused_does_not_change(privacy: PrivacyRules, name: str) -> None:
    sent = (PAYLOADS / f"{name}.body").read_bytes()
    if name.startswith("refused-"):
        assert refusal_of(privacy.parse, sent) == refusal_of(parse, sent)
        return
    expected = parse(sent)

    report = privacy.parse(sent)

    assert report.date == expected.date
    assert report.active_hours == expected.active_hours
    assert report.git == expected.git
    assert parse(report.payload) == report
    assert privacy.parse(report.payload) == report


# Texts as people, paths and collectors make them, and any others.
_signs = st.sampled_from([" ", ".", "-", "_", "/", "\\", "@", ",", ":", "<", ">", "~", "é", "Ü"])
_pieces = st.sampled_from(
    ["ann", "lee", "Ann", "home", "Users", "x", "dev", "mail", "com", "local", "path", "name"]
)
_texts = st.one_of(
    st.lists(st.one_of(_pieces, _signs), max_size=8).map("".join), st.text(max_size=12)
)
_keys = st.one_of(_texts, st.sampled_from(["developer", "email", "name", "author", "host", "path"]))
_documents = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_keys, inner, max_size=5)),
    max_leaves=15,
)


@given(_documents)
@example({"a": "x\0y", "b": "\0", "email": "q@x.de"})
@example({"developer": "ann", "note": "a@Ann.com", "x": "@ann.com"})
def test_any_document_can_be_done_and_twice_is_once(document: object) -> None:
    stripped = strip_paths(document)
    assert strip_paths(stripped) == stripped

    once = anonymize(document, HASHES)
    assert anonymize(once, HASHES) == once


_identities = st.one_of(
    st.text(alphabet="abcdeé.-_ ", min_size=4, max_size=12),
    st.sampled_from(["ann.lee", "DOMAIN\\ann", "zoë.müller", "maria", "12345678", "🔑🔑🔑🔑"]),
).filter(lambda text: len(text.strip()) >= 4)
_around = st.sampled_from(
    ["{}", "x{}y", "/Users/{}/code", "fix/{}", "{}@example.com", "<{}>", "{}{}"]
)


@given(
    _identities,
    st.lists(st.tuples(_around, st.sampled_from([str, str.upper, str.title])), max_size=4),
    _documents,
)
def test_no_byte_of_a_person_is_left_wherever_it_stood(
    who: str, places: list[tuple[str, Any]], other: object
) -> None:
    about = {"developer": who, "email": f"{who}@mail.example", "hostname": f"{who}.lan"}
    texts = [around.format(*[change(who.strip())] * 2) for around, change in places]
    document = {**about, "notes": texts, "metrics": {"commands": dict.fromkeys(texts, 1)}}
    sent = body(**document, extra=json.loads(json.dumps(other)) if _storable(other) else None)

    found = stored(COVER.parse(sent))

    assert who.strip().casefold() not in found.casefold()


def _storable(document: object) -> bool:
    text = json.dumps(document, ensure_ascii=False)
    return (
        "\\u0000" not in text and "Infinity" not in text and not re.search("[\ud800-\udfff]", text)
    )


_folders = st.sampled_from(["/Users/ann", "/home/ann", "C:\\Users\\ann", "/var/home/ann", "~ann"])
_before = st.sampled_from(["", "cd ", "x='", "(", "file://", "PATH=/bin:"])


@given(_folders, st.lists(_before, min_size=1, max_size=4), st.sampled_from(["/", "\\"]))
def test_no_home_path_is_left_wherever_it_stood(folder: str, before: list[str], sign: str) -> None:
    paths = [f"{each}{folder}{sign}code{sign}billing" for each in before]
    sent = body(
        metrics={"tools_used": paths, "commands": dict.fromkeys(paths, 1), "projects": paths},
        git_activity={"repositories": [{"name": each, "path": each} for each in paths]},
        extra={"deep": [paths, {each: each for each in paths}]},
    )

    found = stored(STRIP.parse(sent))

    assert folder not in found
    assert folder.replace("\\", "\\\\") not in found


def test_nothing_of_a_person_is_in_spool_database_or_log(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/telemetry.db"
    migrate(url, tmp_path)
    connection = add_connection(url)
    query(url, f"UPDATE {CONNECTION_TABLE} SET strip_paths = TRUE, pseudonyms = TRUE")
    sent = {"date": DATE, **SHAPES["script"]}
    hashes = Pseudonyms(RECEIVERS_SECRET, connection)
    with Receiver(url, tmp_path) as receiver:
        assert receiver.send(sent, connection).status_code == 200
        refused = receiver.send({**sent, "date": "ann.lee"}, connection)
        assert refused.status_code == 400
        with closing(sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert receiver.send(sent, connection).status_code == 200
            spool = tmp_path / f"spool-{receiver.port}"
            assert_clean(spool)
            assert (
                hashes.pseudonymize(DEVELOPER, "ann.lee").encode()
                in (spool / "spool.db").read_bytes()
            )
            other.execute("ROLLBACK")
        assert eventually(lambda: query(url, f"SELECT COUNT(*) FROM {RAW_TABLE}") == [(2,)], 60)
    assert_clean(tmp_path)


def assert_clean(folder: Path) -> None:
    """No file has anything of the person of the tests, or of where she works, in it."""
    for path in folder.rglob("*"):
        found = path.read_bytes().lower() if path.is_file() else b""
        for text in (*ANN.values(), "/Users"):
            assert text.lower().encode() not in found, path
