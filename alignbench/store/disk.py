"""Files that are written whole or not at all, and plain words for a disk that says no."""

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
    """While it is open, a disk that refuses to write in `folder` raises a UserError that names the remedy.

    Other errors, and files elsewhere (a dataset that cannot be read, say), pass as they are.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        refusal = _of_the_system(error)
        if refusal.errno in FULL:
            remedy = "make room there, or choose another folder with output_dir=..."
        elif refusal.errno in FORBIDDEN and _concerns(refusal, folder):
            remedy = "make it a folder you may write to, or choose another one with output_dir=..."
        else:
            raise
        raise UserError(f"cannot write to {folder}: {refusal.strerror}; {remedy}") from error


def make_folder(folder: Path) -> Path:
    """The folder, made when it is not there; a UserError when it cannot be."""
    with explain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomically(path: Path, text: str, durable: bool = True) -> None:
    """Replace the file at once: a reader, or a run that was killed here, sees the old text or the new, never a half.

    With `durable` False it does not wait for the disk: quicker, but a power cut may lose it.
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
    """An empty folder to fill, which takes that name at once when the block ends; what stood there before is removed.

    An error leaves the folder as it was; a process that is killed leaves it so, or leaves none, but never a half.
    """
    filling, before = (folder.with_name(f".{folder.name}{tail}.part") for tail in ("", ".before"))
    for left in (filling, before):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed
    try:
        with explain_disk_errors(folder.parent):
            filling.mkdir(parents=True)
            yield filling
            for path in (*filling.rglob("*"), filling):
                flush(path)
            if folder.exists():
                folder.rename(before)
            filling.rename(folder)
            flush(folder.parent)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(filling, ignore_errors=True)


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


def _of_the_system(error: OSError | SafetensorError) -> OSError:
    """What the system said; safetensors hides it in its text."""
    if isinstance(error, OSError):
        return error
    told = re.search(r"os error (\d+)", str(error))
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else OSError(str(error))
