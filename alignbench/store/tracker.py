"""The logbook of a run that MLflow hears of: local JSONL first, MLflow after it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alignbench.core.metric_names import METHOD, PHASE
from alignbench.store.disk import make_folder, write_atomically
from alignbench.store.jsonl import JsonLines
from alignbench.store.mlflow_dashboard import SERIES
from alignbench.store.mlflow_run import MLflowRun, MLflowRunInfo, as_params
from alignbench.store.run_logger import RunLogger, read_records, start_over
from alignbench.store.sender import Item, Sender
from alignbench.store.teller import FarRun

CARD = "tracking.json"
ENDINGS = ("FINISHED", "FAILED", "KILLED")


class Tracker(RunLogger):
    """A logbook that tells MLflow soon after it was written in; training never waits for that.

    MLflow may fail or be out of reach: one warning says so, nothing is lost, and `sync` tells it later.
    Made by `Tracker.open`, used in a `with` statement: leaving it by an error marks the MLflow run FAILED, by an
    interruption KILLED, otherwise FINISHED.
    """

    def __init__(self, run_dir: Path, card: MLflowRunInfo, batch: int, enabled: bool) -> None:
        super().__init__(run_dir)
        self._card = card
        self._closed = False
        sender = Sender(f"MLflow at {card.uri}", lambda: FarRun(card, run_dir), lambda: read_records(run_dir), batch)
        self._sender = sender if enabled else None

    @classmethod
    def open(
        cls,
        run_dir: Path,
        *,
        uri: str | None,
        output_dir: Path,
        experiment: str = "alignbench",
        run_name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        batch: int = 50,
        enabled: bool = True,
        resume_after: int | None,
    ) -> Self:
        """Begin to write down a run, or go on with one.

        `uri` None means SQLite under `output_dir`; `batch` is how many records MLflow hears of at once; with `enabled`
        False only the files are written. `resume_after` is the step of the checkpoint that a run resumes from:
        what was recorded after that step of the phase in `tags` is dropped, to be written again. With
        None the run starts anew, and an earlier attempt's records are kept in `metrics.previous.jsonl`. Either way the
        MLflow run of this `run_dir` goes on, and is never told a step twice. Raises UserError when a folder cannot be
        written.
        """
        run_dir, output_dir = make_folder(Path(run_dir)).resolve(), make_folder(Path(output_dir)).resolve()
        card = MLflowRunInfo(
            uri=uri or f"sqlite:///{output_dir}/mlflow.db",
            output_dir=str(output_dir),
            experiment=experiment,
            run_name=run_name,
            tags={name: str(value) for name, value in {SERIES: tags.get(METHOD, ""), **tags}.items()},
            params=as_params(params),
        )
        if resume_after is None:
            start_over(run_dir)
        _keep(card, run_dir, told=False if enabled else None)
        tracker = cls(run_dir, card, batch, enabled)
        if resume_after is not None:
            tracker._metrics.cut(card.tags[PHASE], resume_after)
        if tracker._sender:
            tracker._sender.start()
        return tracker

    def close(self, status: str = "FINISHED") -> None:
        """Tell MLflow what it does not know yet and how the run ended: FINISHED, FAILED or KILLED. Only once."""
        assert status in ENDINGS, f"status must be one of {ENDINGS}"
        if self._closed:
            return
        self._closed = True
        _keep(self._card, self.run_dir, told=False if self._sender else None, status=status)
        if self._sender and self._sender.finish(status):
            _keep(self._card, self.run_dir, told=True, status=status)
        super().close(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close("FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED")

    def _write(self, journal: JsonLines, item: Item) -> None:
        super()._write(journal, item)
        if self._sender:
            self._sender.put(item)


def sync(run_dir: Path) -> None:
    """Tell MLflow what it lacks of a run that ended, each point once. Raises what MLflow raises."""
    kept = json.loads((Path(run_dir) / CARD).read_text(encoding="utf-8"))
    told, status = kept.pop("told", None), kept.pop("status", "KILLED")
    card = MLflowRunInfo(**kept)
    run = MLflowRun(card, Path(run_dir))
    run.tell(list(read_records(Path(run_dir))))
    run.end(status)
    _keep(card, Path(run_dir), told=None if told is None else True, status=status)


def lacks(run_dir: Path) -> bool:
    """Whether MLflow may not have heard all of a run that wanted to tell it."""
    card = Path(run_dir) / CARD
    return card.exists() and json.loads(card.read_text(encoding="utf-8")).get("told") is False


def _keep(card: MLflowRunInfo, run_dir: Path, **more: Any) -> None:
    """Write down what MLflow must know of a run; `told` says whether it knows all, null that it was not asked for."""
    write_atomically(run_dir / CARD, json.dumps({**asdict(card), **more}, indent=2))
