"""DevLake's domain layer: the tables that all plugins convert to.

Field and table names are those of DevLake's own models. A field that is not part of a key may be
left out.
"""
