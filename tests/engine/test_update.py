"""The update: gradients independent of microbatches, minibatches of whole groups, early stopping by KL."""

from dataclasses import replace

import pytest
import torch
from bigram import METHODS, Bigram, Stream, engine, start, weights

from alignbench.core.batches import Pairs, sequences
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW, Optimizer
from alignbench.engine.run_state import RunState
from alignbench.engine.score import compute_forward, microbatches, score, sibling_groups
from alignbench.engine.supervised_loop import SFTObjective, SupervisedLoop
from alignbench.engine.token_metrics import TokenMeans

REDUCTIONS = ("token_mean", "sequence_mean", "sequence_sum", "fixed_length")
every_method = pytest.mark.parametrize("method", METHODS)


def gathered(method, *, stir=True, **options):
    """An engine and its first experience, made by a policy that has moved since."""
    running = engine(METHODS[method](**options))
    state = start(running.algorithm)
    rollouts = running.sampler(next(Stream().after(0)), 4, 11)
    scored = score(rollouts, running.scorer, running.policy, state.kl_control.coef, 32)
    if stir:
        with torch.no_grad():
            running.policy.table += 0.3 * torch.randn(
                running.policy.table.shape, generator=torch.Generator().manual_seed(3)
            )
    return running, running.algorithm.credit(scored)


def pieces(method, size, tokens=None, behind=0, **options):
    """Gradient and metrics of one optimizer step whose rows are taken `size` or `tokens` at a time.

    `behind` the end of each answer stands that token.
    """
    running, experience = gathered(method, **options)
    experience = replace(experience, responses=torch.where(experience.mask, experience.responses, behind))
    batch = running.algorithm.with_weights(experience)
    seen = TokenMeans()
    numbers = replace(running.update, microbatch_size=size, tokens_per_microbatch=tokens)._accumulate(batch, seen)
    gradient = torch.cat([p.grad.flatten() for _, p in running.policy.trainable()])
    return gradient, numbers, {name: (seen.mean(name), seen.std(name)) for name in seen.sums}


@every_method
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("size", [1, 3, 7, 31])
def test_any_microbatch_size_gives_the_same_gradient(method, reduction, size):
    options = {"reduction": reduction, "fixed_length": 5 if reduction == "fixed_length" else None}
    whole, numbers, shown = pieces(method, 32, **options)
    found, their_numbers, their_shown = pieces(method, size, **options)
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=1e-5)
    assert their_numbers == pytest.approx(numbers, abs=1e-6, rel=1e-5)
    for name, expected in shown.items():
        assert their_shown[name] == pytest.approx(expected, abs=1e-6, rel=1e-5), name


@every_method
@pytest.mark.parametrize("tokens", [1, 11, 40, 10_000])
def test_any_budget_of_tokens_gives_the_same_gradient(method, tokens):
    whole, numbers, shown = pieces(method, 32)
    found, their_numbers, their_shown = pieces(method, 32, tokens, behind=3)
    torch.testing.assert_close(found, whole, atol=1e-6, rtol=1e-5)
    assert their_numbers == pytest.approx(numbers, abs=1e-6, rel=1e-5)
    for name, expected in shown.items():
        assert their_shown[name] == pytest.approx(expected, abs=1e-6, rel=1e-5), name


