"""Time of a report with 100,000 comparisons by an LLM judge, for a synthetic study with cached verdicts.

python -m benchmarks.judged_pairs [prompts per seed, default 20000]
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from alignbench.core.judge_settings import Judge
from analysis.findings import find
from analysis.judge.answer_pairs import AnswerPair, make_answer_pairs
from analysis.judge.cache import open_cache
from analysis.judge.panel import compose_judge
from analysis.judge.prompt import ORDERS, Template
from analysis.judge.verdicts import Reply
from analysis.report.write import write_report
from analysis.study.load import load_study
from analysis.study.options import Options
from benchmarks.page import print_line
from validation.simulations.simulated_judge import JudgeModel

SEEDS, METHODS = (1, 2, 3, 4, 5), ("ppo", "grpo")
JUDGE_MODEL = JudgeModel(position=0.4, tie=0.3)
TEXT = "The answer is worked out step by step, as it should be. " * 8
VERDICTS = {1: "A", 0: "tie", -1: "B"}


def main(prompts: int) -> None:
    """Write the study, fill the cache, and time the report."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for method in METHODS:
            for seed in SEEDS:
                write_run(home, method, seed, prompts)
        overrides = (
            "judge=openai_compatible",
            "judge.model=simulated",
            "judge.mode=cache_only",
            f"judge.max_prompts={prompts}",
        )
        settings = compose_judge("openai_compatible", overrides[1:])
        assert settings is not None
        pairs = make_answer_pairs(load_study("s", home), list(METHODS), prompts).pairs
        start = perf_counter()
        fill_cache(home, settings, pairs)
        print_line(f"{len(pairs):,} pairs of answers, both verdicts of each cached in {perf_counter() - start:.1f} s")
        start = perf_counter()
        findings = find(Options(study="s", output_dir=home, judge=overrides))
        judged = perf_counter() - start
        page = write_report(findings)
        print_line(
            f"study loaded and judged from the cache in {judged:.1f} s, with the report "
            f"{perf_counter() - start:.1f} s; page {page.stat().st_size / 1000:.0f} kB"
        )
        assert findings.judgement is not None
        tally = findings.judgement.matches[0].tally
        print_line(f"{tally.judged:,} judged: {tally.score}")


def write_run(home: Path, method: str, seed: int, prompts: int) -> None:
    """Write a finished run with an answer to each prompt."""
    folder = home / "runs" / "s" / f"{method}-tiny-s{seed}-00000000"
    folder.mkdir(parents=True)
    status = {
        "status": "finished",
        "key": folder.name,
        "study": "s",
        "method": method,
        "model": "tiny",
        "seed": seed,
        "started": "2026-11-21T00:00:00+00:00",
        "finished": "2026-11-21T01:00:00+00:00",
    }
    (folder / "status.json").write_text(json.dumps(status))
    metrics = {"phase": "evaluate", "step": 1, "time": 0.0, "metrics": {"final/accuracy": 0.5 + 0.01 * seed}}
    (folder / "metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    with (folder / "eval.jsonl").open("w") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in answers(method, seed, prompts))


def answers(method: str, seed: int, prompts: int) -> Iterator[dict[str, Any]]:
    """Rows of eval.jsonl: answers and prompts of about 450 characters."""
    for i in range(prompts):
        yield {
            "prompt_id": f"p{i}",
            "prompt": f"{TEXT}{i}?",
            "response": f"{TEXT}{method} {seed} {i}",
            "reference": None,
            "scores": {"total": 1.0},
            "correct": True,
            "tokens": 100,
            "truncated": False,
        }


def fill_cache(home: Path, settings: Judge, pairs: Sequence[AnswerPair]) -> None:
    """Write the verdicts of a simulated judge into the cache."""
    rng, template = np.random.default_rng(0), Template(settings)
    gap, zero = 0.2 + rng.standard_normal(len(pairs)), np.zeros(len(pairs))
    verdicts = [JUDGE_MODEL.verdict(sign * gap, zero, rng.standard_normal(len(pairs))) for sign in (1, -1)]
    with open_cache(home) as cache:
        for i, pair in enumerate(pairs):
            for order in ORDERS:
                content = json.dumps({"reasoning": TEXT[:200], "verdict": VERDICTS[int(verdicts[order][i])]})
                reply = Reply(content, None, "stop", "simulated", None, 500, 0, 60)
                cache.put(template.request(pair, order, 0).key, reply, {}, "", 0.5)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
