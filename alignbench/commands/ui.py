"""The command `alignbench ui`: starts the MLflow server and prints the addresses of the charts of each study."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from alignbench.commands.error_messages import report_errors
from alignbench.core.cli_args import parse_key_values, read_arguments
from alignbench.core.errors import UserError

KEYS = ("output_dir", "port")
USAGE = """\
Start the MLflow server on this machine, and print the addresses of the charts and the report of each study.

  alignbench ui [output_dir=outputs] [port=5000]

  output_dir=outputs  where mlflow.db is
  port=5000           the port on 127.0.0.1

Runs until Ctrl-C. With tracking.uri set to a server, open that server instead.
"""
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def main(words: Sequence[str] | None = None) -> None:
    """Print the addresses, then replace this process by the server."""
    options = read_arguments(words, USAGE)
    if options is None:
        return
    with report_errors():
        values = parse_key_values(options, KEYS)
        output_dir, port = Path(values.get("output_dir", "outputs")), values.get("port", "5000")
        store = output_dir / "mlflow.db"
        if not store.is_file():
            raise UserError(
                f"{store} does not exist: run a study with tracking.enabled=true first, as in "
                "`alignbench sweeps=ppo_vs_grpo`"
            )
        if not port.isdecimal():
            raise UserError(f"port={port}: give a number, as in port=5000")
        address, uri = f"http://127.0.0.1:{port}", f"sqlite:///{store}"
        from alignbench.store.mlflow_backend import dashboards

        heading = f"MLflow on {address} in about ten seconds, until Ctrl-C. Charts and report of each study:"
        sys.stdout.write("\n".join([heading, *dashboards(uri, address), ""]))
        sys.stdout.flush()
        server = ["-m", "mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", port]
        os.execve(sys.executable, [sys.executable, *server, "--workers", "1"], {**os.environ, **ENVIRONMENT})
