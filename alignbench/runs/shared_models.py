"""The SFT model and the reward model that the runs of a study share; the first run that needs one trains it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.core import metric_names
from alignbench.core.errors import UserError
from alignbench.core.protocols import Scorer, learned
from alignbench.data.splits import rows_hash
from alignbench.engine.run_state import RunState
from alignbench.generation import vllm_engine
from alignbench.models import critic as critics
from alignbench.models import loading
from alignbench.models import reward_model as reward_models
from alignbench.models.critic import ValueFunction
from alignbench.models.policy import CausalPolicy
from alignbench.models.reward_model import RewardModel
from alignbench.models.text import Text
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import Identity, RunSettings, flatten
from alignbench.stages import reward_model as reward_model_stage
from alignbench.stages.progress import Display, budget_spent, log_steps
from alignbench.store.artifacts import Artifact, ArtifactStore, key
from alignbench.store.disk import make_folder, write_atomically
from alignbench.store.provenance import versions
from alignbench.store.source_hash import source_hash
from alignbench.store.tracker import Tracker

MODEL, COST = "model", "cost.json"
LIBRARIES = ("torch", "transformers", "tokenizers", "peft")
"""Libraries whose version is part of an artifact's key."""
LOADING = ("alignbench.models.loading", "alignbench.kernels.hardware")
"""Modules besides a stage's own whose source is part of its artifact's key: model loading and kernel selection."""
SFT_METRICS = {"sft/loss": "loss"}
REWARD_MODEL_METRICS = {"reward_model/loss": "loss", "reward_model/accuracy": "accuracy"}


