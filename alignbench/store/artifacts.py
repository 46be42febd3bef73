"""Made once, named by the hash of all that shaped it, shared by every run of a study."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignbench.store.disk import explain_disk_errors, flush, make_folder, sha256

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A folder whose every file was just checked against its manifest."""

    key: str
    path: Path
    manifest: Mapping[str, Any]


def key(phase: str, ingredients: Mapping[str, Any]) -> str:
    """The name of what these ingredients make: `<phase>-<12 hex>`, from the sha256 of their canonical JSON.

    `ingredients` holds all that shapes the result: config, parents, data sha256, code version. The order of keys
    does not matter; a value that JSON cannot hold raises TypeError, a NaN ValueError.
    """
    canonical = json.dumps(dict(ingredients), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{phase}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


class ArtifactStore:
    """A folder of artifacts that several processes may share.

    Example: `ArtifactStore(Path("outputs/artifacts")).make(name, ingredients, lambda folder: model.save(folder))`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def get(self, key: str) -> Artifact | None:
        """The artifact of that name, or None when it is missing or damaged; a damaged one is moved aside."""
        folder = self.root / key
        if not folder.exists():
            return None
        if damage(folder) is None:
            return _opened(folder)
        with self._lock(key):
            return self._sound(key)

    def has(self, key: str) -> bool:
        """Whether the artifact of that name is there and whole; nothing is touched."""
        return damage(self.root / key) is None

    def make(self, key: str, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> tuple[Artifact, bool]:
        """The artifact of that name, and whether it had to be made: `build` fills the empty folder it is given.

        Processes that ask for the same thing wait for the one that makes it. When `build` raises, or is killed,
        nothing of that name is left. Raises UserError when the disk refuses.
        """
        phase = key.rpartition("-")[0]
        _check_name(key, phase, ingredients)
        found = self.get(key)
        if found is not None:
            return found, False
        with self._lock(key):
            found = self._sound(key)
            return (found, False) if found else (self._build(key, phase, ingredients, build), True)

    def _build(self, key: str, phase: str, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> Artifact:
        unfinished = self.root / f"{key}.building"
        shutil.rmtree(unfinished, ignore_errors=True)  # of a builder that was killed: we hold its lock now
        try:
            with explain_disk_errors(self.root):
                unfinished.mkdir()
                build(unfinished)
                _seal(unfinished, {"key": key, "phase": phase, "ingredients": dict(ingredients)})
                unfinished.rename(self.root / key)
                flush(self.root)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return _opened(self.root / key)

    def _sound(self, key: str) -> Artifact | None:
        folder = self.root / key
        if not folder.exists():
            return None
        why = damage(folder)
        if why is None:
            return _opened(folder)
        aside = next(p for n in range(1, 10**6) if not (p := self.root / f"{key}.damaged-{n}").exists())
        logger.warning("%s is damaged (%s): moved to %s, to be made again", folder, why, aside.name)
        with explain_disk_errors(self.root):
            folder.rename(aside)
        return None

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        lock = FileLock(make_folder(self.root) / f"{key}.lock")
        with explain_disk_errors(self.root):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.info("waiting for %s: another process is making it", key)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()


def damage(folder: Path) -> str | None:
    """What is wrong with an artifact's folder, in a few words, or None when each file is as it was made."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"].items()
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return "no readable manifest.json"
    if manifest.get("key") != folder.name:
        return f"its manifest names {manifest.get('key')}"
    for name, written in files:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != written["bytes"] or sha256(path) != written["sha256"]:
            return f"{name} is not what was written"
    return None


def _check_name(name: str, phase: str, ingredients: Mapping[str, Any]) -> None:
    assert name == key(phase, ingredients), f"{name} is not the name of these ingredients"


def _seal(folder: Path, about: Mapping[str, Any]) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert files, f"the build of {about['key']} wrote nothing"
    for path in files:
        flush(path)
    listed = {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files}
    parents = about["ingredients"].get("parents", [])
    manifest = {**about, "parents": parents, "files": listed, "created": datetime.now(UTC).isoformat()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    flush(folder / MANIFEST)
    flush(folder)


def _opened(folder: Path) -> Artifact:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return Artifact(folder.name, folder, manifest)
