"""Was the comparison fair: checks with evidence, the budget each method spent, and how the configs differ."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from alignbench.core.comparability import Difference, differences

from ..study.load import Run, Study
from ..study.metrics import counted, listed, significant
from .budget import TOKENS_MAY_DIFFER, LedgerRow, budget
from .checks import Check, Outcome, at, same, short, who
from .duplicate_runs import check_methods_applied, check_seeds_applied, find_duplicate_runs


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """All checks together; a failed check that nobody allowed makes the study not comparable."""

    checks: tuple[Check, ...]
    differences: tuple[Difference, ...]
    keys: int
    ledger: tuple[LedgerRow, ...]

    @property
    def violations(self) -> list[str]:
        """The failed checks, in words."""
        return [f"{check.name}: {check.evidence}" for check in self.checks if check.outcome == "failed"]

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return not self.violations

    def count(self, outcome: Outcome) -> int:
        """How many checks ended so."""
        return sum(check.outcome == outcome for check in self.checks)


def check_fairness(study: Study, allow: tuple[str, ...], price_per_hour: float | None = None) -> Fairness:
    """Compare the conditions of all finished runs; `allow` holds config keys, ledger names or check names."""
    runs = [run for run in study.runs if run.counted and run.status == "finished"]
    twins = find_duplicate_runs(runs)
    differing, keys = differences([(run.method, run.config) for run in runs], allow)
    checks = [
        *_same_foundations(runs),
        _same_data(runs),
        _same_prompt_order(runs),
        same(runs, "Same reward function", _reward, allow="reward"),
        _same_config(differing, runs),
        _same_amount(runs, "completions", "Same number of responses"),
        _same_amount(runs, "optimizer_steps", "Same number of optimizer steps"),
        _similar_tokens(runs),
        _same_seeds(study),
        check_seeds_applied(runs, twins),
        check_methods_applied(study.methods, twins),
        _same_machine(runs),
        _same_software(runs, study.methods),
        _clean_tree(runs),
    ]
    permitted = tuple(_permitted(check, allow) for check in checks)
    return Fairness(checks=permitted, differences=differing, keys=keys, ledger=budget(study, price_per_hour))


def _permitted(check: Check, allow: tuple[str, ...]) -> Check:
    if check.outcome == "failed" and check.allow and any(fnmatch(check.allow, word) for word in allow):
        return Check(check.name, "warning", f"{check.evidence} (allowed by analysis.allow)", check.allow)
    return check


def _reward(run: Run) -> str | None:
    name, sha = at(run, "reward", "name"), at(run, "reward", "sha256")
    return f"{name}, sha256 {short(sha)}" if sha else None


def _same_foundations(runs: list[Run]) -> list[Check]:
    """The models made once for all: the SFT model, and the reward model where a run was scored by one."""
    judged = any(at(run, "artifacts", "reward_model") for run in runs)
    names = {"sft": "Same SFT start", **({"reward_model": "Same frozen reward model"} if judged else {})}
    return [same(runs, words, _artifact(name), allow=name) for name, words in names.items()]


def _artifact(name: str) -> Callable[[Run], Any]:
    return lambda run: at(run, "artifacts", name)


def _same_data(runs: list[Run]) -> Check:
    return same(runs, "Same training, validation and test data", _data_hashes, allow="data")


def _data_hashes(run: Run) -> str:
    parts = {part: at(run, "data", part, "sha256") for part in ("train", "validation", "test")}
    return ", ".join(f"{part} {str(sha)[:8]}" for part, sha in parts.items() if sha)


def _same_prompt_order(runs: list[Run]) -> Check:
    name = "Same training prompts in the same order for each seed"
    by_seed: dict[int, set[str]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, set()).add(str(run.manifest.get("prompt_order") or ""))
    if not by_seed or any("" in orders for orders in by_seed.values()):
        return Check(name, "unknown", "not every run wrote its prompt order", "prompt_order")
    mixed = [str(seed) for seed, orders in by_seed.items() if len(orders) > 1]
    if mixed:
        return Check(name, "failed", f"the order differs between methods for seed {listed(mixed)}", "prompt_order")
    return Check(name, "ok", f"one order for each of {counted(len(by_seed), 'seed')}", "prompt_order")


def _same_config(differing: tuple[Difference, ...], runs: list[Run]) -> Check:
    name = "Same configuration apart from the method"
    if not runs or any(not run.config for run in runs):
        return Check(name, "unknown", "not every run has a config.yaml")
    refused = [difference.key for difference in differing if not difference.allowed]
    if refused:
        return Check(name, "failed", f"{listed(refused[:6])} differ and are not in analysis.allow")
    return Check(name, "ok", f"{counted(len(differing), 'key')} may differ and do; all others are equal")


def _same_amount(runs: list[Run], quantity: str, name: str) -> Check:
    check = same(runs, name, lambda run: run.ledger.get(quantity), allow=f"ledger.{quantity}")
    if check.outcome == "ok":
        return Check(name, "ok", f"{runs[0].ledger[quantity]:,.0f} in every run", check.allow)
    return check


def _similar_tokens(runs: list[Run]) -> Check:
    name = "Same number of generated tokens"
    tokens = [run.ledger.get("tokens") for run in runs]
    known = [number for number in tokens if number]
    if not known or len(known) < len(tokens):
        return Check(name, "unknown", "not every run counted its tokens")
    spread = max(known) / min(known) - 1
    text = f"{significant(min(known))} to {significant(max(known))} per run, a spread of {spread:.1%}"
    limit = f"(limit {TOKENS_MAY_DIFFER:.0%})"
    return Check(name, "ok" if spread <= TOKENS_MAY_DIFFER else "warning", f"{text} {limit}")


def _same_seeds(study: Study) -> Check:
    name = "Same seeds in every method"
    seeds = {method: {run.seed for run in study.runs_of(method)} for method in study.methods}
    everywhere, somewhere = set.intersection(*seeds.values()), set.union(*seeds.values())
    if everywhere == somewhere:
        return Check(name, "ok", f"seeds {listed([str(seed) for seed in study.seeds])}")
    lacks = [
        f"{method} lacks {listed([str(s) for s in sorted(somewhere - own)])}"
        for method, own in seeds.items()
        if somewhere - own
    ]
    return Check(name, "warning", "; ".join(lacks))


def _same_machine(runs: list[Run]) -> Check:
    check = same(runs, "Same kind of device", lambda run: at(run, "device"), otherwise="warning")
    if check.outcome == "warning":
        return Check(check.name, "warning", f"{check.evidence}; times and memory do not compare", check.allow)
    return check


def _versions(run: Run) -> str:
    versions = run.manifest.get("versions") or {}
    words = [f"{name} {versions[name]}" for name in ("alignbench", "torch", "transformers") if name in versions]
    commit = at(run, "git", "commit")
    return ", ".join([*words, *([f"commit {str(commit)[:8]}"] if commit else [])])


def _same_software(runs: list[Run], methods: list[str]) -> Check:
    """Different software is a warning, and fails when no two methods share a version: then it explains any result."""
    check = same(runs, "Same software", _versions, allow="versions", otherwise="warning")
    used = [{_versions(run) for run in runs if run.method == method} for method in methods]
    if check.outcome == "warning" and len(used) > 1 and sum(map(len, used)) == len(set.union(*used)):
        return Check(check.name, "failed", f"every method ran on software of its own: {check.evidence}", check.allow)
    return check


def _clean_tree(runs: list[Run]) -> Check:
    name = "Clean working tree"
    if not runs or any(not run.manifest.get("git") for run in runs):
        return Check(name, "unknown", "not every run knows its commit (installed without git)")
    dirty = [run for run in runs if run.manifest["git"].get("dirty")]
    return Check(
        name,
        "warning" if dirty else "ok",
        f"{who(dirty)} ran with uncommitted changes" if dirty else f"all {len(runs)} runs",
    )
