"""The critic of PPO: a value head on the trunk of the policy, or on a separate trunk or adapter."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn

from alignbench.core.adapters import CRITIC, FROZEN, SFT, TRAINED, is_adapted, unwrap, use_adapters
from alignbench.core.errors import UserError
from alignbench.core.protocols import Calibration, Critic
from alignbench.core.seeds import address
from alignbench.kernels.attention_switch import attention_for

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class Trunk(Protocol):
    """Maps the keyword arguments of a forward pass on rows [r, l] to hidden states [r, l, h]."""

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor: ...

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of every parameter of the critic's own trunk."""
        ...


@dataclass(frozen=True)
class ValueFunction:
    """V(s) = head(hidden state); without a trunk, the hidden states are those of the policy."""

    head: nn.Sequential
    trunk: Trunk | None = None
    flops_per_token: int = 0
    """Floating-point operations of the trunk's forward pass per token; 0 without a trunk."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """The values [m] of hidden states [m, h], fp32."""
        return self.head(hidden.float())[:, 0]

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of every parameter that only the value loss trains."""
        yield from ((f"value_head.{name}", p) for name, p in self.head.named_parameters())
        if self.trunk is not None:
            yield from self.trunk.parameters()


@dataclass(frozen=True)
class SeparateTrunk:
    """A separate copy of all trunk weights."""

    decoder: "PreTrainedModel"

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor:
        with attention_for(self.decoder.config, inputs):
            hidden: Tensor = self.decoder(**inputs, use_cache=False).last_hidden_state
            return hidden

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from ((f"{CRITIC}.{name}", p) for name, p in self.decoder.named_parameters())


@dataclass(frozen=True)
class AdapterTrunk:
    """An adapter for the critic on the policy's base model, on top of the frozen adapter of the SFT model if any."""

    model: "PeftModel"
    below: tuple[str, ...]
    """The frozen adapters that are active together with it."""

    def __call__(self, inputs: Mapping[str, Any]) -> Tensor:
        decoder = unwrap(self.model).get_decoder()
        with use_adapters(self.model, *self.below, CRITIC), attention_for(decoder.config, inputs):
            hidden: Tensor = decoder(**inputs, use_cache=False).last_hidden_state
            return hidden

    def parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from ((name, p) for name, p in self.model.named_parameters() if f".{CRITIC}." in name)


def make_critic(
    model: "PreTrainedModel | PeftModel",
    settings: Critic,
    *,
    seed: int,
    reward_model: "PreTrainedModel | PeftModel | None" = None,
    calibration: Calibration | None = None,
) -> ValueFunction:
    """The critic for a policy with this language model; a model with an adapter may get another adapter.

    Args:
        model: the language model of the policy.
        settings: trunk, head and first values.
        seed: initializes the head and the adapter.
        reward_model: a model with a linear head `score`; required if settings.start is reward_model. The first value
            of a state is then the score of the text so far.
        calibration: how the reward scales the scores of the reward model before they are trained on.

    Raises:
        UserError: the reward model does not fit the policy's model.
    """
    assert settings.start == "zero" or reward_model is not None, "start=reward_model needs a reward model"
    inner = unwrap(model)
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
        return ValueFunction(
            head, _adapter_trunk(cast("PeftModel", model), reward_model, seed), flops_per_token=_flops(inner)
        )
    own = _separate_trunk(cast("PreTrainedModel", model), reward_model)
    return ValueFunction(head, own, flops_per_token=_flops(own.decoder))


def value_head(width: int, hidden: int, seed: int) -> nn.Sequential:
    """h -> V(s); the last layer starts at zero, so every value is 0. `width` is h, and `hidden` 0 makes it linear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "critic"))
        last = nn.Linear(hidden or width, 1)
        head = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), last) if hidden else nn.Sequential(last)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return head


@torch.no_grad()
def _scoring_head(reward_model: nn.Module, calibration: Calibration) -> nn.Sequential:
    """The linear layer h -> (score / temperature - mean) / std."""
    score: Any = reward_model.score
    weight: Tensor = score.weight.float()
    layer = nn.Linear(weight.shape[1], 1)
    layer.weight.copy_(weight / (calibration.temperature * calibration.std))
    layer.bias.fill_(-calibration.mean / calibration.std)
    return nn.Sequential(layer)


def _separate_trunk(model: "PreTrainedModel", reward_model: "PreTrainedModel | PeftModel | None") -> SeparateTrunk:
    if reward_model is None:
        decoder = copy.deepcopy(model.get_decoder())
    else:
        own: Any = copy.deepcopy(reward_model)
        decoder = (own.merge_and_unload() if is_adapted(own) else own).base_model
    return SeparateTrunk(decoder.eval().requires_grad_(True))


def _adapter_trunk(model: "PeftModel", reward_model: "PreTrainedModel | PeftModel | None", seed: int) -> AdapterTrunk:
    """A new adapter that does not change the hidden states yet, or the adapter of the reward model."""
    if reward_model is not None and not is_adapted(reward_model):
        raise UserError(
            "algo.critic.start=reward_model: all weights of the reward model were trained, but the policy trains an "
            "adapter, so the critic needs one, too. Use a reward model with an adapter, or set "
            "algo.critic.start=zero"
        )
    shape: Any = copy.deepcopy((model if reward_model is None else reward_model).peft_config[TRAINED])
    shape.modules_to_save, shape.inference_mode = None, False
    with torch.random.fork_rng():
        torch.manual_seed(address(seed, "critic adapter"))
        model.add_adapter(CRITIC, shape)
    if reward_model is not None:
        _copy_adapter(model, reward_model)
    has_sft = FROZEN in model.peft_config and (reward_model is None or SFT in reward_model.peft_config)
    trunk = AdapterTrunk(model, (FROZEN,) if has_sft else ())
    for _, parameter in trunk.parameters():
        parameter.requires_grad_(True)
    return trunk


@torch.no_grad()
def _copy_adapter(model: nn.Module, reward_model: nn.Module) -> None:
    """Copy the adapter of the reward model to the critic; both must have the same SFT adapter below."""
    below, expected = _adapter(model, FROZEN), _adapter(reward_model, SFT)
    if not all(name in below and torch.equal(below[name], weight) for name, weight in expected.items()):
        raise UserError(
            "algo.critic.start=reward_model: the reward model was trained on another SFT model than the "
            "policy. Let the study train it (reward.path=null), or set algo.critic.start=zero"
        )
    mine, theirs = _adapter(model, CRITIC), _adapter(reward_model, TRAINED)
    assert mine.keys() == theirs.keys(), "the reward model has an adapter of another base model"
    for name, weight in theirs.items():
        mine[name].copy_(weight)


def _adapter(model: nn.Module, name: str) -> dict[str, Tensor]:
    """The weights of an adapter by module path; without the head of a reward model."""
    return {
        path.replace(f".{name}.", "."): weight
        for path, weight in model.named_parameters()
        if f".{name}." in path and ".modules_to_save." not in path
    }


def _flops(module: nn.Module) -> int:
    return 2 * sum(p.numel() for p in module.parameters())
