"""A transformer with a scalar head: one number for a whole response, read at its last token."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from alignbench.core.adapters import SFT, TRAINED, is_adapted
from alignbench.core.batches import Rollouts, Sequences, sequences
from alignbench.core.errors import UserError
from alignbench.core.protocols import Calibration, ScoreModel
from alignbench.core.seeds import address, derive
from alignbench.kernels.sequence_packing import pad_sequences
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.policy import training
from alignbench.models.text import Text

CARD = "reward_model.json"


class RewardModel:
    """Reads prompt and response without padding before or between them, and finds the last token by its length.

    So no padding side, padding token or end-of-sequence token inside a prompt can change a score.
    """

    def __init__(
        self, model: Any, text: Text, calibration: Calibration | None = None, weights_checksum: str = ""
    ) -> None:
        """Raises UserError when the model does more to its hidden states than a linear head."""
        self.model, self.text = model, text
        self.calibration, self._weights_checksum = calibration or Calibration(), weights_checksum
        self.model.eval()
        self.inner = model.get_base_model() if is_adapted(model) else model
        self.flops_per_token = 2 * sum(p.numel() for p in self.inner.parameters())
        self._check_head()

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.inner.get_input_embeddings().weight.device

    def __call__(self, batch: Sequences) -> Tensor:
        """The score of each row, [n], fp32."""
        rows = pad_sequences(batch, self.text.pad, include_last=True)
        return self._scores(rows.input_ids.to(self.device), batch.lengths().to(self.device))

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of everything the optimizer may change."""
        yield from ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)

    def training(self) -> AbstractContextManager[None]:
        """While it is open, dropout acts; scoring never opens it."""
        return training(self.model)

    def weights_checksum(self) -> str:
        """The sha256 of the files it was loaded from."""
        assert self._weights_checksum, "a reward model has no checksum of its weights before it was saved and loaded"
        return self._weights_checksum

    def save(self, folder: Path, card: Mapping[str, Any]) -> None:
        """Write all weights, as transformers reads them, or every adapter in use; the tokenizer, and the card."""
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
        """While it is open, the model itself can multiply its hidden states with a head of another dtype."""
        dtype = self.inner.get_input_embeddings().weight.dtype
        mixed = dtype in (torch.bfloat16, torch.float16) and self.inner.score.weight.dtype != dtype
        return torch.autocast(self.device.type, dtype) if mixed else nullcontext()

    @torch.no_grad()
    def _check_head(self) -> None:
        """Try on a few tokens that the model's own score is ours."""
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
                f"{type(self.inner).__name__} is no reward model that can be used here: it needs a linear head named "
                "`score` with one output, as AutoModelForSequenceClassification gives decoder models with num_labels=1"
            )


@dataclass(frozen=True)
class RetokenizedRewardModel:
    """A reward model with a tokenizer of its own: it reads rollouts as text."""

    model: RewardModel

    @property
    def calibration(self) -> Calibration:
        """The model's."""
        return self.model.calibration

    def __call__(self, batch: Sequences) -> Tensor:
        """The score of each rollout, [n], fp32; one that did not end by itself is not ended here either."""
        assert isinstance(batch, Rollouts), "only rollouts can be read as text"
        text, cut = self.model.text, batch.truncated.tolist()
        prompts = [text.encode_prompt(row["prompt"]) for row in batch.rows]
        ended = [text.encode_completion(answer) for answer in batch.texts]
        answers = [tokens[:-1] if short else tokens for tokens, short in zip(ended, cut, strict=True)]
        return self.model(sequences(prompts, answers, text.pad))

    def weights_checksum(self) -> str:
        """The model's."""
        return self.model.weights_checksum()


