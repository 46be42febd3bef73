"""tracking.json of a run folder: where the run is logged, how it ended, and whether the tracker has all its records."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from alignbench.store.disk import write_atomically

TRACKING = "tracking.json"


@dataclass(frozen=True, kw_only=True)
class TrackingInfo:
    """What a tracker needs to create the run, and the state of the logging."""

    uri: str
    output_dir: str
    experiment: str
    run_name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    status: str | None = None
    """FINISHED, FAILED or KILLED; None until the run ends."""
    logged: bool | None = False
    """Whether the tracker has all records; None when the run is not logged (tracking.enabled=false)."""


def read_info(run_dir: Path) -> TrackingInfo:
    """Read tracking.json. Raises FileNotFoundError when the folder has none."""
    fields = json.loads((run_dir / TRACKING).read_text(encoding="utf-8"))
    if "told" in fields:  # the key of earlier versions
        fields["logged"] = fields.pop("told")
    return TrackingInfo(**fields)


def write_info(run_dir: Path, info: TrackingInfo) -> None:
    """Replace tracking.json."""
    write_atomically(run_dir / TRACKING, json.dumps(asdict(info), indent=2))


def is_behind(run_dir: Path) -> bool:
    """Whether the tracker may lack records of a run that is logged."""
    return (run_dir / TRACKING).exists() and read_info(run_dir).logged is False