@dataclass(frozen=True)
class SharedModels:
    """The artifacts that a run shares with the other runs of its study."""

    job: RunSettings
    config: dict[str, Any]
    identity: Identity
    run_data: RunData

    @property
    def store(self) -> ArtifactStore:
        """The store of the artifacts."""
        return ArtifactStore(Path(self.job.output_dir) / "artifacts")

    def check(self) -> None:
        """Check the models and their training data; data of an artifact that exists is not read.

        Raises:
            UserError: the model, the critic or a training row is invalid.
        """
        if self.job.hardware.sampler == "vllm":
            vllm_engine.check_model(self.job.model)
        self.job.hardware.check_model(lambda: self.job.model.load_config(self.run_data.texts))
        critic = self.job.algo.critic
        if critic and critic.start == "reward_model" and not learned(self.job.reward):
            raise UserError(
                f"algo.critic.start=reward_model, but reward={self.job.names.reward} has no reward model: "
                "set reward=bradley_terry, or algo.critic.start=zero"
            )
        start = self.sft_key()
        if start and not self.store.has(start):
            self.job.sft.examples(self.run_data.demonstrations, self.run_data.text)
        preferences = self.reward_model_key(start)
        if preferences and not self.store.has(preferences):
            for rows in self.run_data.comparisons.values():
                self.job.reward_model.comparisons(rows, self.run_data.text)

    # --- the SFT model -------------------------------------------------------------------------------------------

    def sft_key(self) -> str | None:
        """The artifact key of the SFT model; None without SFT."""
        return key("sft", self._sft_ingredients()) if self.job.sft.enabled else None

    def sft(self, display: Display) -> Artifact | None:
        """The SFT model, trained if it does not exist; None without SFT, when policies start from the base model."""
        return self._make("sft", self._sft_ingredients(), self._train_sft, display) if self.job.sft.enabled else None

    def _train_sft(self, name: str, folder: Path, display: Display) -> RunState:
        job, state = self.job, RunState()
        model, text = self.load(None, job.sft.seed)
        policy = CausalPolicy(model, text)
        reports = job.sft.run(
            policy,
            self.run_data.demonstrations,
            job.hardware.microbatch_rows,
            job.invariants,
            job.hardware.microbatch_tokens,
        )
        with self._artifact_tracker(name, "sft", job.sft.seed) as tracker:
            tracker.dataset(f"{job.names.data} demonstrations", rows_hash(self.run_data.demonstrations), "train")
            for report in log_steps(display.show_progress(reports, "sft", job.sft.steps, SFT_METRICS), tracker, "sft"):
                state = report.state
        loading.save(policy.model, policy.text, folder / MODEL)
        return state

    def _sft_ingredients(self) -> dict[str, Any]:
        return {
            "config": {"sft": self.config["sft"], "model": self.config["model"]},
            "base": self.job.model.base_hashes(self.job.hardware.resolve_device()),
            "parents": [],
            "data": rows_hash(self.run_data.demonstrations),
            "code": self._code("alignbench.stages.sft"),
        }

    # --- the reward model -------------------------------------------------------------------------------------------

    def reward_model_key(self, start: str | None) -> str | None:
        """The artifact key of the reward model, given the key of the SFT model; None if no reward model is trained."""
        return key("reward_model", self._preference_ingredients(start)) if self.run_data.trains_reward_model else None

    def reward_model(self, start: Artifact | None, display: Display) -> Artifact | None:
        """The reward model, trained if it does not exist; None if the reward needs none or loads one from a path."""
        if not self.run_data.trains_reward_model:
            return None

        def train(name: str, folder: Path, display: Display) -> RunState:
            return self._train_reward_model(start, name, folder, display)

        return self._make("reward_model", self._preference_ingredients(start.key if start else None), train, display)

    def load_reward_model(self, artifact: Artifact | None) -> RewardModel | None:
        """Load the reward model; None if the reward needs none."""
        reward = learned(self.job.reward)
        if reward is None:
            return None
        folder = artifact.path / MODEL if artifact else Path(str(reward.path))
        model = reward_models.load_reward_model(
            self.job.model, folder, texts=self.run_data.texts, device=self.job.hardware.resolve_device()
        )
        self.job.hardware.apply_kernels(model.model)
        return model

    def scorer(self, reward_model: RewardModel | None, text: Text) -> Scorer:
        """The scorer of the reward, with its reward model if it needs one."""
        reward: Any = self.job.reward
        scorer: Scorer = (
            reward if reward_model is None else reward.with_model(reward_models.adapt_to_policy(reward_model, text))
        )
        return scorer

    def critic(self, model: Any, text: Text, reward_model: RewardModel | None) -> ValueFunction | None:
        """The critic for a policy model; None if the algorithm has no critic.

        Raises:
            UserError: the critic starts from a reward model that has another tokenizer.
        """
        settings, seed = self.job.algo.critic, self.job.seed
        if settings is None or settings.start == "zero" or reward_model is None:
            return settings and critics.make_critic(model, settings, seed=seed)
        if reward_models.adapt_to_policy(reward_model, text) is not reward_model:
            raise UserError(
                "algo.critic.start=reward_model: the reward model has another tokenizer, so it cannot "
                "read the policy's tokens. Set algo.critic.start=zero, or let the study train the reward model"
            )
        scale = self.job.reward.scale(reward_model.calibration)
        return critics.make_critic(model, settings, seed=seed, reward_model=reward_model.model, calibration=scale)

    def _train_reward_model(self, start: Artifact | None, name: str, folder: Path, display: Display) -> RunState:
        job, settings, state = self.job, self.job.reward_model, RunState()
        pairs, size = self.run_data.comparisons, job.hardware.microbatch_rows
        trunk = start.path / MODEL if start and settings.start == "sft" else None
        model = reward_models.make_reward_model(
            job.model,
            texts=self.run_data.texts,
            start=trunk,
            lora=settings.lora,
            device=job.hardware.resolve_device(),
            seed=settings.seed,
        )
        job.hardware.apply_kernels(model.model)
        job.hardware.apply_checkpointing(model.model)
        reports = settings.run(model, pairs["train"], size, job.invariants, job.hardware.microbatch_tokens)
        with self._artifact_tracker(name, "reward_model", settings.seed) as tracker:
            for split, rows in pairs.items():
                tracker.dataset(f"{job.names.data} comparisons", rows_hash(rows), split)
            displayed = display.show_progress(reports, "reward_model", settings.steps, REWARD_MODEL_METRICS)
            for report in log_steps(displayed, tracker, "reward_model"):
                state = report.state
            quality = settings.evaluate(model, pairs["validation"], pairs["test"], size)
            tracker.record("reward_model", state.step, reward_model_stage.card_metrics(quality))
        display.print(
            f"reward model: {quality['accuracy']:.1%} of {quality['pairs']} held-out pairs ranked correctly, "
            f"calibration error {quality['ece']:.3f} at temperature {quality['temperature']:.3g}"
        )
        for problem in settings.check_gate(quality):
            display.print(f"warning: {problem}")
        model.save(folder / MODEL, quality)
        return state

    def _preference_ingredients(self, start: str | None) -> dict[str, Any]:
        data = {split: rows_hash(rows) for split, rows in self.run_data.comparisons.items()}
        return {
            "config": {"reward_model": self.config["reward_model"], "model": self.config["model"]},
            "base": self.job.model.base_hashes(self.job.hardware.resolve_device()),
            "parents": [start] if start and self.job.reward_model.start == "sft" else [],
            "data": data,
            "code": self._code("alignbench.stages.reward_model"),
        }

    def _code(self, stage: str) -> dict[str, Any]:
        """Code part of an artifact's key: source of the stage and of the modules it imports, library versions."""
        quantized = ("bitsandbytes",) if self.job.model.quantization != "none" else ()
        installed = versions()
        return {
            "source": source_hash((stage, *LOADING)),
            "libraries": {name: installed.get(name) for name in (*LIBRARIES, *quantized)},
        }

    # --- both models ------------------------------------------------------------------------------------------------

    def load(self, start: Path | None, seed: int) -> tuple[Any, Text]:
        """Load the language model onto its device, from the folder `start` or from its base."""
        device = self.job.hardware.resolve_device()
        model, text = self.job.model.load(texts=self.run_data.texts, start=start, device=device, seed=seed)
        self.job.hardware.apply_kernels(model)
        self.job.hardware.apply_checkpointing(model)
        return model, text

    def tracker(
        self, folder: Path, phase: str, resume_after: int | None, name: str | None = None, seed: int | None = None
    ) -> Tracker:
        """Open the tracker of a stage."""
        job, identity = self.job, self.identity
        tags = {
            metric_names.STUDY: identity.study,
            metric_names.METHOD: identity.method if phase == "rl" else phase,
            metric_names.MODEL: identity.model,
            metric_names.SEED: str(identity.seed if seed is None else seed),
            metric_names.PHASE: phase,
            metric_names.KEY: name or identity.key,
            metric_names.RUN_DIR: str(folder.resolve()),
        }
        return Tracker.open(
            folder,
            uri=job.tracking.uri,
            output_dir=Path(job.output_dir),
            experiment=job.tracking.experiment,
            run_name=name or identity.run_dir.name,
            tags=tags,
            params=flatten(self.config),
            enabled=job.tracking.enabled,
            resume_after=resume_after,
            wait=phase == "rl",  # the RL stage comes last and waits for all uploads
        )

    def _make(self, phase: str, ingredients: dict[str, Any], train: "Train", display: Display) -> Artifact:
        name = key(phase, ingredients)

        def build(folder: Path) -> None:
            spent = budget_spent(train(name, folder, display))
            names = (metric_names.SECONDS, metric_names.TOKENS, metric_names.PEAK_MEMORY)
            write_atomically(folder / COST, json.dumps({n.split("/")[1]: spent[n] for n in names}, indent=2))

        artifact, created = self.store.make(name, ingredients, build)
        if not created:
            display.print(f"{phase}: using existing artifact {name}")
        return artifact

    def _artifact_tracker(self, name: str, phase: str, seed: int) -> Tracker:
        folder = make_folder(Path(self.job.output_dir) / "artifacts" / f"{name}.tracking")
        return self.tracker(folder, phase, None, name=name, seed=seed)


Train = Callable[[str, Path, Display], RunState]
"""Trains an artifact: its name and its folder in, the final training state out."""


def read_cost(artifact: Artifact) -> dict[str, float]:
    """The training cost of an artifact: seconds, tokens, peak_memory_bytes."""
    spent: dict[str, float] = json.loads((artifact.path / COST).read_text())
    return spent


def read_reward_model_card(artifact: Artifact) -> dict[str, Any]:
    """The card of a reward model: its accuracy and calibration on held-out pairs."""
    quality: dict[str, Any] = json.loads((artifact.path / MODEL / reward_models.CARD).read_text())
    return quality
