"""The sentences of the processing record in each language."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Language(str, Enum):
    """A language of the record."""

    ENGLISH = "en"
    GERMAN = "de"


class Phrases(NamedTuple):
    """The sections and sentences in one language; words in braces stand for facts."""

    introduction: str
    no_contact: str
    operators: str
    collected: str
    purpose: str
    location: str
    no_public_url: str
    spool: str
    readers: str
    page_by_token: str
    page_locally: str
    page_closed: str
    retired: str
    never_retired: str
    connection: str
    people: str
    group: str
    no_group: str
    raw_retention: str
    tool_retention: str
    days: str
    without_limit: str
    paths_removed: str
    paths_stored: str
    pseudonyms: str
    names: str
    adds_up: str
    newest_counts: str
    erasures: str
    no_erasure: str
    some_erasures: str
    rights: str


ENGLISH = Phrases(
    introduction="""# Processing record: developer telemetry

Written on {written} by `developer-telemetry processing-record` (release {release}) from the
settings in force. A changed setting changes this text: write it again after a change.

- Contact for questions about stored data: {contact}""",
    no_contact="not set (TELEMETRY_PRIVACY_CONTACT)",
    operators="those who run the receiver",
    collected="""## What is collected

One report for each developer and day, sent by a collector on the developer's machine:

- who: the developer's id, the name and the e-mail address of git, the name of the host,
- active hours: the number of hours of the day with a trace of work,
- the names of tools, of projects and repositories, and of branches,
- numbers of commits, changed lines and files, test runs and builds, and uses of commands from
  a fixed list,
- the name and version of the operating system.

The collector of this project never reads the contents of files, the arguments of commands,
commit messages, addresses, window titles or key strokes. A report of another collector is
stored as it is sent, except for what the settings of its connection remove.""",
    purpose="""## Purpose

To see how teams work with their tools, and how activity goes together with delivery: reviews,
builds, deployments. Nothing is ranked or scored, and the figures are no measure of working
time. The legal basis is for the controller to add.""",
    location="""## Where it is stored

In the database `{database}`. Machines and people reach the receiver at {url}. The columns
that may hold a person:

| table | columns |
| --- | --- |""",
    no_public_url="its own address (TELEMETRY_PUBLIC_URL is not set)",
    spool="""\
If the database can't be reached, reports wait on the receiver's disk until it is back. Logs
contain no report. Backups, replicas and binary logs of the database are outside of this
record.""",
    readers="""## Who can see it

- People who read the dashboards see figures of groups, of the size below. The dashboard Fleet
  alone lists machines with their developers, for operators: Grafana's rights decide who can
  open it.
- The page of operators shows machines, when they reported, and what was refused. {page}
- Operators with a command line can export and erase a person's rows.
- Administrators of the database can read everything in it.
- Every developer sees their own rows on a page of their own, by a signed link that expires.

A look at a person's rows by the page, an export or an erasure of that person, or their own
page is recorded with the user and the time. The person sees this record. Queries in the
database, backups, and exports of everything are not recorded.

{retired}""",
    page_by_token="It opens with the admin token.",
    page_locally="It opens in a browser on the receiver's machine, without a sign-in.",
    page_closed="It is closed, because no admin token is set.",
    retired="A machine without a report for {days} days no longer counts as in use; its rows stay.",
    never_retired="A machine without reports counts as in use until an operator retires it.",
    connection="## Connection {name} (id {id})",
    people="People with rows: {count}.",
    group="Smallest group: a figure in a dashboard is of at least {count} different developers.",
    no_group="Smallest group: {count}, so dashboards can show figures of a single person, too.",
    raw_retention="Retention of reports as they were sent: {days}.",
    tool_retention="Retention of days, machines, accounts and the record of looks: {days}.",
    days="{count} days",
    without_limit="no limit is set",
    paths_removed="Paths are removed from reports before they are stored.",
    paths_stored="Reports are stored with the paths in them, such as those of home directories.",
    pseudonyms=(
        "Names, e-mail addresses and hosts are replaced by keyed hashes before they are stored."
    ),
    names="People are stored under their names, without pseudonyms.",
    adds_up="Reports of several machines of a developer are added up for a day.",
    newest_counts="Of several reports of a developer for a day, the newest counts.",
    erasures="""## Erasures

{count} An erasure removes a person's rows from all tables above and from the disks of all
receivers, and keeps their erased reports out. Only a keyed hash of the id remains.""",
    no_erasure="Nobody was erased so far.",
    some_erasures=(
        "Erasures so far: {count}, the last on {day}; {blocked} of them block later reports."
    ),
    rights="""## Rights of the people concerned

On the machine, `show` has the next report, `pause` stops the collector, `exclude` leaves a
repository out, `uninstall` removes it. For information, correction and erasure: {contact}.
`developer-telemetry me-link` makes a link to a person's page, `export --developer` a copy of
all rows, `erase` deletes them.""",
)

GERMAN = Phrases(
    introduction="""# Verarbeitungsverzeichnis: Telemetrie von Entwicklerrechnern

Geschrieben am {written} von `developer-telemetry processing-record` (Version {release}) aus
den geltenden Einstellungen. Eine geänderte Einstellung ändert diesen Text; danach ist er neu
zu schreiben.

- Kontakt für Fragen zu gespeicherten Daten: {contact}""",
    no_contact="nicht angegeben (TELEMETRY_PRIVACY_CONTACT)",
    operators="die Betreiber des Empfängers",
    collected="""## Was erhoben wird

Ein Bericht je Entwickler und Tag, den ein Programm auf dem Rechner des Entwicklers sendet:

