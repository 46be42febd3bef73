"""The critic: first values, trunks and adapters, gradients, resume, and that it is not saved with the policy."""

from dataclasses import dataclass
from itertools import islice

import pytest
import torch
from peft import get_peft_model
from small_models import EOS, PAD, SIZES, batch, make_model
from transformers import AutoModelForCausalLM, GemmaConfig

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.ppo import PPO
from alignbench.core.adapters import CRITIC, FROZEN, TRAINED, use_adapters
from alignbench.core.batches import Scores
from alignbench.core.errors import UserError
from alignbench.core.protocols import Calibration, Critic
from alignbench.data.prompt_stream import PromptStream
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW
from alignbench.engine.run_state import RunState
from alignbench.engine.score import score_with_model as judged
from alignbench.models import critic as critics
from alignbench.models.loading import Lora, Pretrained, save
from alignbench.models.policy import CausalPolicy
from alignbench.models.reward_model import load_reward_model, make_reward_model
from alignbench.stages.evaluate import Evaluate
from alignbench.stages.online import RL, restore, snapshot
from alignbench.stages.weight_selection import BestWeights

SEPARATE = Critic(trunk="separate", hidden=0)
FROM_REWARD_MODEL = Critic(trunk="separate", start="reward_model", hidden=0)
CRITICS = {
    "shared": Critic(hidden=4),
    "separate": Critic(trunk="separate", hidden=4),
    "from reward model": FROM_REWARD_MODEL,
}
PROMPTS, RESPONSES = [[5, 6, 7, 8, 9], [4, 3], [1, 2, 3]], [[3, 4, EOS], [9, 8, 7, 6, 5, 4], [2]]
CARD = {"temperature": 2.0, "mean": 0.5, "std": 3.0}


@dataclass
class Study:
    """The ingredients of a policy with a critic: base model, SFT model and reward model, all random."""

    source: Pretrained
    start: object
    reward_folder: object

    def reward_model(self):
        return load_reward_model(self.source, self.reward_folder, texts=(), device="cpu")

    def policy(self, settings=None, seed=0, scale=None):
        model, text = self.source.load(texts=(), start=self.start, device="cpu", seed=0)
        needed = settings is not None and settings.start == "reward_model"
        critic = settings and critics.make_critic(
            model, settings, seed=seed, reward_model=self.reward_model().model if needed else None, calibration=scale
        )
        policy = CausalPolicy(model, text, critic=critic)
        policy.freeze_reference()
        return policy


@torch.no_grad()
def add_noise(parameters, seed):
    """Add noise to the weights."""
    draw = torch.Generator().manual_seed(seed)
    for _, p in parameters:
        p += 0.1 * torch.randn(p.shape, generator=draw)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory, text):
    """A small Gemma on disk; its widths are multiples of 64, the block size of 4-bit weights."""
    config = GemmaConfig(**SIZES | {"hidden_size": 64, "intermediate_size": 64}, num_key_value_heads=2, head_dim=16)
    folder = tmp_path_factory.mktemp("gemma")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    return folder


KINDS = {
    "all weights": ("none", None, True),
    "all weights, reward model's adapter": ("none", None, False),
    "adapter": ("none", Lora(rank=4), False),
    "adapter on adapter": ("none", Lora(rank=4), True),
    "four bits": ("nf4", Lora(rank=4), True),
}


@pytest.fixture(scope="module", params=KINDS)
def study(request, gemma, tmp_path_factory):
    quantization, lora, sft = KINDS[request.param]
    source = Pretrained(name="small", path=str(gemma), quantization=quantization, lora=lora)
    folder = tmp_path_factory.mktemp("study")
    if sft:
        model, text = source.load(texts=(), start=None, device="cpu", seed=0)
        add_noise(CausalPolicy(model, text).trainable(), 1)
        save(model, text, folder / "sft")
    start = folder / "sft" if sft else None
    own = Lora(rank=2, alpha=6.0) if lora or not sft else None
    reward_model = make_reward_model(source, texts=(), start=start, lora=own, device="cpu", seed=0)
    add_noise(reward_model.trainable(), 2)
    reward_model.save(folder / "reward", CARD)
    return Study(source, start, folder / "reward")


@pytest.fixture(params=CRITICS)
def settings(request):
    return CRITICS[request.param]


@torch.no_grad()
def read(policy):
    return policy(batch(PROMPTS, RESPONSES))


