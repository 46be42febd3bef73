"""Runs the stages of one run in order: SFT, reward model, RL, evaluation; writes the files of its folder."""

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
from alignbench.runs.shared_models import SharedModels, read_cost, read_reward_model_card
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
"""Inputs of a run besides its config; a checkpoint is used only if these are the same."""
DISPLAYED_METRICS = {
    "rewards/mean": "reward",
    metric_names.EVAL_ACCURACY: "accuracy",
    metric_names.EVAL_GOLD: "gold",
    "rollout/response_length": "tokens",
    "rollout/kl_sequence": "KL",
}


def run(cfg: DictConfig) -> None:
    """Execute the run that a config describes; return at once if it is already finished.

    Raises:
        UserError: the config, the data or the environment is invalid.
    """
    config = resolve(cfg)
    job = build(config)
    pipeline = Pipeline(job, config, identify(config))
    pipeline.check()
    folder = pipeline.identity.run_dir
    if is_finished(folder, pipeline.identity.key):
        Display().print(f"{pipeline.name} is already finished; its results are in {folder} (remove it to run again)")
        log_missing_records(folder)
        return
    identity = {name: value for name, value in asdict(pipeline.identity).items() if name != "run_dir"}
    with RunStatus(folder, identity, job.hardware.determinism) as status, Display() as display, explain_out_of_memory():
        pipeline.run(status, display)


