"""Adds the kill switch of a run to its follower process; Python imports this module at start-up."""

import sys

if "alignbench.store.follower" in sys.orig_argv:
    from validation.faults.kill_switch import watch_follower

    watch_follower()
