"""The command `developer-telemetry`: all that an operator types."""

import typer

from developer_telemetry.commands.connections import connect, connections
from developer_telemetry.commands.doctor import doctor
from developer_telemetry.commands.fleet import send_test, status, watch
from developer_telemetry.commands.privacy import erase, prune
from developer_telemetry.commands.receiver import dead_letters, demo, migrate, serve
from developer_telemetry.commands.reports import export, import_reports, reextract
from developer_telemetry.commands.spool import spool
from developer_telemetry.commands.tokens import token
from developer_telemetry.receiver.settings import SETTINGS

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Developer telemetry for Apache DevLake: take reports from machines, look after them.",
    epilog="Settings come from the environment: " + ", ".join(each.name for each in SETTINGS) + ".",
)
app.command()(serve)
app.command()(migrate)
app.command()(connect)
app.add_typer(connections, name="connections")
app.add_typer(token, name="token")
app.command(name="import")(import_reports)
app.command()(export)
app.command()(reextract)
app.command()(prune)
app.command()(erase)
app.command()(doctor)
app.command()(status)
app.command(name="send-test")(send_test)
app.command()(watch)
app.command()(demo)
app.command(name="dead-letters")(dead_letters)
app.add_typer(spool, name="spool")

if __name__ == "__main__":
    app()
