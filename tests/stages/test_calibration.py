"""Accuracy, calibration error and temperature of leads, by hand."""

from math import log

import pytest
import torch

from alignbench.stages.calibration import accuracy, accuracy_by_bin, best_temperature, calibration_error, mean_loss


def leads(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_a_tie_counts_half():
    assert accuracy(leads(1.0, 0.0, -2.0, 3.0)) == 2.5 / 4


def test_the_loss_is_the_negative_log_likelihood():
    assert mean_loss(leads(log(3), 0.0)) == pytest.approx((log(4 / 3) + log(2)) / 2)
    assert mean_loss(leads(2 * log(3), 0.0), temperature=2.0) == pytest.approx((log(4 / 3) + log(2)) / 2)


def test_the_calibration_error_is_the_gap_in_each_bin_weighted_by_its_pairs():
    # Confidence 3/4 is in the bin [0.75, 0.8): 4 pairs, 2 right, so the gap is 1/4. Confidence 0.9 is in [0.9, 0.95):
    # 1 pair, right, so the gap is 0.1. Together 4/5 * 1/4 + 1/5 * 0.1.
    sure, surer = log(3) + 1e-9, log(9) + 1e-9
    found = calibration_error(leads(sure, sure, -sure, -sure, surer))
    assert found == pytest.approx(0.8 * 0.25 + 0.2 * 0.1, abs=1e-6)
    assert calibration_error(leads(0.0, 0.0)) == 0.0, "a tie is as sure as it is right"
    assert calibration_error(leads(50.0, -50.0)) == pytest.approx(0.5)


def test_accuracy_three_quarters_at_confidence_three_quarters_is_calibrated():
    assert calibration_error(leads(*[log(3) + 1e-9] * 3, -log(3) - 1e-9)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_the_best_temperature_undoes_a_factor(factor):
    # Right three times in four: the best confidence is 3/4, a lead of log 3.
    too_sure = factor * leads(*[log(3)] * 3, -log(3))
    found = best_temperature(too_sure)
    assert found == pytest.approx(factor, rel=1e-3)
    assert calibration_error(too_sure, found) < 0.01
    assert mean_loss(too_sure, found) <= mean_loss(too_sure) + 1e-9


def test_a_temperature_changes_no_order():
    some = leads(3.0, -1.0, 0.0, 2.0)
    assert accuracy(some / best_temperature(some)) == accuracy(some)


def test_a_model_without_errors_gets_a_finite_temperature():
    assert best_temperature(leads(1.0, 2.0)) == pytest.approx(0.01, rel=0.01)


def test_accuracy_by_bin_gives_edges_accuracy_and_count():
    margins, some = torch.tensor([0.5, 1.0, 1.5, 9.0]), leads(-1.0, 1.0, 0.0, 1.0)
    found = accuracy_by_bin(margins, some, (0.0, 1.0, 2.0, 5.0, None))
    assert found == [(0.0, 1.0, 0.0, 1), (1.0, 2.0, 0.75, 2), (5.0, None, 1.0, 1)]
    differences = torch.tensor([-3, 0, 0, 4])
    assert accuracy_by_bin(differences, some, (None, 0, 1, None)) == [
        (None, 0, 0.0, 1),
        (0, 1, 0.75, 2),
        (1, None, 1.0, 1),
    ]
