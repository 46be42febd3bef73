"""Generates and scores answers of several models under the same prompts, sampling seeds and reward."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.data.source import find_files, read_files
from alignbench.data.splits import SPLITS
from alignbench.models.policy import CausalPolicy
from alignbench.models.reward_model import RewardModel
from alignbench.runs.completed_run import CompletedRun, Weights
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import identify
from alignbench.runs.shared_models import SharedModels
from alignbench.stages.evaluate import Answers, Evaluator, Quality


@dataclass(frozen=True, kw_only=True)
class PairedGeneration:
    """Generation and scoring that depend only on the model: prompts, decoding and reward are fixed."""

    run: CompletedRun
    """The run whose config sets decoding and reward."""
    shared: SharedModels
    rows: Sequence[Row]
    quality: Quality
    samples: int
    reward_model: RewardModel | None

    @classmethod
    def from_run(cls, run: CompletedRun, prompts: str, samples: int) -> "PairedGeneration":
        """Check the prompts and the reward, and load the reward model.

        Args:
            run: The run whose config sets decoding and reward.
            prompts: A split (train, validation or test) or a file of prompts.
            samples: Answers to each prompt.

        Raises:
            UserError: the reward cannot score the rows, or its reward model is missing.
        """
        job, run_data = run.job, RunData(run.job)
        job.hardware.prepare()
        rows, quality = _prompts(run_data, prompts)
        job.reward.check(rows)
        shared = SharedModels(job, dict(run.config), identify(run.config), run_data)
        artifact = run.artifact("reward_model") if run_data.trains_reward_model else None
        if run_data.trains_reward_model and artifact is None:
            raise UserError(
                f"reward={job.names.reward} needs a reward model, and the run has none: give one "
                "with reward.path=<folder>"
            )
        return cls(
            run=run,
            shared=shared,
            rows=rows,
            quality=quality,
            samples=samples,
            reward_model=shared.load_reward_model(artifact),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """Decoding and reward, for settings.json."""
        job = self.run.job
        sampled = self.samples > 1 or job.eval.decoding == "sampled"
        scorer = job.reward if self.reward_model is None else job.reward.with_model(self.reward_model)
        return {
            "decoding": f"sampled, temperature {job.eval.temperature:g}, seed {job.eval.seed}" if sampled else "greedy",
            "answer_limit": self._max_new_tokens,
            "reward": job.names.reward,
            "reward_sha256": scorer.content_hash(),
        }

    @property
    def _max_new_tokens(self) -> int:
        return self.run.job.eval.max_new_tokens or self.run.job.rl.max_new_tokens

    def answers(self, weights: Weights) -> Answers:
        """One row per answer, as in eval.jsonl of a run, plus the name of the model and the index of the sample."""
        job = self.run.job
        model, text = weights.load(job.hardware.resolve_device())
        job.hardware.apply_kernels(model)
        policy = CausalPolicy(model, text)
        evaluator = Evaluator(
            policy=policy,
            scorer=self.shared.scorer(self.reward_model, policy.text),
            quality=self.quality,
            settings=job.eval,
            held_out=None,
            max_new_tokens=self._max_new_tokens,
            batch_size=job.hardware.eval_batch_size,
            microbatch_size=job.hardware.microbatch_rows,
            tokens_per_microbatch=job.hardware.microbatch_tokens,
            max_prompt_tokens=job.rl.max_prompt_tokens,
        )
        answers = evaluator.generate(self.rows, self.samples)
        return [{**row, "model": weights.name, "sample": i % self.samples} for i, row in enumerate(answers)]


def _prompts(run_data: RunData, source: str) -> tuple[Sequence[Row], Quality]:
    """The prompt rows, and the true quality of answers if the data defines it."""
    if source in SPLITS:
        return run_data.prompts[source], run_data.job.data.quality
    rows: list[Row] = [
        {"id": f"prompt-{number}", **record.columns, "prompt": record.text("prompt")}
        for number, record in enumerate(read_files(find_files(source)))
    ]
    counts = Counter(str(row["id"]) for row in rows)
    if duplicates := [name for name, count in counts.items() if count > 1]:
        raise UserError(f"prompts={source}: duplicate id {duplicates[0]}")
    return rows, _unknown_quality


def _unknown_quality(row: Row, answer: str) -> None:
    """The true quality of answers to prompts from a file is unknown."""
