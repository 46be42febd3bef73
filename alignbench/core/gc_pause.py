"""Rest for the garbage collector while a run starts: imports make half a million objects, and no garbage."""

import gc


def rest() -> None:
    """Until `wake`, objects are not searched for garbage: one search of all that was imported takes tenths of a second,
    and imports alone would start a dozen of them."""
    gc.disable()


def wake() -> None:
    """Garbage is collected again, and what is there by now is never searched. Where nothing rests, nothing happens."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