@torch.no_grad()
def read_reference(policy):
    with policy.reference():
        return policy(batch(PROMPTS, RESPONSES))


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


# --- first values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [Critic(), Critic(trunk="separate"), SEPARATE])
def test_values_start_at_zero(study, settings):
    assert (read(study.policy(settings)).values == 0).all()


@torch.no_grad()
def scores_of_texts_so_far(model):
    """Scores of the prompt and the first k response tokens, for each k before the last token."""
    texts = [p + r[:k] for p, r in zip(PROMPTS, RESPONSES, strict=True) for k in range(len(r))]
    return judged(model, batch([text[:-1] for text in texts], [text[-1:] for text in texts]), 2)


def test_first_values_can_be_the_scores_of_the_text_so_far(study):
    policy, judge = study.policy(FROM_REWARD_MODEL), study.reward_model()
    expected = scores_of_texts_so_far(judge)
    assert expected.std() > 0.1
    close(read(policy).values[batch(PROMPTS, RESPONSES).mask], expected)
    scaled = study.policy(FROM_REWARD_MODEL, scale=judge.calibration)
    assert judge.calibration == Calibration(temperature=2.0, mean=0.5, std=3.0)
    close(read(scaled).values[batch(PROMPTS, RESPONSES).mask], (expected / 2 - 0.5) / 3)


def test_a_critic_does_not_change_the_policy(study, settings):
    plain = read(study.policy())
    with_critic = read(study.policy(settings))
    assert plain.values is None
    assert torch.equal(with_critic.logprobs, plain.logprobs)
    assert torch.equal(with_critic.entropy, plain.entropy)


def test_the_seed_initializes_the_critic(study):
    def drawn(seed):
        torch.rand(seed + 1)  # the global generator does not matter
        return torch.cat([p.flatten() for _, p in study.policy(Critic(trunk="separate"), seed).critic_parameters()])

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_start_reward_model_needs_a_separate_trunk_and_a_linear_head():
    for wrong in ({"hidden": 0}, {"trunk": "separate"}, {}):
        with pytest.raises(UserError, match=r"algo\.critic\.trunk=separate and algo\.critic\.hidden=0"):
            Critic(start="reward_model", **wrong)


def test_a_reward_model_of_another_kind_or_base_raises(gemma, tmp_path):
    adapted = Pretrained(name="small", path=str(gemma), lora=Lora(rank=4))
    model, text = adapted.load(texts=(), start=None, device="cpu", seed=0)
    add_noise(CausalPolicy(model, text).trainable(), 1)
    save(model, text, tmp_path / "sft")

    def make(judge, start=None):
        policy, _ = adapted.load(texts=(), start=start, device="cpu", seed=0)
        critics.make_critic(policy, FROM_REWARD_MODEL, seed=0, reward_model=judge.model)

    def begin(source, start=None):
        return make_reward_model(source, texts=(), start=start, lora=None, device="cpu", seed=0)

    with pytest.raises(UserError, match=r"all weights of the reward model were trained.*algo\.critic\.start=zero"):
        make(begin(Pretrained(name="small", path=str(gemma))))
    with pytest.raises(UserError, match=r"another SFT model.*reward\.path=null"):
        make(begin(adapted, tmp_path / "sft"))
    make(begin(adapted, tmp_path / "sft"), tmp_path / "sft")
    shallow = get_peft_model(make_model("llama", num_hidden_layers=1), Lora(rank=4).config(), adapter_name=TRAINED)
    with pytest.raises(AssertionError, match="adapter of another base"):
        critics.make_critic(shallow, FROM_REWARD_MODEL, seed=0, reward_model=begin(adapted).model)


# --- gradients ----------------------------------------------------------------------------------------------------


def gradients(policy, loss):
    loss(policy(batch(PROMPTS, RESPONSES))).backward()
    found = [{name: p.grad for name, p in part()} for part in (policy.policy_parameters, policy.critic_parameters)]
    for _, p in policy.trainable():
        p.grad = None
    return found


