"""Writes the model card of saved weights: training, evaluation results, how to load them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jinja2
import yaml

from alignbench.core import metric_names
from alignbench.store import jsonl
from alignbench.store.disk import write_atomically

README = "README.md"
QUESTION = "What is 2 + 3?"
METRICS = {
    "accuracy": "accuracy",
    "gold": "gold",
    "avg_reward": "mean reward",
    "avg_response_length": "tokens of an answer",
    "truncated_fraction": "share of answers cut",
    "kl": "KL to the start, nats an answer",
    "perplexity": "perplexity",
}
"""The metrics of a card, in this order."""
Kind = Literal["adapter", "full", "merged"]
"""An adapter, all weights of the model, or an adapter merged into its base."""


def write_card(run: Path, weights: Path, kind: Kind, dtype: str | None = None, to_be: Path | None = None) -> None:
    """Write a card into the folder `weights`, from the files of the run.

    `dtype` is by default that of the training; `to_be` is the final name of the folder, if it will be renamed.
    """
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    context = {
        "run": run,
        "weights": to_be or weights,
        "kind": kind,
        "dtype": dtype or manifest["dtype"],
        "manifest": manifest,
        "metrics": list(_format_metrics(_final(run))),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    text = environment.get_template("model_card.md").render(
        context | _of_config(config, weights) | _of_study(config, manifest)
    )
    write_atomically(weights / README, text)


def _of_config(config: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    model, data = config["model"], config["data"]
    hub_base, hub_data = (name if "/" in str(name := part.get("name")) else None for part in (model, data))
    return {
        "config": config,
        "names": config["names"],
        "model": model,
        "hub_base": hub_base,
        "hub_data": hub_data,
        "base": model["path"] or hub_base,
        "four_bits": model["quantization"] == "nf4",
        "prompt": data.get("template", "{question}").replace("{question}", QUESTION),
        "chat": model["chat_template"] == "auto" and (weights / "chat_template.jinja").exists(),
    }


def _of_study(config: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    study, git = config["study"] or "single", manifest["git"]
    return {
        "study": study,
        "report": Path(config["output_dir"]) / "reports" / study / "report.md",
        "before_verdict": metric_names.VERDICT[0],
        "after_verdict": metric_names.VERDICT[1],
        "commit": "unknown" if git is None else git["commit"] + (", with uncommitted changes" if git["dirty"] else ""),
    }


def _final(run: Path) -> dict[str, float]:
    """The final metrics of a run."""
    measured = [entry["metrics"] for entry in jsonl.read(run / "metrics.jsonl") if entry["phase"] == "evaluate"]
    return measured[-1] if measured else {}


def _format_metrics(numbers: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    for metric, label in METRICS.items():
        start, end = (numbers.get(f"final/{name}") for name in (f"start_{metric}", metric))
        if end is not None:
            yield label, "" if start is None else f"{start:.4g}", f"{end:.4g}"
