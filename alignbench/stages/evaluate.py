"""Policy -> one row per prompt, and the numbers: accuracy, reward, length, KL to the reference, perplexity."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import comb, exp
from typing import Any, Literal

import torch

from alignbench.core.batches import Forward, Rollouts, Row, Sequences
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Positive, Size
from alignbench.core.protocols import Scorer
from alignbench.data.prompt_stream import iterate_once
from alignbench.engine.score import compute_forward
from alignbench.engine.supervised_loop import negative_log_likelihood
from alignbench.generation.logits_filters import LogitsFilter
from alignbench.generation.sampler import Sampler
from alignbench.models.policy import CausalPolicy
from alignbench.stages.degenerate_responses import is_empty, is_repeated
from alignbench.stages.sft import Demonstrations

Numbers = dict[str, float]
Answers = list[dict[str, Any]]
Quality = Callable[[Row, str], float | None]
"""The true quality of an answer to a row's prompt, where it is known."""
TOLD_BY_STRATUM = ("avg_reward", "gold", "accuracy", "avg_response_length")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """When and how a policy is measured; the same policy always gets the same marks."""

    every: Count = 20
    """Steps between measurements on validation prompts; the first and the last step are always measured."""
    decoding: Literal["greedy", "sampled"] = "greedy"
    """Whether marks are of the most likely answer to each prompt, or of one drawn at the temperature below."""
    max_new_tokens: Count | None = None
    """Where an answer is cut; null takes rl.max_new_tokens."""
    perplexity_rows: Size = 256
    """Demonstrations for perplexity; 0 leaves it out."""
    samples: Size = 0
    """Answers drawn for each test prompt to estimate pass@k; 0 leaves it out."""
    pass_at: tuple[Count, ...] = (1, 4)
    """The k of pass@k, each at most `samples`."""
    temperature: Positive = 1.0
    """Temperature of the answers that are drawn."""
    logits_filter: LogitsFilter | None = None
    """Which tokens may be drawn, such as {top_p: 0.95}; null lets all. The distance to the reference is of all."""
    seed: Size = 0
    """Seed of what is drawn, the same for all runs."""
    select: Literal["last", "perplexity", "avg_reward", "accuracy"] = "last"
    """Which weights a run ends with: the last ones, or those with the best of this mark on validation prompts."""
    max_kl: Positive | None = None
    """Weights whose KL to the reference, in nats a token, was above this are not selected; null lets all be."""

    def __post_init__(self) -> None:
        if self.samples and not self.pass_at:
            raise UserError(f"samples={self.samples} are drawn for pass@k: say for which k with pass_at=[1]")
        if self.samples and max(self.pass_at) > self.samples:
            raise UserError(f"pass_at={list(self.pass_at)} needs samples={max(self.pass_at)} or more")
        if self.select == "last" and self.max_kl is not None:
            raise UserError(
                f"max_kl={self.max_kl:g} would not be read by select=last: choose a mark to select "
                "by, such as select=perplexity, or set max_kl=null"
            )
        if self.select == "perplexity" and not self.perplexity_rows:
            raise UserError("select=perplexity needs perplexity_rows=1 or more")
        if self.logits_filter is not None and self.decoding == "greedy" and not self.samples:
            raise UserError(
                "eval.logits_filter would not be read, since no answer is drawn: set eval.decoding=sampled or "
                "eval.samples=8, or eval.logits_filter=null"
            )

    def is_due(self, step: int, over: bool) -> bool:
        """Whether the policy is measured on validation prompts after that step, which may be the last."""
        return over or step % self.every == 0

    def answers(self, steps: int, validation: int, test: int) -> int:
        """How many are drawn for that many prompts: each time one for the marks and one for the distance to the
        reference, and on test prompts one more for the marks of the start, and those for pass@k."""
        times = sum(self.is_due(step, step == steps) for step in range(steps + 1))
        return 2 * times * validation + (3 + self.samples) * test


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Everything needed to measure one policy again and again."""

    policy: CausalPolicy
    scorer: Scorer
    quality: Quality
    settings: Evaluate
    max_new_tokens: int
    batch_size: int
    microbatch_size: int
    tokens_per_microbatch: int | None
    """How many tokens are read at once, in place of rows; None goes by rows."""
    max_prompt_tokens: int
    held_out: Demonstrations | None
    """What perplexity is measured on; None leaves it out."""

    def measure(self, rows: Sequence[Row], prefix: str) -> tuple[Answers, Numbers]:
        """One answer to each prompt, a row each, and the means over them, each named after `prefix`.

        Where rows have a `stratum`, rewards are told for each of these too.
        """
        answers = self.answer(rows)
        numbers = means(answers)
        if "accuracy" not in numbers and self.settings.samples:
            raise UserError(
                "eval.samples is for pass@k, and this reward does not say which answers are correct: set "
                "eval.samples=0, or use reward=exact_match"
            )
        for stratum in sorted({a["stratum"] for a in answers if a["stratum"] is not None}):
            inside = means([a for a in answers if a["stratum"] == stratum])
            numbers |= {f"stratum/{stratum}/{mark}": inside[mark] for mark in TOLD_BY_STRATUM if mark in inside}
        return answers, {f"{prefix}{name}": value for name, value in numbers.items()}

    def answer(self, rows: Sequence[Row], samples: int = 1) -> Answers:
        """`samples` answers to each prompt, a row each: a single one by `decoding`, several drawn at `temperature`."""
        greedy = samples == 1 and self.settings.decoding == "greedy"
        temperature = 0.0 if greedy else self.settings.temperature
        drawn = self._answers(rows, samples, temperature, self.settings.logits_filter)
        return [row for rollouts in drawn for row in self._rows(rollouts)]

    @torch.no_grad()
    def distance(self, rows: Sequence[Row], prefix: str) -> Numbers:
        """How far the policy is from its reference, and from the held-out demonstrations.

        `kl` is KL(pi || ref) of a whole answer in nats: the mean of log(pi / ref) over one answer drawn for each prompt
        at the temperature of training, and `kl_token` that of a token. Greedy answers would not estimate it.
        """
        numbers, gaps, tokens = dict[str, float](), list[float](), 0
        for rollouts in self._answers(rows, 1, temperature=self.policy.temperature):
            with self.policy.reference():
                reference = self._read(rollouts).logprobs
            gaps += (self._read(rollouts).logprobs - reference).sum(1).tolist()
            tokens += int(rollouts.mask.sum())
        numbers |= {f"{prefix}kl": mean(gaps), f"{prefix}kl_token": sum(gaps) / tokens}
        if self.held_out is not None:
            numbers[f"{prefix}perplexity"] = self._perplexity(self.held_out)
        return numbers

    def pass_at(self, rows: Sequence[Row], prefix: str) -> Numbers:
        """pass@k from `samples` draws for each prompt: 1 - C(n - c, k) / C(n, k), mean over prompts.

        Chen et al. 2021, eq. 1, https://arxiv.org/abs/2107.03374
        """
        right: list[int] = []
        n = self.settings.samples
        for rollouts in self._answers(rows, n, self.settings.temperature, self.settings.logits_filter):
            marks = self.scorer(rollouts).components["correct_strict"].view(-1, n)
            right += [int(c) for c in marks.sum(1).tolist()]
        return {
            f"{prefix}pass_at_{k}": mean(1 - comb(n - c, k) / comb(n, k) for c in right) for k in self.settings.pass_at
        }

    def _answers(
        self, rows: Sequence[Row], samples: int, temperature: float, logits_filter: LogitsFilter | None = None
    ) -> Iterator[Rollouts]:
        sampler = Sampler(
            policy=self.policy, max_new_tokens=self.max_new_tokens, temperature=temperature, logits_filter=logits_filter
        )
        text = self.policy.text
        for prompts in iterate_once(rows, text.encode_prompt, self.batch_size, text.pad, self.max_prompt_tokens):
            yield sampler(prompts, samples, self.settings.seed)

    def _rows(self, rollouts: Rollouts) -> Answers:
        scores = self.scorer(rollouts)
        correct = scores.components.get("correct_strict")
        return [
            {
                "prompt_id": str(row["id"]),
                "prompt": row["prompt"],
                "response": rollouts.texts[i],
                "reference": row.get("reference"),
                "stratum": row.get("stratum"),
                "scores": {
                    "total": float(scores.total[i]),
                    **{k: float(v[i]) for k, v in scores.components.items()},
                    **self._gold(row, rollouts.texts[i]),
                },
                "correct": None if correct is None else bool(correct[i]),
                "tokens": int(rollouts.mask[i].sum()),
                "truncated": bool(rollouts.truncated[i]),
            }
            for i, row in enumerate(rollouts.rows)
        ]

    def _gold(self, row: Row, answer: str) -> dict[str, float]:
        known = self.quality(row, answer)
        return {} if known is None else {"gold": known}

    def _read(self, batch: Sequences) -> Forward:
        return compute_forward(self.policy, batch, self.microbatch_size, self.tokens_per_microbatch)

    @torch.no_grad()
    def _perplexity(self, examples: Demonstrations) -> float:
        """exp of the mean negative log-likelihood of a token of the held-out demonstrations."""
        total, count = 0.0, 0
        for start in range(0, len(examples.tokens), self.batch_size):
            rows = range(start, min(start + self.batch_size, len(examples.tokens)))
            batch = examples.take(rows).to(self.policy.device)
            total += float(negative_log_likelihood(self._read(batch), batch).sum())
            count += int(batch.mask.sum())
        return exp(min(total / max(count, 1), 700.0))


def means(answers: Answers) -> Numbers:
    """What these answers are like on average."""
    numbers = {
        "avg_reward": mean(a["scores"]["total"] for a in answers),
        "avg_response_length": mean(a["tokens"] for a in answers),
        "truncated_fraction": mean(a["truncated"] for a in answers),
        "empty_fraction": mean(is_empty(a["response"]) for a in answers),
        "repeated_fraction": mean(is_repeated(a["response"]) for a in answers),
    }
    if all("gold" in a["scores"] for a in answers):
        numbers["gold"] = mean(a["scores"]["gold"] for a in answers)
    if all(a["correct"] is not None for a in answers):
        numbers["accuracy"] = mean(a["correct"] for a in answers)
        numbers["accuracy_flexible"] = mean(a["scores"]["correct_flexible"] for a in answers)
    return numbers


def mean(values: Any) -> float:
    """The mean of some numbers."""
    kept = [float(v) for v in values]
    return sum(kept) / len(kept)
