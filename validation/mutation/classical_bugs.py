"""Classical bugs of RL for language models, each as a change to the code, and the tests that must notice it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """A bug that replaces `old` by `new` in `file`; `tests` run until one fails."""

    name: str
    file: str
    old: str
    """Code that occurs once in the file; line breaks and whitespace do not matter."""
    new: str
    tests: tuple[str, ...]

    def inserted(self, source: str) -> str:
        """The source with the bug. Raises ValueError when `old` does not occur exactly once."""
        tokens = re.findall(r"\w+|[^\w\s]", self.old)
        pattern = re.compile(r"(?<!\w)" + r"(?:,?\s*)".join(map(re.escape, tokens)))
        if (count := len(pattern.findall(source))) != 1:
            raise ValueError(f"{self.name}: {self.old!r} occurs {count} times in {self.file}, not once")
        return pattern.sub(lambda _: self.new, source)


BUGS = (
    Bug(
        "mask one token too long",
        "alignbench/core/batches.py",
        "mask=torch.arange(depth)[None] < torch.tensor(",
        "mask=torch.arange(depth)[None] <= torch.tensor(",
        ("tests/models/test_policy.py", "tests/stages"),
    ),
    Bug(
        "mask one token too short",
        "alignbench/generation/sampler.py",
        "mask = torch.arange(depth, device=lengths.device)[None] < lengths[:, None]",
        "mask = torch.arange(depth, device=lengths.device)[None] < lengths[:, None] - 1",
        ("tests/generation/test_sampler.py",),
    ),
    Bug(
        "EOS dropped from sampled answers",
        "alignbench/generation/sampler.py",
        "is_end.int().argmax(1) + 1, limit)",
        "is_end.int().argmax(1), limit)",
        ("tests/generation/test_sampler.py",),
    ),
    Bug(
        "EOS dropped from demonstrations",
        "alignbench/models/text.py",
        "return [*ids, self.stops[-1]]",
        "return ids",
        ("tests/models/test_text.py", "tests/stages"),
    ),
    Bug(
        "position ids count the left padding",
        "alignbench/kernels/sequence_packing.py",
        "kept, batch.responses, lengths[group])",
        "kept, batch.responses, 0 * kept + batch.prompts.shape[1])",
        ("tests/kernels/test_sequence_packing.py",),
    ),
    Bug(
        "temperature not applied in training",
        "alignbench/models/policy.py",
        "temperature=self.temperature,\n            suppressed=self.text.suppressed",
        "temperature=1.0,\n            suppressed=self.text.suppressed",
        ("tests/models/test_policy.py", "tests/generation/test_sampler.py"),
    ),
    Bug(
        "dropout active in RL",
        "alignbench/models/policy.py",
        "self.model.eval()",
        "self.model.train()",
        ("tests/models/test_policy.py",),
    ),
    Bug(
        "wrong reference adapter",
        "alignbench/models/policy.py",
        "return use_adapters(self.model, *({FROZEN} & self.model.peft_config.keys()))",
        "return use_adapters(self.model)",
        ("tests/models/test_reference.py",),
    ),
    Bug(
        "adapter frozen after the reference acted",
        "alignbench/core/adapters.py",
        "parameter.requires_grad_(requires_grad)",
        "parameter.requires_grad_(False)",
        ("tests/models/test_reference.py",),
    ),
    Bug(
        "group order shuffled",
        "alignbench/generation/sampler.py",
        "group=torch.arange(n, device=lengths.device) // group_size",
        "group=torch.arange(n, device=lengths.device) % len(prompts)",
        ("tests/generation/test_sampler.py",),
    ),
    Bug(
        "std over the batch instead of the group",
        "alignbench/equations/advantages.py",
        "group_std(scores, group, ddof), eps)",
        "batch_std(scores, ddof), eps)",
        ("tests/equations", "tests/algorithms"),
    ),
    Bug(
        "KL sign in the loss",
        "alignbench/algorithms/critic_free.py",
        "policy + batch.kl_coef * kl",
        "policy - batch.kl_coef * kl",
        ("tests/algorithms",),
    ),
    Bug(
        "KL sign in the reward",
        "alignbench/algorithms/ppo.py",
        "- batch.kl_coef * self.kl.in_reward(batch)",
        "+ batch.kl_coef * self.kl.in_reward(batch)",
        ("tests/algorithms",),
    ),
    Bug(
        "KL under no_grad",
        "alignbench/algorithms/critic_free.py",
        "kl = self.kl.in_loss(now, batch)",
        "kl = self.kl.in_loss(now, batch).detach()",
        ("tests/algorithms",),
    ),
    Bug(
        "GAE reads the values of padding",
        "alignbench/equations/advantages.py",
        "next_value = torch.where(mask[:, t], values[:, t], next_value)",
        "next_value = values[:, t]",
        ("tests/equations",),
    ),
    Bug(
        "value head not initialised",
        "alignbench/models/critic.py",
        "nn.init.zeros_(last.weight)",
        "nn.init.normal_(last.weight)",
        ("tests/models/test_critic.py",),
    ),
    Bug(
        "reward on a pad token",
        "alignbench/equations/advantages.py",
        "last = mask & (mask.cumsum(1) == mask.sum(1, keepdim=True))",
        "last = torch.arange(mask.shape[1])[None].expand_as(mask) == mask.shape[1] - 1",
        ("tests/equations",),
    ),
    Bug(
        "loss divided for each microbatch",
        "alignbench/engine/update.py",
        "part = batch[rows]",
        "part = self.algorithm.with_weights(batch[rows])",
        ("tests/engine/test_update.py",),
    ),
    Bug(
        "seed does not reach the sampler",
        "alignbench/generation/sampler.py",
        'derive(seed, "sample", *a)',
        'derive(0, "sample", *a)',
        ("tests/generation/test_sampler.py",),
    ),
    Bug(
        "sampler keeps stale weights",
        "alignbench/stages/online.py",
        "sampler = Sampler(\n            policy=policy,",
        'sampler = Sampler(\n            policy=__import__("copy").deepcopy(policy),',
        ("tests/test_end_to_end.py::test_training_maximizes_a_custom_reward",),
    ),
    Bug(
        "reward of length 1 broadcast",
        "alignbench/rewards/custom.py",
        "if len(values) != len(rows):",
        "values = list(values) * len(rows) if len(values) == 1 else values\n        if len(values) != len(rows):",
        ("tests/rewards/test_custom.py",),
    ),
    Bug(
        "reference trained with the policy",
        "alignbench/models/policy.py",
        "CausalPolicy(copy.deepcopy(self.model), self.text",
        "CausalPolicy(self.model, self.text",
        ("tests/models/test_reference.py",),
    ),
    Bug(
        "gold answer in the prompt",
        "alignbench/data/arithmetic.py",
        'f"{problem.text}\\n"',
        'f"{problem.text} {problem.answer}\\n"',
        ("tests/data/test_arithmetic.py",),
    ),
    Bug(
        "optimizer state lost on resume",
        "alignbench/stages/online.py",
        'adamw.load_state_dict(saved["optimizer"])',
        "pass",
        ("tests/validation/test_faults.py::test_every_method_resumes_as_if_uninterrupted[grpo]",),
    ),
    Bug(
        "prompts restart on resume",
        "alignbench/engine/rl_loop.py",
        "prompts.after(state.prompts_seen)",
        "prompts.after(0)",
        (
            "tests/engine/test_rl_loop.py",
            "tests/validation/test_faults.py::test_every_method_resumes_as_if_uninterrupted[grpo]",
        ),
    ),
    Bug(
        "KL estimated against the sampler instead of the reference",
        "alignbench/algorithms/kl.py",
        "estimate(self.estimator, now.logprobs, batch.ref_logprobs)",
        "estimate(self.estimator, now.logprobs, batch.old_logprobs)",
        ("tests/algorithms",),
    ),
    Bug(
        "equal scores of a group divided by zero",
        "alignbench/equations/advantages.py",
        "torch.where(spread > 0, centred / (spread + eps), torch.zeros_like(centred))",
        "centred / spread",
        ("tests/equations",),
    ),
)
