"""The shared view of MLflow's charts page: runs grouped by method, mean and band over seeds."""

import base64
import json
import logging
import re
import zlib
from typing import Any
from urllib.parse import quote

from alignbench.core import metric_names

logger = logging.getLogger(__name__)

SERIES = "view/arm"
"""A tag equal to `method`, by which the view groups. MLflow derives the colour of a group from the names of tag and
value: with this name PPO is blue and GRPO orange, as in the report; with `method` both are brown."""

KNOWN = ((3, 5), (3, 18))
"""The first and the last version of MLflow whose charts page supports the view; checked by eye in 3.17."""

OPEN, FOLDED = ("eval", "rewards", "final", "rollout", "train"), ("budget", "cost")
"""The sections that every run has, in their order; MLflow appends others, such as reward_model."""

STATE = {
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": ["tags.`method`", "tags.`seed`", "metrics.`final/gold`", "metrics.`final/accuracy`"],
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "runsHiddenMode": "SHOW_ALL",
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": True,
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": SERIES}]},
    "groupsExpanded": {},
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    "compareRunSections": [
        {"uuid": name, "name": name, "display": name in OPEN, "isReordered": True} for name in (*OPEN, *FOLDED)
    ],
    "compareRunCharts": [
        {
            "type": "BAR",
            "uuid": name,
            "metricKey": name,
            "metricSectionId": "final",
            "displayName": name.removeprefix("final/"),
            "runsCountToCompare": 10,
            "deleted": False,
            "isGenerated": False,
        }
        for name in metric_names.FINAL
    ],
}
"""The state of the charts page as its "share" button encodes it, a private format of MLflow. MLflow adds a curve for
each metric; metrics that are measured once are listed here, since they would be curves of a single point."""


def is_known(version: str) -> bool:
    """Whether the charts page of this version of MLflow supports the view."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return numbers is not None and KNOWN[0] <= (int(numbers[1]), int(numbers[2])) <= KNOWN[1]


def view_tags(study: str) -> dict[str, str]:
    """The tags of an experiment that define the view of a study."""
    state: dict[str, Any] = {"searchFilter": f"tags.{metric_names.STUDY} = '{study}'", **STATE}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    return {
        f"mlflow.sharedViewState.{study}": f"deflate;{packed}",
        "mlflow.experimentKind": "custom_model_development",
    }


def install(client: Any, experiment: Any, study: str, version: str) -> str:
    """Install the view of a study. Returns the fragment of its address, which follows the address of the server.

    `version` is that of the MLflow server. If it is unsupported or the server refuses the tags, the address is that of
    the plain experiment, and a warning says what to select by hand.
    """
    home = f"#/experiments/{experiment.experiment_id}/runs"
    try:
        if not is_known(version):
            raise ValueError(f"the view supports {KNOWN[0][0]}.{KNOWN[0][1]} to {KNOWN[1][0]}.{KNOWN[1][1]}")
        for name, value in view_tags(study).items():
            if experiment.tags.get(name) != value:
                client.set_experiment_tag(experiment.experiment_id, name, value)
    except Exception as error:  # noqa: BLE001  a server refuses a tag with errors of any kind
        by_hand = (
            f"on its charts page, filter by tags.{metric_names.STUDY} = '{study}' and group by the tag "
            f"{metric_names.METHOD}"
        )
        logger.warning("MLflow %s gets no shared view: %s; %s", version, error, by_hand)
        return home
    return f"{home}?compareRunsMode=CHART&viewStateShareKey={quote(study, safe='')}"


def directory(client: Any, version: str, server: str) -> list[str]:
    """A line for each study in a store, newest first: the addresses of its charts and its report."""
    charts: dict[str, str] = {}
    reports: dict[str, str] = {}
    for experiment in client.search_experiments():
        home = f"{server}/#/experiments/{experiment.experiment_id}"
        for run in client.search_runs([experiment.experiment_id], max_results=5000):
            study = run.data.tags.get(metric_names.STUDY)
            if study and study not in charts:
                charts[study] = f"{server}/{install(client, experiment, study, version)}"
            if study and run.data.tags.get(metric_names.PHASE) == metric_names.REPORT:
                reports[study] = f"{home}/runs/{run.info.run_id}/artifacts/report.html"
    width = max(map(len, charts), default=0)
    links_of = [(study, [charts[study], *filter(None, [reports.get(study)])]) for study in charts]
    return [f"{study if not n else '':{width}}  {link}" for study, links in links_of for n, link in enumerate(links)]
