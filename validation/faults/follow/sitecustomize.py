"""The process that tells MLflow has the fuse of the run that it belongs to: Python imports this when it starts."""

import sys

if "alignbench.store.teller" in sys.orig_argv:
    from validation.faults.kill_switch import follow

    follow()
