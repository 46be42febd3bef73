"""SFT > reward model > RL > evaluation: the order of a run, and what it leaves in its folder."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import yaml
from omegaconf import DictConfig

from alignbench.core import gc_pause, metric_names
from alignbench.core.protocols import Scorer
from alignbench.data.prompt_stream import PromptStream
from alignbench.data.splits import rows_hash
from alignbench.engine.checks import Invariants
from alignbench.engine.run_state import RunState, StepReport
from alignbench.kernels.hardware import explain_out_of_memory
from alignbench.models import loading
from alignbench.models.policy import CausalPolicy
from alignbench.models.reward_model import RewardModel
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import Identity, RunSettings, build, conditions, custom_functions, identify, resolve
from alignbench.runs.shared_models import SharedModels, card, cost
from alignbench.stages.evaluate import Evaluator
from alignbench.stages.failure_dump import FailureRecorder, record_failures
from alignbench.stages.online import CONDITIONS, RECORDS, is_recorded, restore, snapshot
from alignbench.stages.progress import Display, budget_spent, log_samples, log_steps
from alignbench.stages.weight_selection import BestWeights
from alignbench.store.artifacts import Artifact
from alignbench.store.checkpoints import Checkpoints
from alignbench.store.disk import atomic_folder, write_atomically
from alignbench.store.model_card import write_card
from alignbench.store.provenance import git_state, versions
from alignbench.store.run_status import RunStatus, is_finished
from alignbench.store.sync import log_missing_records
from alignbench.store.tracker import Tracker

INPUTS = ("data", "prompt_order", "artifacts", "reward")
"""What a run was made of beside its config: a checkpoint must have been made of the same."""
SHOWN = {
    "rewards/mean": "reward",
    metric_names.EVAL_ACCURACY: "accuracy",
    metric_names.EVAL_GOLD: "gold",
    "rollout/response_length": "tokens",
    "rollout/kl_sequence": "KL",
}


def run(cfg: DictConfig) -> None:
    """Run the job that a config describes."""
    config = resolve(cfg)
    job = build(config)
    pipeline = Pipeline(job, config, identify(config))
    pipeline.check()
    folder = pipeline.identity.run_dir
    if is_finished(folder, pipeline.identity.key):
        Display().print(f"{pipeline.name} is finished already; everything is in {folder} (remove it to run again)")
        log_missing_records(folder)
        return
    who = {name: value for name, value in asdict(pipeline.identity).items() if name != "run_dir"}
    with RunStatus(folder, who, job.hardware.determinism) as diary, Display() as display, explain_out_of_memory():
        pipeline.run(diary, display)


@dataclass(frozen=True)
class Pipeline:
    """One run: its parts, its config, its name."""

    job: RunSettings
    config: dict[str, Any]
    identity: Identity

    @property
    def name(self) -> str:
        """What the run is called in its study."""
        return self.identity.run_dir.name

    @cached_property
    def run_data(self) -> RunData:
        """What it reads."""
        return RunData(self.job)

    @cached_property
    def shared(self) -> SharedModels:
        """What it shares with the other runs of its study."""
        return SharedModels(self.job, self.config, self.identity, self.run_data)

    def check(self) -> None:
        """Everything that can be refused before anything is trained."""
        self.job.rl.prompts_per_step(self.job.algo)
        self.job.model.require()
        self.job.hardware.prepare()
        self.run_data.check()
        self.shared.check()

    def run(self, diary: RunStatus, display: Display) -> None:
        """Every phase, in order."""
        import transformers.modeling_utils  # noqa: F401  what every model stands on, while the collector rests

        gc_pause.resume()
        write_atomically(diary.folder / "config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        start = self.shared.sft(display)
        preferences = self.shared.reward_model(start, display)
        reward_model = self.shared.load_reward_model(preferences)
        policy = self.load_policy(start, reward_model)
        scorer = self.shared.scorer(reward_model, policy.text)
        stream = self.prompts()
        made = {name: artifact for name, artifact in (("sft", start), ("reward_model", preferences)) if artifact}
        about = self.describe(stream, made, scorer)
        for function in custom_functions(self.config["reward"]):
            display.print(f"reward: {function} is code of your own, run as it is (sha256 {scorer.content_hash()[:12]})")
        under = conditions(self.config, {name: about[name] for name in INPUTS})
        write_atomically(diary.folder / "manifest.json", json.dumps(about, indent=2))
        checkpoints = Checkpoints(diary.folder / "checkpoints", warn=lambda text: display.print(f"warning: {text}"))
        saved = checkpoints.latest(lambda snapshot: is_recorded(snapshot, diary.folder, under))
        if saved:
            diary.resumed()
        evaluator = self.build_evaluator(policy, scorer)
        with self.shared.tracker(diary.folder, "rl", saved[0] if saved else None) as tracker:
            for split, rows in self.run_data.prompts.items():
                tracker.dataset(self.job.names.data, rows_hash(rows), split)
            state, best = self.train(evaluator, stream, checkpoints, saved, tracker, display, under)
            best.restore(policy)
            numbers = self.evaluate(evaluator, diary, tracker, state)
        spent = {name.split("/")[1]: value for name, value in budget_spent(state).items()}
        about |= {"ledger": spent, "selected_step": best.step if best.step is not None else state.step}
        write_atomically(diary.folder / "manifest.json", json.dumps(about, indent=2))
        with atomic_folder(diary.folder / "final") as final:
            loading.save(policy.model, policy.text, final)
            write_card(
                diary.folder, final, "full" if self.job.model.lora is None else "adapter", to_be=diary.folder / "final"
            )
        self._say_what_became_of_it(best, numbers, diary, display)

    # --- reinforcement learning -----------------------------------------------------------------------------------

    def load_policy(self, start: Artifact | None, reward_model: RewardModel | None) -> CausalPolicy:
        """The policy that reinforcement learning begins with; its reference is what it is now."""
        model, text = self.shared.load(start.path / "model" if start else None, self.job.seed)
        critic = self.shared.critic(model, text, reward_model)
        policy = CausalPolicy(model, text, temperature=self.job.rl.temperature, critic=critic)
        policy.freeze_reference()
        return policy

    def prompts(self) -> PromptStream:
        """The training prompts, in the order of this seed."""
        rl, run_data = self.job.rl, self.run_data
        return PromptStream(
            run_data.prompts["train"],
            run_data.encode,
            rl.prompts_per_step(self.job.algo),
            self.job.seed,
            run_data.text.pad,
            rl.max_prompt_tokens,
        )

    def train(
        self,
        evaluator: Evaluator,
        stream: PromptStream,
        checkpoints: Checkpoints,
        saved: tuple[int, Any] | None,
        tracker: Tracker,
        display: Display,
        under: dict[str, Any],
    ) -> tuple[RunState, BestWeights]:
        """Every step that is left, each written down, shown and, now and then, measured and saved."""
        job, policy, best = self.job, evaluator.policy, BestWeights(self.job.eval)
        invariants, recorder = self._invariants(), FailureRecorder(evaluator.scorer)
        engine = job.rl.build_loop(
            policy,
            recorder,
            job.algo,
            job.seed,
            job.hardware.microbatch_rows,
            invariants,
            job.hardware.microbatch_tokens,
            job.hardware.rollouts_at_once,
        )
        if job.hardware.sampler == "vllm":
            engine = replace(engine, sampler=job.rl.build_vllm_sampler(policy, job.hardware.sampler_cache_gib))
        state, adamw = RunState.at_start(job.algo), engine.update.optimizer.adamw
        if saved:
            state = restore(saved[1], policy, adamw, best)
            display.print(f"rl: going on after step {state.step}")
        else:
            tracker.record("rl", 0, {**self.validate(evaluator), **budget_spent(state)})
        steps = record_failures(job.rl.run(engine, stream, state), state.step, recorder)
        reports = self._measured(steps, evaluator, tracker)
        for report in log_steps(display.show_progress(reports, "rl", job.rl.steps, SHOWN), tracker, "rl"):
            state = report.state
            best.update(state.step, report.metrics, policy)
            if job.rl.checkpoint_every and (state.step % job.rl.checkpoint_every == 0 or job.rl.is_over(state)):
                about = {CONDITIONS: under, RECORDS: tracker.records_prefix()}
                checkpoints.save(state.step, {**snapshot(state, policy, adamw, best), **about})
        return state, best

    def _measured(self, reports: Iterator[StepReport], evaluator: Evaluator, tracker: Tracker) -> Iterator[StepReport]:
        """The reports, with the measures of the evaluation in those where one is due."""
        for report in reports:
            if not self.job.eval.is_due(report.state.step, self.job.rl.is_over(report.state)):
                yield report
                continue
            log_samples(report, tracker, self.job.tracking.samples)
            yield replace(report, metrics={**report.metrics, **self.validate(evaluator)})

    def _invariants(self) -> Invariants:
        """What must hold, up to the rounding of this dtype; compiled, policy and reference are rounded each its way."""
        given, hardware = self.job.invariants, self.job.hardware
        ratio = given.ratio_tolerance
        if ratio is None:
            ratio = 1e-3 if self.job.model.is_exact(hardware.resolve_device()) else 0.5
        kl = max(given.kl_tolerance, ratio) if hardware.compile else given.kl_tolerance
        return replace(given, ratio_tolerance=ratio, kl_tolerance=kl)

    # --- evaluation ---------------------------------------------------------------------------------------------

    def build_evaluator(self, policy: CausalPolicy, scorer: Scorer) -> Evaluator:
        """Measures this policy the same way every time."""
        job = self.job
        return Evaluator(
            policy=policy,
            scorer=scorer,
            quality=job.data.quality,
            settings=job.eval,
            max_new_tokens=job.eval.max_new_tokens or job.rl.max_new_tokens,
            batch_size=job.hardware.eval_batch_size,
            microbatch_size=job.hardware.microbatch_rows,
            tokens_per_microbatch=job.hardware.microbatch_tokens,
            max_prompt_tokens=job.rl.max_prompt_tokens,
            held_out=self.run_data.held_out,
        )

    def validate(self, evaluator: Evaluator) -> dict[str, float]:
        """The marks on validation prompts, while training."""
        rows = self.run_data.prompts["validation"]
        return evaluator.evaluate(rows, "eval/")[1] | evaluator.measure_drift(rows, "eval/")

    def evaluate(self, evaluator: Evaluator, diary: RunStatus, tracker: Tracker, state: RunState) -> dict[str, float]:
        """The final marks on test prompts, of the policy and of what it started from."""
        rows, began = self.run_data.prompts["test"], perf_counter()
        answers, numbers = evaluator.evaluate(rows, "final/")
        numbers |= evaluator.measure_drift(rows, "final/")
        with evaluator.policy.reference():
            started, marks = evaluator.evaluate(rows, "final/start_")
        numbers |= marks
        if self.job.eval.samples:
            numbers |= evaluator.pass_at(rows, "final/")
        tag = {"method": self.identity.method, "seed": self.identity.seed}
        for name, told in (("eval.jsonl", answers), ("eval_start.jsonl", started)):
            lines = (json.dumps({**answer, **tag}, ensure_ascii=False) for answer in told)
            write_atomically(diary.folder / name, "\n".join(lines) + "\n")
        tracker.record("evaluate", state.step, {**numbers, metric_names.EVALUATION_SECONDS: perf_counter() - began})
        tracker.artifact(diary.folder / "eval.jsonl")
        return numbers

    # --- what it leaves -------------------------------------------------------------------------------------------

    def describe(self, stream: PromptStream, made: dict[str, Artifact], scorer: Scorer) -> dict[str, Any]:
        """What this run was made of."""
        job = self.job
        return {
            "versions": versions(),
            "git": git_state(),
            "command": sys.argv,
            "device": job.hardware.resolve_device(),
            "threads": job.hardware.thread_count(),
            "dtype": str(job.model.resolve_dtype(job.hardware.resolve_device())).removeprefix("torch."),
            "data": self.run_data.describe(),
            "prompt_order": stream.order_hash(),
            "artifacts": {name: artifact.key for name, artifact in made.items()},
            "artifact_costs": {name: cost(artifact) for name, artifact in made.items()},
            "reward": {"name": job.names.reward, "sha256": scorer.content_hash()},
            "reward_model": card(made["reward_model"]) if "reward_model" in made else None,
            "ledger": None,
        }

    def _say_what_became_of_it(
        self, best: BestWeights, numbers: dict[str, float], diary: RunStatus, display: Display
    ) -> None:
        if best.step is not None:
            bound = "" if best.within_kl_bound else f"; none had a KL within eval.max_kl={self.job.eval.max_kl:g}"
            display.print(f"{self.name} ends with the weights of step {best.step}{bound}")
        mark = next(m for m in ("gold", "accuracy", "avg_reward") if f"final/{m}" in numbers)
        display.print(
            f"{self.name} is done: test {mark.replace('avg_', '')} {numbers[f'final/{mark}']:.3f} "
            f"(start {numbers[f'final/start_{mark}']:.3f}); everything is in {diary.folder}"
        )
