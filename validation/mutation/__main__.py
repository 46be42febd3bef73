"""Mutation testing: do the tests notice the classical bugs of RL for language models, and random mutations?

    python -m validation.mutation [--write] [random mutations]       --write writes the table to docs/mutation.md

Each bug is inserted into a copy of the checkout, and the tests closest to it run there until one fails. The libraries
are imported once and the process forks for each bug, so that each bug costs one or two seconds.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from validation.mutation.classical_bugs import BUGS, Bug
from validation.mutation.operators import Mutation, mutated, mutations

ROOT = Path(__file__).parents[2]
COPIED = ("alignbench", "analysis", "benchmarks", "validation", "conf", "sweeps", "tests", "docs")
FILES = ("pyproject.toml", "README.md", "Makefile")
SEED, COUNT, SECONDS = 20261121, 120, 180
CLOSEST_TESTS = {
    "alignbench/equations": ("tests/equations/test_{name}.py", "tests/equations", "tests/algorithms"),
    "alignbench/algorithms": (
        "tests/algorithms/test_{name}.py",
        "tests/algorithms",
        "tests/engine/test_reward_shaping.py",
        "tests/engine/test_family_on_the_loop.py",
    ),
    "analysis/statistics": (
        "tests/analysis/test_analysis_{name}.py",
        "tests/analysis/test_analysis_statistics.py",
        "tests/analysis/test_analysis_paired.py",
        "tests/analysis/test_analysis_crossed.py",
        "tests/analysis/test_analysis_shares.py",
        "tests/analysis/test_analysis_verdict.py",
        "tests/analysis/test_analysis_design.py",
        "tests/analysis/test_analysis_edges.py",
        "tests/validation/test_simulations.py",
    ),
}
HEAD = """\
# Do the tests notice bugs?

Made by `python -m validation.mutation --write{options}`; do not edit. Each bug below was inserted into a copy of the
code, and the tests closest to it ran there until one failed. All {named} classical bugs must be noticed, and nine in
ten of the random mutations.

**{caught_named} of {named}** classical bugs, and **{caught} of {made}** random mutations ({share:.0%}), were noticed.

| classical bug | file | noticed by |
| --- | --- | --- |
"""


@dataclass(frozen=True)
class Outcome:
    """A bug, and the test that noticed it."""

    bug: Bug | Mutation
    test: str | None
    """None when no test failed."""


class Sandbox:
    """A copy of the checkout in which one file at a time is changed."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        for name in COPIED:
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, self.root / name)
        shared = ROOT.parent / "shared"
        if shared.exists():
            (folder / "shared").symlink_to(shared)
        else:
            print(f"{shared} not found: tests on real GSM8K, MATH, SVAMP and UltraFeedback rows cannot notice a bug")

    def run_classical(self, bug: Bug) -> Outcome:
        """Insert a classical bug and run its tests. Raises ValueError when it no longer fits the code."""
        return Outcome(bug, self._noticed_by(bug.file, bug.inserted((ROOT / bug.file).read_text()), bug.tests))

    def run_mutation(self, mutation: Mutation) -> Outcome:
        """Apply a mutation and run the closest tests."""
        source = mutated(ROOT, mutation)
        return Outcome(mutation, self._noticed_by(mutation.file, source, closest_tests(mutation.file)))

    def passes(self, tests: Sequence[str]) -> bool:
        """Whether these tests pass on the unchanged copy; otherwise a failure means nothing."""
        return self._first_failure(tests) is None

    def _noticed_by(self, file: str, source: str, tests: Sequence[str]) -> str | None:
        (self.root / file).write_text(source)
        try:
            return self._first_failure(tests)
        finally:
            shutil.copy(ROOT / file, self.root / file)

    def _first_failure(self, tests: Sequence[str]) -> str | None:
        """The first test that fails, run in a fork; None when all pass."""
        note = self.root / "failed"
        note.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            self._test(tests, note)
        deadline = time.monotonic() + SECONDS
        while True:
            done, code = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return f"{tests[0]} (timed out)"
            time.sleep(0.02)
        if os.waitstatus_to_exitcode(code) == 0:
            return None
        return note.read_text() if note.exists() else f"{tests[0]} (at import)"

    def _test(self, tests: Sequence[str], note: Path) -> None:
        """Run pytest on the copy and exit; called in the fork."""
        import pytest

        class Note:
            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                if report.failed and not note.exists():
                    note.write_text(report.nodeid)

        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        os.chdir(self.root)
        sys.path.insert(0, str(self.root))
        for name in [name for name in sys.modules if name.split(".")[0] in COPIED]:
            del sys.modules[name]
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=[Note()])))


