"""A reward model: a transformer with a linear head for one score, read at the last token of a response."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from alignbench.core.adapters import SFT, TRAINED, is_adapted, unwrap
from alignbench.core.batches import Rollouts, Sequences, sequences
from alignbench.core.errors import UserError
from alignbench.core.protocols import Calibration, ScoreModel
from alignbench.core.seeds import address, derive
from alignbench.kernels.sequence_packing import pad_sequences
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.policy import training
from alignbench.models.text import Text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CARD = "reward_model.json"


class RewardModel:
    """Scores prompt and response, [n]: rows are right-padded, and the last token is found by the sequence length.

    The padding side, the padding token, and end-of-sequence tokens inside a prompt do not change a score.
    """

    def __init__(
        self,
        model: "PreTrainedModel | PeftModel",
        text: Text,
        calibration: Calibration | None = None,
        weights_checksum: str = "",
    ) -> None:
        """Raises UserError if the score is not a linear function of the last hidden state."""
        self.model: Any = model
        self.text = text
        self.calibration, self._weights_checksum = calibration or Calibration(), weights_checksum
        self.model.eval()
        self.inner = unwrap(model)
        self.flops_per_token = 2 * sum(p.numel() for p in self.inner.parameters())
        self._check_head()

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        device: torch.device = self.inner.get_input_embeddings().weight.device
        return device

    def __call__(self, batch: Sequences) -> Tensor:
        """The score of each row, [n], fp32."""
        rows = pad_sequences(batch, self.text.pad, include_last=True)
        return self._scores(rows.input_ids.to(self.device), batch.lengths().to(self.device))

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of every trainable parameter."""
        yield from ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    def training(self) -> AbstractContextManager[None]:
        """Context manager: dropout is active, for training; scoring never uses it."""
        return training(self.model)

    def weights_checksum(self) -> str:
        """The sha256 of the files it was loaded from."""
        assert self._weights_checksum, "a reward model has no checksum of its weights before it was saved and loaded"
        return self._weights_checksum

    def save(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Write all weights, or every adapter, in the formats of transformers and peft; the tokenizer; and the card."""
        if is_adapted(self.model):
            self.model.save_pretrained(folder, selected_adapters=list(self.model.peft_config))
        else:
            self.model.save_pretrained(folder)
        self.text.tokenizer.save_pretrained(folder)
        (folder / CARD).write_text(json.dumps(dict(card), indent=2) + "\n", encoding="utf-8")

    def _scores(self, ids: Tensor, lengths: Tensor) -> Tensor:
        hidden = self.inner.base_model(input_ids=ids, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
        return linear(last.float(), self.inner.score.weight.float())[:, 0]

    def _one_dtype(self) -> AbstractContextManager[Any]:
        """Context manager: autocast, if the head has another dtype than the 16-bit hidden states."""
        dtype = self.inner.get_input_embeddings().weight.dtype
        mixed = dtype in (torch.bfloat16, torch.float16) and self.inner.score.weight.dtype != dtype
        return torch.autocast(self.device.type, dtype) if mixed else nullcontext()

    @torch.no_grad()
    def _check_head(self) -> None:
        """Check on a few tokens that the score of the model's own forward is a linear function of the hidden state."""
        named = "score" in dict(self.inner.named_children()) and self.inner.config.num_labels == 1
        tokens = [t for t in range(5) if t != self.inner.config.get_text_config().pad_token_id][:4]
        ids = torch.tensor([tokens], device=self.device)
        if named:
            ours = self._scores(ids, torch.tensor([len(tokens)], device=self.device))
            with self._one_dtype():
                theirs = self.inner(input_ids=ids, use_cache=False).logits[:, 0].float()
            named = torch.allclose(ours, theirs, rtol=1e-2, atol=3e-2)
        if not named:
            raise UserError(
                f"{type(self.inner).__name__} is not supported as a reward model: it needs a linear head named "
                "`score` with one output, as AutoModelForSequenceClassification gives decoder models with num_labels=1"
            )


@dataclass(frozen=True)
class RetokenizedRewardModel:
    """A reward model with another tokenizer than the policy: it encodes the text of the rollouts again."""

    model: RewardModel

    @property
    def calibration(self) -> Calibration:
        """That of the reward model."""
        return self.model.calibration

    def __call__(self, batch: Sequences) -> Tensor:
        """The score of each rollout, [n], fp32; truncated rollouts get no end-of-sequence token."""
        assert isinstance(batch, Rollouts), "only rollouts have a text"
        text, cut = self.model.text, batch.truncated.tolist()
        prompts = [text.encode_prompt(row["prompt"]) for row in batch.rows]
        ended = [text.encode_completion(answer) for answer in batch.texts]
        answers = [tokens[:-1] if short else tokens for tokens, short in zip(ended, cut, strict=True)]
        return self.model(sequences(prompts, answers, text.pad))

    def weights_checksum(self) -> str:
        """That of the reward model."""
        return self.model.weights_checksum()


def make_reward_model(
    source: Pretrained, *, texts: Sequence[str], start: Path | None, lora: Lora | None, device: str, seed: int
) -> RewardModel:
    """A reward model ready to train: the model in `start` with a randomly initialized head.

    Args:
        source: the base model.
        texts: as in `Pretrained.load`.
        start: an SFT model written by `loading.save`: all weights, or an adapter, which stays frozen below a new one.
            None starts from the base model.
        lora: shape of the new adapter; None is that of `source`.
        device: cpu or cuda.
        seed: initializes the head and the adapter.

    Raises:
        UserError: `lora` is set, but the SFT model has no adapter.
    """
    adapter = start if start is not None and is_adapter(start) else None
    if start is not None and adapter is None and lora is not None:
        raise UserError(
            "reward_model.lora adapts a frozen base model, but all weights of the SFT model were trained: set "
            "reward_model.lora=null, or train an adapter in SFT, too, with model.lora.rank=16"
        )
    model: Any
    model, text = source.load_with_score_head(texts=texts, start=None if adapter else start, device=device)
    _initialize(model.score, seed)
    shape = lora or source.lora
    if shape is None:
        # If padding also ends answers, transformers would find the wrong last token.
        model.config.pad_token_id = None if text.pad in text.stops else text.pad
        return RewardModel(model, text)
    return RewardModel(_adapted(model, shape, adapter, seed), text)


def load_reward_model(source: Pretrained, folder: Path, *, texts: Sequence[str], device: str) -> RewardModel:
    """The frozen reward model in `folder`: written by `RewardModel.save`, or any transformers model with one score.

    An adapter is loaded on the base model of `source`; `texts` as in `Pretrained.load`.

    Raises:
        UserError: the folder has no reward model.
    """
    check_folder(folder)
    model: Any
    if is_adapter(folder):
        from peft import PeftModel

        model, text = source.load_with_score_head(texts=texts, start=None, device=device)
        model.score.float()
        model = PeftModel.from_pretrained(model, folder, adapter_name=TRAINED)
        if is_adapter(folder / SFT):
            _add_sft_adapter(model, folder / SFT)
    else:
        model, text = source.load_with_score_head(texts=texts, start=folder, device=device)
    model.requires_grad_(False)
    return RewardModel(model, text, _calibration(folder), _weights_checksum(folder))


def adapt_to_policy(model: RewardModel, text: Text) -> ScoreModel:
    """The model as a scorer of a policy with this tokenizer: rollouts are encoded again if the tokenizers differ."""
    return model if _vocabulary(model.text) == _vocabulary(text) else RetokenizedRewardModel(model)


def check_folder(folder: Path) -> None:
    """Raises UserError, without loading, if the folder has no reward model."""
    if is_adapter(folder):
        return
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} has no reward model: use a folder with config.json or adapter_config.json, as written by "
            "save_pretrained"
        ) from error
    kind, labels = (config.get("architectures") or ["unknown model"])[0], len(config.get("id2label") or "01")
    if not kind.endswith("ForSequenceClassification") or labels != 1:
        raise UserError(
            f"{folder} has a {kind} without a head for one score: use a model saved by "
            "AutoModelForSequenceClassification with num_labels=1, or let the study train one"
        )


