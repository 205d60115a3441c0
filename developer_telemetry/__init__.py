"""An Apache DevLake plugin for reports pushed from developers' machines."""

__version__ = "0.1.0"