def test_policy_and_critic_parameters_partition_the_trainable_ones(study, settings):
    policy = study.policy(settings)
    mine, its = dict(policy.policy_parameters()), dict(policy.critic_parameters())
    assert mine
    assert its
    assert not mine.keys() & its.keys()
    assert not {id(p) for p in mine.values()} & {id(p) for p in its.values()}
    assert dict(policy.trainable()) == mine | its
    assert all(p.requires_grad for p in (mine | its).values())
    frozen = {name for name, p in policy.model.named_parameters() if not p.requires_grad}
    in_model = {name for name, _ in policy.model.named_parameters()}
    assert in_model - frozen == (mine.keys() | its.keys()) & in_model
    assert all(f".{FROZEN}." not in name for name in mine | its)
    assert mine.keys() == dict(study.policy().policy_parameters()).keys(), (
        "the critic does not change which policy parameters are trainable"
    )


def test_one_backward_pass_reaches_policy_and_critic(study, settings):
    policy = study.policy(settings)
    add_noise(policy.critic_parameters(), 3)
    add_noise(policy.policy_parameters(), 4)
    mine, its = gradients(policy, lambda now: (now.logprobs * now.values).sum())
    assert all(g is not None and g.abs().max() > 0 for g in its.values())
    assert sum(g is not None and bool(g.abs().max() > 0) for g in mine.values()) == len(mine)


def test_the_value_loss_reaches_the_policy_only_through_a_shared_trunk(study, settings):
    policy = study.policy(settings)
    add_noise(policy.critic_parameters(), 3)
    add_noise(policy.policy_parameters(), 4)

    def loss(coefficient):
        return lambda now: -now.logprobs.mean() + coefficient * (now.values - 1).square().mean()

    (none, without), (much, with_loss) = gradients(policy, loss(0.0)), gradients(policy, loss(5.0))
    untouched = [torch.equal(none[name], much[name]) for name in none]
    assert all(untouched) == (settings.trunk == "separate")
    assert not any(torch.equal(without[name], with_loss[name]) for name in without)
    only_values = gradients(policy, lambda now: now.values.sum())[0]
    assert all(g is None or not g.any() for g in only_values.values()) == (settings.trunk == "separate")


def test_training_the_critic_changes_neither_policy_nor_reference(study, settings):
    policy = study.policy(settings)
    before, reference = read(policy), read_reference(policy)
    wished = torch.tensor([1.0, -1.0, 0.5])[:, None]
    optimizer = torch.optim.Adam([p for _, p in policy.critic_parameters()], lr=1e-2)

    def miss():
        now = policy(batch(PROMPTS, RESPONSES))
        return (now.values - wished * batch(PROMPTS, RESPONSES).mask).square().mean()

    first = miss().item()
    for _ in range(30):
        optimizer.zero_grad()
        miss().backward()
        optimizer.step()
    assert miss().item() < 0.5 * first
    assert torch.equal(read(policy).logprobs, before.logprobs)
    assert torch.equal(read_reference(policy).logprobs, reference.logprobs)


def test_the_reference_has_no_values_and_restores_the_policy(study, settings):
    policy = study.policy(settings)
    assert torch.equal(read_reference(policy).logprobs, read(policy).logprobs)
    add_noise(policy.trainable(), 5)
    before, learning = read(policy), {name for name, _ in policy.trainable()}
    with policy.reference(), policy.reference():
        assert read(policy).values is None
    with pytest.raises(KeyError), policy.reference():
        raise KeyError
    assert {name for name, _ in policy.trainable()} == learning
    assert {name for name, p in policy.model.named_parameters() if p.requires_grad} == {
        name for name, _ in policy.model.named_parameters() if name in learning
    }
    assert torch.equal(read(policy).values, before.values)
    assert torch.equal(read(policy).logprobs, before.logprobs)


# --- active adapters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", [kind for kind, (_, lora, _) in KINDS.items() if lora], indirect=True)
def test_active_adapters_are_switched_and_requires_grad_is_kept(study):
    policy = study.policy(SEPARATE)
    add_noise(policy.trainable(), 6)
    learning = {name: p.requires_grad for name, p in policy.model.named_parameters()}
    ids, found = torch.tensor([[3, 4, 5]]), {}

    def hidden():
        assert {name: p.requires_grad for name, p in policy.model.named_parameters()} == learning
        with torch.no_grad():
            return policy.decoder(input_ids=ids, use_cache=False).last_hidden_state

    for names in ((), (CRITIC,), (TRAINED,), (TRAINED, CRITIC)):
        with use_adapters(policy.model, *names):
            found[names] = hidden()
    assert torch.equal(hidden(), found[TRAINED,])
    assert len({float(states.sum()) for states in found.values()}) == 4
    with pytest.raises(KeyError), use_adapters(policy.model):
        raise KeyError
    assert torch.equal(hidden(), found[TRAINED,])
    with policy.model.disable_adapter(), torch.no_grad():
        bare = policy.decoder(input_ids=ids, use_cache=False).last_hidden_state
    assert torch.equal(found[()], bare)


