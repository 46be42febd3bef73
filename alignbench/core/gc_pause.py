"""Pauses garbage collection while a run starts: imports allocate half a million objects and no garbage."""

import gc


def pause() -> None:
    """Disable garbage collection until `resume`: imports alone would trigger a dozen slow collections."""
    gc.disable()


def resume() -> None:
    """Enable garbage collection again, ignoring all objects that exist by now; no effect if it is not disabled."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
