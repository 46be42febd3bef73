"""What two models are asked so that they can be compared: the same prompts, the same draws, the same reward."""

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
    """Answers depend on the model alone: everything else is the same for all that are asked."""

    run: CompletedRun
    """Its config says how answers are drawn and scored."""
    shared: SharedModels
    rows: Sequence[Row]
    quality: Quality
    samples: int
    reward_model: RewardModel | None

    @classmethod
    def from_run(cls, run: CompletedRun, prompts: str, samples: int) -> "PairedGeneration":
        """Everything checked, the reward model loaded. Raises UserError for rows that the reward cannot score."""
        job, run_data = run.job, RunData(run.job)
        job.hardware.prepare()
        rows, quality = _prompts(run_data, prompts)
        job.reward.check(rows)
        shared = SharedModels(job, dict(run.config), identify(run.config), run_data)
        made = run.artifact("reward_model") if run_data.trains_reward_model else None
        if run_data.trains_reward_model and made is None:
            raise UserError(
                f"reward={job.names.reward} needs a reward model, and the run was made without one: say "
                "where one is with reward.path=<folder>"
            )
        return cls(
            run=run,
            shared=shared,
            rows=rows,
            quality=quality,
            samples=samples,
            reward_model=shared.load_reward_model(made),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """How the answers are drawn and scored."""
        job = self.run.job
        drawn = self.samples > 1 or job.eval.decoding == "sampled"
        scorer = job.reward if self.reward_model is None else job.reward.with_model(self.reward_model)
        return {
            "decoding": f"sampled, temperature {job.eval.temperature:g}, seed {job.eval.seed}" if drawn else "greedy",
            "answer_limit": self._max_new_tokens,
            "reward": job.names.reward,
            "reward_sha256": scorer.content_hash(),
        }

    @property
    def _max_new_tokens(self) -> int:
        return self.run.job.eval.max_new_tokens or self.run.job.rl.max_new_tokens

    def answers(self, weights: Weights) -> Answers:
        """A row for each answer, as in a run's eval.jsonl, with the model's name and the number of the answer."""
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
        found = evaluator.generate(self.rows, self.samples)
        return [{**row, "model": weights.name, "sample": i % self.samples} for i, row in enumerate(found)]


def _prompts(run_data: RunData, where: str) -> tuple[Sequence[Row], Quality]:
    """The rows to answer, and their true quality where the data knows it."""
    if where in SPLITS:
        return run_data.prompts[where], run_data.job.data.quality
    rows: list[Row] = [
        {"id": f"prompt-{number}", **record.columns, "prompt": record.text("prompt")}
        for number, record in enumerate(read_files(find_files(where)))
    ]
    names = Counter(str(row["id"]) for row in rows)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"prompts={where}: the id {twice[0]} stands there more than once")
    return rows, _unknown


def _unknown(row: Row, answer: str) -> None:
    """Nobody knows the true quality of an answer to a prompt from a file."""
