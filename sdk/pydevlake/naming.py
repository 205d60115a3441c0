"""Names derived from other names: of tables, of aliases, of the plugin."""

import sys
from pathlib import Path

_IRREGULAR = {"child": "children", "man": "men", "person": "people", "life": "lives"}
_VOWELS = "aeiou"


def camel_case(name: str) -> str:
    """Return a name in camel case: `connection_id` becomes `connectionId`."""
    first, *remainder = name.split("_")
    return first + "".join(word.capitalize() for word in remainder)


def plural(noun: str) -> str:
    """Return the plural of a lower-case English noun, or of a compound that ends in one.

    It covers usual class names. A model with another plural sets `__tablename__`.
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
    """Return a class's plugin: the folder of its top-level package.

    For a class without a file (typed into a shell) it is the top-level module.
    """
    package_depth = cls.__module__.count(".") + 1
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None:
        return cls.__module__.split(".")[0]
    parents = Path(file).parts[:-1]
    return parents[-package_depth] if len(parents) >= package_depth else cls.__module__
