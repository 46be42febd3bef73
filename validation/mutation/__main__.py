"""Do the tests notice bugs? The classical ones by name, and small changes made at random, each in a copy of the code.

    python -m validation.mutation [--write] [how many at random]       with --write the table goes to docs/mutation.md

Each bug is put into a copy of the checkout, and the tests nearest to it run there until one fails. A process imports
the libraries once and forks for each bug, so that one takes a second or two.
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
from validation.mutation.operators import Mutation, changed, changes

ROOT = Path(__file__).parents[2]
COPIED = ("alignbench", "analysis", "benchmarks", "validation", "conf", "sweeps", "tests", "docs")
FILES = ("pyproject.toml", "README.md", "Makefile")
SEED, COUNT, SECONDS = 20261121, 120, 180
NEAREST = {
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

Made by `python -m validation.mutation --write{given}`; do not edit. Each bug below was put into a copy of the code, and
the tests nearest to it ran there until one failed. All {named} classical bugs must be noticed, and nine in ten of those
made at random.

**{caught_named} of {named}** classical bugs, and **{caught} of {made}** made at random ({share:.0%}), were noticed.

| classical bug | where | noticed by |
| --- | --- | --- |
"""


@dataclass(frozen=True)
class Found:
    """What became of a bug: the test that noticed it, or None."""

    what: Bug | Mutation
    test: str | None


class Laboratory:
    """A copy of the checkout in which one file at a time is changed."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        for name in COPIED:
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, self.root / name)
        for shared in (ROOT.parent / "shared",):
            if shared.exists():
                (folder / "shared").symlink_to(shared)

    def named(self, bug: Bug) -> Found:
        """Put a classical bug in and see. Raises ValueError when it does not fit the code any more."""
        source = (ROOT / bug.file).read_text()
        if source.count(bug.old) != 1:
            raise ValueError(f"{bug.name}: {bug.old!r} stands {source.count(bug.old)} times in {bug.file}, not once")
        return Found(bug, self._noticed(bug.file, source.replace(bug.old, bug.new), bug.tests))

    def random(self, change: Mutation) -> Found:
        """Put a small change in and see."""
        return Found(change, self._noticed(change.file, changed(ROOT, change), nearest(change.file)))

    def healthy(self, tests: Sequence[str]) -> bool:
        """Whether these tests pass where nothing was changed: else noticing means nothing."""
        return self._failing(tests) is None

    def _noticed(self, file: str, source: str, tests: Sequence[str]) -> str | None:
        (self.root / file).write_text(source)
        try:
            return self._failing(tests)
        finally:
            shutil.copy(ROOT / file, self.root / file)

    def _failing(self, tests: Sequence[str]) -> str | None:
        """The first of the tests that fails, run in a fork; None when all pass."""
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
                return f"{tests[0]} (never ended)"
            time.sleep(0.02)
        if os.waitstatus_to_exitcode(code) == 0:
            return None
        return note.read_text() if note.exists() else f"{tests[0]} (at import)"

    def _test(self, tests: Sequence[str], note: Path) -> None:
        """In the fork: run pytest on the copy, and never come back."""
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


def nearest(file: str) -> list[str]:
    """The tests that stand nearest to a file, the nearest first."""
    folder = next(folder for folder in NEAREST if file.startswith(folder))
    tests = [test.format(name=Path(file).stem) for test in NEAREST[folder]]
    return [test for test in dict.fromkeys(tests) if (ROOT / test).exists()]


def drawn(count: int) -> list[Mutation]:
    """That many changes, drawn with a seed from all that can be made."""
    files = sorted(str(path.relative_to(ROOT)) for folder in NEAREST for path in (ROOT / folder).glob("*.py"))
    every = [change for file in files for change in changes(ROOT, file)]
    return sorted(random.Random(SEED).sample(every, min(count, len(every))), key=lambda c: (c.file, c.line))


def warm() -> None:
    """Import once what every fork needs; nothing of ours."""
    sys.dont_write_bytecode = True
    import beartype  # noqa: F401
    import hypothesis  # noqa: F401
    import jaxtyping  # noqa: F401
    import peft  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import statsmodels.api  # noqa: F401
    import transformers  # noqa: F401


def table(named: Sequence[Found], made: Sequence[Found], given: str) -> str:
    """Every classical bug, and of the others those that nobody noticed."""
    caught = [sum(found.test is not None for found in some) for some in (named, made)]
    head = HEAD.format(
        given=given,
        named=len(named),
        made=len(made),
        caught_named=caught[0],
        caught=caught[1],
        share=caught[1] / max(len(made), 1),
    )
    rows = [f"| {f.what.name} | {f.what.file} | {told(f.test)} |" for f in named if isinstance(f.what, Bug)]
    left = [
        f"- {f.what.file}, line {f.what.line}: {f.what.what}"
        for f in made
        if f.test is None and isinstance(f.what, Mutation)
    ]
    return head + "\n".join([*rows, "", "## Made at random and not noticed", "", *(left or ["None."])]) + "\n"


def told(test: str | None) -> str:
    """A test by its name, without the folder."""
    return "**nobody**" if test is None else f"`{test.rpartition('/')[2].split('[')[0]}`"


def tried(count: int, which: Sequence[Bug]) -> Iterator[Found]:
    """Every bug, one after the other."""
    warm()
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        laboratory = Laboratory(Path(folder))
        for bug in which:
            yield laboratory.named(bug)
        for change in drawn(count):
            yield laboratory.random(change)


def main(words: Sequence[str]) -> int:
    """Try all. Returns 1 when a classical bug or more than a tenth of the others went unnoticed."""
    count = next((int(word) for word in words if word.isdigit()), COUNT)
    found = []
    for one in tried(count, BUGS):
        found.append(one)
        name = one.what.name if isinstance(one.what, Bug) else f"{one.what.file}:{one.what.line} {one.what.what}"
        sys.stdout.write(f"{name}: {told(one.test)}\n")
        sys.stdout.flush()
    named, made = found[: len(BUGS)], found[len(BUGS) :]
    if "--write" in words:
        (ROOT / "docs" / "mutation.md").write_text(table(named, made, "" if count == COUNT else f" {count}"))
    unnoticed = sum(one.test is None for one in made)
    return int(any(one.test is None for one in named) or unnoticed > len(made) / 10)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
