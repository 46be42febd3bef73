"""Files that are written whole or not at all, and plain words for a disk that says no."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alignbench.core.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """While it is open, a disk that refuses to write in `folder` raises a UserError that names the remedy.

    Other errors, and files elsewhere (a dataset that cannot be read, say), pass as they are.
    """
    try:
        yield
    except OSError as refusal:
        if refusal.errno in FULL:
            remedy = "make room there, or choose another folder with output_dir=..."
        elif refusal.errno in FORBIDDEN and _concerns(refusal, folder):
            remedy = "make it a folder you may write to, or choose another one with output_dir=..."
        else:
            raise
        raise UserError(f"cannot write to {folder}: {refusal.strerror}; {remedy}") from refusal


def make_folder(folder: Path) -> Path:
    """The folder, made when it is not there; a UserError when it cannot be."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_whole(path: Path, text: str, durable: bool = True) -> None:
    """Replace the file at once: a reader, or a run that was killed here, sees the old text or the new, never a half.

    With `durable` False it does not wait for the disk: quicker, but a power cut may lose it.
    """
    temporary = path.with_name(f".{path.name}.part")
    with explained(path.parent):
        temporary.write_text(text, encoding="utf-8")
        if durable:
            flush(temporary)
        temporary.replace(path)
        if durable:
            flush(path.parent)


def flush(path: Path) -> None:
    """Do not return before a file, or the list of names in a folder, stands on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_held(lock: Path) -> bool:
    """Whether another process of this machine holds that lock; one that died holds none."""
    if not lock.exists():
        return False
    ours = FileLock(lock)
    try:
        ours.acquire(timeout=0)
    except Timeout:
        return True
    ours.release()
    return False


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _concerns(refusal: OSError, folder: Path) -> bool:
    if refusal.filename is None:
        return True
    path = Path(os.fsdecode(refusal.filename))
    return path.is_relative_to(folder) or folder.is_relative_to(path)
