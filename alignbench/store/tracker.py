"""The run logger of a tracked run: writes local files, which a separate process follows and logs to MLflow."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alignbench.core.metric_names import METHOD, PHASE
from alignbench.store.disk import make_folder
from alignbench.store.follower import FOLLOWER
from alignbench.store.mlflow_dashboard import SERIES
from alignbench.store.mlflow_run import as_params
from alignbench.store.run_logger import RunLogger, start_over
from alignbench.store.tracking_info import TrackingInfo, write_info


class Tracker(RunLogger):
    """A run logger whose files are logged to MLflow a few seconds later; training never waits for that.

    When MLflow fails or cannot be reached, one warning says so and nothing is lost: `alignbench sync` logs it later.
    Create it with `Tracker.open` in a `with` statement: an exception sets the status of the MLflow run to FAILED, an
    interruption to KILLED, and otherwise it is FINISHED.
    """

    def __init__(self, run_dir: Path, info: TrackingInfo, wait: bool) -> None:
        super().__init__(run_dir)
        self._info, self._wait = info, wait

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
        enabled: bool = True,
        resume_after: int | None,
        wait: bool = True,
    ) -> Self:
        """Start to record a run, or continue one. The MLflow run of this `run_dir` is continued in both cases.

        `uri` None is SQLite under `output_dir`. With `enabled` False only the files are written. `resume_after` is the
        step of the checkpoint that the run resumes from: later records of the stage in `tags` are removed. None starts
        over: earlier metrics move to `metrics.previous.jsonl`. With `wait`, `close` waits until MLflow has all records,
        for a bounded time; otherwise a later tracker or the end of the process waits. Raises UserError when a folder
        cannot be written.
        """
        run_dir, output_dir = make_folder(Path(run_dir)).resolve(), make_folder(Path(output_dir)).resolve()
        info = TrackingInfo(
            uri=uri or f"sqlite:///{output_dir}/mlflow.db",
            output_dir=str(output_dir),
            experiment=experiment,
            run_name=run_name,
            tags={name: str(value) for name, value in {SERIES: tags.get(METHOD, ""), **tags}.items()},
            params=as_params(params),
            logged=False if enabled else None,
        )
        if resume_after is None:
            start_over(run_dir)
        write_info(run_dir, info)
        tracker = cls(run_dir, info, wait)
        if resume_after is not None:
            tracker._metrics.cut(info.tags[PHASE], resume_after)
        if enabled:
            FOLLOWER.follow(run_dir)
        return tracker

    def close(self, status: str = "FINISHED") -> None:
        """Close the files and have the rest logged with this status: FINISHED, FAILED or KILLED."""
        super().close(status)
        write_info(self.run_dir, replace(self._info, status=status))
        if self._info.logged is not None:
            FOLLOWER.follow(self.run_dir)
            if self._wait:
                FOLLOWER.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close("FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED")
