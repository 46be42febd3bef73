"""Tables of the comparison with TRL: the direction of the gains, accuracies and ratios."""

from benchmarks.against_trl import MIB, accuracy_table, rollouts_table, steps_table
from benchmarks.page import format_spread


def make_result(seconds, memory):
    """The result of a process in which each part of a step took `seconds`."""
    step = {"rollout": seconds, "score": seconds, "update": seconds, "tokens": 100}
    return {"steps": [step] * 3, "memory": memory * MIB, "loaded": 100 * MIB, "curve": [(0.0, 0.5), (seconds, 0.75)]}


def test_gains_are_above_one_for_more_tokens_fewer_seconds_and_fewer_bytes():
    results = {
        "alignbench": [make_result(1.0, 200), make_result(2.0, 200)],
        "default": [make_result(0.5, 150), make_result(1.0, 150)],
        "TRL": [make_result(2.0, 600), make_result(6.0, 600)],
    }
    rows = {line.split(" | ")[0][2:]: line for line in steps_table(results).splitlines()[2:]}
    assert rows["step, s"].split(" | ")[1:] == [
        "4.500 (3.000 to 6.000)",
        "2.250 (1.500 to 3.000)",
        "12.000 (6.000 to 18.000)",
        "**2.50 (2.00 to 3.00)**",
        "**5.00 (4.00 to 6.00)** |",
    ]
    assert rows["rollout, tokens / s"].endswith("| **2.50 (2.00 to 3.00)** | **5.00 (4.00 to 6.00)** |")
    assert rows["peak memory, MiB"].endswith("| **3.00 (3.00 to 3.00)** | **4.00 (4.00 to 4.00)** |")
    assert accuracy_table(results).splitlines()[-1] == "| 1.5 | 75.0% | 0.8 | 75.0% | 4.0 | 75.0% |"


def test_rollouts_table_has_ratios_to_generate_and_to_the_floor():
    line = rollouts_table({"fixed": [{"ours": 30.0, "generate": 10.0, "floor": 60.0}]}).splitlines()[-1]
    assert line.endswith("| **3.00 (3.00 to 3.00)** | 2.00 (2.00 to 2.00) |")


def test_spread_is_the_median_with_minimum_and_maximum():
    assert format_spread([3.0, 1.0, 2.0], "{:.0f}") == "2 (1 to 3)"
