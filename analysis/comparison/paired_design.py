"""Checks whether runs may be paired by seed: if declared, and if the manifests show shared prompts and SFT model."""

from dataclasses import dataclass

from ..study.load import Run, Study
from ..study.metrics import listed


@dataclass(frozen=True)
class PairedDesign:
    """Whether `analysis.pairing=seed` is declared, and the reason why pairing is not possible."""

    declared: bool
    refusal: str | None = None

    @property
    def by_seed(self) -> bool:
        """Whether the methods are compared seed by seed."""
        return self.declared and self.refusal is None


def resolve_pairing(study: Study, declared: str) -> PairedDesign:
    """Resolve the pairing: all runs finished, the same seeds in every method, the same prompt order and SFT model."""
    if declared != "seed" or len(study.methods) < 2:
        return PairedDesign(False)
    return PairedDesign(
        True, _check_seeds(study) or _check_finished(study) or _check_prompt_order(study) or _check_sft_model(study)
    )


def _check_seeds(study: Study) -> str | None:
    own = {method: {run.seed for run in study.runs_of(method)} for method in study.methods}
    shared = set.intersection(*own.values())
    unshared = [f"{method} {listed([str(s) for s in sorted(seeds - shared)])}" for method, seeds in own.items()
             if seeds - shared]  # fmt: skip
    return f"not every seed exists in every method ({'; '.join(unshared)})" if unshared else None


def _check_finished(study: Study) -> str | None:
    unfinished = [run.name for method in study.methods for run in study.runs_of(method) if run.status != "finished"]
    return f"{listed(unfinished)} did not finish" if unfinished else None


def _check_prompt_order(study: Study) -> str | None:
    for seed in study.seeds:
        orders = {run.manifest.get("prompt_order") for run in _of_seed(study, seed)}
        if None in orders:
            return f"the manifests do not record the prompt order of seed {seed}"
        if len(orders) > 1:
            return f"the methods used the prompts of seed {seed} in different orders"
    return None


def _check_sft_model(study: Study) -> str | None:
    for seed in study.seeds:
        starts = {_start(run) for run in _of_seed(study, seed)}
        if None in starts:
            return f"the manifests do not record the SFT model of the runs of seed {seed}"
        if len(starts) > 1:
            return f"the runs of seed {seed} started from different SFT models"
    return None


def _of_seed(study: Study, seed: int) -> list[Run]:
    return [run for method in study.methods for run in study.runs_of(method) if run.seed == seed]


def _start(run: Run) -> str | None:
    """Key of the SFT model, or the base model if SFT is disabled."""
    key = (run.manifest.get("artifacts") or {}).get("sft")
    without = (run.config.get("sft") or {}).get("enabled") is False
    return key or (f"base model {run.model}" if without else None)
