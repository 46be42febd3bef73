"""Policy -> one row per prompt, and the numbers: accuracy, reward, length, KL to the reference, perplexity."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb, exp
from typing import Any

import torch

from alignbench.core.batches import Rollouts, Row
from alignbench.core.contracts import Scorer
from alignbench.core.errors import UserError
from alignbench.core.knobs import Count, Positive, Size
from alignbench.data.stream import once
from alignbench.engine.score import read
from alignbench.engine.supervise import negative_log_likelihood
from alignbench.models.policy import CausalPolicy
from alignbench.models.sampler import Sampler
from alignbench.phases.sft import Demonstrations

Numbers = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """When and how a policy is measured; marks are of greedy answers, so the same policy always gets the same."""

    every: Count = 20
    """Steps between measurements on validation prompts; the first and the last step are always measured."""
    max_new_tokens: Count | None = None
    """Where an answer is cut; null takes rl.max_new_tokens."""
    perplexity_rows: Size = 256
    """Demonstrations for perplexity; 0 leaves it out."""
    samples: Size = 0
    """Answers drawn for each test prompt to estimate pass@k; 0 leaves it out."""
    pass_at: tuple[Count, ...] = (1, 4)
    """The k of pass@k, each at most `samples`."""
    temperature: Positive = 1.0
    """Temperature of those draws."""
    seed: Size = 0
    """Seed of those draws, the same for all runs."""

    def __post_init__(self) -> None:
        if self.samples and not self.pass_at:
            raise UserError(f"samples={self.samples} are drawn for pass@k: say for which k with pass_at=[1]")
        if self.samples and max(self.pass_at) > self.samples:
            raise UserError(f"pass_at={list(self.pass_at)} needs samples={max(self.pass_at)} or more")


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """Everything needed to measure one policy again and again."""

    policy: CausalPolicy
    scorer: Scorer
    settings: Evaluate
    max_new_tokens: int
    batch_size: int
    microbatch_size: int
    max_prompt_tokens: int
    perplexity_rows: Sequence[Row]

    def measure(self, rows: Sequence[Row], prefix: str) -> tuple[list[dict[str, Any]], Numbers]:
        """Greedy answers to the prompts, one row each, and the means over them, each named after `prefix`."""
        answers: list[dict[str, Any]] = []
        for rollouts in self._answers(rows, 1, temperature=0.0):
            answers += self._rows(rollouts)
        numbers = {
            "avg_reward": mean(a["scores"]["total"] for a in answers),
            "avg_response_length": mean(a["tokens"] for a in answers),
            "truncated_fraction": mean(a["truncated"] for a in answers),
        }
        if all(a["correct"] is not None for a in answers):
            numbers["accuracy"] = mean(a["correct"] for a in answers)
            numbers["accuracy_flexible"] = mean(a["scores"]["correct_flexible"] for a in answers)
        elif self.settings.samples:
            raise UserError("eval.samples is for pass@k, and this reward does not say which answers are correct: set "
                            "eval.samples=0, or use reward=exact_match")
        return answers, {f"{prefix}{name}": value for name, value in numbers.items()}

    @torch.no_grad()
    def distance(self, rows: Sequence[Row], prefix: str) -> Numbers:
        """How far the policy is from its reference, and from the held-out demonstrations.

        `kl` is KL(pi || ref) of a whole answer in nats: the mean of log(pi / ref) over one answer drawn for each prompt
        at the temperature of training. Greedy answers would not estimate it.
        """
        numbers, gaps = dict[str, float](), list[float]()
        for rollouts in self._answers(rows, 1, temperature=self.policy.temperature):
            with self.policy.reference():
                reference = read(self.policy, rollouts, self.microbatch_size).logprobs
            gaps += (read(self.policy, rollouts, self.microbatch_size).logprobs - reference).sum(1).tolist()
        numbers[f"{prefix}kl"] = mean(gaps)
        if self.perplexity_rows:
            numbers[f"{prefix}perplexity"] = self._perplexity()
        return numbers

    def pass_at(self, rows: Sequence[Row], prefix: str) -> Numbers:
        """pass@k from `samples` draws for each prompt: 1 - C(n - c, k) / C(n, k), mean over prompts.

        Chen et al. 2021, eq. 1, https://arxiv.org/abs/2107.03374
        """
        right: list[int] = []
        n = self.settings.samples
        for rollouts in self._answers(rows, n, temperature=self.settings.temperature):
            marks = self.scorer(rollouts).components["correct_strict"].view(-1, n)
            right += [int(c) for c in marks.sum(1).tolist()]
        return {f"{prefix}pass_at_{k}": mean(1 - comb(n - c, k) / comb(n, k) for c in right)
                for k in self.settings.pass_at}

    def _answers(self, rows: Sequence[Row], samples: int, temperature: float) -> Iterator[Rollouts]:
        sampler = Sampler(policy=self.policy, max_new_tokens=self.max_new_tokens, temperature=temperature)
        text = self.policy.text
        for prompts in once(rows, text.prompt, self.batch_size, text.pad, self.max_prompt_tokens):
            yield sampler(prompts, samples, self.settings.seed)

    def _rows(self, rollouts: Rollouts) -> list[dict[str, Any]]:
        scores = self.scorer(rollouts)
        correct = scores.components.get("correct_strict")
        return [
            {
                "prompt_id": str(row["id"]), "prompt": row["prompt"], "response": rollouts.texts[i],
                "reference": row.get("reference"),
                "scores": {"total": float(scores.total[i]), **{k: float(v[i]) for k, v in scores.components.items()}},
                "correct": None if correct is None else bool(correct[i]),
                "tokens": int(rollouts.mask[i].sum()), "truncated": bool(rollouts.truncated[i]),
            }
            for i, row in enumerate(rollouts.rows)
        ]

    @torch.no_grad()
    def _perplexity(self) -> float:
        """exp of the mean negative log-likelihood of a token of the held-out demonstrations."""
        examples = Demonstrations(self.perplexity_rows, self.policy.text)
        total, count = 0.0, 0
        for start in range(0, len(examples.tokens), self.batch_size):
            rows = range(start, min(start + self.batch_size, len(examples.tokens)))
            batch = examples.take(rows).to(self.policy.device)
            total += float(negative_log_likelihood(read(self.policy, batch, self.microbatch_size), batch).sum())
            count += int(batch.mask.sum())
        return exp(min(total / max(count, 1), 700.0))


def mean(values: Any) -> float:
    """The mean of some numbers."""
    kept = [float(v) for v in values]
    return sum(kept) / len(kept)