# --- in a run -----------------------------------------------------------------------------------------------------


class Evens:
    """The share of even tokens in an answer."""

    def __call__(self, rollouts):
        even = ((rollouts.responses % 2 == 0) & rollouts.mask).sum(1)
        return Scores(total=even / rollouts.mask.sum(1), components={})

    def check(self, rows):
        """Every answer has a share."""

    def content_hash(self):
        return "evens"


def running(policy, algorithm, **changes):
    settings = RL(
        **{
            "steps": 4,
            "rollouts_per_step": 8,
            "max_new_tokens": 5,
            "optimizer": AdamW(learning_rate=1e-2, warmup_steps=0, max_grad_norm=0.1),
            **changes,
        }
    )
    invariants = Invariants(ratio_tolerance=0.1)
    engine = settings.build_loop(policy, Evens(), algorithm, 3, 4, invariants)
    rows = [{"id": i, "prompt": str(i)} for i in range(len(PROMPTS))]
    return engine, PromptStream(rows, lambda name: PROMPTS[int(name)], 8, 3, PAD, 10)


def method(settings, **changes):
    return PPO(critic=settings, value_clip=None, **changes)


def test_the_policys_step_does_not_depend_on_the_weight_of_a_separate_critics_loss(study, settings):
    def learned(weight):
        policy = study.policy(settings)
        engine, stream = running(policy, method(settings, value_coef=weight), minibatches=1)
        next(iter(engine.run(stream, RunState())))
        return {name: p.detach().clone() for name, p in policy.policy_parameters()}

    small, large = learned(0.1), learned(30.0)
    assert all(torch.equal(small[name], large[name]) for name in small) == (settings.trunk == "separate")


def test_a_resumed_run_equals_an_uninterrupted_one(study, settings, tmp_path):
    def weights(policy):
        return {name: p.detach().clone() for name, p in policy.trainable()}

    algorithm = method(settings)
    whole = study.policy(settings)
    engine, stream = running(whole, algorithm)
    reports = list(islice(engine.run(stream, RunState()), 4))
    assert reports[-1].metrics["train/value_loss"] > 0

    half, best = study.policy(settings), BestWeights(Evaluate())
    engine, stream = running(half, algorithm)
    state = list(islice(engine.run(stream, RunState()), 2))[-1].state
    torch.save(snapshot(state, half, engine.update.optimizer.adamw, best), tmp_path / "saved")

    again = study.policy(settings)
    engine, stream = running(again, algorithm)
    state = restore(torch.load(tmp_path / "saved"), again, engine.update.optimizer.adamw, best)
    rest = list(islice(engine.run(stream, state), 2))
    assert rest[-1].metrics["train/value_loss"] == reports[-1].metrics["train/value_loss"]
    found, expected = weights(again), weights(whole)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(read(again).values, read(whole).values)


def test_a_run_saves_the_policy_without_the_critic(study, settings, tmp_path):
    policy = study.policy(settings)
    add_noise(policy.trainable(), 7)
    save(policy.model, policy.text, tmp_path)
    model, text = study.source.load(texts=(), start=tmp_path, device="cpu", seed=0)
    assert torch.equal(read(CausalPolicy(model, text)).logprobs, read(policy).logprobs)
    plain, files = study.policy(), {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    save(plain.model, plain.text, tmp_path / "plain")
    assert files == {f.relative_to(tmp_path / "plain") for f in (tmp_path / "plain").rglob("*") if f.is_file()}


def test_only_a_separate_trunk_costs_flops(study, settings):
    policy, plain = study.policy(settings), study.policy()
    assert plain.critic_flops_per_token == 0
    share = policy.critic_flops_per_token / plain.flops_per_token
    assert share == 0 if settings.trunk == "shared" else 0.7 < share < 1.3


def test_group_methods_have_no_critic(study):
    policy = study.policy(GRPO.critic)
    assert policy.critic is None
    assert not list(policy.critic_parameters())
