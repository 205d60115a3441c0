"""The import of many modules at once."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Import modules in a block without collecting garbage.

    Each call is a process that imports hundreds of modules. Their objects stay, so collections of
    garbage would waste a tenth of the call's time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
