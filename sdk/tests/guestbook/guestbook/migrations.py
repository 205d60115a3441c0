from typing import Optional

from pydantic import SecretStr

from pydevlake import Connection, ToolModel
from pydevlake.migration import Dialect, MigrationScriptBuilder, migration


@migration(20240102030405, name="make the first tables")
def init_schemas(b: MigrationScriptBuilder) -> None:
    class GuestbookConnection(Connection):
        token: SecretStr
        organization: Optional[str]

    class Entry(ToolModel):
        guest: str

    b.create_tables(GuestbookConnection, Entry)


@migration(20240203040506)
def add_index(b: MigrationScriptBuilder) -> None:
    b.execute("CREATE INDEX guests ON entries (guest)", Dialect.POSTGRESQL, ignore_error=True)
