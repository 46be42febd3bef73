"""What all runs of a study stand on: the SFT model and the reward model, made by the first that needs them."""

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
from alignbench.stages import reward_model as preferring
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
"""What every stage computes with beside its own module: how a model is loaded, and which kernels it gets."""
SHOWN_SFT = {"sft/loss": "loss"}
SHOWN_REWARD_MODEL = {"reward_model/loss": "loss", "reward_model/accuracy": "accuracy"}


@dataclass(frozen=True)
class SharedModels:
    """The shared artifacts of one run's study."""

    job: RunSettings
    config: dict[str, Any]
    identity: Identity
    run_data: RunData

    @property
    def store(self) -> ArtifactStore:
        """Where they are kept."""
        return ArtifactStore(Path(self.job.output_dir) / "artifacts")

    def check(self) -> None:
        """Raise UserError for what could not be learned from; nothing is read again for what is there already."""
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

    # --- the start of every policy --------------------------------------------------------------------------------

    def sft_key(self) -> str | None:
        """The name of the SFT model; None when there is none."""
        return key("sft", self._sft_ingredients()) if self.job.sft.enabled else None

    def sft(self, display: Display) -> Artifact | None:
        """The SFT model; None when policies start from the model as it is."""
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
            for report in log_steps(display.show_progress(reports, "sft", job.sft.steps, SHOWN_SFT), tracker, "sft"):
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
        """The name of the reward model over an SFT model of that name; None when none is trained."""
        return key("reward_model", self._preference_ingredients(start)) if self.run_data.trains_reward_model else None

    def reward_model(self, start: Artifact | None, display: Display) -> Artifact | None:
        """The reward model, frozen; None when the reward needs none, or has one of its own."""
        if not self.run_data.trains_reward_model:
            return None

        def train(name: str, folder: Path, display: Display) -> RunState:
            return self._train_reward_model(start, name, folder, display)

        return self._make("reward_model", self._preference_ingredients(start.key if start else None), train, display)

    def load_reward_model(self, made: Artifact | None) -> RewardModel | None:
        """The reward model, loaded; None when the reward needs none."""
        reward = learned(self.job.reward)
        if reward is None:
            return None
        folder = made.path / MODEL if made else Path(str(reward.path))
        model = reward_models.load_reward_model(
            self.job.model, folder, texts=self.run_data.texts, device=self.job.hardware.resolve_device()
        )
        self.job.hardware.apply_kernels(model.model)
        return model

    def scorer(self, reward_model: RewardModel | None, text: Text) -> Scorer:
        """The reward, with its model where it needs one."""
        reward: Any = self.job.reward
        scorer: Scorer = (
            reward if reward_model is None else reward.with_model(reward_models.adapt_to_policy(reward_model, text))
        )
        return scorer

    def critic(self, model: Any, text: Text, reward_model: RewardModel | None) -> ValueFunction | None:
        """What foresees the rewards of a policy with that model; None where the algorithm keeps no critic."""
        settings, seed = self.job.algo.critic, self.job.seed
        if settings is None or settings.start == "zero" or reward_model is None:
            return settings and critics.make_critic(model, settings, seed=seed)
        if reward_models.adapt_to_policy(reward_model, text) is not reward_model:
            raise UserError(
                "algo.critic.start=reward_model: the reward model has a tokenizer of its own, so it cannot "
                "read the policy's tokens. Set algo.critic.start=zero, or let the study train the model"
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
            shown = display.show_progress(reports, "reward_model", settings.steps, SHOWN_REWARD_MODEL)
            for report in log_steps(shown, tracker, "reward_model"):
                state = report.state
            told = settings.evaluate(model, pairs["validation"], pairs["test"], size)
            tracker.record("reward_model", state.step, preferring.card_metrics(told))
        display.print(
            f"reward model: {told['accuracy']:.1%} of {told['pairs']} held-out pairs ranked right, calibration "
            f"error {told['ece']:.3f} at temperature {told['temperature']:.3g}"
        )
        for complaint in settings.check_gate(told):
            display.print(f"warning: {complaint}")
        model.save(folder / MODEL, told)
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
        """What computes an artifact: the source of the stage and of all it imports, and the versions of libraries."""
        quantized = ("bitsandbytes",) if self.job.model.quantization != "none" else ()
        found = versions()
        return {
            "source": source_hash((stage, *LOADING)),
            "libraries": {name: found.get(name) for name in (*LIBRARIES, *quantized)},
        }

    # --- what both need ---------------------------------------------------------------------------------------------

    def load(self, start: Path | None, seed: int) -> tuple[Any, Text]:
        """The language model on its device, from that folder or from its base."""
        device = self.job.hardware.resolve_device()
        model, text = self.job.model.load(texts=self.run_data.texts, start=start, device=device, seed=seed)
        self.job.hardware.apply_kernels(model)
        self.job.hardware.apply_checkpointing(model)
        return model, text

    def tracker(
        self, folder: Path, phase: str, resume_after: int | None, name: str | None = None, seed: int | None = None
    ) -> Tracker:
        """The logbook of a phase."""
        job, who = self.job, self.identity
        tags = {
            metric_names.STUDY: who.study,
            metric_names.METHOD: who.method if phase == "rl" else phase,
            metric_names.MODEL: who.model,
            metric_names.SEED: str(who.seed if seed is None else seed),
            metric_names.PHASE: phase,
            metric_names.KEY: name or who.key,
            metric_names.RUN_DIR: str(folder.resolve()),
        }
        return Tracker.open(
            folder,
            uri=job.tracking.uri,
            output_dir=Path(job.output_dir),
            experiment=job.tracking.experiment,
            run_name=name or who.run_dir.name,
            tags=tags,
            params=flatten(self.config),
            enabled=job.tracking.enabled,
            resume_after=resume_after,
            wait=phase == "rl",  # the last one, which waits for the others too
        )

    def _make(self, phase: str, ingredients: dict[str, Any], train: "Train", display: Display) -> Artifact:
        name = key(phase, ingredients)

        def build(folder: Path) -> None:
            spent = budget_spent(train(name, folder, display))
            wanted = (metric_names.SECONDS, metric_names.TOKENS, metric_names.PEAK_MEMORY)
            write_atomically(folder / COST, json.dumps({n.split("/")[1]: spent[n] for n in wanted}, indent=2))

        artifact, made = self.store.make(name, ingredients, build)
        if not made:
            display.print(f"{phase}: {name} is there already")
        return artifact

    def _artifact_tracker(self, name: str, phase: str, seed: int) -> Tracker:
        journal = make_folder(Path(self.job.output_dir) / "artifacts" / f"{name}.tracking")
        return self.tracker(journal, phase, None, name=name, seed=seed)


Train = Callable[[str, Path, Display], RunState]
"""Fills an artifact's folder, given its name; returns the state training ended in."""


def cost(artifact: Artifact) -> dict[str, float]:
    """What making it took: seconds, tokens, peak_memory_bytes."""
    spent: dict[str, float] = json.loads((artifact.path / COST).read_text())
    return spent


def card(artifact: Artifact) -> dict[str, Any]:
    """How well a reward model tells chosen from rejected."""
    measured: dict[str, Any] = json.loads((artifact.path / MODEL / reward_models.CARD).read_text())
    return measured
