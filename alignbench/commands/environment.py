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
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads slow down other work on shared cores
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def set_environment() -> None:
    """Set the environment variables that libraries read at import time; existing values are kept."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def prepare_environment() -> None:
    """Set the environment variables and the signal handlers of a command."""
    set_environment()
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        os.environ["ALIGNBENCH_TRACEBACK"] = "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them; they are reported once
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)  # termination counts as an interruption
