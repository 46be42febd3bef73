"""The seconds of a step with vLLM's rollouts and with our own, on the same 29 M-parameter model, step about.

    python -m benchmarks.vllm_step [steps]

It needs vLLM in this Python. The first step, in which vLLM starts, is left out; weights are random.
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
from alignbench.models.policy import CausalPolicy
from alignbench.rewards.exact_match import ExactMatch
from alignbench.stages.online import RL

MODEL = Tiny(dtype="float32", hidden=512, layers=8, heads=8, intermediate=1536, vocabulary=4000)
RULES = RL(rollouts_per_step=64, max_prompt_tokens=64, max_new_tokens=32)
CACHE_GIB = 0.5
PARTS = ("rollout", "score", "update")


def start(sampler: str, model: Tiny, data: Arithmetic) -> Iterator[StepReport]:
    """The steps of a run whose rollouts that sampler writes."""
    texts = [row["prompt"] + row["completion"] for row in data.demonstrations()]
    policy = CausalPolicy(*model.load(texts=texts, start=None, device="cpu", seed=0))
    policy.freeze_reference()
    engine = RULES.build_loop(policy, ExactMatch(), GRPO(), 0, 32, Invariants(no_signal="off"))
    if sampler == "vllm":
        engine = replace(engine, sampler=RULES.build_vllm_sampler(policy, CACHE_GIB))
    text = policy.text
    stream = PromptStream(data.prompts("train"), text.encode_prompt, RULES.prompts_per_step(GRPO()), 0, text.pad, 64)
    return engine.run(stream, RunState.at_start(GRPO()))


def compare(model: Tiny, steps: int) -> Iterator[str]:
    """A line for each part of a step, and one for the gap."""
    runs = {sampler: start(sampler, model, Arithmetic()) for sampler in ("own", "vllm")}
    for run in runs.values():
        next(run)
    done = [{sampler: next(run).metrics for sampler, run in runs.items()} for _ in range(steps)]
    for part in (*PARTS, "step"):
        names = [f"cost/{each}_seconds" for each in (PARTS if part == "step" else (part,))]
        seconds = [{sampler: sum(m[name] for name in names) for sampler, m in both.items()} for both in done]
        ratios = [both["vllm"] / both["own"] for both in seconds]
        own, vllm = (statistics.median(both[sampler] for both in seconds) for sampler in ("own", "vllm"))
        yield (
            f"{part:8} own {own:6.2f} s   vLLM {vllm:6.2f} s   vLLM / own {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    yield f"largest gap to our forward pass: {max(both['vllm']['rollout/sampler_gap'] for both in done):.1e} nats"


def main() -> None:
    """Print both tables."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    for name, lora in (("adapter", Lora(rank=16)), ("all weights", None)):
        print(name)
        for line in compare(replace(MODEL, lora=lora), steps):
            print(f"    {line}", flush=True)


if __name__ == "__main__":
    main()