@every_method
@pytest.mark.parametrize("size", [1, 5])
def test_a_whole_update_does_not_depend_on_the_microbatch_size(method, size):
    results = []
    for microbatch_size in (32, size):
        running, experience = gathered(method, stir=False)
        update = replace(running.update, microbatch_size=microbatch_size)
        updated = update(experience, step=0, optimizer_steps=0, seed=0)
        results.append((updated.metrics, weights(running.policy)))
    (metrics, whole), (their_metrics, found) = results
    assert their_metrics == pytest.approx(metrics, abs=1e-5)
    for a, b in zip(found, whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_forward_passes_do_not_depend_on_the_microbatch_size():
    running, experience = gathered("PPO")
    with torch.no_grad():
        whole, parts = compute_forward(running.policy, experience, 32), compute_forward(running.policy, experience, 5)
        few = compute_forward(running.policy, experience, 32, tokens=17)
    for found in (parts, few):
        torch.testing.assert_close(found.logprobs, whole.logprobs, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.entropy, whole.entropy, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.values, whole.values, atol=1e-6, rtol=0)


def test_microbatches_hold_each_row_once_and_rows_of_similar_length():
    _, experience = gathered("GRPO")
    parts = list(microbatches(experience, 5))
    assert sorted(torch.cat(parts).tolist()) == list(range(32))
    assert [len(p) for p in parts] == [5] * 6 + [2]
    lengths = experience.lengths()[torch.cat(parts)]
    assert (lengths.diff() <= 0).all()


@pytest.mark.parametrize(("size", "expected"), [(9, [8] * 4), (8, [8] * 4), (4, [4] * 8), (3, [3, 1] * 8)])
def test_groups_stay_in_one_microbatch_unless_they_are_too_large(size, expected):
    _, experience = gathered("GRPO")
    parts = list(microbatches(experience, size, experience.group, split_groups=True))
    assert sorted(torch.cat(parts).tolist()) == list(range(32))
    assert [len(p) for p in parts] == expected
    for rows in parts:
        _, counts = experience.group[rows].unique(return_counts=True)
        assert (counts == min(size, 4)).all() or size == 3
    whole = list(microbatches(experience, 3, experience.group))
    assert [len(p) for p in whole] == [4] * 8


def sized(prompt, answers):
    """A group for each row of answers, of these lengths, to prompts of that length."""
    flat = [[2] * length for group in answers for length in group]
    group = torch.arange(len(answers)).repeat_interleave(len(answers[0]))
    return sequences([[3] * prompt] * len(flat), flat, pad=0), group


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (1, [[1], [3], [0], [2]]),
        (17, [[1], [3], [0, 2]]),
        (18, [[1], [3, 0], [2]]),
        (23, [[1, 3], [0, 2]]),
        (31, [[1, 3, 0], [2]]),
        (38, [[1, 3, 0, 2]]),
    ],
)
def test_a_token_budget_is_filled_with_the_longest_rows_first(tokens, expected):
    """Of 4 + 4, 4 + 9, 4 + 3 and 4 + 6 tokens."""
    batch, _ = sized(4, [[4, 9], [3, 6]])
    assert [rows.tolist() for rows in microbatches(batch, 1, tokens=tokens)] == expected


@pytest.mark.parametrize(
    ("tokens", "shared", "expected"),
    [
        (8, True, [[0], [1], [2], [3]]),
        (17, True, [[0, 1], [2, 3]]),
        (29, True, [[0, 1], [2, 3]]),
        (30, True, [[0, 1, 2, 3]]),
        (30, False, [[0, 1], [2, 3]]),
        (38, False, [[0, 1, 2, 3]]),
    ],
)
def test_a_shared_prompt_counts_once(tokens, shared, expected):
    """Groups of 4 + 4 + 9 and of 4 + 3 + 6 tokens."""
    batch, group = sized(4, [[4, 9], [3, 6]])
    parts = microbatches(batch, 1, group, split_groups=True, tokens=tokens, shared_prompts=shared)
    assert [rows.tolist() for rows in parts] == expected
    whole = list(microbatches(batch, 1, group, tokens=tokens, shared_prompts=shared))
    assert [len(rows) for rows in whole] in ([2, 2], [4]), "whose loss compares them never part"


def test_a_policy_that_shares_prompts_gets_groups_together():
    running, experience = gathered("GRPO")
    assert sibling_groups(running.policy, experience) is None
    running.policy.shares_prompts = True
    assert torch.equal(sibling_groups(running.policy, experience), experience.group)
    assert sibling_groups(running.policy, EXAMPLES) is None


