"""Environment variables and signal handlers of every command, set before a library is imported."""

import os
import signal

# What libraries read at import time: no telemetry, no progress output or banners of libraries.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "BITSANDBYTES_NOWELCOME": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait make everything slower on shared cores
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def set_environment() -> None:
    """Set the environment variables that libraries read at import time; values that are set already stay."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def prepare_environment() -> None:
    """Set the environment variables and the signal handlers of a command."""
    set_environment()
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        os.environ["ALIGNBENCH_TRACEBACK"] = "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print: every error is told once, below
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)  # ended from outside = interrupted: say so on disk
