"""The evaluation stage: accuracy, reward, length, KL to the reference, perplexity and pass@k of a policy."""

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
"""Gives the true quality of an answer to a row's prompt; None where it is unknown."""
STRATUM_METRICS = ("avg_reward", "gold", "accuracy", "avg_response_length")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """When and how a policy is evaluated; equal weights always give equal metrics."""

    every: Count = 10
    """Steps between evaluations on validation prompts; the first and the last step are always evaluated."""
    decoding: Literal["greedy", "sampled"] = "greedy"
    """How the evaluated answer to each prompt is generated: greedily, or sampled at `temperature`."""
    max_new_tokens: Count | None = None
    """Maximum answer length in tokens; null uses rl.max_new_tokens."""
    perplexity_rows: Size = 256
    """Number of demonstrations for perplexity; 0 skips it."""
    samples: Size = 0
    """Answers sampled for each test prompt to estimate pass@k; 0 skips it."""
    pass_at: tuple[Count, ...] = (1, 4)
    """The values of k, each at most `samples`."""
    temperature: Positive = 1.0
    """Temperature of sampled answers."""
    logits_filter: LogitsFilter | None = None
    """Filters the tokens that can be sampled, such as {top_p: 0.95}; null allows all. The KL is measured without it."""
    seed: Size = 0
    """Sampling seed, the same for all runs."""
    select: Literal["last", "perplexity", "avg_reward", "accuracy"] = "last"
    """Which weights a run ends with: the last ones, or those with the best validation value of this metric."""
    max_kl: Positive | None = None
    """Maximum KL to the reference, in nats per token, of the weights that can be selected; null sets no bound."""

    def __post_init__(self) -> None:
        if self.samples and not self.pass_at:
            raise UserError(f"samples={self.samples} is for pass@k: set the values of k, such as pass_at=[1]")
        if self.samples and max(self.pass_at) > self.samples:
            raise UserError(f"pass_at={list(self.pass_at)} needs samples={max(self.pass_at)} or more")
        if self.select == "last" and self.max_kl is not None:
            raise UserError(
                f"max_kl={self.max_kl:g} has no effect with select=last: choose a metric to select "
                "by, such as select=perplexity, or set max_kl=null"
            )
        if self.select == "perplexity" and not self.perplexity_rows:
            raise UserError("select=perplexity needs perplexity_rows=1 or more")
        if self.logits_filter is not None and self.decoding == "greedy" and not self.samples:
            raise UserError(
                "eval.logits_filter has no effect, since no answer is sampled: set eval.decoding=sampled or "
                "eval.samples=8, or eval.logits_filter=null"
            )

    def is_due(self, step: int, is_last: bool) -> bool:
        """Whether the policy is evaluated on validation prompts after that step."""
        return is_last or step % self.every == 0

    def count_generations(self, steps: int, validation: int, test: int) -> int:
        """Number of answers generated in a run of that many steps, validation and test prompts.

        Each evaluation generates one answer for the metrics and one for the KL; the final one on test prompts also
        generates one with the initial policy, and those for pass@k.
        """
        times = sum(self.is_due(step, step == steps) for step in range(steps + 1))
        return 2 * times * validation + (3 + self.samples) * test


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Evaluates one policy."""

    policy: CausalPolicy
    scorer: Scorer
    quality: Quality
    settings: Evaluate
    max_new_tokens: int
    batch_size: int
    microbatch_size: int
    tokens_per_microbatch: int | None
    """Tokens per microbatch, instead of rows; None counts rows."""
    max_prompt_tokens: int
    held_out: Demonstrations | None
    """Demonstrations for perplexity; None skips it."""

    def evaluate(self, rows: Sequence[Row], prefix: str) -> tuple[Answers, Numbers]:
        """Generate and score one answer to each prompt: the answers, and their metrics with `prefix` before each name.

        Where rows have a `stratum`, the main metrics are computed for each stratum too. Raises UserError if
        `eval.samples` asks for pass@k and the reward does not mark answers as correct.
        """
        answers = self.generate(rows)
        numbers = means(answers)
        if "accuracy" not in numbers and self.settings.samples:
            raise UserError(
                "eval.samples is for pass@k, but this reward does not mark answers as correct: set "
                "eval.samples=0, or use reward=exact_match"
            )
        for stratum in sorted({a["stratum"] for a in answers if a["stratum"] is not None}):
            inside = means([a for a in answers if a["stratum"] == stratum])
            numbers |= {f"stratum/{stratum}/{mark}": inside[mark] for mark in STRATUM_METRICS if mark in inside}
        return answers, {f"{prefix}{name}": value for name, value in numbers.items()}

    def generate(self, rows: Sequence[Row], samples: int = 1) -> Answers:
        """`samples` scored answers to each prompt: a single one by `decoding`, several sampled at `temperature`."""
        greedy = samples == 1 and self.settings.decoding == "greedy"
        temperature = 0.0 if greedy else self.settings.temperature
        batches = self._answers(rows, samples, temperature, self.settings.logits_filter)
        return [row for rollouts in batches for row in self._rows(rollouts)]

    @torch.no_grad()
    def measure_drift(self, rows: Sequence[Row], prefix: str) -> Numbers:
        """KL of the policy to its reference, and perplexity of the held-out demonstrations.

        `kl` estimates KL(pi || ref) in nats per answer: the mean of log(pi / ref) over one answer per prompt,
        sampled at the temperature of training; `kl_token` is the same per token. Greedy answers would bias it.
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
        """Mean pass@k over prompts, 1 - C(n - c, k) / C(n, k) from n = `samples` answers, c of them correct.

        Chen et al. 2021, eq. 1, https://arxiv.org/abs/2107.03374
        """
        correct: list[int] = []
        n = self.settings.samples
        for rollouts in self._answers(rows, n, self.settings.temperature, self.settings.logits_filter):
            marks = self.scorer(rollouts).components["correct_strict"].view(-1, n)
            correct += [int(c) for c in marks.sum(1).tolist()]
        return {
            f"{prefix}pass_at_{k}": mean(1 - comb(n - c, k) / comb(n, k) for c in correct)
            for k in self.settings.pass_at
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
        quality = self.quality(row, answer)
        return {} if quality is None else {"gold": quality}

    def _read(self, batch: Sequences) -> Forward:
        return compute_forward(self.policy, batch, self.microbatch_size, self.tokens_per_microbatch)

    @torch.no_grad()
    def _perplexity(self, examples: Demonstrations) -> float:
        """exp of the mean negative log-likelihood per token of the held-out demonstrations."""
        total, count = 0.0, 0
        for start in range(0, len(examples.tokens), self.batch_size):
            rows = range(start, min(start + self.batch_size, len(examples.tokens)))
            batch = examples.take(rows).to(self.policy.device)
            total += float(negative_log_likelihood(self._read(batch), batch).sum())
            count += int(batch.mask.sum())
        return exp(min(total / max(count, 1), 700.0))


def means(answers: Answers) -> Numbers:
    """The mean of each metric over these answers."""
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
    """The arithmetic mean."""
    numbers = [float(v) for v in values]
    return sum(numbers) / len(numbers)
