"""The data of a run: demonstrations, preference pairs and prompts of each split, checked for train/test overlap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.core.protocols import learned
from alignbench.data.genrm import to_scoring
from alignbench.data.prompt_stream import tokenize
from alignbench.data.splits import SPLITS, check_disjoint, rows_hash
from alignbench.models.text import Text
from alignbench.runs.settings import RunSettings
from alignbench.stages.sft import Demonstrations


@dataclass(frozen=True)
class RunData:
    """The data of a run, read once; prompts that are too long are dropped if rl.too_long=drop."""

    job: RunSettings

    @cached_property
    def prompts(self) -> dict[str, Sequence[Row]]:
        """The prompts of each split."""
        limit, keep_all = self.job.rl.max_prompt_tokens, self.job.rl.too_long == "error"
        return {
            split: rows if keep_all else [r for r in rows if len(self.encode(r["prompt"])) <= limit]
            for split, rows in self.all_prompts.items()
        }

    @cached_property
    def demonstrations(self) -> Sequence[Row]:
        """The demonstrations for SFT, in the configured format."""
        rows = self._all_demonstrations
        return to_scoring(rows) if self.job.sft.format == "genrm" else rows

    @cached_property
    def comparisons(self) -> dict[str, Sequence[Row]]:
        """The preference pairs of each split; empty if no reward model is trained."""
        if not self.trains_reward_model:
            return {}
        return {split: self.job.data.comparisons(split) for split in SPLITS}

    @property
    def trains_reward_model(self) -> bool:
        """Whether the reward needs a reward model that the study has to train."""
        reward = learned(self.job.reward)
        return reward is not None and reward.path is None

    @cached_property
    def texts(self) -> list[str]:
        """The texts from which the tokenizer of a built-in model is made."""
        return [row["prompt"] + row["completion"] for row in self.demonstrations]

    @cached_property
    def text(self) -> Text:
        """The tokenizer and chat template of the model."""
        text: Text = self.job.model.load_text(self.texts)
        return text

    def encode(self, prompt: str) -> list[int]:
        """The token ids of a prompt; cached, so repeated calls return the same list."""
        if prompt not in self._tokens:
            self._tokens[prompt] = self.text.encode_prompt(prompt)
        return self._tokens[prompt]

    @cached_property
    def held_out(self) -> Demonstrations | None:
        """Validation demonstrations for perplexity; None without demonstrations or with eval.perplexity_rows=0."""
        rows = [row for row in self.prompts["validation"] if "completion" in row][: self.job.eval.perplexity_rows]
        return self.job.sft.examples(rows, self.text) if rows else None

    def check(self) -> None:
        """Raise UserError for rows that overlap, that cannot be scored, or that exceed the model's context."""
        for check in self.checks():
            check()

    def checks(self) -> tuple[Callable[[], None], ...]:
        """The separate checks, so that a caller can report every error."""
        return self._check_disjoint, self._check_rows, self._check_reward, self._check_context

    def notes(self) -> dict[str, int]:
        """Counts of rows that the dataset dropped or changed, and of prompts that were too long."""
        too_long = {
            f"{split} prompts too long": len(rows) - len(self.prompts[split])
            for split, rows in self.all_prompts.items()
        }
        return {**self.job.data.notes(), **{what: count for what, count in too_long.items() if count}}

    def describe(self) -> dict[str, Any]:
        """Rows and sha256 of each split, for the manifest."""
        splits = {split: {"rows": len(rows), "sha256": rows_hash(rows)} for split, rows in self.prompts.items()}
        return {"name": self.job.names.data, **splits, "notes": self.notes()}

    @cached_property
    def all_prompts(self) -> dict[str, Sequence[Row]]:
        """The prompts of each split, including those that are too long."""
        return {split: self.job.data.prompts(split) for split in SPLITS}

    @cached_property
    def _tokens(self) -> dict[str, list[int]]:
        return {}

    @cached_property
    def _all_demonstrations(self) -> Sequence[Row]:
        rows: Sequence[Row] = self.job.data.demonstrations()
        return rows

    def _check_disjoint(self) -> None:
        used = {split: [*rows, *self.comparisons.get(split, ())] for split, rows in self.all_prompts.items()}
        used["train"] += self._all_demonstrations if self.job.sft.enabled else ()
        check_disjoint(**used)

    def _check_rows(self) -> None:
        for split, rows in self.prompts.items():
            if not rows:
                raise UserError(
                    f"no {split} prompts are left: each has more than rl.max_prompt_tokens="
                    f"{self.job.rl.max_prompt_tokens} tokens. Raise it"
                )

    def _check_reward(self) -> None:
        for rows in self.prompts.values():
            self.job.reward.check(rows)

    def _check_context(self) -> None:
        """Check that every prompt together with its response fits into the model's context."""
        rl, eval_limit = self.job.rl, self.job.eval.max_new_tokens or 0
        for limit, new_tokens in (("rl.max_new_tokens", rl.max_new_tokens), ("eval.max_new_tokens", eval_limit)):
            if rl.max_prompt_tokens + new_tokens > self.text.context:
                raise UserError(
                    f"rl.max_prompt_tokens={rl.max_prompt_tokens} + {limit}={new_tokens} is more than the "
                    f"model's context of {self.text.context} tokens: lower one of them"
                )
        for rows in self.prompts.values():
            tokenize(rows, self.encode, rl.max_prompt_tokens)
        _ = self.held_out
