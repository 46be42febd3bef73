"""Every method of conf/algo goes from SFT to evaluation on a small model, and its option says what its paper does."""

import math
from pathlib import Path

import pytest
from small_runs import ROOT, config, numbers, run_small, status

from alignbench.runs.settings import build, resolve

METHODS = sorted(path.stem for path in (ROOT / "conf" / "algo").glob("*.yaml"))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each(outputs: Path, method: str) -> None:
    folder = run_small(outputs, f"algo={method}")
    found = {name: value for _, _, metrics in numbers(folder) for name, value in metrics.items()}
    assert status(folder)["status"] == "finished"
    assert all(math.isfinite(value) for value in found.values())
    assert found["budget/completions"] >= 32
    assert len(list((outputs / "artifacts").glob("sft-*/manifest.json"))) == 1, "all start from one SFT model"


def algo(method: str):
    return build(resolve(config(f"algo={method}"))).algo


def test_the_options_say_what_their_papers_do() -> None:
    dapo, gspo, lite = algo("dapo"), algo("gspo"), algo("lite_ppo")
    assert (dapo.clip_low, dapo.clip_high, dapo.reduction, dapo.kl.coef) == (0.2, 0.28, "token_mean", 0)
    assert (dapo.overlong.buffer, dapo.overlong.penalty, dapo.overlong.mask) == (4096 / 20480, 1.0, True)
    assert dapo.overlong.limit == 32, "that of the run"
    assert (gspo.clip_low, gspo.clip_high, gspo.reduction, gspo.kl.coef) == (3e-4, 4e-4, "sequence_mean", 0)
    assert (lite.scale_by_std, lite.std_over, lite.reduction, lite.kl.coef) == (True, "batch", "token_mean", 0)
    assert (algo("sapo").tau_positive, algo("sapo").tau_negative) == (1.0, 1.05)
    assert (algo("cispo").weight_low, algo("cispo").kl.coef) == (0.0, 0)
    plain, baseline = algo("reinforce_pp"), algo("reinforce_pp_baseline")
    assert (plain.group_size, plain.kl.placement, plain.kl.estimator) == (1, "reward", "k1")
    assert (baseline.group_baseline, baseline.kl.placement, baseline.kl.estimator) == (True, "loss", "k2")
    assert algo("online_dpo").pairs.link == "logistic"
    assert algo("online_ipo").pairs.link == "squared"
    assert algo("pairwise").pairs.link == "linear"
