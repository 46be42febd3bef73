"""What a machine offers: device, threads, and how many rows it takes at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from alignbench.core.errors import UserError
from alignbench.core.knobs import Count

REMEDY = ("take fewer rows at once (hardware.microbatch_size, hardware.eval_batch_size), shorter answers "
          "(rl.max_new_tokens), an adapter (model.lora), 4 bits (model.quantization) or a smaller model; the first two "
          "change no result beyond rounding")


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """None of these changes a gradient beyond rounding; they change speed and memory."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    threads: Count | None = None
    """CPU threads; null leaves torch's choice, or OMP_NUM_THREADS."""
    microbatch_size: Count = 32
    """Rollouts in one forward and backward pass."""
    eval_batch_size: Count = 256
    """Prompts answered at once in an evaluation."""
    deterministic: bool = True
    """On a GPU: torch's deterministic algorithms, where it has them. On a CPU runs are equal bit for bit anyway."""

    def resolved(self) -> str:
        """cpu or cuda. Raises UserError when a GPU was asked for and there is none."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("hardware.device=cuda, but torch sees no GPU here: use hardware=cpu, or install torch "
                            "for CUDA")
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def prepare(self) -> None:
        """Set threads and determinism for this process; that call imports the compiler, so it is left out on a CPU."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.deterministic and self.resolved() == "cuda":
            torch.use_deterministic_algorithms(True, warn_only=True)

    def threads_used(self) -> int:
        """CPU threads that torch uses in this process."""
        return torch.get_num_threads()

    @property
    def determinism(self) -> str:
        """bitwise: the same seed gives the same bits; seeded: it gives the same draws, up to rounding."""
        return "bitwise" if self.resolved() == "cpu" else "seeded"


@contextmanager
def within_memory() -> Iterator[None]:
    """While it is open, running out of memory raises a UserError that names the knobs."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_it = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not is_it:
            raise
        first, _, _ = str(error).partition("\n")
        raise UserError(f"out of memory: {first or 'nothing is left'}; {REMEDY}") from error