- wer: Kennung des Entwicklers, Name und E-Mail-Adresse aus git, Name des Rechners,
- aktive Stunden: die Zahl der Stunden des Tages mit einer Spur von Arbeit,
- die Namen von Werkzeugen, von Projekten und Repositorys sowie von Branches,
- Anzahlen von Commits, geänderten Zeilen und Dateien, Testläufen und Builds sowie von
  Aufrufen der Befehle einer festen Liste,
- Name und Version des Betriebssystems.

Das Programm dieses Projekts liest nie den Inhalt von Dateien, die Argumente von Befehlen,
Commit-Texte, Adressen, Fenstertitel oder Tastatureingaben. Der Bericht eines anderen
Programms wird so gespeichert, wie er gesendet wurde, ohne das, was die Einstellungen seiner
Verbindung entfernen.""",
    purpose="""## Zweck

Zu sehen, wie Teams mit ihren Werkzeugen arbeiten und wie das mit der Lieferung zusammenhängt:
mit Reviews, Builds und Deployments. Es gibt keine Rangliste und keine Bewertung, und die Zahlen
messen keine Arbeitszeit. Die Rechtsgrundlage ergänzt der Verantwortliche.""",
    location="""## Wo es gespeichert wird

In der Datenbank `{database}`. Rechner und Personen erreichen den Empfänger unter {url}. Die
Spalten, die Angaben zu einer Person enthalten können:

| Tabelle | Spalten |
| --- | --- |""",
    no_public_url="seiner eigenen Adresse (TELEMETRY_PUBLIC_URL ist nicht gesetzt)",
    spool="""\
Ist die Datenbank nicht erreichbar, warten Berichte auf der Festplatte des Empfängers, bis sie
wieder da ist. Protokolle enthalten keinen Bericht. Sicherungen, Replikate und Binärprotokolle
der Datenbank sind nicht Teil dieses Verzeichnisses.""",
    readers="""## Wer es sehen kann

- Wer die Dashboards liest, sieht Zahlen von Gruppen der unten genannten Größe. Nur das Dashboard
  Fleet nennt Rechner mit ihren Entwicklern, für Betreiber: Die Rechte in Grafana bestimmen, wer
  es öffnen kann.
- Die Seite für Betreiber zeigt Rechner, den Zeitpunkt ihrer Berichte und was abgelehnt wurde.
  {page}
- Betreiber mit einer Befehlszeile können die Zeilen einer Person exportieren und löschen.
- Administratoren der Datenbank können alles in ihr lesen.
- Jeder Entwickler sieht die eigenen Zeilen auf einer eigenen Seite, über einen signierten
  Link, der abläuft.

Wer die Zeilen einer Person über die Seite, durch Export oder Löschung dieser Person oder auf
deren eigener Seite ansieht, wird mit Zeitpunkt aufgezeichnet. Die Person sieht diese
Aufzeichnung. Abfragen in der Datenbank, Sicherungen und vollständige Exporte werden nicht
aufgezeichnet.

{retired}""",
    page_by_token="Sie öffnet sich mit dem Admin-Token.",
    page_locally="Sie öffnet sich in einem Browser auf dem Rechner des Empfängers, ohne Anmeldung.",
    page_closed="Sie ist geschlossen, weil kein Admin-Token gesetzt ist.",
    retired=(
        "Ein Rechner ohne Bericht seit {days} Tagen zählt nicht mehr als benutzt; seine Zeilen "
        "bleiben."
    ),
    never_retired="Ein Rechner ohne Berichte zählt als benutzt, bis ein Betreiber ihn stilllegt.",
    connection="## Verbindung {name} (Nummer {id})",
    people="Personen mit Zeilen: {count}.",
    group=(
        "Kleinste Gruppe: Eine Zahl in einem Dashboard betrifft mindestens {count} verschiedene "
        "Entwickler."
    ),
    no_group="Kleinste Gruppe: {count}; Dashboards können Zahlen einer einzelnen Person zeigen.",
    raw_retention="Aufbewahrung der Berichte im gesendeten Wortlaut: {days}.",
    tool_retention="Aufbewahrung von Tagen, Rechnern, Konten und Zugriffen: {days}.",
    days="{count} Tage",
    without_limit="keine Frist gesetzt",
    paths_removed="Pfade werden vor dem Speichern aus den Berichten entfernt.",
    paths_stored=(
        "Berichte werden mit ihren Pfaden gespeichert, etwa denen von Benutzerverzeichnissen."
    ),
    pseudonyms=(
        "Namen, E-Mail-Adressen und Rechnernamen werden vor dem Speichern durch Hashwerte mit "
        "Schlüssel ersetzt."
    ),
    names="Personen werden unter ihrem Namen gespeichert, ohne Pseudonyme.",
    adds_up="Berichte mehrerer Rechner eines Entwicklers werden für einen Tag addiert.",
    newest_counts="Von mehreren Berichten eines Entwicklers für einen Tag zählt der neueste.",
    erasures="""## Löschungen

{count} Eine Löschung entfernt die Zeilen einer Person aus allen oben genannten Tabellen und
von den Festplatten aller Empfänger und hält die gelöschten Berichte fern. Es bleibt nur ein
Hashwert der Kennung mit Schlüssel.""",
    no_erasure="Bisher wurde niemand gelöscht.",
    some_erasures=(
        "Löschungen bisher: {count}, zuletzt am {day}; {blocked} davon sperren spätere Berichte."
    ),
    rights="""## Rechte der Betroffenen

Auf dem Rechner zeigt `show` den nächsten Bericht, `pause` hält das Programm an, `exclude`
lässt ein Repository aus, `uninstall` entfernt es. Für Auskunft, Berichtigung und Löschung:
{contact}. `developer-telemetry me-link` erzeugt einen Link zur Seite einer Person, `export
--developer` eine Kopie aller Zeilen, `erase` löscht sie.""",
)
