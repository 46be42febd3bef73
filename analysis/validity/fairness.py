"""Fairness checks: shared models, data, rewards, configs, budgets, seeds, software and hardware of the runs."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from alignbench.core.comparability import Difference, differences

from ..study.load import Run, Study
from ..study.metrics import counted, listed, significant
from .budget import TOKEN_TOLERANCE, LedgerRow, compute_budget
from .checks import Check, Outcome, check_equal, format_runs, manifest_value, shorten
from .duplicate_runs import check_methods_applied, check_seeds_applied, find_duplicate_runs


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """Checks, config differences (of `keys` compared) and budgets; a failed check makes the study not comparable."""

    checks: tuple[Check, ...]
    differences: tuple[Difference, ...]
    keys: int
    ledger: tuple[LedgerRow, ...]

    @property
    def violations(self) -> list[str]:
        """The failed checks as text."""
        return [f"{check.name}: {check.evidence}" for check in self.checks if check.outcome == "failed"]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.violations

    def count(self, outcome: Outcome) -> int:
        """Number of checks with this outcome."""
        return sum(check.outcome == outcome for check in self.checks)


def check_fairness(study: Study, allow: tuple[str, ...], price_per_hour: float | None = None) -> Fairness:
    """Check the conditions of all finished runs; `allow`: config keys, ledger names or check names that may differ."""
    runs = [run for run in study.runs if run.counted and run.status == "finished"]
    duplicates = find_duplicate_runs(runs)
    differing, keys = differences([(run.method, run.config) for run in runs], allow)
    checks = [
        *_same_shared_models(runs),
        _same_data(runs),
        _same_prompt_order(runs),
        check_equal(runs, "Same reward function", _reward, allow="reward"),
        _same_config(differing, runs),
        _same_amount(runs, "completions", "Same number of responses"),
        _same_amount(runs, "optimizer_steps", "Same number of optimizer steps"),
        _similar_tokens(runs),
        _same_seeds(study),
        check_seeds_applied(runs, duplicates),
        check_methods_applied(study.methods, duplicates),
        _same_machine(runs),
        _same_software(runs, study.methods),
        _clean_tree(runs),
    ]
    permitted = tuple(_permitted(check, allow) for check in checks)
    return Fairness(checks=permitted, differences=differing, keys=keys, ledger=compute_budget(study, price_per_hour))


def _permitted(check: Check, allow: tuple[str, ...]) -> Check:
    if check.outcome == "failed" and check.allow and any(fnmatch(check.allow, word) for word in allow):
        return Check(check.name, "warning", f"{check.evidence} (allowed by analysis.allow)", check.allow)
    return check


def _reward(run: Run) -> str | None:
    name, sha = manifest_value(run, "reward", "name"), manifest_value(run, "reward", "sha256")
    return f"{name}, sha256 {shorten(sha)}" if sha else None


def _same_shared_models(runs: list[Run]) -> list[Check]:
    """The shared models: the SFT model, and the reward model if a run uses one."""
    has_reward_model = any(manifest_value(run, "artifacts", "reward_model") for run in runs)
    names = {"sft": "Same SFT start", **({"reward_model": "Same frozen reward model"} if has_reward_model else {})}
    return [check_equal(runs, label, _artifact(name), allow=name) for name, label in names.items()]


def _artifact(name: str) -> Callable[[Run], Any]:
    return lambda run: manifest_value(run, "artifacts", name)


def _same_data(runs: list[Run]) -> Check:
    return check_equal(runs, "Same training, validation and test data", _data_hashes, allow="data")


def _data_hashes(run: Run) -> str:
    parts = {part: manifest_value(run, "data", part, "sha256") for part in ("train", "validation", "test")}
    return ", ".join(f"{part} {str(sha)[:8]}" for part, sha in parts.items() if sha)


def _same_prompt_order(runs: list[Run]) -> Check:
    name = "Same training prompts in the same order for each seed"
    by_seed: dict[int, set[str]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, set()).add(str(run.manifest.get("prompt_order") or ""))
    if not by_seed or any("" in orders for orders in by_seed.values()):
        return Check(name, "unknown", "not every run recorded its prompt order", "prompt_order")
    differing = [str(seed) for seed, orders in by_seed.items() if len(orders) > 1]
    if differing:
        return Check(name, "failed", f"the order differs between methods for seed {listed(differing)}", "prompt_order")
    return Check(name, "ok", f"one order for each of {counted(len(by_seed), 'seed')}", "prompt_order")


def _same_config(differing: tuple[Difference, ...], runs: list[Run]) -> Check:
    name = "Same configuration apart from the method"
    if not runs or any(not run.config for run in runs):
        return Check(name, "unknown", "not every run has a config.yaml")
    not_allowed = [difference.key for difference in differing if not difference.allowed]
    if not_allowed:
        return Check(name, "failed", f"{listed(not_allowed[:6])} differ and are not in analysis.allow")
    return Check(name, "ok", f"{counted(len(differing), 'key')} differ and are allowed to; all others are equal")


def _same_amount(runs: list[Run], quantity: str, name: str) -> Check:
    check = check_equal(runs, name, lambda run: run.ledger.get(quantity), allow=f"ledger.{quantity}")
    if check.outcome == "ok":
        return Check(name, "ok", f"{runs[0].ledger[quantity]:,.0f} in every run", check.allow)
    return check


def _similar_tokens(runs: list[Run]) -> Check:
    name = "Same number of generated tokens"
    tokens = [run.ledger.get("tokens") for run in runs]
    known = [number for number in tokens if number]
    if not known or len(known) < len(tokens):
        return Check(name, "unknown", "not every run recorded its tokens")
    spread = max(known) / min(known) - 1
    text = f"{significant(min(known))} to {significant(max(known))} per run, a spread of {spread:.1%}"
    limit = f"(limit {TOKEN_TOLERANCE:.0%})"
    return Check(name, "ok" if spread <= TOKEN_TOLERANCE else "warning", f"{text} {limit}")


def _same_seeds(study: Study) -> Check:
    name = "Same seeds in every method"
    seeds = {method: {run.seed for run in study.runs_of(method)} for method in study.methods}
    common, union = set.intersection(*seeds.values()), set.union(*seeds.values())
    if common == union:
        return Check(name, "ok", f"seeds {listed([str(seed) for seed in study.seeds])}")
    lacks = [
        f"{method} lacks {listed([str(s) for s in sorted(union - own)])}"
        for method, own in seeds.items()
        if union - own
    ]
    return Check(name, "warning", "; ".join(lacks))


def _same_machine(runs: list[Run]) -> Check:
    check = check_equal(runs, "Same kind of device", lambda run: manifest_value(run, "device"), otherwise="warning")
    if check.outcome == "warning":
        return Check(check.name, "warning", f"{check.evidence}; times and memory are not comparable", check.allow)
    return check


def _versions(run: Run) -> str:
    versions = run.manifest.get("versions") or {}
    parts = [f"{name} {versions[name]}" for name in ("alignbench", "torch", "transformers") if name in versions]
    commit = manifest_value(run, "git", "commit")
    return ", ".join([*parts, *([f"commit {str(commit)[:8]}"] if commit else [])])


def _same_software(runs: list[Run], methods: list[str]) -> Check:
    """Different software is a warning; it fails if no two methods share a version, which confounds the comparison."""
    check = check_equal(runs, "Same software", _versions, allow="versions", otherwise="warning")
    used = [{_versions(run) for run in runs if run.method == method} for method in methods]
    if check.outcome == "warning" and len(used) > 1 and sum(map(len, used)) == len(set.union(*used)):
        return Check(check.name, "failed", f"every method ran on different software: {check.evidence}", check.allow)
    return check


def _clean_tree(runs: list[Run]) -> Check:
    name = "Clean working tree"
    if not runs or any(not run.manifest.get("git") for run in runs):
        return Check(name, "unknown", "not every run recorded its commit (installed without git)")
    dirty = [run for run in runs if run.manifest["git"].get("dirty")]
    return Check(
        name,
        "warning" if dirty else "ok",
        f"{format_runs(dirty)} ran with uncommitted changes" if dirty else f"all {len(runs)} runs",
    )
