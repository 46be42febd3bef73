"""The alignbench side of the comparison with TRL: the RL loop of a run, without logs and tracker."""

import sys
from itertools import islice
from time import perf_counter

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.kl import FixedKL
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW
from alignbench.engine.run_state import RunState
from alignbench.kernels.hardware import Hardware
from alignbench.rewards.exact_match import ExactMatch
from alignbench.stages.online import RL
from benchmarks.trl_setting import BETA1, BETA2, CLIP, KL, LEARNING_RATE, WARMUP, StepClock, command_line, load, stream
from benchmarks.workload import build_policy


def main() -> None:
    """Run the steps of a setting and print their timing.

    The third argument selects the source of old log-probabilities: `rescored` uses a forward pass, as TRL does, and
    microbatches of equal rows; `auto` uses the default settings of a run.
    """
    started, (setting, folder) = perf_counter(), command_line()
    hardware, rescored = Hardware(device="cpu", threads=setting.threads), sys.argv[3] == "rescored"
    hardware.prepare()
    policy = build_policy(*load(folder))
    algorithm = GRPO(group_size=setting.group_size, clip_low=CLIP, clip_high=CLIP, kl=FixedKL(coef=KL))
    optimizer = AdamW(learning_rate=LEARNING_RATE, beta1=BETA1, beta2=BETA2, warmup_steps=WARMUP)
    rl = RL(
        steps=setting.steps + 1,
        rollouts_per_step=setting.rollouts,
        max_new_tokens=setting.new_tokens,
        minibatches=setting.minibatches,
        optimizer=optimizer,
        old_logprobs="rescored" if rescored else "auto",
    )
    engine = rl.build_loop(
        policy,
        ExactMatch(),
        algorithm,
        0,
        setting.microbatch,
        Invariants(),
        None if rescored else hardware.microbatch_tokens,
    )
    clock, before = StepClock(setting, policy.model.state_dict), 0
    start = perf_counter()
    for report in islice(rl.run(engine, stream(setting, policy.text), RunState.at_start(algorithm)), rl.steps):
        total, metrics = perf_counter() - start, report.metrics
        rollout, score = metrics["cost/rollout_seconds"], metrics["cost/score_seconds"]
        clock.step(
            rollout=rollout, score=score, update=total - rollout - score, tokens=report.state.tokens_written - before
        )
        before, start = report.state.tokens_written, perf_counter()
    clock.print_result(policy, started)


if __name__ == "__main__":
    main()
