"""Expected cost of a run before it starts: prompts, completions, tokens, optimizer steps, memory and disk space."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from alignbench.core.protocols import learned
from alignbench.generation.vllm_engine import GIB
from alignbench.kernels import hardware
from alignbench.models.reward_model import is_adapter
from alignbench.planning import memory
from alignbench.planning.memory import MetaModel
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import RunSettings
from alignbench.runs.shared_models import SharedModels
from alignbench.store.checkpoints import KEEP

ADAM = 2
"""Moment estimates that AdamW keeps per trained weight."""
FP32 = 4
"""Bytes of a float32 number."""
Parts = Mapping[str, int]
"""Bytes by purpose."""


@dataclass(frozen=True, kw_only=True)
class StageCounts:
    """What a stage processes: exact for stages that train on fixed data, upper bounds for stages that sample."""

    name: str
    prompts: int
    completions: int
    tokens: int
    optimizer_steps: int


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Memory of a stage in bytes: `persistent` throughout, and `activities`, which run one after another, on top."""

    stage: str
    persistent: Parts
    activities: Mapping[str, Parts]

    @property
    def peak_activity(self) -> str:
        """The activity that needs the most memory."""
        return max(self.activities, key=lambda name: sum(self.activities[name].values()))

    @property
    def peak(self) -> int:
        """The largest number of bytes in use at any time."""
        return sum(self.persistent.values()) + sum(self.activities[self.peak_activity].values())


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Expected cost of one run, computed from its settings, data and shared models."""

    job: RunSettings
    run_data: RunData
    shared: SharedModels

    def stages(self) -> list[StageCounts]:
        """Counts of each stage in order of execution, without the stages whose artifact already exists."""
        return [*self._supervised(), self._rl(), self._evaluation()]

    def memory(self) -> list[StageMemory]:
        """Memory of each of these stages. Evaluation is not listed: its sampling is part of the RL stage."""
        sft = [self._sft_memory()] if "sft" in self.missing else []
        return [*sft, *([self._reward_model_memory()] if "reward model" in self.missing else []), self._rl_memory()]

    @cached_property
    def artifacts(self) -> dict[str, str]:
        """Keys of the artifacts that the run shares with other runs, by stage."""
        sft_key = self.shared.sft_key()
        keys = {"sft": sft_key, "reward model": self.shared.reward_model_key(sft_key)}
        return {stage: key for stage, key in keys.items() if key}

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Stages whose artifact does not exist yet and must be trained."""
        return tuple(stage for stage, key in self.artifacts.items() if not self.shared.store.has(key))

    def disk(self) -> Parts:
        """Bytes written to disk: missing artifacts, the run's checkpoints and its final model."""
        policy = self.policy
        trainable, stored = self._trainable(policy), policy.adapter or policy.weights
        best = 0 if self.job.eval.select == "last" else trainable
        saves = min(KEEP, -(-self.job.rl.steps // self.job.rl.checkpoint_every)) if self.job.rl.checkpoint_every else 0
        sizes = {
            "the SFT model": stored if "sft" in self.missing else 0,
            "the reward model": 0,
            "checkpoints": saves * ((1 + ADAM) * trainable + best),
            "the final model": stored,
        }
        if "reward model" in self.missing:
            reward_model = self._reward_model(trained=True)
            sft_adapter = policy.adapter if self.job.sft.enabled and self.job.reward_model.start == "sft" else 0
            sizes["the reward model"] = reward_model.adapter + sft_adapter or reward_model.weights
        return {name: size for name, size in sizes.items() if size}

    # --- counts ---------------------------------------------------------------------------------------------------

    def _supervised(self) -> Iterator[StageCounts]:
        sft, reward_model = self.job.sft, self.job.reward_model
        if "sft" in self.missing:
            examples = sft.examples(self.run_data.demonstrations, self.run_data.text)
            yield StageCounts(
                name="sft",
                prompts=sft.steps * sft.batch_size,
                completions=0,
                optimizer_steps=sft.steps,
                tokens=examples.tokens_in(sft.seed, sft.steps, sft.batch_size),
            )
        if "reward model" in self.missing:
            comparisons = reward_model.comparisons(self.run_data.comparisons["train"], self.run_data.text)
            yield StageCounts(
                name="reward model",
                prompts=reward_model.steps * reward_model.batch_size,
                completions=0,
                optimizer_steps=reward_model.steps,
                tokens=comparisons.tokens_in(reward_model.seed, reward_model.steps, reward_model.batch_size),
            )

    def _rl(self) -> StageCounts:
        rl, algo = self.job.rl, self.job.algo
        rollouts = rl.max_rollouts(algo)
        return StageCounts(
            name="rl",
            prompts=rollouts // algo.group_size,
            completions=rollouts,
            tokens=rollouts * rl.max_new_tokens,
            optimizer_steps=rl.optimizer_steps,
        )

    def _evaluation(self) -> StageCounts:
        sizes = (len(self.run_data.prompts[split]) for split in EVALUATED_SPLITS)
        generations = self.job.eval.count_generations(self.job.rl.steps, *sizes)
        return StageCounts(
            name="evaluation",
            prompts=generations,
            completions=generations,
            optimizer_steps=0,
            tokens=generations * (self.job.eval.max_new_tokens or self.job.rl.max_new_tokens),
        )

    # --- memory ---------------------------------------------------------------------------------------------------

    @cached_property
    def policy(self) -> MetaModel:
        """The policy on the meta device (no weights), with its adapter."""
        meta_model = memory.make_meta_model(
            self.job.model, texts=self.run_data.texts, device=self._device, lora=self.job.model.lora
        )
        self.job.hardware.apply_checkpointing(meta_model.model)
        return meta_model

    def _reward_model(self, trained: bool) -> MetaModel:
        """The reward model on the meta device: the trained one, or the one that scores (may be external)."""
        reward, config = learned(self.job.reward), None
        folder = reward.path if reward else None
        if folder and not is_adapter(Path(folder)):
            from transformers import AutoConfig

            config = AutoConfig.from_pretrained(folder)
        lora = self.job.reward_model.lora or self.job.model.lora
        meta_model = memory.make_meta_model(
            self.job.model,
            texts=self.run_data.texts,
            device=self._device,
            score_head=True,
            lora=lora if trained or config is None else None,
            config=config,
        )
        self.job.hardware.apply_checkpointing(meta_model.model)
        return meta_model

    def _sft_memory(self) -> StageMemory:
        job, policy = self.job, self.policy
        examples = job.sft.examples(self.run_data.demonstrations, self.run_data.text).tokens
        prompt, answer = max(examples, key=lambda example: len(example[0]) + len(example[1]))
        length = len(prompt) + len(answer)
        work = memory.training_memory(
            policy, rows=min(self._rows(length), job.sft.batch_size), length=length, answer=len(answer)
        )
        trainable = self._trainable(policy)
        return StageMemory(
            stage="sft",
            persistent=self._model_memory(policy) | {"optimizer state": ADAM * trainable},
            activities={"learning": self._update(trainable, work)},
        )

    def _reward_model_memory(self) -> StageMemory:
        job, reward_model = self.job, self._reward_model(trained=True)
        tokens = job.reward_model.comparisons(self.run_data.comparisons["train"], self.run_data.text).tokens
        longest = max(len(prompt) + max(map(len, answers)) for prompt, *answers in tokens)
        pairs = min(max(self._rows(longest) // 2, 1), job.reward_model.batch_size)
        work, trainable = (
            memory.training_memory(reward_model, rows=2 * pairs, length=longest, answer=0),
            self._trainable(reward_model),
        )
        return StageMemory(
            stage="reward model",
            persistent=self._model_memory(reward_model) | {"optimizer state": ADAM * trainable},
            activities={"learning": self._update(trainable, work)},
        )

    def _rl_memory(self) -> StageMemory:
        job, policy, prompt = self.job, self.policy, self.longest_prompt()
        trainable, critic = self._trainable(policy), self._critic(policy)
        persistent = self._model_memory(policy) | {
            "reference": (policy.adapter if job.sft.enabled else 0) if policy.adapter else policy.weights,
            "critic": critic,
            "optimizer state": ADAM * (trainable + critic),
            "best weights so far": 0 if job.eval.select == "last" or self._device != "cpu" else trainable,
            **self._vllm(policy),
        }
        length = prompt + job.rl.max_new_tokens
        work = memory.training_memory(
            policy,
            rows=self._microbatch(length),
            length=length,
            answer=job.rl.max_new_tokens,
            passes=2 if job.algo.critic and job.algo.critic.trunk == "separate" else 1,
        )
        activities = {"sampling": self._sampling(policy, prompt), "learning": self._update(trainable + critic, work)}
        reward = learned(job.reward)
        if reward is not None:
            reward_model = self._reward_model(trained=False)
            persistent |= {"reward model": reward_model.weights + reward_model.adapter}
            rows = min(job.reward.microbatch_size, job.rl.rollouts_per_step)
            activities["scoring"] = {
                "activations of the reward model": memory.inference_memory(reward_model, rows=rows, length=length)
            }
        return StageMemory(
            stage="rl", persistent={name: size for name, size in persistent.items() if size}, activities=activities
        )

    def _vllm(self, policy: MetaModel) -> Parts:
        hardware = self.job.hardware
        return (
            {}
            if hardware.sampler == "own"
            else {
                "vLLM's weights": policy.weights + policy.adapter,
                "vLLM's KV cache": int(hardware.sampler_cache_gib * GIB),
            }
        )

    def _sampling(self, policy: MetaModel, prompt: int) -> Parts:
        """Memory of sampling in a training step or in an evaluation, whichever is larger."""
        job, group = self.job, self.job.algo.group_size
        prompts = job.rl.rollouts_per_step // group
        first = min(prompts, max((job.hardware.rollouts_at_once or job.rl.rollouts_per_step) // group, 1))
        later = (
            min(prompts, (first - 1) * group + 1) - first
        )  # groups that join while each started group has one unfinished answer
        evaluated = min(
            job.hardware.eval_batch_size, max(len(self.run_data.prompts[split]) for split in EVALUATED_SPLITS)
        )
        batches = [
            (first, group, job.rl.max_new_tokens, later),
            (evaluated, 1, job.eval.max_new_tokens or job.rl.max_new_tokens, 0),
        ]
        estimates = [
            memory.generation_memory(policy, prompts=prompts, group=size, prompt=prompt, answer=answer, later=later)
            for prompts, size, answer, later in batches
        ]
        largest = max(estimates, key=lambda estimate: estimate.cache + estimate.work)
        prepacked = {"large weights laid out": policy.prepacked} if policy.prepacked else {}
        return prepacked | {"KV cache": largest.cache, "activations and logits": largest.work}

    def _rows(self, length: int) -> int:
        """Rows of `length` tokens in a microbatch."""
        tokens = self.job.hardware.microbatch_tokens
        return int(self.job.hardware.microbatch_rows if tokens is None else max(tokens // length, 1))

    def _microbatch(self, length: int) -> int:
        """Rows of `length` tokens in the largest microbatch of the RL update."""
        rows, algo = self._rows(length), self.job.algo
        if algo.whole_groups:
            rows = max(rows // algo.group_size, 1) * algo.group_size
        return min(int(rows), self.job.rl.rollouts_per_step // self.job.rl.minibatches)

    def _critic(self, policy: MetaModel) -> int:
        """Bytes of the weights that belong to the critic only."""
        critic = self.job.algo.critic
        if critic is None:
            return 0
        width, hidden = policy.inner.get_input_embeddings().embedding_dim, critic.hidden
        head = FP32 * ((width + 2) * hidden + 1 if hidden else width + 1)
        return int(head) + ((policy.adapter or policy.weights) if critic.trunk == "separate" else 0)

    def longest_prompt(self) -> int:
        """Number of tokens of the longest prompt in any split."""
        text = self.run_data.text
        return max(len(text.encode_prompt(row["prompt"])) for rows in self.run_data.prompts.values() for row in rows)

    @property
    def _device(self) -> str:
        return str(self.job.hardware.resolve_device())

    def _trainable(self, model: MetaModel) -> int:
        return model.adapter or model.weights

    def _model_memory(self, model: MetaModel) -> dict[str, int]:
        process = {"Python and its libraries": interpreter_memory()} if self._device == "cpu" else {}
        return {**process, "weights": model.weights, **({"adapter": model.adapter} if model.adapter else {})}

    @staticmethod
    def _update(trainable: int, work: int) -> Parts:
        return {"gradients": trainable, "activations and logits": max(work - trainable, 0)}


EVALUATED_SPLITS = ("validation", "test")


@cache
def interpreter_memory() -> int:
    """Resident memory of this process at the first call, in bytes: it has imported what a run imports."""
    return hardware.resident_memory()
