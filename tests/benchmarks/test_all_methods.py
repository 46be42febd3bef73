"""Every method of conf/algo runs from SFT to evaluation on a small model; its YAML has the settings of its paper."""

import math
from pathlib import Path
from typing import Any

import pytest
from small_runs import ROOT, numbers, run_small, status

import alignbench as ab
from alignbench.runs.settings import build, resolve

METHODS = sorted(path.stem for path in (ROOT / "conf" / "algo").glob("*.yaml"))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.mark.parametrize("method", METHODS)
def test_method_runs_from_sft_to_evaluation(outputs: Path, method: str) -> None:
    folder = run_small(outputs, f"algo={method}")
    results = {name: value for _, _, metrics in numbers(folder) for name, value in metrics.items()}
    assert status(folder)["status"] == "finished"
    assert all(math.isfinite(value) for value in results.values())
    assert results["budget/completions"] >= 32
    assert len(list((outputs / "artifacts").glob("sft-*/manifest.json"))) == 1, "all methods start from one SFT model"


def build_algorithm(method: str) -> Any:
    return build(resolve(ab.compose(f"algo={method}"))).algo


def test_options_have_the_settings_of_their_papers() -> None:
    dapo, gspo, lite = build_algorithm("dapo"), build_algorithm("gspo"), build_algorithm("lite_ppo")
    assert (dapo.clip_low, dapo.clip_high, dapo.reduction, dapo.kl.coef) == (0.2, 0.28, "token_mean", 0)
    assert (dapo.overlong.buffer, dapo.overlong.penalty, dapo.overlong.mask) == (4096 / 20480, 1.0, True)
    assert dapo.overlong.limit == 32, "the response limit of the run"
    assert (gspo.clip_low, gspo.clip_high, gspo.reduction, gspo.kl.coef) == (3e-4, 4e-4, "sequence_mean", 0)
    assert (lite.scale_by_std, lite.std_over, lite.reduction, lite.kl.coef) == (True, "batch", "token_mean", 0)
    assert (build_algorithm("sapo").tau_positive, build_algorithm("sapo").tau_negative) == (1.0, 1.05)
    assert (build_algorithm("cispo").weight_low, build_algorithm("cispo").kl.coef) == (0.0, 0)
    plain, baseline = build_algorithm("reinforce_pp"), build_algorithm("reinforce_pp_baseline")
    assert (plain.group_size, plain.kl.placement, plain.kl.estimator) == (1, "reward", "k1")
    assert (baseline.group_baseline, baseline.kl.placement, baseline.kl.estimator) == (True, "loss", "k2")
    assert build_algorithm("online_dpo").pairs.link == "logistic"
    assert build_algorithm("online_ipo").pairs.link == "squared"
    assert build_algorithm("pairwise").pairs.link == "linear"