def make_reward_model(
    source: Pretrained, *, texts: Sequence[str], start: Path | None, lora: Lora | None, device: str, seed: int
) -> RewardModel:
    """A reward model ready to train: the model in `start` under a head drawn from the seed.

    `start` is an SFT model as `loading.save` writes it: all weights, or an adapter, which stays frozen under a new one
    of the shape `lora`, by default the model's. None starts from the base. `texts` as in `Pretrained.load`.
    """
    adapter = start if start is not None and is_adapter(start) else None
    if start is not None and adapter is None and lora is not None:
        raise UserError(
            "reward_model.lora adapts a frozen base, but the SFT model has all weights trained: set "
            "reward_model.lora=null, or train the SFT model with model.lora.rank=16 too"
        )
    model, text = source.load_with_score_head(texts=texts, start=None if adapter else start, device=device)
    _draw(model.score, seed)
    shape = lora or source.lora
    if shape is None:
        # Where padding also ends answers, transformers would look for the last token in the wrong place.
        model.config.pad_token_id = None if text.pad in text.stops else text.pad
        return RewardModel(model, text)
    return RewardModel(_adapted(model, shape, adapter, seed), text)


def load_reward_model(source: Pretrained, folder: Path, *, texts: Sequence[str], device: str) -> RewardModel:
    """The reward model in `folder`, frozen: as `save` wrote it, or any for transformers with one score.

    An adapter needs the base it was trained on: that of `source`. Raises UserError when it is none of these.
    """
    check_folder(folder)
    if is_adapter(folder):
        from peft import PeftModel

        model, text = source.load_with_score_head(texts=texts, start=None, device=device)
        model.score.float()
        model = PeftModel.from_pretrained(model, folder, adapter_name=TRAINED)
        if is_adapter(folder / SFT):
            _under(model, folder / SFT)
    else:
        model, text = source.load_with_score_head(texts=texts, start=folder, device=device)
    model.requires_grad_(False)
    return RewardModel(model, text, _calibration(folder), _weights_checksum(folder))


def adapt_to_policy(model: RewardModel, text: Text) -> ScoreModel:
    """The model as it scores what a policy with this text side writes: token by token where tokens mean the same."""
    return model if _vocabulary(model.text) == _vocabulary(text) else RetokenizedRewardModel(model)


def check_folder(folder: Path) -> None:
    """Raise UserError, before anything is loaded, when the folder holds no reward model."""
    if is_adapter(folder):
        return
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} holds no reward model: give a folder with config.json or adapter_config.json, as "
            "written by save_pretrained"
        ) from error
    kind, labels = (config.get("architectures") or ["unknown model"])[0], len(config.get("id2label") or "01")
    if not kind.endswith("ForSequenceClassification") or labels != 1:
        raise UserError(
            f"{folder} holds a {kind} without a head for one score: give a model saved by "
            "AutoModelForSequenceClassification with num_labels=1, or let the study train one"
        )


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and no weights of its own."""
    return (folder / "adapter_config.json").is_file()


def _adapted(model: Any, shape: Lora, sft: Path | None, seed: int) -> Any:
    """A new adapter and the head to train; the SFT model's adapter, where there is one, acts beside them, frozen."""
    from peft import get_peft_model

    model.requires_grad_(False)
    model.score.float()
    with torch.random.fork_rng():
        torch.manual_seed(address(seed, "reward adapter"))
        # Without a task type: peft's own for classification would want a head in the SFT adapter too.
        adapted = get_peft_model(model, shape.config(modules_to_save=["score"]), adapter_name=TRAINED)
    if sft is not None:
        _under(adapted, sft)
    return adapted


def _under(model: Any, sft: Path) -> None:
    """Put the SFT model's adapter under the trained one: both act, and only the trained one learns."""
    model.load_adapter(sft, adapter_name=SFT, is_trainable=False)
    model.base_model.set_adapter([SFT, TRAINED])
    for name, parameter in model.named_parameters():
        if f".{SFT}." in name:
            parameter.requires_grad_(False)


def _draw(head: nn.Linear, seed: int) -> None:
    """First weights of variance 1 / (width + 1): scores of about 1 from normalised hidden states."""
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


def _vocabulary(text: Text) -> tuple[Any, ...]:
    return text.chat, text.tokenizer.chat_template, text.tokenizer.get_vocab()
