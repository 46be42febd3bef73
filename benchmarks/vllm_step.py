"""Time of a step with vLLM's rollouts and with the built-in sampler, in turn, on the same 29 M-parameter model.

    python -m benchmarks.vllm_step [steps]

Needs vLLM in this Python. The first step, in which vLLM starts, is not measured; weights are random.
"""

import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace

from alignbench.algorithms.grpo import GRPO
from alignbench.data.arithmetic import Arithmetic
from alignbench.data.prompt_stream import PromptStream
from alignbench.engine.checks import Invariants
from alignbench.engine.run_state import RunState, StepReport
from alignbench.models.loading import Lora, Tiny
from alignbench.rewards.exact_match import ExactMatch
from alignbench.stages.online import RL
from benchmarks.page import print_line
from benchmarks.workload import PARTS, build_policy

MODEL = Tiny(dtype="float32", hidden=512, layers=8, heads=8, intermediate=1536, vocabulary=4000)
SETTINGS = RL(rollouts_per_step=64, max_prompt_tokens=64, max_new_tokens=32)
CACHE_GIB = 0.5


def run_steps(sampler: str, model: Tiny, data: Arithmetic) -> Iterator[StepReport]:
    """Steps of a run with the sampler `own` or `vllm`."""
    texts = [row["prompt"] + row["completion"] for row in data.demonstrations()]
    policy = build_policy(*model.load(texts=texts, start=None, device="cpu", seed=0))
    engine = SETTINGS.build_loop(policy, ExactMatch(), GRPO(), 0, 32, Invariants(no_signal="off"))
    if sampler == "vllm":
        engine = replace(engine, sampler=SETTINGS.build_vllm_sampler(policy, CACHE_GIB))
    text = policy.text
    prompts_per_step = SETTINGS.prompts_per_step(GRPO())
    stream = PromptStream(data.prompts("train"), text.encode_prompt, prompts_per_step, 0, text.pad, 64)
    return engine.run(stream, RunState.at_start(GRPO()))


def compare(model: Tiny, steps: int) -> Iterator[str]:
    """One line for each part of a step, and one for the sampler gap."""
    runs = {sampler: run_steps(sampler, model, Arithmetic()) for sampler in ("own", "vllm")}
    for run in runs.values():
        next(run)
    results = [{sampler: next(run).metrics for sampler, run in runs.items()} for _ in range(steps)]
    for part in (*PARTS, "step"):
        names = [f"cost/{each}_seconds" for each in (PARTS if part == "step" else (part,))]
        seconds = [
            {sampler: sum(metrics[name] for name in names) for sampler, metrics in both.items()} for both in results
        ]
        ratios = [both["vllm"] / both["own"] for both in seconds]
        own, vllm = (statistics.median(both[sampler] for both in seconds) for sampler in ("own", "vllm"))
        yield (
            f"{part:8} own {own:6.2f} s   vLLM {vllm:6.2f} s   vLLM / own {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    yield f"largest sampler gap: {max(both['vllm']['rollout/sampler_gap'] for both in results):.1e} nats"


def main() -> None:
    """Print a table for an adapter and one for training all weights."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    for name, lora in (("adapter", Lora(rank=16)), ("all weights", None)):
        print_line(name)
        for line in compare(replace(MODEL, lora=lora), steps):
            print_line(f"    {line}")


if __name__ == "__main__":
    main()
