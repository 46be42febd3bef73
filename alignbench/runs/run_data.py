"""The rows of a run: what it imitates, prefers by and answers; nothing it is tested on may be trained on."""

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
    """Everything a run reads, once; too long rows are left out here, where that is asked for."""

    job: RunSettings

    @cached_property
    def prompts(self) -> dict[str, Sequence[Row]]:
        """The rows to answer, of each split."""
        limit, keep_all = self.job.rl.max_prompt_tokens, self.job.rl.too_long == "error"
        return {
            split: rows if keep_all else [r for r in rows if len(self.encode(r["prompt"])) <= limit]
            for split, rows in self.all_prompts.items()
        }

    @cached_property
    def demonstrations(self) -> Sequence[Row]:
        """What there is to imitate, in the format asked for."""
        rows = self._answers
        return to_scoring(rows) if self.job.sft.format == "genrm" else rows

    @cached_property
    def comparisons(self) -> dict[str, Sequence[Row]]:
        """The pairs to prefer by, of each split; none where no reward model is trained."""
        if not self.trains_reward_model:
            return {}
        return {split: self.job.data.comparisons(split) for split in SPLITS}

    @property
    def trains_reward_model(self) -> bool:
        """Whether the reward needs a model that is not there yet."""
        reward = learned(self.job.reward)
        return reward is not None and reward.path is None

    @cached_property
    def texts(self) -> list[str]:
        """What an embedded tokenizer is made from."""
        return [row["prompt"] + row["completion"] for row in self.demonstrations]

    @cached_property
    def text(self) -> Text:
        """The text side of the model, without its weights."""
        text: Text = self.job.model.load_text(self.texts)
        return text

    def encode(self, prompt: str) -> list[int]:
        """The tokens of a prompt; whoever asks again gets the same list."""
        if prompt not in self._tokens:
            self._tokens[prompt] = self.text.encode_prompt(prompt)
        return self._tokens[prompt]

    @cached_property
    def held_out(self) -> Demonstrations | None:
        """Demonstrations that perplexity is measured on; None where there are none, or none is wanted."""
        rows = [row for row in self.prompts["validation"] if "completion" in row][: self.job.eval.perplexity_rows]
        return self.job.sft.examples(rows, self.text) if rows else None

    def check(self) -> None:
        """Raise UserError for rows that overlap, that cannot be scored, or that do not fit into the model."""
        for each in self.checks():
            each()

    def checks(self) -> tuple[Callable[[], None], ...]:
        """The same one by one, so that all that is wrong can be told."""
        return self._check_disjoint, self._check_rows, self._check_reward, self._check_room

    def notes(self) -> dict[str, int]:
        """What became of the source's rows, in the dataset's words, and how many prompts were too long."""
        short = {
            f"{split} prompts too long": len(rows) - len(self.prompts[split])
            for split, rows in self.all_prompts.items()
        }
        return {**self.job.data.notes(), **{what: count for what, count in short.items() if count}}

    def describe(self) -> dict[str, Any]:
        """Rows and sha256 of each split, for the manifest."""
        splits = {split: {"rows": len(rows), "sha256": rows_hash(rows)} for split, rows in self.prompts.items()}
        return {"name": self.job.names.data, **splits, "notes": self.notes()}

    @cached_property
    def all_prompts(self) -> dict[str, Sequence[Row]]:
        """The rows of each split, too long ones among them."""
        return {split: self.job.data.prompts(split) for split in SPLITS}

    @cached_property
    def _tokens(self) -> dict[str, list[int]]:
        return {}

    @cached_property
    def _answers(self) -> Sequence[Row]:
        rows: Sequence[Row] = self.job.data.demonstrations()
        return rows

    def _check_disjoint(self) -> None:
        used = {split: [*rows, *self.comparisons.get(split, ())] for split, rows in self.all_prompts.items()}
        used["train"] += self._answers if self.job.sft.enabled else ()
        check_disjoint(**used)

    def _check_rows(self) -> None:
        for split, rows in self.prompts.items():
            if not rows:
                raise UserError(
                    f"no {split} prompt is left: each has more than rl.max_prompt_tokens="
                    f"{self.job.rl.max_prompt_tokens} tokens. Raise it"
                )

    def _check_reward(self) -> None:
        for rows in self.prompts.values():
            self.job.reward.check(rows)

    def _check_room(self) -> None:
        """Every prompt of every split, and the answer to it, must fit into the model."""
        rl, measured = self.job.rl, self.job.eval.max_new_tokens or 0
        for limit, answer in (("rl.max_new_tokens", rl.max_new_tokens), ("eval.max_new_tokens", measured)):
            if rl.max_prompt_tokens + answer > self.text.context:
                raise UserError(
                    f"rl.max_prompt_tokens={rl.max_prompt_tokens} + {limit}={answer} is more than the "
                    f"model's context of {self.text.context} tokens: lower one of them"
                )
        for rows in self.prompts.values():
            tokenize(rows, self.encode, rl.max_prompt_tokens)
        _ = self.held_out
