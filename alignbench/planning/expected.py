"""What a run will draw, train, hold and store: counts and bytes of each phase, before it begins."""

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
"""Numbers that AdamW remembers of each weight it trains."""
FP32 = 4
Parts = Mapping[str, int]
"""Bytes by what they are for."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What a phase will spend; exact for phases that learn from given answers, the most for those that sample."""

    name: str
    prompts: int
    completions: int
    tokens: int
    optimizer_steps: int


@dataclass(frozen=True, kw_only=True)
class Need:
    """The memory of a phase: what stands all the time, and what its moments take on top, one after another."""

    phase: str
    standing: Parts
    moments: Mapping[str, Parts]

    @property
    def hardest(self) -> str:
        """The moment that takes most."""
        return max(self.moments, key=lambda name: sum(self.moments[name].values()))

    @property
    def peak(self) -> int:
        """The most bytes there are at once."""
        return sum(self.standing.values()) + sum(self.moments[self.hardest].values())


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What one run will take, read off its parts."""

    job: RunSettings
    run_data: RunData
    shared: SharedModels

    def phases(self) -> list[Phase]:
        """What each phase will spend, in their order; those whose result is there already are left out."""
        return [*self._supervised(), self._rl(), self._evaluation()]

    def memory(self) -> list[Need]:
        """What each of these phases will hold, but for the evaluation, which samples as the phase before it does."""
        needs = [self._need_sft()] if "sft" in self.missing else []
        return [*needs, *([self._need_reward_model()] if "reward model" in self.missing else []), self._need_rl()]

    @cached_property
    def artifacts(self) -> dict[str, str]:
        """The names of what the run shares with others, by phase."""
        start = self.shared.sft_key()
        names = {"sft": start, "reward model": self.shared.reward_model_key(start)}
        return {phase: name for phase, name in names.items() if name}

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The phases of these that have to be trained: what they make is not there yet."""
        return tuple(phase for phase, name in self.artifacts.items() if not self.shared.store.has(name))

    def disk(self) -> Parts:
        """Bytes that stay: of artifacts that are not there yet, and of the run's checkpoints and its final model."""
        policy = self.policy
        learned, kept = self._learned(policy), policy.adapter or policy.weights
        best = 0 if self.job.eval.select == "last" else learned
        saves = min(KEEP, -(-self.job.rl.steps // self.job.rl.checkpoint_every)) if self.job.rl.checkpoint_every else 0
        sizes = {
            "the SFT model": kept if "sft" in self.missing else 0,
            "the reward model": 0,
            "checkpoints": saves * ((1 + ADAM) * learned + best),
            "the final model": kept,
        }
        if "reward model" in self.missing:
            reward_model = self._reward_model(trained=True)
            under = policy.adapter if self.job.sft.enabled and self.job.reward_model.start == "sft" else 0
            sizes["the reward model"] = reward_model.adapter + under or reward_model.weights
        return {what: size for what, size in sizes.items() if size}

    # --- what is spent --------------------------------------------------------------------------------------------

    def _supervised(self) -> Iterator[Phase]:
        sft, pairs = self.job.sft, self.job.reward_model
        if "sft" in self.missing:
            examples = sft.examples(self.run_data.demonstrations, self.run_data.text)
            yield Phase(
                name="sft",
                prompts=sft.steps * sft.batch_size,
                completions=0,
                optimizer_steps=sft.steps,
                tokens=examples.tokens_in(sft.seed, sft.steps, sft.batch_size),
            )
        if "reward model" in self.missing:
            given = pairs.comparisons(self.run_data.comparisons["train"], self.run_data.text)
            yield Phase(
                name="reward model",
                prompts=pairs.steps * pairs.batch_size,
                completions=0,
                optimizer_steps=pairs.steps,
                tokens=given.tokens_in(pairs.seed, pairs.steps, pairs.batch_size),
            )

    def _rl(self) -> Phase:
        rl, algo = self.job.rl, self.job.algo
        answers = rl.max_rollouts(algo)
        return Phase(
            name="rl",
            prompts=answers // algo.group_size,
            completions=answers,
            tokens=answers * rl.max_new_tokens,
            optimizer_steps=rl.optimizer_steps,
        )

    def _evaluation(self) -> Phase:
        answers = self.job.eval.count_generations(self.job.rl.steps, *(len(self.run_data.prompts[s]) for s in MEASURED))
        return Phase(
            name="evaluation",
            prompts=answers,
            completions=answers,
            optimizer_steps=0,
            tokens=answers * (self.job.eval.max_new_tokens or self.job.rl.max_new_tokens),
        )

    # --- what is held ---------------------------------------------------------------------------------------------

    @cached_property
    def policy(self) -> MetaModel:
        """The language model without its weights, but with its adapter."""
        found = memory.make_meta_model(
            self.job.model, texts=self.run_data.texts, device=self._device, lora=self.job.model.lora
        )
        self.job.hardware.apply_checkpointing(found.model)
        return found

    def _reward_model(self, trained: bool) -> MetaModel:
        """The reward model: as it is trained, or as it scores, which may be one from elsewhere."""
        reward, config = learned(self.job.reward), None
        folder = reward.path if reward else None
        if folder and not is_adapter(Path(folder)):
            from transformers import AutoConfig

            config = AutoConfig.from_pretrained(folder)
        lora = self.job.reward_model.lora or self.job.model.lora
        found = memory.make_meta_model(
            self.job.model,
            texts=self.run_data.texts,
            device=self._device,
            score_head=True,
            lora=lora if trained or config is None else None,
            config=config,
        )
        self.job.hardware.apply_checkpointing(found.model)
        return found

    def _need_sft(self) -> Need:
        job, policy = self.job, self.policy
        examples = job.sft.examples(self.run_data.demonstrations, self.run_data.text).tokens
        prompt, answer = max(examples, key=lambda both: len(both[0]) + len(both[1]))
        length = len(prompt) + len(answer)
        work = memory.training_memory(
            policy, rows=min(self._rows(length), job.sft.batch_size), length=length, answer=len(answer)
        )
        learned = self._learned(policy)
        return Need(
            phase="sft",
            standing=self._standing(policy) | {"optimizer state": ADAM * learned},
            moments={"learning": self._learning(learned, work)},
        )

    def _need_reward_model(self) -> Need:
        job, reward_model = self.job, self._reward_model(trained=True)
        tokens = job.reward_model.comparisons(self.run_data.comparisons["train"], self.run_data.text).tokens
        longest = max(len(prompt) + max(map(len, answers)) for prompt, *answers in tokens)
        pairs = min(max(self._rows(longest) // 2, 1), job.reward_model.batch_size)
        work, learned = (
            memory.training_memory(reward_model, rows=2 * pairs, length=longest, answer=0),
            self._learned(reward_model),
        )
        return Need(
            phase="reward model",
            standing=self._standing(reward_model) | {"optimizer state": ADAM * learned},
            moments={"learning": self._learning(learned, work)},
        )

    def _need_rl(self) -> Need:
        job, policy, prompt = self.job, self.policy, self.longest_prompt()
        trained, critic = self._learned(policy), self._critic(policy)
        started = job.sft.enabled and policy.adapter
        standing = self._standing(policy) | {
            "reference": (policy.adapter if started else 0) if policy.adapter else policy.weights,
            "critic": critic,
            "optimizer state": ADAM * (trained + critic),
            "best weights so far": 0 if job.eval.select == "last" or self._device != "cpu" else trained,
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
        moments = {"sampling": self._sampling(policy, prompt), "learning": self._learning(trained + critic, work)}
        reward = learned(job.reward)
        if reward is not None:
            reward_model = self._reward_model(trained=False)
            standing |= {"reward model": reward_model.weights + reward_model.adapter}
            rows = min(job.reward.microbatch_size, job.rl.rollouts_per_step)
            moments["scoring"] = {
                "activations of the reward model": memory.inference_memory(reward_model, rows=rows, length=length)
            }
        return Need(phase="rl", standing={what: size for what, size in standing.items() if size}, moments=moments)

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
        """Of a step or of an evaluation, whichever takes more."""
        job, group = self.job, self.job.algo.group_size
        prompts = job.rl.rollouts_per_step // group
        first = min(prompts, max((job.hardware.rollouts_at_once or job.rl.rollouts_per_step) // group, 1))
        later = min(prompts, (first - 1) * group + 1) - first  # each of them while one answer to another is left
        measured = min(job.hardware.eval_batch_size, max(len(self.run_data.prompts[split]) for split in MEASURED))
        drawn = [
            (first, group, job.rl.max_new_tokens, later),
            (measured, 1, job.eval.max_new_tokens or job.rl.max_new_tokens, 0),
        ]
        found = [
            memory.generation_memory(policy, prompts=read, group=each, prompt=prompt, answer=answer, later=others)
            for read, each, answer, others in drawn
        ]
        most = max(found, key=lambda written: written.cache + written.work)
        again = {"large weights laid out": policy.prepacked} if policy.prepacked else {}
        return again | {"KV cache": most.cache, "activations and logits": most.work}

    def _rows(self, length: int) -> int:
        """How many of that many tokens are learned from at once."""
        tokens = self.job.hardware.microbatch_tokens
        return int(self.job.hardware.microbatch_rows if tokens is None else max(tokens // length, 1))

    def _microbatch(self, length: int) -> int:
        """Rows of that many tokens in the largest microbatch of the update."""
        rows, algo = self._rows(length), self.job.algo
        if algo.whole_groups:
            rows = max(rows // algo.group_size, 1) * algo.group_size
        return min(int(rows), self.job.rl.rollouts_per_step // self.job.rl.minibatches)

    def _critic(self, policy: MetaModel) -> int:
        """Bytes of all that is the critic's alone."""
        critic = self.job.algo.critic
        if critic is None:
            return 0
        width, hidden = policy.inner.get_input_embeddings().embedding_dim, critic.hidden
        head = FP32 * ((width + 2) * hidden + 1 if hidden else width + 1)
        return int(head) + ((policy.adapter or policy.weights) if critic.trunk == "separate" else 0)

    def longest_prompt(self) -> int:
        """Tokens of the longest prompt of any split."""
        text = self.run_data.text
        return max(len(text.encode_prompt(row["prompt"])) for rows in self.run_data.prompts.values() for row in rows)

    @property
    def _device(self) -> str:
        return str(self.job.hardware.resolve_device())

    def _learned(self, model: MetaModel) -> int:
        return model.adapter or model.weights

    def _standing(self, model: MetaModel) -> dict[str, int]:
        own = {"Python and its libraries": interpreter()} if self._device == "cpu" else {}
        return {**own, "weights": model.weights, **({"adapter": model.adapter} if model.adapter else {})}

    @staticmethod
    def _learning(learned: int, work: int) -> Parts:
        return {"gradients": learned, "activations and logits": max(work - learned, 0)}


MEASURED = ("validation", "test")


@cache
def interpreter() -> int:
    """Bytes that this process held when it was first asked: it has loaded what a run will load."""
    return hardware.resident_memory()
