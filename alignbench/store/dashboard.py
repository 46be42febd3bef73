"""The prepared view of MLflow's charts: runs grouped by method, mean and band over seeds."""

import base64
import json
import zlib

VIEW = "alignbench"

# The state of MLflow's chart page as its "share" button packs it: a private format of the UI, tried on MLflow 3.17.
STATE = {
    "searchFilter": "",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": ["tags.`method`", "tags.`seed`", "metrics.`eval/accuracy`", "metrics.`rewards/mean`"],
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsVisibilityMap": {},
    "runsHiddenMode": "SHOWALL",
    "viewMaximized": False,
    "runListHidden": False,
    "isAccordionReordered": False,
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "method"}]},
    "groupsExpanded": {},
    "autoRefreshEnabled": True,
    "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 10, "selectedXAxisMetricKey": ""},
}


def view_tags() -> dict[str, str]:
    """The tags that, set on an experiment, make the view appear."""
    packed = base64.b64encode(zlib.compress(json.dumps(STATE).encode())).decode()
    return {
        f"mlflow.sharedViewState.{VIEW}": f"deflate;{packed}",
        "mlflow.experimentKind": "custom_model_development",
    }


def address(experiment_id: str) -> str:
    """What follows the server's address in the browser to open the view."""
    return f"#/experiments/{experiment_id}/runs?compareRunsMode=CHART&viewStateShareKey={VIEW}"
