"""Every equation raises an error for a tensor of the wrong shape."""

import pytest
import torch
from jaxtyping import TypeCheckError

from alignbench.core.batches import Forward
from alignbench.equations.advantages import gae, group_mean, over_tokens
from alignbench.equations.divergences import k3
from alignbench.equations.objectives import clipped_surrogate
from alignbench.equations.reductions import token_weights

FLAT, TABLE, WIDER = torch.zeros(2), torch.zeros(2, 3), torch.zeros(2, 4)
MASK = torch.ones(2, 3, dtype=torch.bool)

WRONG = {
    "tokens of two lengths": lambda: clipped_surrogate(TABLE, WIDER, 0.2, 0.2),
    "a number per rollout where one per token is due": lambda: k3(TABLE, FLAT),
    "values longer than rewards": lambda: gae(TABLE, WIDER, MASK, 1.0, 1.0),
    "two scores, three group numbers": lambda: group_mean(FLAT, torch.zeros(3, dtype=torch.long)),
    "one advantage too few": lambda: over_tokens(torch.zeros(1), MASK),
    "a mask of numbers": lambda: token_weights(TABLE, "token_mean"),
    "a reduction that does not exist": lambda: token_weights(MASK, "mean"),
    "a batch whose fields disagree": lambda: Forward(logprobs=TABLE, entropy=WIDER),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_shape_or_type_raises(call):
    with pytest.raises(TypeCheckError):
        call()
