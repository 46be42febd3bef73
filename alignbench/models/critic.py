"""The critic of PPO: a value head on the policy's trunk, or on weights or an adapter of its own."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from alignbench.core.adapters import CRITIC, FROZEN, SFT, TRAINED, is_adapted, use_adapters
from alignbench.core.errors import UserError
from alignbench.core.protocols import Calibration, Critic
from alignbench.core.seeds import address
from alignbench.kernels.attention_switch import attention_for


class Trunk(Protocol):
    """Reads rows of tokens [r, l] into hidden states [r, l, h]."""

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor: ...

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of all that is the critic's alone."""
        ...


@dataclass(frozen=True)
class ValueFunction:
    """V(s) = head(hidden state); the hidden states are the policy's where the critic has no trunk of its own."""

    head: nn.Sequential
    trunk: Trunk | None = None
    flops_per_token: int = 0
    """Floating-point operations of its own trunk for a token, forward; 0 without one."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """The value [m] at each hidden state [m, h], fp32."""
        return self.head(hidden.float())[:, 0]

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of everything that is trained for the values alone."""
        yield from ((f"value_head.{name}", p) for name, p in self.head.named_parameters())
        if self.trunk is not None:
            yield from self.trunk.parameters()


@dataclass(frozen=True)
class SeparateTrunk:
    """A whole trunk that is the critic's."""

    decoder: Any

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor:
        with attention_for(self.decoder.config, inputs):
            return self.decoder(**inputs, use_cache=False).last_hidden_state

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from ((f"{CRITIC}.{name}", p) for name, p in self.decoder.named_parameters())


@dataclass(frozen=True)
class AdapterTrunk:
    """An adapter on the policy's base that acts for the critic alone, upon the SFT model's where there is one."""

    model: Any
    under: tuple[str, ...]
    """The frozen adapters that act beneath it."""

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor:
        decoder = self.model.get_base_model().get_decoder()
        with use_adapters(self.model, *self.under, CRITIC), attention_for(decoder.config, inputs):
            return decoder(**inputs, use_cache=False).last_hidden_state

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from ((name, p) for name, p in self.model.named_parameters() if f".{CRITIC}." in name)


def make_critic(
    model: Any, settings: Critic, *, seed: int, reward_model: Any = None, calibration: Calibration | None = None
) -> ValueFunction:
    """The critic of a policy with this language model, which may get an adapter more; `seed` draws first weights.

    `judge` is a model with a linear head `score`, and `scale` what its scores are brought to before they are trained
    on: start=reward_model needs the first, and makes a value what the text would get if it ended before the token.
    Raises UserError when that model does not fit upon the policy's.
    """
    assert settings.start == "zero" or reward_model is not None, "there is no reward model to start from"
    inner = model.get_base_model() if is_adapted(model) else model
    embeddings = inner.get_input_embeddings()
    reward_model = reward_model if settings.start == "reward_model" else None
    if reward_model is None:
        head = value_head(embeddings.embedding_dim, settings.hidden, seed)
    else:
        head = _scoring_head(reward_model, calibration or Calibration())
    head = head.to(embeddings.weight.device)
    if settings.trunk == "shared":
        return ValueFunction(head)
    if is_adapted(model):
        return ValueFunction(head, _own_adapter(model, reward_model, seed), flops_per_token=_flops(inner))
    own = _own_weights(model, reward_model)
    return ValueFunction(head, own, flops_per_token=_flops(own.decoder))


def value_head(width: int, hidden: int, seed: int) -> nn.Sequential:
    """h -> V(s): its last layer starts at zero, so that every value does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "critic"))
        last = nn.Linear(hidden or width, 1)
        head = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), last) if hidden else nn.Sequential(last)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return head


@torch.no_grad()
def _scoring_head(reward_model: Any, calibration: Calibration) -> nn.Sequential:
    """h -> (score / temperature - mean) / std, which a linear layer can say."""
    weight = reward_model.score.weight.float()
    layer = nn.Linear(weight.shape[1], 1)
    layer.weight.copy_(weight / (calibration.temperature * calibration.std))
    layer.bias.fill_(-calibration.mean / calibration.std)
    return nn.Sequential(layer)


def _own_weights(model: Any, reward_model: Any) -> SeparateTrunk:
    if reward_model is None:
        decoder = copy.deepcopy(model.get_decoder())
    else:
        reward_model = copy.deepcopy(reward_model)
        decoder = (reward_model.merge_and_unload() if is_adapted(reward_model) else reward_model).base_model
    return SeparateTrunk(decoder.eval().requires_grad_(True))


def _own_adapter(model: Any, reward_model: Any, seed: int) -> AdapterTrunk:
    """An adapter of the policy's shape that changes nothing yet, or the reward model's."""
    if reward_model is not None and not is_adapted(reward_model):
        raise UserError(
            "algo.critic.start=reward_model: all weights of the reward model were trained, but upon the "
            "policy's base only an adapter can act. Use a reward model with an adapter, or set "
            "algo.critic.start=zero"
        )
    shape = copy.deepcopy((model if reward_model is None else reward_model).peft_config[TRAINED])
    shape.modules_to_save, shape.inference_mode = None, False
    with torch.random.fork_rng():
        torch.manual_seed(address(seed, "critic adapter"))
        model.add_adapter(CRITIC, shape)
    if reward_model is not None:
        _take_over(model, reward_model)
    under = FROZEN in model.peft_config and (reward_model is None or SFT in reward_model.peft_config)
    own = AdapterTrunk(model, (FROZEN,) if under else ())
    for _, parameter in own.parameters():
        parameter.requires_grad_(True)
    return own


@torch.no_grad()
def _take_over(model: Any, reward_model: Any) -> None:
    """Give the critic the weights of the reward model's adapter; the SFT model's under both must be the same."""
    below, expected = _adapter(model, FROZEN), _adapter(reward_model, SFT)
    if not all(name in below and torch.equal(below[name], weight) for name, weight in expected.items()):
        raise UserError(
            "algo.critic.start=reward_model: the reward model was trained upon another SFT model than the "
            "policy's. Let the study train it (reward.path=null), or set algo.critic.start=zero"
        )
    mine, theirs = _adapter(model, CRITIC), _adapter(reward_model, TRAINED)
    assert mine.keys() == theirs.keys(), "the reward model's is an adapter of another base"
    for name, weight in theirs.items():
        mine[name].copy_(weight)


def _adapter(model: Any, name: str) -> dict[str, Tensor]:
    """The weights of that adapter by their place; the head of a reward model is none of them."""
    return {
        place.replace(f".{name}.", "."): weight
        for place, weight in model.named_parameters()
        if f".{name}." in place and ".modules_to_save." not in place
    }


def _flops(module: Any) -> int:
    return 2 * sum(p.numel() for p in module.parameters())