@dataclass(frozen=True)
class Pipeline:
    """One run: its settings, its resolved config and its identity."""

    job: RunSettings
    config: dict[str, Any]
    identity: Identity

    @property
    def name(self) -> str:
        """Name of the run: the name of its folder."""
        return self.identity.run_dir.name

    @cached_property
    def run_data(self) -> RunData:
        """The data of the run."""
        return RunData(self.job)

    @cached_property
    def shared(self) -> SharedModels:
        """The models that the run shares with other runs of its study."""
        return SharedModels(self.job, self.config, self.identity, self.run_data)

    def check(self) -> None:
        """Check settings, hardware, data and models before training starts.

        Raises:
            UserError: one of them is invalid.
        """
        self.job.rl.prompts_per_step(self.job.algo)
        self.job.model.require()
        self.job.hardware.prepare()
        self.run_data.check()
        self.shared.check()

    def run(self, status: RunStatus, display: Display) -> None:
        """Run all stages in order and write the files of the run."""
        import transformers.modeling_utils  # noqa: F401  imported while the garbage collector is paused

        gc_pause.resume()
        write_atomically(status.folder / "config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        start = self.shared.sft(display)
        preferences = self.shared.reward_model(start, display)
        reward_model = self.shared.load_reward_model(preferences)
        policy = self.load_policy(start, reward_model)
        scorer = self.shared.scorer(reward_model, policy.text)
        stream = self.prompts()
        artifacts = {name: artifact for name, artifact in (("sft", start), ("reward_model", preferences)) if artifact}
        manifest = self.describe(stream, artifacts, scorer)
        for function in custom_functions(self.config["reward"]):
            display.print(f"reward: {function} is custom code, executed as is (sha256 {scorer.content_hash()[:12]})")
        run_conditions = conditions(self.config, {name: manifest[name] for name in INPUTS})
        write_atomically(status.folder / "manifest.json", json.dumps(manifest, indent=2))
        checkpoints = Checkpoints(status.folder / "checkpoints", warn=lambda text: display.print(f"warning: {text}"))
        saved = checkpoints.latest(lambda snapshot: is_recorded(snapshot, status.folder, run_conditions))
        if saved:
            status.resumed()
        evaluator = self.build_evaluator(policy, scorer)
        with self.shared.tracker(status.folder, "rl", saved[0] if saved else None) as tracker:
            for split, rows in self.run_data.prompts.items():
                tracker.dataset(self.job.names.data, rows_hash(rows), split)
            state, best = self.train(evaluator, stream, checkpoints, saved, tracker, display, run_conditions)
            best.restore(policy)
            metrics = self.evaluate(evaluator, status, tracker, state)
        spent = {name.split("/")[1]: value for name, value in budget_spent(state).items()}
        manifest |= {"ledger": spent, "selected_step": best.step if best.step is not None else state.step}
        write_atomically(status.folder / "manifest.json", json.dumps(manifest, indent=2))
        with atomic_folder(status.folder / "final") as final:
            loading.save(policy.model, policy.text, final)
            write_card(
                status.folder,
                final,
                "full" if self.job.model.lora is None else "adapter",
                to_be=status.folder / "final",
            )
        self._print_result(best, metrics, status, display)

    # --- reinforcement learning -----------------------------------------------------------------------------------

    def load_policy(self, start: Artifact | None, reward_model: RewardModel | None) -> CausalPolicy:
        """The policy at the start of reinforcement learning; the reference policy is a frozen copy of it."""
        model, text = self.shared.load(start.path / "model" if start else None, self.job.seed)
        critic = self.shared.critic(model, text, reward_model)
        policy = CausalPolicy(model, text, temperature=self.job.rl.temperature, critic=critic)
        policy.freeze_reference()
        return policy

    def prompts(self) -> PromptStream:
        """The stream of training prompts, in the order given by the seed."""
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
        run_conditions: dict[str, Any],
    ) -> tuple[RunState, BestWeights]:
        """Run the remaining RL steps: log, display, evaluate and save checkpoints at the configured intervals.

        Returns:
            The final state and the selected weights.
        """
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
            display.print(f"rl: resuming after step {state.step}")
        else:
            tracker.record("rl", 0, {**self.validate(evaluator), **budget_spent(state)})
        steps = record_failures(job.rl.run(engine, stream, state), state.step, recorder)
        reports = self._add_evaluations(steps, evaluator, tracker)
        for report in log_steps(display.show_progress(reports, "rl", job.rl.steps, DISPLAYED_METRICS), tracker, "rl"):
            state = report.state
            best.update(state.step, report.metrics, policy)
            if job.rl.checkpoint_every and (state.step % job.rl.checkpoint_every == 0 or job.rl.is_over(state)):
                provenance = {CONDITIONS: run_conditions, RECORDS: tracker.records_prefix()}
                checkpoints.save(state.step, {**snapshot(state, policy, adamw, best), **provenance})
        return state, best

    def _add_evaluations(
        self, reports: Iterator[StepReport], evaluator: Evaluator, tracker: Tracker
    ) -> Iterator[StepReport]:
        """The step reports, with validation metrics added where an evaluation is due."""
        for report in reports:
            if not self.job.eval.is_due(report.state.step, self.job.rl.is_over(report.state)):
                yield report
                continue
            log_samples(report, tracker, self.job.tracking.samples)
            yield replace(report, metrics={**report.metrics, **self.validate(evaluator)})

    def _invariants(self) -> Invariants:
        """The invariants, with tolerances for the dtype.

        With torch.compile, policy and reference have different floating-point errors, so the KL tolerance is raised.
        """
        invariants, hardware = self.job.invariants, self.job.hardware
        ratio = invariants.ratio_tolerance
        if ratio is None:
            ratio = 1e-3 if self.job.model.is_exact(hardware.resolve_device()) else 0.5
        kl = max(invariants.kl_tolerance, ratio) if hardware.compile else invariants.kl_tolerance
        return replace(invariants, ratio_tolerance=ratio, kl_tolerance=kl)

    # --- evaluation ---------------------------------------------------------------------------------------------

    def build_evaluator(self, policy: CausalPolicy, scorer: Scorer) -> Evaluator:
        """The evaluator of a policy, for validation during training and for the final test."""
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
        """Metrics on the validation prompts, during training."""
        rows = self.run_data.prompts["validation"]
        return evaluator.evaluate(rows, "eval/")[1] | evaluator.measure_drift(rows, "eval/")

    def evaluate(self, evaluator: Evaluator, status: RunStatus, tracker: Tracker, state: RunState) -> dict[str, float]:
        """Test metrics of the final policy and of its reference; writes eval.jsonl and eval_start.jsonl."""
        rows, start_time = self.run_data.prompts["test"], perf_counter()
        answers, metrics = evaluator.evaluate(rows, "final/")
        metrics |= evaluator.measure_drift(rows, "final/")
        with evaluator.policy.reference():
            start_answers, start_metrics = evaluator.evaluate(rows, "final/start_")
        metrics |= start_metrics
        if self.job.eval.samples:
            metrics |= evaluator.pass_at(rows, "final/")
        tags = {"method": self.identity.method, "seed": self.identity.seed}
        for name, scored_rows in (("eval.jsonl", answers), ("eval_start.jsonl", start_answers)):
            lines = (json.dumps({**answer, **tags}, ensure_ascii=False) for answer in scored_rows)
            write_atomically(status.folder / name, "\n".join(lines) + "\n")
        tracker.record(
            "evaluate", state.step, {**metrics, metric_names.EVALUATION_SECONDS: perf_counter() - start_time}
        )
        tracker.artifact(status.folder / "eval.jsonl")
        return metrics

    # --- results -------------------------------------------------------------------------------------------------

    def describe(self, stream: PromptStream, artifacts: dict[str, Artifact], scorer: Scorer) -> dict[str, Any]:
        """The manifest of the run: versions, hardware, data, artifacts and reward."""
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
            "artifacts": {name: artifact.key for name, artifact in artifacts.items()},
            "artifact_costs": {name: read_cost(artifact) for name, artifact in artifacts.items()},
            "reward": {"name": job.names.reward, "sha256": scorer.content_hash()},
            "reward_model": read_reward_model_card(artifacts["reward_model"]) if "reward_model" in artifacts else None,
            "ledger": None,
        }

    def _print_result(self, best: BestWeights, metrics: dict[str, float], status: RunStatus, display: Display) -> None:
        if best.step is not None:
            bound = "" if best.within_kl_bound else f"; no step had a KL within eval.max_kl={self.job.eval.max_kl:g}"
            display.print(f"{self.name} keeps the weights of step {best.step}{bound}")
        metric = next(m for m in ("gold", "accuracy", "avg_reward") if f"final/{m}" in metrics)
        display.print(
            f"{self.name} is done: test {metric.replace('avg_', '')} {metrics[f'final/{metric}']:.3f} "
            f"(start {metrics[f'final/start_{metric}']:.3f}); results are in {status.folder}"
        )
