"""Checks in seconds, before heavy imports, whether a hub repository is cached or accessible."""

import os
import threading
from functools import lru_cache
from pathlib import Path
from typing import Literal

from alignbench.core.errors import UserError

Kind = Literal["model", "dataset"]
TIMEOUT: float = 3.5
"""Seconds to wait for the hub; its own clients retry for 20 to 50."""
MODEL_REMEDY = (
    "Give a local folder with model.path=<folder>, or fill the cache on a machine with network (HF_HOME), or set "
    "HF_TOKEN when access is restricted."
)


@lru_cache
def require_hub(repo_id: str, kind: Kind, remedy: str) -> None:
    """Check that `repo_id` can be loaded: the hub grants access, or a copy is cached.

    In the second case the hub's clients are set to offline mode, so that they do not wait either. Raises UserError
    within 5 seconds; its message ends with `remedy`, what to set instead, such as `data.path=...`.
    """
    refusal = _query_access(repo_id, kind)
    if refusal is None:
        return
    if _cached(repo_id, kind):
        _stay_offline()
        return
    raise UserError(f"cannot load the {kind} {repo_id!r} from the hub: {refusal}.\n{remedy}")


def _query_access(repo_id: str, kind: Kind) -> str | None:
    """Why the hub does not grant access; None if it does."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set and it is not in the cache"
    answers: list[str | None] = []
    # A thread, because the timeout of a request does not cover name resolution.
    query = threading.Thread(target=lambda: answers.append(_access(repo_id, kind)), daemon=True)
    query.start()
    query.join(TIMEOUT)
    no_answer = f"{constants.ENDPOINT} did not answer in {TIMEOUT:g} s and it is not in the cache"
    return answers[0] if answers else no_answer


def _access(repo_id: str, kind: Kind) -> str | None:
    from huggingface_hub import auth_check, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but exported lazily

    try:
        validate_repo_id(repo_id)
        auth_check(repo_id, repo_type=kind)
    except GatedRepoError:
        return "it is gated; accept its terms on its page and set HF_TOKEN, or run `hf auth login`"
    except RepositoryNotFoundError:
        return "there is no such name, or it is private and HF_TOKEN does not open it"
    except HFValidationError:
        return "that is not a hub name (expected organization/name)"
    except HfHubHTTPError:
        return None  # A mirror without this endpoint: the download itself will show whether it works.
    except Exception as error:  # noqa: BLE001  the client's own transport errors share no public base class
        return f"{constants.ENDPOINT} is not reachable ({type(error).__name__}) and it is not in the cache"
    return None


def _cached(repo_id: str, kind: Kind) -> bool:
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if kind == "model":
        try:
            return isinstance(try_to_load_from_cache(repo_id, "config.json"), str)
        except HFValidationError:
            return False
    cache = Path(os.environ.get("HF_DATASETS_CACHE", Path(constants.HF_HOME) / "datasets"))
    expected = _folded(repo_id.replace("/", "___"))
    # The datasets library keeps <organization>___<name>/<config>/<version>/<hash>.
    return cache.is_dir() and any(
        _folded(folder.name) == expected and any(folder.glob("*/*/*/")) for folder in cache.iterdir()
    )


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def _stay_offline() -> None:
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
