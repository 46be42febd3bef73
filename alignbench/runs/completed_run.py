"""A run that has ended, read back from its folder: its config, what it was made of, its weights before and after."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from alignbench.core.errors import UserError
from alignbench.core.hub import require_hub
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.text import Text
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import RunSettings, build
from alignbench.store.artifacts import Artifact, ArtifactStore

FINAL, MODEL = "final", "model"
ADAPTER, WHOLE = "adapter_config.json", "config.json"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A language model that can be loaded."""

    name: str
    """What it is called in tables."""
    job: RunSettings
    """The job it belongs to: an embedded base is made from its data."""
    model: Pretrained
    start: Path | None
    """A folder of all weights, or of an adapter; None is the base as it is."""

    def load(self, device: str) -> tuple[Any, Text]:
        """The model on its device; no data is read where the base stands somewhere."""
        whole = self.start is not None and (self.start / WHOLE).is_file()
        texts = RunData(self.job).texts if self.model.is_built_in and not whole else ()
        return self.model.load(texts=texts, start=self.start, device=device, seed=self.job.seed)


@dataclass(frozen=True)
class CompletedRun:
    """A run on disk, whose `final/` is there."""

    folder: Path
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, where: str) -> "CompletedRun":
        """The run in that folder, or of that `final/`. Raises UserError when it is none, or not finished."""
        place = Path(where)
        folder = place.parent if place.name == FINAL else place
        for name in ("config.yaml", "manifest.json", FINAL):
            if not (folder / name).exists():
                raise UserError(
                    f"{where}: no {name} there; give the folder of a finished run, such as outputs/runs/<study>/<run>"
                )
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return cls(folder, config, json.loads((folder / "manifest.json").read_text(encoding="utf-8")))

    @cached_property
    def job(self) -> RunSettings:
        """Every object of the run."""
        return build(self.config)

    @property
    def dtype(self) -> Any:
        """The precision that its base had."""
        return self.manifest.get("dtype", "float32")

    @property
    def final(self) -> Weights:
        """What it ended with."""
        return self._weights(self.folder.resolve().name, self.folder / FINAL)

    @property
    def start(self) -> Weights:
        """What its reinforcement learning began with: the SFT model, or the base where there was none."""
        made = self.artifact("sft")
        return self._weights(f"start of {self.final.name} ({made.key})", made.path / MODEL) if made else self.base

    @property
    def base(self) -> Weights:
        """The model before anything was trained; a new adapter on it changes nothing."""
        return self._weights(f"base {self.job.model.source}", None)

    def artifact(self, what: str) -> Artifact | None:
        """The SFT model (sft) or the reward model (reward_model) it was made with; None when it was made without."""
        key = self.manifest["artifacts"].get(what)
        if key is None:
            return None
        home = self.folder.resolve().parent.parent.parent / "artifacts"
        found = ArtifactStore(home).get(key)
        if found is None:
            raise UserError(f"{self.folder} was made with {key}, which is not in {home}")
        return found

    def weights(self, where: str) -> Weights:
        """What `where` names: start, base, another run, a folder of weights or of an adapter, or a hub name."""
        if where in ("start", "base"):
            return self.start if where == "start" else self.base
        place, model = Path(where), self.job.model
        if place.name == FINAL or (place / FINAL).is_dir():
            return CompletedRun.open(where).final
        if (place / ADAPTER).is_file():
            return self._weights(where, place, replace(model, lora=model.lora or Lora()))
        if (place / WHOLE).is_file():
            return self._weights(where, place, replace(model, quantization="none", lora=None, dtype=self.dtype))
        if place.exists():
            raise UserError(f"before={where}: neither a run nor a model is there (no {FINAL}/, {ADAPTER} or {WHOLE})")
        require_hub(where, "model", "Say before=start, before=base, or give a run or a folder of weights.")
        hub = Pretrained(name=where, dtype=self.dtype, attention=model.attention, chat_template=model.chat_template)
        return self._weights(where, None, hub)

    def _weights(self, name: str, start: Path | None, model: Pretrained | None = None) -> Weights:
        return Weights(name=name, job=self.job, model=model or self.job.model, start=start)