@pytest.mark.parametrize("minibatches", [1, 2, 3, 8, 20])
def test_minibatches_are_whole_groups_and_hold_each_row_once_per_epoch(minibatches):
    running, experience = gathered("GRPO")
    shuffled = experience[torch.randperm(32, generator=torch.Generator().manual_seed(0))]
    update = replace(running.update, minibatches=minibatches, epochs=2)
    parts = list(update._minibatches(shuffled, seed=0, step=0))
    each = min(minibatches, 8)
    assert len(parts) == 2 * each
    for epoch in (parts[:each], parts[each:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(32))
        groups = [set(shuffled.group[rows].tolist()) for rows in epoch]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 8


def test_minibatches_are_a_function_of_seed_step_and_epoch():
    running, experience = gathered("GRPO")

    def order(seed, step):
        return [rows.tolist() for rows in running.update._minibatches(experience, seed, step)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0)[:2] != order(0, 0)[2:]


def test_target_kl_ends_the_update_early():
    free, early = (gathered("GRPO", stir=False, target_kl=limit) for limit in (None, 1e-6))
    stopped = early[0].update(early[1], step=0, optimizer_steps=0, seed=0)
    assert free[0].update(free[1], step=0, optimizer_steps=0, seed=0).optimizer_steps == 4
    assert stopped.optimizer_steps == 1
    assert stopped.metrics["train/epochs_done"] == 0.5
    one_step = gathered("GRPO", stir=False)
    rows = next(one_step[0].update._minibatches(one_step[1], 0, 0))
    replace(one_step[0].update, epochs=1, minibatches=1)(one_step[1][rows], step=0, optimizer_steps=0, seed=0)
    torch.testing.assert_close(weights(early[0].policy), weights(one_step[0].policy), atol=1e-7, rtol=0)
    assert all(p.grad is None for _, p in early[0].policy.trainable())


def test_tokens_outside_the_mask_affect_neither_gradient_nor_metrics():
    (running, experience), (other, _) = (gathered("PPO", stir=False) for _ in range(2))
    noisy = replace(
        experience,
        responses=torch.where(experience.mask, experience.responses, 3),
        advantages=torch.where(experience.mask, experience.advantages, 1e3),
    )
    assert not torch.equal(noisy.advantages, experience.advantages)
    clean = running.update(experience, step=0, optimizer_steps=0, seed=0)
    found = other.update(noisy, step=0, optimizer_steps=0, seed=0)
    assert found.metrics == clean.metrics
    assert all(torch.equal(a, b) for a, b in zip(weights(running.policy), weights(other.policy), strict=True))


# --- imitation ----------------------------------------------------------------------------------------------------

EXAMPLES = sequences([[2, 1], [2, 3], [2, 5], [2, 4]], [[5, 0], [4, 4, 4, 0], [1], [3, 2, 0]], pad=0)


def imitate(microbatch_size=32, rate=0.1, count=1, policy=None, tokens=None, **invariants):
    policy = policy or Bigram()
    optimizer = Optimizer([([p for _, p in policy.trainable()], rate)], AdamW(warmup_steps=0), 100)
    learning = SupervisedLoop(
        model=policy,
        objective=SFTObjective(policy),
        optimizer=optimizer,
        batch_at=lambda step: EXAMPLES,
        microbatch_size=microbatch_size,
        tokens_per_microbatch=tokens,
        invariants=Invariants(**invariants),
    )
    reports = learning.run(RunState())
    return [next(reports) for _ in range(count)], policy


def test_the_sft_loss_is_the_mean_over_all_tokens():
    report = imitate()[0][0]
    with torch.no_grad():
        by_hand = -Bigram()(EXAMPLES).logprobs.sum() / 10
    assert report.metrics["sft/loss"] == pytest.approx(by_hand.item(), rel=1e-6)
    assert report.state.tokens_written == report.metrics["sft/tokens"] == 10
    assert report.state.flops == 3 * 10 * (10 + 8)
    assert (report.state.prompts_seen, report.state.optimizer_steps) == (4, 1)


@pytest.mark.parametrize("pieces", [{"microbatch_size": 1}, {"microbatch_size": 3}, {"tokens": 7}])
def test_sft_does_not_depend_on_the_microbatch_size(pieces):
    (whole,), one = imitate()
    (found,), other = imitate(**pieces)
    for name, value in whole.metrics.items():
        assert found.metrics[name] == pytest.approx(value, abs=1e-6)
    torch.testing.assert_close(weights(one), weights(other), atol=1e-5, rtol=1e-5)


def test_sft_learns():
    reports, _ = imitate(count=40)
    assert reports[-1].metrics["sft/loss"] < 0.5 * reports[0].metrics["sft/loss"]
    assert set(reports[0].metrics) == {"sft/loss", "sft/learning_rate", "sft/grad_norm", "sft/tokens"}


# --- pairs --------------------------------------------------------------------------------------------------------

PAIRS = Pairs(
    both=sequences(
        [[2, 1], [2, 3], [2, 5], [2, 1], [2, 3], [2, 5]], [[5, 0], [4, 4, 4, 0], [1], [3, 3, 0], [2, 2], [4, 0]], 0
    ),
    margin=torch.tensor([0.0, 0.5, 1.0]),
)


class Ahead:
    """How far the log-probability of the chosen response is ahead of that of the rejected one and of the margin."""

    name = "sft"

    def __init__(self, policy: Bigram) -> None:
        self.policy, self.seen = policy, []

    def count(self, batch) -> int:
        return len(batch)

    def sums(self, part):
        self.seen.append(part)
        chosen, rejected = self.policy(part.both).logprobs.sum(1).view(2, -1)
        lead = chosen - rejected - part.margin
        return {"loss": -lead.sigmoid().log().sum(), "ahead": (lead.detach() > 0).float().sum()}


def prefer(microbatch_size=32):
    objective = Ahead(Bigram())
    optimizer = Optimizer([([p for _, p in objective.policy.trainable()], 0.1)], AdamW(warmup_steps=0, eps=1e-5), 100)
    learning = SupervisedLoop(
        model=objective.policy,
        objective=objective,
        optimizer=optimizer,
        batch_at=lambda step: PAIRS,
        microbatch_size=microbatch_size,
        invariants=Invariants(),
    )
    return next(learning.run(RunState())), objective


def test_both_sides_of_a_pair_are_always_in_one_microbatch():
    report, objective = prefer(microbatch_size=1)
    assert [len(part) for part in objective.seen] == [1, 1, 1]
    assert [part.margin.item() for part in objective.seen] == [0.5, 0.0, 1.0], "the longest first"
    first = objective.seen[0]
    assert [r[m].tolist() for r, m in zip(first.both.responses, first.mask, strict=True)] == [[4, 4, 4, 0], [2, 2]]
    assert report.state.tokens_written == 2 + 4 + 1 + 3 + 2 + 2
    assert report.state.prompts_seen == 3
    assert report.state.flops == 3 * 10 * (14 + 12)


def test_pairs_in_microbatches_give_the_same_metrics_and_weights():
    (whole, one), (found, other) = prefer(), prefer(microbatch_size=2)
    with torch.no_grad():
        chosen, rejected = Bigram()(PAIRS.both).logprobs.sum(1).view(2, 3)
        by_hand = -(chosen - rejected - PAIRS.margin).sigmoid().log().mean()
    assert whole.metrics["sft/loss"] == pytest.approx(by_hand.item(), rel=1e-6)
    assert whole.metrics["sft/ahead"] in (0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1)
    assert found.metrics == pytest.approx(whole.metrics, abs=1e-6)
    torch.testing.assert_close(weights(one.policy), weights(other.policy), atol=1e-5, rtol=1e-5)
