"""May runs be compared seed by seed? Only if declared before, and where the manifests show what the seeds shared."""

from dataclasses import dataclass

from ..study.load import Run, Study
from ..study.metrics import listed


@dataclass(frozen=True)
class PairedDesign:
    """Whether `analysis.pairing=seed` was declared, and why it is refused all the same."""

    declared: bool
    refusal: str | None = None

    @property
    def by_seed(self) -> bool:
        """Seeds are compared one by one."""
        return self.declared and self.refusal is None


def resolve_pairing(study: Study, declared: str) -> PairedDesign:
    """Pairs need the same seeds in every method, each with the same prompt order and the same start, all finished."""
    if declared != "seed" or len(study.methods) < 2:
        return PairedDesign(False)
    return PairedDesign(True, _lacking_seeds(study) or _unfinished(study) or _other_order(study) or _other_start(study))


def _lacking_seeds(study: Study) -> str | None:
    own = {method: {run.seed for run in study.runs_of(method)} for method in study.methods}
    everywhere = set.intersection(*own.values())
    alone = [f"{method} {listed([str(s) for s in sorted(seeds - everywhere)])}" for method, seeds in own.items()
             if seeds - everywhere]  # fmt: skip
    return f"not every seed has a partner in every method ({'; '.join(alone)})" if alone else None


def _unfinished(study: Study) -> str | None:
    open_ = [run.name for method in study.methods for run in study.runs_of(method) if run.status != "finished"]
    return f"{listed(open_)} did not finish" if open_ else None


def _other_order(study: Study) -> str | None:
    for seed in study.seeds:
        orders = {run.manifest.get("prompt_order") for run in _of_seed(study, seed)}
        if None in orders:
            return f"the manifests do not show the prompt order of seed {seed}"
        if len(orders) > 1:
            return f"the methods met the prompts of seed {seed} in different orders"
    return None


def _other_start(study: Study) -> str | None:
    for seed in study.seeds:
        starts = {_start(run) for run in _of_seed(study, seed)}
        if None in starts:
            return f"the manifests do not show what the runs of seed {seed} started from"
        if len(starts) > 1:
            return f"the runs of seed {seed} started from different SFT models"
    return None


def _of_seed(study: Study, seed: int) -> list[Run]:
    return [run for method in study.methods for run in study.runs_of(method) if run.seed == seed]


def _start(run: Run) -> str | None:
    """The key of the SFT model; the base model itself where SFT was switched off."""
    key = (run.manifest.get("artifacts") or {}).get("sft")
    without = (run.config.get("sft") or {}).get("enabled") is False
    return key or (f"base model {run.model}" if without else None)
