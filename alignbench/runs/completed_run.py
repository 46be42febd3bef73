"""Loads a finished run from its folder: its config, manifest, and weights before and after training."""

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
ADAPTER, FULL = "adapter_config.json", "config.json"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A language model that can be loaded."""

    name: str
    """Name of the model in tables."""
    job: RunSettings
    """Settings of the run; a built-in base model is made from its data."""
    model: Pretrained
    start: Path | None
    """Folder of full weights or of an adapter; None is the unchanged base."""

    def load(self, device: str) -> tuple[Any, Text]:
        """Load the model onto a device; only a built-in base without saved weights reads the data of the run."""
        full = self.start is not None and (self.start / FULL).is_file()
        texts = RunData(self.job).texts if self.model.is_built_in and not full else ()
        return self.model.load(texts=texts, start=self.start, device=device, seed=self.job.seed)


@dataclass(frozen=True)
class CompletedRun:
    """A finished run on disk."""

    folder: Path
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: str) -> "CompletedRun":
        """Open the run in a folder, or the run of a `final/` folder.

        Raises:
            UserError: the folder is not that of a finished run.
        """
        location = Path(path)
        folder = location.parent if location.name == FINAL else location
        for name in ("config.yaml", "manifest.json", FINAL):
            if not (folder / name).exists():
                raise UserError(
                    f"{path} contains no {name}; give the folder of a finished run, such as outputs/runs/<study>/<run>"
                )
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return cls(folder, config, json.loads((folder / "manifest.json").read_text(encoding="utf-8")))

    @cached_property
    def job(self) -> RunSettings:
        """The settings of the run."""
        return build(self.config)

    @property
    def dtype(self) -> Any:
        """The dtype of the base model in training."""
        return self.manifest.get("dtype", "float32")

    @property
    def final(self) -> Weights:
        """The model after training."""
        return self._weights(self.folder.resolve().name, self.folder / FINAL)

    @property
    def start(self) -> Weights:
        """The model at the start of reinforcement learning: the SFT model, or the base without SFT."""
        artifact = self.artifact("sft")
        return (
            self._weights(f"start of {self.final.name} ({artifact.key})", artifact.path / MODEL)
            if artifact
            else self.base
        )

    @property
    def base(self) -> Weights:
        """The base model before any training; a newly initialized adapter on it has no effect."""
        return self._weights(f"base {self.job.model.source}", None)

    def artifact(self, kind: str) -> Artifact | None:
        """The SFT model (kind `sft`) or reward model (`reward_model`) that the run used; None if it used none.

        Raises:
            UserError: the artifact was deleted.
        """
        key = self.manifest["artifacts"].get(kind)
        if key is None:
            return None
        artifacts = self.folder.resolve().parent.parent.parent / "artifacts"
        found = ArtifactStore(artifacts).get(key)
        if found is None:
            raise UserError(f"{self.folder}: its artifact {key} is not in {artifacts}")
        return found

    def weights(self, source: str) -> Weights:
        """The model that `source` names.

        Args:
            source: start, base, another run, a folder of full weights or of an adapter, or a hub name.

        Raises:
            UserError: no such model exists.
        """
        if source in ("start", "base"):
            return self.start if source == "start" else self.base
        path, model = Path(source), self.job.model
        if path.name == FINAL or (path / FINAL).is_dir():
            return CompletedRun.open(source).final
        if (path / ADAPTER).is_file():
            return self._weights(source, path, replace(model, lora=model.lora or Lora()))
        if (path / FULL).is_file():
            return self._weights(source, path, replace(model, quantization="none", lora=None, dtype=self.dtype))
        if path.exists():
            raise UserError(f"before={source}: it is neither a run nor a model (no {FINAL}/, {ADAPTER} or {FULL})")
        require_hub(source, "model", "Set before=start or before=base, or give a run or a folder of weights.")
        hub = Pretrained(name=source, dtype=self.dtype, attention=model.attention, chat_template=model.chat_template)
        return self._weights(source, None, hub)

    def _weights(self, name: str, start: Path | None, model: Pretrained | None = None) -> Weights:
        return Weights(name=name, job=self.job, model=model or self.job.model, start=start)
