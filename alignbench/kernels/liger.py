"""Liger's Triton kernels for a model's norms, rotary embedding and MLP, in place of a kernel for each operation."""

from importlib.util import find_spec
from typing import Any

from alignbench.core.adapters import is_adapted
from alignbench.core.errors import UserError

OFF = "or set hardware.liger=false"


def require(device: str) -> None:
    """Raise UserError where these kernels cannot run."""
    if find_spec("liger_kernel") is None:
        raise UserError(f"hardware.liger=true needs the liger-kernel package: pip install 'alignbench[liger]', {OFF}")
    if device == "cpu":
        raise UserError(
            "hardware.liger=true, but its kernels are for a GPU and this run is on the CPU: set "
            f"hardware.device=cuda where there is a GPU, {OFF}"
        )


def check_architecture(architecture: str) -> None:
    """Raise UserError for a model_type, as transformers names it, that Liger has no kernels for."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if architecture not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise UserError(
            f"hardware.liger=true, but Liger has no kernels for a model of type {architecture}, only for "
            f"{', '.join(sorted(MODEL_TYPE_TO_APPLY_LIGER_FN))}: take one of these, {OFF}"
        )


def use_liger(model: Any) -> None:
    """Hsu et al. 2024, https://arxiv.org/abs/2410.10989, without its losses: log-probabilities are our own.

    Names and weights stay, and a copy has the kernels, too. Rotary embedding is exchanged for all models of that
    architecture in this process, beyond rounding to no effect.
    """
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    inner = model.get_base_model() if is_adapted(model) else model
    check_architecture(inner.config.model_type)
    _apply_liger_kernel_to_instance(inner, cross_entropy=False, fused_linear_cross_entropy=False)