def is_adapter(folder: Path) -> bool:
    """Whether the folder has an adapter instead of all weights."""
    return (folder / "adapter_config.json").is_file()


def _adapted(model: "PreTrainedModel", shape: Lora, sft: Path | None, seed: int) -> "PeftModel":
    """Add a trainable adapter and head; the adapter of the SFT model, if any, is active, too, and frozen."""
    from peft import get_peft_model

    model.requires_grad_(False)
    score: Any = model.score
    score.float()
    with torch.random.fork_rng():
        torch.manual_seed(address(seed, "reward adapter"))
        # No task type: for classification, peft would require a head in the SFT adapter, too.
        adapted = get_peft_model(model, shape.config(modules_to_save=["score"]), adapter_name=TRAINED)
    if sft is not None:
        _add_sft_adapter(adapted, sft)
    return adapted


def _add_sft_adapter(model: "PeftModel", sft: Path) -> None:
    """Activate the adapter of the SFT model together with the trained one, frozen."""
    model.load_adapter(sft, adapter_name=SFT, is_trainable=False)
    base: Any = model.base_model
    base.set_adapter([SFT, TRAINED])
    for name, parameter in model.named_parameters():
        if f".{SFT}." in name:
            parameter.requires_grad_(False)


def _initialize(head: nn.Linear, seed: int) -> None:
    """Weights of variance 1 / (width + 1): scores of about 1 from normalized hidden states."""
    first = torch.empty(head.weight.shape).normal_(
        std=(head.in_features + 1) ** -0.5, generator=derive(seed, "reward head")
    )
    with torch.no_grad():
        head.weight.copy_(first)


def _calibration(folder: Path) -> Calibration | None:
    if not (folder / CARD).is_file():
        return None
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    return Calibration(temperature=card["temperature"], mean=card["mean"], std=card["std"])


def _weights_checksum(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".bin") or file.name == CARD:
            digest.update(file.relative_to(folder).as_posix().encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _vocabulary(text: Text) -> tuple[object, ...]:
    return text.chat, text.tokenizer.chat_template, text.tokenizer.get_vocab()