def closest_tests(file: str) -> list[str]:
    """The tests of a file, the closest first."""
    folder = next(folder for folder in CLOSEST_TESTS if file.startswith(folder))
    tests = [test.format(name=Path(file).stem) for test in CLOSEST_TESTS[folder]]
    return [test for test in dict.fromkeys(tests) if (ROOT / test).exists()]


def sample_mutations(count: int) -> list[Mutation]:
    """`count` mutations, sampled with a fixed seed from all possible ones."""
    files = sorted(str(path.relative_to(ROOT)) for folder in CLOSEST_TESTS for path in (ROOT / folder).glob("*.py"))
    every = [mutation for file in files for mutation in mutations(ROOT, file)]
    return sorted(random.Random(SEED).sample(every, min(count, len(every))), key=lambda c: (c.file, c.line))


def import_libraries() -> None:
    """Import the libraries that every fork needs; nothing of alignbench."""
    sys.dont_write_bytecode = True
    import beartype  # noqa: F401
    import hypothesis  # noqa: F401
    import jaxtyping  # noqa: F401
    import peft  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import statsmodels.api  # noqa: F401
    import transformers  # noqa: F401


def table(classical: Sequence[Outcome], random_mutations: Sequence[Outcome], options: str) -> str:
    """The page: every classical bug, and the random mutations that no test noticed."""
    caught = [sum(outcome.test is not None for outcome in outcomes) for outcomes in (classical, random_mutations)]
    head = HEAD.format(
        options=options,
        named=len(classical),
        made=len(random_mutations),
        caught_named=caught[0],
        caught=caught[1],
        share=caught[1] / max(len(random_mutations), 1),
    )
    rows = [f"| {o.bug.name} | {o.bug.file} | {format_test(o.test)} |" for o in classical if isinstance(o.bug, Bug)]
    unnoticed = [
        f"- {o.bug.file}, line {o.bug.line}: {o.bug.description}"
        for o in random_mutations
        if o.test is None and isinstance(o.bug, Mutation)
    ]
    return (
        head + "\n".join([*rows, "", "## Random mutations that were not noticed", "", *(unnoticed or ["None."])]) + "\n"
    )


def format_test(test: str | None) -> str:
    """The name of a test without its folder."""
    return "**no test**" if test is None else f"`{test.rpartition('/')[2].split('[')[0]}`"


def run_all(count: int, bugs: Sequence[Bug]) -> Iterator[Outcome]:
    """Insert every bug, one after the other."""
    import_libraries()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        sandbox = Sandbox(Path(folder))
        for bug in bugs:
            yield sandbox.run_classical(bug)
        for mutation in sample_mutations(count):
            yield sandbox.run_mutation(mutation)


def main(arguments: Sequence[str]) -> int:
    """Run all. Returns 1 when a classical bug, or more than a tenth of the random mutations, went unnoticed."""
    count = next((int(argument) for argument in arguments if argument.isdigit()), COUNT)
    outcomes = []
    for outcome in run_all(count, BUGS):
        outcomes.append(outcome)
        bug = outcome.bug
        name = bug.name if isinstance(bug, Bug) else f"{bug.file}:{bug.line} {bug.description}"
        sys.stdout.write(f"{name}: {format_test(outcome.test)}\n")
        sys.stdout.flush()
    classical, random_mutations = outcomes[: len(BUGS)], outcomes[len(BUGS) :]
    if "--write" in arguments:
        (ROOT / "docs" / "mutation.md").write_text(
            table(classical, random_mutations, "" if count == COUNT else f" {count}")
        )
    unnoticed = sum(outcome.test is None for outcome in random_mutations)
    return int(any(outcome.test is None for outcome in classical) or unnoticed > len(random_mutations) / 10)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
