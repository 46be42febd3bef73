"""Liger's fused Triton kernels for the norms, rotary embedding and MLP of a model."""

from importlib.util import find_spec
from typing import Any

from torch import nn

from alignbench.core.adapters import is_adapted
from alignbench.core.errors import UserError

OFF = "or set hardware.liger=false"


def require(device: str) -> None:
    """Raises UserError if these kernels cannot run on `device` (cpu or cuda)."""
    if find_spec("liger_kernel") is None:
        raise UserError(f"hardware.liger=true needs the liger-kernel package: pip install 'alignbench[liger]', {OFF}")
    if device == "cpu":
        raise UserError(
            "hardware.liger=true needs a GPU, and this run is on the CPU: set hardware.device=cuda on a machine with a "
            f"GPU, {OFF}"
        )


def check_architecture(architecture: str) -> None:
    """Raises UserError for a `model_type` of transformers that Liger has no kernels for."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if architecture not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise UserError(
            f"hardware.liger=true, but Liger has no kernels for a model of type {architecture}, only for "
            f"{', '.join(sorted(MODEL_TYPE_TO_APPLY_LIGER_FN))}: use one of these, {OFF}"
        )


def use_liger(model: nn.Module) -> None:
    """Replace norms, MLP and rotary embedding by Liger's kernels, in place; its loss kernels are not used.

    Hsu et al. 2024, https://arxiv.org/abs/2410.10989. Parameter names and weights do not change, and a copy of the
    model keeps the kernels. The rotary embedding is replaced for all models of the architecture in this process.
    Results change by floating-point error only.
    """
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    adapted: Any = model
    inner = adapted.get_base_model() if is_adapted(model) else adapted
    check_architecture(inner.config.model_type)
    _apply_liger_kernel_to_instance(inner, cross_entropy=False, fused_linear_cross_entropy=False)
