"""Load a model and its tokenizer from the hub, a folder or an artifact: dtype, quantization, adapter, attention."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from alignbench.core.adapters import FROZEN, TRAINED, is_adapted
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Fraction, Positive
from alignbench.core.hub import MODEL_REMEDY, require_hub
from alignbench.core.seeds import address
from alignbench.kernels.onednn import use_onednn
from alignbench.models.text import Text

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import (
        BitsAndBytesConfig,
        LlamaConfig,
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        PreTrainedTokenizerFast,
    )

MIB = 1 << 20
CODE = {"trust_remote_code": False}
"""Code that comes with a model is never executed: only architectures of transformers are loaded."""
ATTENTION = Literal["auto", "eager", "sdpa", "flash_attention_2"]


@dataclass(frozen=True, kw_only=True)
class Lora:
    """A low-rank adapter: Hu et al. 2021, https://arxiv.org/abs/2106.09685"""

    rank: Count = 16
    """Rank of the update."""
    alpha: Positive = 32.0
    """The update is scaled by alpha / rank."""
    dropout: Fraction = 0.0
    """Dropout on the adapter's input in supervised stages; never used in reinforcement learning."""
    targets: str | list[str] = "all-linear"
    """Names of the adapted layers, or all-linear."""

    def config(self, *, task_type: str | None = None, modules_to_save: list[str] | None = None) -> "LoraConfig":
        """The configuration of peft."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides by the rank, floats work
            lora_dropout=self.dropout,
            target_modules=self.targets,
            task_type=task_type,
            modules_to_save=modules_to_save,
        )


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """Any causal language model that transformers can load."""

    name: str
    """Name on the Hugging Face hub; used if path is null."""
    path: str | None = None
    """A local folder written by save_pretrained, in place of the hub name."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: float32 on a CPU or if all weights are trained, else bfloat16."""
    quantization: Literal["none", "nf4"] = "none"
    """nf4 stores the base model in 4 bits (with double quantization) and needs an adapter."""
    lora: Lora | None = None
    """The adapter to train; null trains all weights."""
    attention: ATTENTION = "auto"
    """auto lets transformers choose."""
    chat_template: Literal["auto", "never"] = "auto"
    """auto uses the tokenizer's chat template if it has one."""

    def __post_init__(self) -> None:
        if self.quantization != "none" and self.lora is None:
            raise UserError(
                "model.quantization=nf4 freezes the base model: set the adapter to train with model.lora.rank=16"
            )
        if self.attention == "flash_attention_2" and not _installed("flash_attn"):
            raise UserError(
                "model.attention=flash_attention_2 needs the flash-attn package: "
                "pip install 'alignbench[flash]', or use model.attention=auto"
            )
        if self.quantization != "none" and not _installed("bitsandbytes"):
            raise UserError("model.quantization=nf4 needs bitsandbytes: pip install 'alignbench[quant]'")

    @property
    def is_built_in(self) -> bool:
        """Whether the base model is made at run time instead of loaded."""
        return False

    @property
    def source(self) -> str:
        """Path or hub name of the base model."""
        return self.path or self.name

    def require(self) -> None:
        """Raises UserError, without loading, if the model is neither on disk nor on the hub."""
        if self.path is None:
            require_hub(self.name, "model", MODEL_REMEDY)
        elif not (Path(self.path) / "config.json").is_file():
            raise UserError(
                f"model.path={self.path}: no config.json in this folder; use a folder written by save_pretrained"
            )

    def base_hashes(self, device: str) -> dict[str, Any]:
        """What identifies the base model beside its settings: its dtype on this device, and hashes of its local files.

        A hash covers the size and the first and last MiB of a file, so that large weights are not read completely.
        """
        files = sorted(p for p in Path(self.path).iterdir() if p.is_file()) if self.path else []
        return {"dtype": str(self.resolve_dtype(device)), "files": {file.name: _ends(file) for file in files}}

    def load_text(self, texts: Sequence[str]) -> Text:
        """The tokenizer alone, to check prompts before weights are loaded; `texts` as in `load`."""
        from transformers import AutoConfig, AutoTokenizer

        _quiet()
        with _explained(self.source):
            config = AutoConfig.from_pretrained(self.source, **CODE)
            return self._text(config, AutoTokenizer.from_pretrained(self.source, **CODE))

    def load_config(self, texts: Sequence[str]) -> "PreTrainedConfig":
        """The transformers configuration of the model, without weights; `texts` as in `load`."""
        from transformers import AutoConfig

        with _explained(self.source):
            config: PreTrainedConfig = AutoConfig.from_pretrained(self.source)
            return config

    def load(
        self, *, texts: Sequence[str], start: Path | None, device: str, seed: int
    ) -> "tuple[PreTrainedModel | PeftModel, Text]":
        """The language model ready to train, on its device, and its tokenizer.

        Args:
            texts: demonstrations that train the tokenizer of the built-in model; not used otherwise.
            start: a folder written by `save`: all weights, or an adapter, which is loaded twice, once to train and once
                frozen as the reference. None starts from the base model.
            device: cpu or cuda.
            seed: initializes a new adapter.

        Raises:
            UserError: the model cannot be loaded.
        """
        _quiet()
        adapted = start is not None and (start / "adapter_config.json").is_file()
        model: Any
        model, tokenizer = self._base(texts, None if adapted else start, device)
        if self.quantization == "nf4":
            _keep_gradients(model)
        if self.lora is not None:
            model = self._adapt(model, start if adapted else None, seed)
        model.config.use_cache = True
        if not torch.cuda.is_available() or self.quantization == "none":
            model = model.to(device)
        return use_onednn(model), self._text(model.config, tokenizer)

    def load_with_score_head(
        self, *, texts: Sequence[str], start: Path | None, device: str
    ) -> "tuple[PreTrainedModel, Text]":
        """The model with a head for one score in place of the LM head, on its device, and its tokenizer.

        `start` is a folder of all weights; a language model has no such head, so its head is random.
        """
        _quiet()
        model: Any
        model, tokenizer = self._base(texts, start, device, score_head=True)
        if self.quantization == "nf4":
            _keep_gradients(model)
        model = model if self.quantization == "nf4" else model.to(device)
        return use_onednn(model), self._text(model.config, tokenizer)

    def _base(
        self, texts: Sequence[str], start: Path | None, device: str, score_head: bool = False
    ) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

        source = str(start or self.source)
        auto: Any = AutoModelForSequenceClassification if score_head else AutoModelForCausalLM
        options: dict[str, Any] = {"dtype": self.resolve_dtype(device)} | ({"num_labels": 1} if score_head else {})
        if self.attention != "auto":
            options["attn_implementation"] = self.attention
        if self.quantization == "nf4":
            options["quantization_config"] = self._nf4(device)
            options["device_map"] = {"": device}
        with _explained(source):
            return auto.from_pretrained(source, **options, **CODE), AutoTokenizer.from_pretrained(source, **CODE)

    def resolve_dtype(self, device: str) -> torch.dtype:
        """The dtype of the base model on this device (cpu or cuda)."""
        if self.dtype != "auto":
            dtype: torch.dtype = getattr(torch, self.dtype)
            return dtype
        return torch.float32 if device == "cpu" or self.lora is None else torch.bfloat16

    def is_exact(self, device: str) -> bool:
        """Whether two computations of the same values agree up to the floating-point error of float32."""
        return self.resolve_dtype(device) == torch.float32 and self.quantization == "none"

    def _nf4(self, device: str) -> "BitsAndBytesConfig":
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=self.resolve_dtype(device),
        )

    def _adapt(self, model: "PreTrainedModel", start: Path | None, seed: int) -> "PeftModel":
        from peft import PeftModel, get_peft_model

        assert self.lora is not None
        model.requires_grad_(False)
        if start is not None:
            adapted = PeftModel.from_pretrained(model, start, adapter_name=TRAINED, is_trainable=True)
            adapted.load_adapter(start, adapter_name=FROZEN, is_trainable=False)
            adapted.set_adapter(TRAINED)
            return adapted
        with torch.random.fork_rng():
            torch.manual_seed(address(seed, "adapter"))
            return get_peft_model(model, self.lora.config(task_type="CAUSAL_LM"), adapter_name=TRAINED)

    def _text(self, config: "PreTrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> Text:
        context = getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 20
        chat = self.chat_template == "auto" and getattr(tokenizer, "chat_template", None) is not None
        return Text(tokenizer=tokenizer, chat=chat, context=context)


@dataclass(frozen=True, kw_only=True)
class Tiny(Pretrained):
    """The built-in model: a small Llama, and a tokenizer trained on the demonstrations, unless a path is set."""

    name: str = "tiny"
    """The name of the model in the runs."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights."""
    hidden: Count = 128
    """Width of the hidden states."""
    layers: Count = 2
    """Transformer blocks."""
    heads: Count = 4
    """Attention heads."""
    intermediate: Count = 384
    """Width of the feed-forward layer."""
    context: Count = 2048
    """Maximum sequence length in tokens."""
    vocabulary: Count = 374
    """Size of the tokenizer's vocabulary, of which 258 are bytes and special tokens."""
    tokenizer_texts: Count = 3000
    """Number of demonstrations that the tokenizer is trained on."""
    seed: int = field(default=0)
    """Initializes the weights; the same for all runs of a study."""

    @property
    def is_built_in(self) -> bool:
        """True unless a path is set."""
        return self.path is None

    def require(self) -> None:
        """The built-in model needs no files, unless a path is set."""
        if self.path is not None:
            super().require()

    def _base(
        self, texts: Sequence[str], start: Path | None, device: str, score_head: bool = False
    ) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
        from alignbench.models.tiny import tiny_model, with_score_head

        if start is not None or self.path is not None:
            return super()._base(texts, start, device, score_head)
        tokenizer = self._tokenizer(texts)
        model = tiny_model(self._config(tokenizer), self.seed)
        made: Any = with_score_head(model) if score_head else model
        return made.to(self.resolve_dtype(device)), tokenizer

    def load_text(self, texts: Sequence[str]) -> Text:
        """The tokenizer that `load` makes from the same texts."""
        if self.path is not None:
            return super().load_text(texts)
        return Text(tokenizer=self._tokenizer(texts), chat=False, context=self.context)

    def load_config(self, texts: Sequence[str]) -> "PreTrainedConfig":
        """The configuration of the model that `load` makes from the same texts."""
        return self._config(self._tokenizer(texts)) if self.path is None else super().load_config(texts)

    def _config(self, tokenizer: "PreTrainedTokenizerFast") -> "LlamaConfig":
        from alignbench.models.tiny import tiny_config

        return tiny_config(
            len(tokenizer),
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            intermediate=self.intermediate,
            context=self.context,
        )

    def _tokenizer(self, texts: Sequence[str]) -> "PreTrainedTokenizerFast":
        from alignbench.models.tiny import tiny_tokenizer

        return tiny_tokenizer(texts[: self.tokenizer_texts], self.vocabulary)


def save(model: "PreTrainedModel | PeftModel", text: Text, folder: Path) -> None:
    """Write the trained adapter, or all weights, and the tokenizer, in the formats of peft and transformers."""
    if is_adapted(model):
        model.save_pretrained(str(folder), selected_adapters=[TRAINED])
    else:
        model.save_pretrained(str(folder))
    text.tokenizer.save_pretrained(folder)


@contextmanager
def _explained(source: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        what = f"the model cannot be loaded from {source}: {_first_line(error)}"
        raise UserError(f"{what}\nCheck the files. {MODEL_REMEDY}") from error


def _keep_gradients(model: nn.Module) -> None:
    """Prevent 4-bit layers from repacking weights in eval mode on some CPUs, which would block gradients."""
    from bitsandbytes.nn.modules import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False


def _ends(file: Path) -> str:
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(MIB)
        stream.seek(max(size - MIB, 0))
        return hashlib.sha256(b"%d:" % size + first + stream.read(MIB)).hexdigest()


def _installed(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _quiet() -> None:
    """Silence loading: no progress bars, and no warnings about kernels that are not installed."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*MatMul8bitLt.*")
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    getLogger("bitsandbytes").setLevel(ERROR)
