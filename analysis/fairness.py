"""Was the comparison fair: checks with evidence, the budget each method spent, and how the configs differ."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from alignbench.core import record
from alignbench.core.conditions import Difference, differences

from .budget import TOKENS_MAY_DIFFER, LedgerRow, budget
from .load import Run, Study
from .metrics import counted, listed, significant

FEW_NUMBERS = 3
"""Final numbers that two runs may share by chance."""
Outcome = Literal["ok", "warning", "failed", "unknown"]


@dataclass(frozen=True)
class Check:
    """One question about the conditions; `allow` is the name that permits it to fail."""

    name: str
    outcome: Outcome
    evidence: str
    allow: str = ""


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


def judge_fairness(study: Study, allow: tuple[str, ...], price_per_hour: float | None = None) -> Fairness:
    """Compare the conditions of all finished runs; `allow` holds config keys, ledger names or check names."""
    runs = [run for run in study.runs if run.counted and run.status == "finished"]
    twins = _twins(runs)
    differing, keys = differences([(run.arm, run.config) for run in runs], allow)
    checks = [
        *_same_foundations(runs),
        _same_data(runs),
        _same_prompt_order(runs),
        _same(runs, "Same reward function", _reward, allow="reward"),
        _same_config(differing, runs),
        _same_amount(runs, "completions", "Same number of responses"),
        _same_amount(runs, "optimizer_steps", "Same number of optimizer steps"),
        _similar_tokens(runs),
        _same_seeds(study),
        _seeds_applied(runs, twins),
        _methods_applied(study.arms, twins),
        _same_machine(runs),
        _same_software(runs, study.arms),
        _clean_tree(runs),
    ]
    permitted = tuple(_permitted(check, allow) for check in checks)
    return Fairness(checks=permitted, differences=differing, keys=keys, ledger=budget(study, price_per_hour))


def _permitted(check: Check, allow: tuple[str, ...]) -> Check:
    if check.outcome == "failed" and check.allow and any(fnmatch(check.allow, word) for word in allow):
        return Check(check.name, "warning", f"{check.evidence} (allowed by analysis.allow)", check.allow)
    return check


def _at(run: Run, *path: str) -> Any:
    here: Any = run.manifest
    for name in path:
        here = (here or {}).get(name)
    return here


def _reward(run: Run) -> str | None:
    name, sha = _at(run, "reward", "name"), _at(run, "reward", "sha256")
    return f"{name}, sha256 {_short(sha)}" if sha else None


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:6]}\N{HORIZONTAL ELLIPSIS}{text[-4:]}" if len(text) > 24 else text


def _by_value(runs: Iterable[Run], value: Callable[[Run], Any]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(value(run)), []).append(run)
    return groups


def _who(runs: list[Run]) -> str:
    """Names few runs, counts many."""
    return listed([run.name for run in runs]) if len(runs) <= 3 else f"{len(runs)} runs"


def _same(
    runs: list[Run], name: str, value: Callable[[Run], Any], allow: str = "", otherwise: Outcome = "failed"
) -> Check:
    """Every run has the same value; unknown when a run did not write it down."""
    silent = [run for run in runs if value(run) in (None, {}, "")]
    if silent or not runs:
        why = f"not written down by {_who(silent)}" if silent else "no finished run"
        return Check(name, "unknown", why, allow)
    groups = _by_value(runs, value)
    if len(groups) == 1:
        return Check(name, "ok", f"{next(iter(groups))} in all {counted(len(runs), 'run')}", allow)
    return Check(name, otherwise, "; ".join(f"{text} in {_who(group)}" for text, group in groups.items()), allow)


def _same_foundations(runs: list[Run]) -> list[Check]:
    """The models made once for all: the SFT model, and the reward model where a run was scored by one."""
    judged = any(_at(run, "artifacts", "reward_model") for run in runs)
    names = {"sft": "Same SFT start", **({"reward_model": "Same frozen reward model"} if judged else {})}
    return [_same(runs, words, _artifact(name), allow=name) for name, words in names.items()]


def _artifact(name: str) -> Callable[[Run], Any]:
    return lambda run: _at(run, "artifacts", name)


def _same_data(runs: list[Run]) -> Check:
    return _same(runs, "Same training, validation and test data", _data_hashes, allow="data")


def _data_hashes(run: Run) -> str:
    parts = {part: _at(run, "data", part, "sha256") for part in ("train", "validation", "test")}
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
    check = _same(runs, name, lambda run: run.ledger.get(quantity), allow=f"ledger.{quantity}")
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
    seeds = {arm: {run.seed for run in study.of(arm)} for arm in study.arms}
    everywhere, somewhere = set.intersection(*seeds.values()), set.union(*seeds.values())
    if everywhere == somewhere:
        return Check(name, "ok", f"seeds {listed([str(seed) for seed in study.seeds])}")
    lacks = [
        f"{arm} lacks {listed([str(s) for s in sorted(somewhere - own)])}"
        for arm, own in seeds.items()
        if somewhere - own
    ]
    return Check(name, "warning", "; ".join(lacks))


def _twins(runs: list[Run]) -> list[tuple[str, list[Run]]]:
    """Runs that measured the very same numbers, and which numbers; they did the same thing."""
    found: list[tuple[str, list[Run]]] = []
    for what, mark in (("curves", _curves_of), ("final numbers", _finals_of)):
        groups: dict[object, list[Run]] = {}
        for run in runs:
            groups.setdefault(mark(run) or id(run), []).append(run)
        known = [group for _, group in found]
        found += [(what, group) for group in groups.values() if len(group) > 1 and group not in known]
    return found


def _curves_of(run: Run) -> str:
    """All curves in a few characters, machine costs left out."""
    digest, drawn = sha256(), [name for name in run.curves if not name.startswith((record.COST_PREFIX, "budget/"))]
    for name in sorted(drawn):
        curve = run.curves[name]
        digest.update(name.encode() + np.array(curve.steps).tobytes() + np.array(curve.values).tobytes())
    return digest.hexdigest() if drawn else ""


def _finals_of(run: Run) -> str:
    """The numbers measured at the end; they prove nothing of a run that did not move from its start."""
    ends = {name: value for name, value in run.metrics.items() if name.startswith("final/")}
    own = {name: value for name, value in ends.items() if not name.startswith("final/start_")}
    moved = any(value != ends.get(f"final/start_{name.removeprefix('final/')}", value) for name, value in own.items())
    if run.curves and (len(own) < FEW_NUMBERS or not moved):
        return ""
    return repr(sorted(own.items())) if own else ""


def _seeds_applied(runs: list[Run], twins: list[tuple[str, list[Run]]]) -> Check:
    name = "Seeds make a difference"
    same = [(what, group) for what, group in twins if len({run.arm for run in group}) < len(group)]
    if same:
        return Check(name, "failed", f"{_told(same)}: the seed is probably not applied", "identical")
    return Check(name, "ok" if len(runs) > 1 else "unknown", "no two runs of a method have identical numbers")


def _methods_applied(arms: list[str], twins: list[tuple[str, list[Run]]]) -> Check:
    name = "Methods make a difference"
    same = [(what, group) for what, group in twins if len({run.arm for run in group}) > 1]
    if same:
        return Check(name, "failed", f"{_told(same)}: the method is probably not applied", "identical")
    several = len(arms) > 1
    return Check(
        name, "ok" if several else "unknown", "no two methods have identical numbers" if several else "only one method"
    )


def _told(twins: list[tuple[str, list[Run]]]) -> str:
    kinds = dict.fromkeys(what for what, _ in twins)
    return "; ".join(f"identical {kind} in {listed([_who(group) for what, group in twins if what == kind])}"
                     for kind in kinds)  # fmt: skip


def _same_machine(runs: list[Run]) -> Check:
    check = _same(runs, "Same kind of device", lambda run: _at(run, "device"), otherwise="warning")
    if check.outcome == "warning":
        return Check(check.name, "warning", f"{check.evidence}; times and memory do not compare", check.allow)
    return check


def _versions(run: Run) -> str:
    versions = run.manifest.get("versions") or {}
    words = [f"{name} {versions[name]}" for name in ("alignbench", "torch", "transformers") if name in versions]
    commit = _at(run, "git", "commit")
    return ", ".join([*words, *([f"commit {str(commit)[:8]}"] if commit else [])])


def _same_software(runs: list[Run], arms: list[str]) -> Check:
    """Different software is a warning, and fails when no two methods share a version: then it explains any result."""
    check = _same(runs, "Same software", _versions, allow="versions", otherwise="warning")
    used = [{_versions(run) for run in runs if run.arm == arm} for arm in arms]
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
        f"{_who(dirty)} ran with uncommitted changes" if dirty else f"all {len(runs)} runs",
    )
