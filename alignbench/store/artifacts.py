"""Content-addressed store of shared models: each is built once and verified by checksums when it is opened."""

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
    """A folder whose files match the checksums of its manifest."""

    key: str
    path: Path
    manifest: Mapping[str, Any]


def key(phase: str, ingredients: Mapping[str, Any]) -> str:
    """The key of an artifact: `<phase>-<12 hex>`, from the sha256 of the canonical JSON of its ingredients.

    `ingredients` holds what determines the result: the config of the stage and of the model, the hash of the base
    weights, the keys of parents, the hash of the rows, the hash of the source that computes it (without comments and
    docstrings), and the versions of torch, transformers, tokenizers and peft. Not covered: other libraries, Python,
    hardware, threads and kernels, which change a result by floating-point error at most. The order of keys does not
    matter. Raises TypeError for a value that JSON cannot represent, ValueError for NaN.
    """
    canonical = json.dumps(dict(ingredients), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{phase}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


class ArtifactStore:
    """A folder of artifacts that several processes may use.

    Example: `ArtifactStore(Path("outputs/artifacts")).make(key, ingredients, lambda folder: model.save(folder))`.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def get(self, key: str) -> Artifact | None:
        """The artifact with this key; None when it is missing or damaged. A damaged one is renamed."""
        folder = self.root / key
        if not folder.exists():
            return None
        if find_damage(folder) is None:
            return _load(folder)
        with self._lock(key):
            return self._get_undamaged(key)

    def has(self, key: str) -> bool:
        """Whether the artifact with this key exists and is undamaged; nothing is changed."""
        return find_damage(self.root / key) is None

    def make(self, key: str, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> tuple[Artifact, bool]:
        """The artifact with this key, and whether it was built now: `build` fills the empty folder that it gets.

        Processes that need the same artifact wait for the one that builds it. When `build` raises or is killed,
        no artifact is left. Raises UserError when the disk is full or not writable.
        """
        phase = key.rpartition("-")[0]
        _check_key(key, phase, ingredients)
        found = self.get(key)
        if found is not None:
            return found, False
        with self._lock(key):
            found = self._get_undamaged(key)
            return (found, False) if found else (self._build(key, phase, ingredients, build), True)

    def _build(self, key: str, phase: str, ingredients: Mapping[str, Any], build: Callable[[Path], None]) -> Artifact:
        unfinished = self.root / f"{key}.building"
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed: this one holds its lock
        try:
            with explain_disk_errors(self.root):
                unfinished.mkdir()
                build(unfinished)
                _seal(unfinished, {"key": key, "phase": phase, "ingredients": dict(ingredients)})
                unfinished.rename(self.root / key)
                flush(self.root)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return _load(self.root / key)

    def _get_undamaged(self, key: str) -> Artifact | None:
        folder = self.root / key
        if not folder.exists():
            return None
        reason = find_damage(folder)
        if reason is None:
            return _load(folder)
        new_name = next(p for n in range(1, 10**6) if not (p := self.root / f"{key}.damaged-{n}").exists())
        logger.warning("%s is damaged (%s): renamed to %s and built again", folder, reason, new_name.name)
        with explain_disk_errors(self.root):
            folder.rename(new_name)
        return None

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        lock = FileLock(make_folder(self.root) / f"{key}.lock")
        with explain_disk_errors(self.root):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.info("waiting for %s: another process is building it", key)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()


def find_damage(folder: Path) -> str | None:
    """What is damaged in an artifact folder; None when all files match the manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"].items()
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return "no readable manifest.json"
    if manifest.get("key") != folder.name:
        return f"its manifest is that of {manifest.get('key')}"
    for name, written in files:
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != written["bytes"] or sha256(path) != written["sha256"]:
            return f"{name} does not match its checksum"
    return None


def _check_key(name: str, phase: str, ingredients: Mapping[str, Any]) -> None:
    assert name == key(phase, ingredients), f"{name} is not the key of these ingredients"


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


def _load(folder: Path) -> Artifact:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return Artifact(folder.name, folder, manifest)
