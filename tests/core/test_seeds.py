"""Random numbers are a pure function of seed and names."""

import torch

from alignbench.core.seeds import derive, in_epochs


def test_every_item_occurs_once_per_epoch_and_epochs_differ():
    taken = [in_epochs(5, step, 3, 7, "things") for step in range(10)]
    flat = [number for step in taken for number in step]
    epochs = [tuple(flat[start : start + 5]) for start in range(0, 30, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 1


def test_a_step_is_a_function_of_seed_name_and_number():
    assert in_epochs(100, 3, 8, 7, "things") == in_epochs(100, 3, 8, 7, "things")
    others = [in_epochs(100, 3, 8, 6, "things"), in_epochs(100, 3, 8, 7, "others"), in_epochs(100, 2, 8, 7, "things")]
    assert in_epochs(100, 3, 8, 7, "things") not in others
    order = torch.randperm(100, generator=derive(7, "things", 0)).tolist()
    assert in_epochs(100, 3, 8, 7, "things") == order[24:32], "however many are taken at a time"


def test_a_step_may_be_larger_than_an_epoch():
    assert sorted(in_epochs(3, 0, 7, 0))[:2] == [0, 0]
    assert len(in_epochs(3, 0, 7, 0)) == 7
