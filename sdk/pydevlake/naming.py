"""Names that are made out of other names: tables, aliases, the plugin's own."""

import sys
from pathlib import Path

_IRREGULAR = {"child": "children", "man": "men", "person": "people", "life": "lives"}
_VOWELS = "aeiou"


def camel_case(name: str) -> str:
    """`connection_id` becomes `connectionId`."""
    first, *remainder = name.split("_")
    return first + "".join(word.capitalize() for word in remainder)


def plural(noun: str) -> str:
    """Return the plural of a lower-case English noun, or of a compound that ends in one.

    Covers what class names are made of. A model whose plural comes out wrong names its table
    with `__tablename__`.
    """
    for singular, irregular in _IRREGULAR.items():
        if noun.endswith(singular):
            return noun[: -len(singular)] + irregular
    if noun.endswith("y") and noun[-2:-1] not in _VOWELS:
        return noun[:-1] + "ies"
    if noun.endswith("sis"):
        return noun[:-2] + "es"
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    return noun + "s"


def plugin_name_of(cls: type) -> str:
    """Return the plugin that a class belongs to: the folder that holds its top-level package.

    A class from no file (typed into a shell) belongs to its top-level module.
    """
    package_depth = cls.__module__.count(".") + 1
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None:
        return cls.__module__.split(".")[0]
    parents = Path(file).parts[:-1]
    return parents[-package_depth] if len(parents) >= package_depth else cls.__module__
