"""Atomic writes of files and folders, file locks and checksums; a full or read-only disk raises UserError."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from alignbench.core.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only disk at `folder` into a UserError with a remedy.

    Other errors, and errors about files elsewhere such as a dataset, are not changed.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        cause = _as_os_error(error)
        if cause.errno in FULL:
            remedy = "free some space there, or choose another folder with output_dir=..."
        elif cause.errno in FORBIDDEN and _concerns(cause, folder):
            remedy = "make the folder writable, or choose another one with output_dir=..."
        else:
            raise
        raise UserError(f"cannot write to {folder}: {cause.strerror}; {remedy}") from error


def make_folder(folder: Path) -> Path:
    """Create the folder if it does not exist. Raises UserError if that fails."""
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomically(path: Path, text: str, durable: bool = True) -> None:
    """Replace a file atomically: readers see the old text or the new one, also when the process is killed.

    With `durable` False it does not sync to disk, which is faster, but a power cut may lose the file.
    """
    temporary = path.with_name(f".{path.name}.part")
    with explain_disk_errors(path.parent):
        temporary.write_text(text, encoding="utf-8")
        if durable:
            flush(temporary)
        temporary.replace(path)
        if durable:
            flush(path.parent)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which replaces `folder` when the block ends.

    An exception leaves `folder` as it was. A process that is killed leaves the old folder, the new one, or none.
    """
    new, old = (folder.with_name(f".{folder.name}{tail}.part") for tail in ("", ".before"))
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)  # of a process that was killed
    try:
        with explain_disk_errors(folder.parent):
            new.mkdir(parents=True)
            yield new
            for path in (*new.rglob("*"), new):
                flush(path)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
            flush(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def flush(path: Path) -> None:
    """Sync a file, or the directory entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_held(lock: Path) -> bool:
    """Whether a process on this machine holds a file lock; a process that died does not."""
    if not lock.exists():
        return False
    probe = FileLock(lock)
    try:
        probe.acquire(timeout=0)
    except Timeout:
        return True
    probe.release()
    return False


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _concerns(cause: OSError, folder: Path) -> bool:
    if cause.filename is None:
        return True
    path = Path(os.fsdecode(cause.filename))
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def _as_os_error(error: OSError | SafetensorError) -> OSError:
    """The OSError behind an error of safetensors, which has its number only in the message."""
    if isinstance(error, OSError):
        return error
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))
