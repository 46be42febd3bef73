"""The benchmark against TRL says who is faster the right way round."""

from benchmarks.against_trl import MIB, of_accuracy, of_rollouts, of_steps, spread


def told(factor, memory):
    """One process whose every part of a step took this many seconds."""
    step = {"rollout": factor, "score": factor, "update": factor, "tokens": 100}
    return {"steps": [step] * 3, "memory": memory * MIB, "loaded": 100 * MIB, "curve": [(0.0, 0.5), (factor, 0.75)]}


def test_more_tokens_and_fewer_seconds_and_bytes_are_better():
    found = {
        "alignbench": [told(1.0, 200), told(2.0, 200)],
        "as it comes": [told(0.5, 150), told(1.0, 150)],
        "TRL": [told(2.0, 600), told(6.0, 600)],
    }
    rows = {line.split(" | ")[0][2:]: line for line in of_steps(found).splitlines()[2:]}
    assert rows["step, s"].split(" | ")[1:] == [
        "4.500 (3.000 to 6.000)",
        "2.250 (1.500 to 3.000)",
        "12.000 (6.000 to 18.000)",
        "**2.50 (2.00 to 3.00)**",
        "**5.00 (4.00 to 6.00)** |",
    ]
    assert rows["rollout, tokens / s"].endswith("| **2.50 (2.00 to 3.00)** | **5.00 (4.00 to 6.00)** |")
    assert rows["peak memory, MiB"].endswith("| **3.00 (3.00 to 3.00)** | **4.00 (4.00 to 4.00)** |")
    assert of_accuracy(found).splitlines()[-1] == "| 1.5 | 75.0% | 0.8 | 75.0% | 4.0 | 75.0% |"


def test_rollouts_are_told_as_a_multiple_of_generate_and_of_the_floor():
    line = of_rollouts({"fixed": [{"ours": 30.0, "generate": 10.0, "floor": 60.0}]}).splitlines()[-1]
    assert line.endswith("| **3.00 (3.00 to 3.00)** | 2.00 (2.00 to 2.00) |")


def test_a_spread_is_the_median_from_lowest_to_highest():
    assert spread([3.0, 1.0, 2.0], "{:.0f}") == "2 (1 to 3)"
