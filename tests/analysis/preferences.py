"""Synthetic preference runs: a proxy that is trained on, a gold reward that knows better, one frozen reward model."""

from typing import Any

from synthetic import SEEDS, STEPS, Fake

GIB = 2**30
PEAK = 10
"""The step at which gold peaks where it falls again."""
REWARD_MODEL = {
    "accuracy": 0.868,
    "pairs": 2000,
    "accuracy_by_margin": [
        [0.0, 0.5, 0.614, 350],
        [0.5, 1.0, 0.808, 550],
        [1.0, 2.0, 0.916, 700],
        [2.0, None, 0.989, 400],
    ],
    "accuracy_by_length": [[None, 0, 0.8, 600], [0, 1, 0.87, 800], [1, None, 0.93, 600]],
    "ece": 0.018,
    "validation_accuracy": 0.872,
    "validation_pairs": 2000,
    "validation_ece": 0.021,
    "temperature": 1.08,
    "mean": 1.9,
    "std": 1.85,
}


def gold_at(step: int, peak: float, end: float, start: float = -1.0) -> float:
    """Gold rises evenly from the start to its peak at half time, then goes evenly to its end."""
    if step <= PEAK:
        return start + (peak - start) * step / PEAK
    return peak + (end - peak) * (step - PEAK) / (STEPS - PEAK)


def preference_run(
    method: str,
    seed: int,
    peak: float,
    end: float,
    proxy: float = 4.8,
    empty: float = 0.0,
    kl: float = 16.0,
    **changes: Any,
) -> Fake:
    """One run whose gold goes from -1 to `peak` to `end`, and whose proxy goes evenly from 1.0 to `proxy`."""
    rows: dict[int, dict[str, float]] = {}
    for step in range(STEPS + 1):
        rows[step] = {
            "eval/gold": gold_at(step, peak, end),
            "eval/avg_reward": 1.0 + (proxy - 1.0) * step / STEPS,
            "eval/kl": kl * step / STEPS,
            "eval/empty_fraction": empty * step / STEPS,
        }
    rows[STEPS] |= {
        "cost/evaluation_seconds": 6.5,
        "final/gold": end,
        "final/start_gold": -1.0 + 0.01 * (seed % 3),
        "final/avg_reward": proxy,
        "final/start_avg_reward": 1.0,
        "final/start_avg_response_length": 12.0,
        "final/avg_response_length": 18.0 + 0.01 * (seed % 5),
        "final/empty_fraction": empty,
        "final/start_empty_fraction": 0.0,
        "final/repeated_fraction": 0.012,
        "final/start_repeated_fraction": 0.004,
        "final/stratum/places/avg_reward": proxy + 0.1,
        "final/stratum/places/gold": end + 0.2,
        "final/stratum/tools_and_toys/avg_reward": proxy - 0.1,
        "final/stratum/tools_and_toys/gold": end - 0.2,
    }
    manifest = {
        "artifacts": {"sft": "sft-3f9ac41e0001", "reward_model": "reward_model-77aa00bb11cc"},
        "artifact_costs": {
            "sft": {"seconds": 31.5, "tokens": 96_000, "peak_memory_bytes": 0.5 * GIB},
            "reward_model": {"seconds": 22.0, "tokens": 180_000, "peak_memory_bytes": 0.625 * GIB},
        },
        "reward_model": REWARD_MODEL,
        "reward": {"name": "bradley_terry", "sha256": "77aa" * 16},
        **changes.pop("manifest", {}),
    }
    analysis = {
        "metric": None,
        "baseline": "ppo",
        "margin": None,
        "allow": [],
        "price_per_hour": None,
        "expected_memory_gb": {"ppo": [2.0, 2.5], "grpo": [1.0, 1.0]},
        **changes.pop("analysis", {}),
    }
    unknown = {
        "drop": ("accuracy", "pass_at"),
        "row": lambda i: {
            "correct": None,
            "reference": None,
            "scores": {"total": proxy, "gold": end + 0.1 * (i % 3 - 1)},
        },
    }
    return Fake(
        method,
        seed,
        0.6,
        more=rows,
        manifest=manifest,
        config={"analysis": analysis, "reward_model": {"min_accuracy": 0.7, "max_ece": 0.1}},
        **unknown,
        **changes,
    )


def pushed_too_far() -> list[Fake]:
    """GRPO over-optimizes on three seeds, PPO ends in empty answers."""
    ppo = ((42, -1.95, 0.97), (123, -2.0, 0.98), (777, -1.9, 0.96))
    grpo = ((42, 0.9, -1.41), (123, 0.8, -1.06), (777, 1.0, -0.71))
    return [preference_run("ppo", seed, 0.5, end, 4.6, empty, 9.0) for seed, end, empty in ppo] + [
        preference_run("grpo", seed, peak, end) for seed, peak, end in grpo
    ]


def as_it_should_be() -> list[Fake]:
    """Both methods raise gold to the end."""
    ends = {"ppo": (0.77, 1.04, 0.91), "grpo": (0.66, 0.92, 0.76)}
    return [
        preference_run(method, seed, 0.3, end, 4.2, kl=6.0)
        for method, row in ends.items()
        for seed, end in zip(SEEDS[:3], row, strict=True)
    ]
