"""Changes to a plugin's tables, which DevLake's server carries out in the order of versions."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Callable, Literal, Optional, Union

from pydevlake.imports import without_collections

with without_collections():
    from pydantic import BaseModel, ConfigDict, Field
    from sqlmodel import SQLModel

    from pydevlake.model_info import DynamicModelInfo


class Dialect(Enum):
    MYSQL = "mysql"
    POSTGRESQL = "postgres"


class Execute(BaseModel):
    type: Literal["execute"] = "execute"
    sql: str
    dialect: Optional[Dialect] = None
    ignore_error: bool = False


class AddColumn(BaseModel):
    type: Literal["add_column"] = "add_column"
    table: str
    column: str
    column_type: str


class DropColumn(BaseModel):
    type: Literal["drop_column"] = "drop_column"
    table: str
    column: str


class DropTable(BaseModel):
    type: Literal["drop_table"] = "drop_table"
    table: str


class RenameColumn(BaseModel):
    type: Literal["rename_column"] = "rename_column"
    table: str
    old_name: str
    new_name: str


class RenameTable(BaseModel):
    type: Literal["rename_table"] = "rename_table"
    old_name: str
    new_name: str


class CreateTable(BaseModel):
    # Older versions of pydantic 2 want no field to start with `model_`.
    model_config = ConfigDict(protected_namespaces=())

    type: Literal["create_table"] = "create_table"
    model_info: DynamicModelInfo


Operation = Annotated[
    Union[Execute, AddColumn, DropColumn, RenameColumn, DropTable, RenameTable, CreateTable],
    Field(discriminator="type"),
]


class MigrationScript(BaseModel):
    operations: list[Operation]
    version: int
    name: str


# Every script that `migration` made, in the order in which their modules were imported.
MIGRATION_SCRIPTS: list[MigrationScript] = []


class MigrationScriptBuilder:
    """A recorder of the operations of one script. Nothing runs before the server runs it."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def execute(
        self, sql: str, dialect: Optional[Dialect] = None, ignore_error: bool = False
    ) -> None:
        """Run one SQL statement, only on `dialect`'s databases if it is set."""
        self.operations.append(Execute(sql=sql, dialect=dialect, ignore_error=ignore_error))

    def add_column(self, table: str, column: str, type: str) -> None:
        """Add a column unless the table has it."""
        self.operations.append(AddColumn(table=table, column=column, column_type=type))

    def drop_column(self, table: str, column: str) -> None:
        """Drop a column if the table has it."""
        self.operations.append(DropColumn(table=table, column=column))

    def rename_column(self, table: str, old_name: str, new_name: str) -> None:
        """Rename a column if the table has it. A column of the new name is dropped first."""
        self.operations.append(RenameColumn(table=table, old_name=old_name, new_name=new_name))

    def drop_table(self, table: str) -> None:
        """Drop a table if it exists."""
        self.operations.append(DropTable(table=table))

    def rename_table(self, old_name: str, new_name: str) -> None:
        """Rename a table if it exists."""
        self.operations.append(RenameTable(old_name=old_name, new_name=new_name))

    def create_tables(self, *model_classes: type[SQLModel]) -> None:
        """Make a table for each model whose table doesn't exist, with the model's fields."""
        for model_class in model_classes:
            model_info = DynamicModelInfo.from_model(model_class)
            self.operations.append(CreateTable(model_info=model_info))


def migration(
    version: int, name: Optional[str] = None
) -> Callable[[Callable[[MigrationScriptBuilder], None]], MigrationScript]:
    """Make a script of a function that takes a `MigrationScriptBuilder`, and register it.

    `version` is the moment of writing as a number, YYYYMMDDhhmmss; ValueError if it isn't one.
    The name defaults to the function's.
    """
    _check_version(version)

    def build(function: Callable[[MigrationScriptBuilder], None]) -> MigrationScript:
        builder = MigrationScriptBuilder()
        function(builder)
        script = MigrationScript(
            operations=builder.operations, version=version, name=name or function.__name__
        )
        MIGRATION_SCRIPTS.append(script)
        return script

    return build


def _check_version(version: int) -> None:
    text = str(version)
    try:
        # strptime alone takes shorter numbers, too.
        if len(text) != 14:
            raise ValueError(text)
        datetime.strptime(text, "%Y%m%d%H%M%S")
    except ValueError:
        raise ValueError(
            f"Migration version {version} is no moment in time: write it as YYYYMMDDhhmmss."
        ) from None
