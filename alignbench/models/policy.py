"""A causal language model as a policy: log-probabilities, an optional critic, and a frozen reference."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alignbench.core.adapters import CRITIC, FROZEN, is_adapted, unwrap, use_adapters
from alignbench.core.batches import Forward, Sequences
from alignbench.kernels.attention_switch import attention_for
from alignbench.kernels.chunked_lm_head import LMHead
from alignbench.kernels.logprobs import Head, token_logprobs
from alignbench.kernels.packing_policy import PackingPolicy
from alignbench.kernels.sequence_packing import ModelInput, pad_sequences
from alignbench.models.critic import ValueFunction
from alignbench.models.text import Text

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class CausalPolicy:
    """Computes log-probabilities, entropies and values of response tokens, [n, t].

    Sequences that share a prompt are packed into one row if that saves computation. Whether the model supports packing
    is tried once in the constructor; otherwise, or if an attention window is shorter than a sequence, each sequence has
    a row of its own. Rows are padded on the right only.
    """

    def __init__(
        self,
        model: "PreTrainedModel | PeftModel",
        text: Text,
        *,
        temperature: float = 1.0,
        critic: ValueFunction | None = None,
    ) -> None:
        """`critic` must have been made for this model (`make_critic`); `temperature` divides the logits."""
        self.model: Any = model
        self.text, self.temperature, self.critic = text, temperature, critic
        self.model.eval()
        self.inner = unwrap(model)
        self.decoder, self.lm_head = self.inner.get_decoder(), self.inner.get_output_embeddings()
        self.vocabulary = self.lm_head.weight.shape[0]
        self.hidden_size = self.inner.get_input_embeddings().embedding_dim
        self.flops_per_token = 2 * sum(p.numel() for p in self.inner.parameters())
        self.critic_flops_per_token = critic.flops_per_token if critic else 0
        self._capped = getattr(self.inner.config.get_text_config(), "final_logit_softcapping", None)
        self._head_is_exact = self._check_head()
        self.packing = PackingPolicy.detect(self.inner, self._read, text.pad)
        self._frozen: CausalPolicy | None = None
        self._is_reference = False

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        device: torch.device = self.inner.get_input_embeddings().weight.device
        return device

    @property
    def shares_prompts(self) -> bool:
        """Whether sequences that answer one prompt are cheaper in one batch."""
        return self.packing.supported

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the hidden states."""
        dtype: torch.dtype = self.inner.get_input_embeddings().weight.dtype
        return dtype

    def __call__(self, batch: Sequences) -> Forward:
        """Log-probabilities, entropies and values of the response tokens, [n, t]; no values from the reference."""
        rows = self._rows(batch).to(self.device)
        inputs, mask = rows.forward_kwargs(self.dtype), batch.mask.to(self.device)
        hidden = rows.select_predictors(self._hidden(inputs), mask)
        logprobs, entropy = token_logprobs(
            hidden,
            batch.responses.to(self.device)[mask],
            self._head,
            vocabulary=self.vocabulary,
            temperature=self.temperature,
            suppressed=self.text.suppressed,
        )
        values = None
        if self.critic is not None and not self._is_reference:
            trunk = self.critic.trunk
            states = hidden[:, : self.hidden_size] if trunk is None else rows.select_predictors(trunk(inputs), mask)
            values = self.critic(states)
        return Forward(
            logprobs=scatter(logprobs, mask),
            entropy=scatter(entropy, mask),
            values=None if values is None else scatter(values, mask),
        )

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of every trainable parameter: those of the policy, then those of the critic."""
        yield from self.policy_parameters()
        yield from self.critic_parameters()

    def policy_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of the trainable parameters of the language model, without the critic's adapter."""
        yield from (
            (name, p) for name, p in self.model.named_parameters() if p.requires_grad and f".{CRITIC}." not in name
        )

    def critic_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of the parameters that only the value loss trains; empty without a critic."""
        if self.critic is not None:
            yield from self.critic.parameters()

    def freeze_reference(self) -> None:
        """Make the current policy the reference: copies the model, unless `load` already gave it a frozen adapter."""
        if is_adapted(self.model):
            return
        self._frozen = CausalPolicy(copy.deepcopy(self.model), self.text, temperature=self.temperature)
        self._frozen.model.requires_grad_(False)

    def reference(self) -> AbstractContextManager[Any]:
        """Context manager: calls of the policy use the weights of the frozen reference; reentrant."""
        return nullcontext() if self._is_reference else self._as_reference()

    def training(self) -> AbstractContextManager[None]:
        """Context manager: dropout is active, for supervised fine-tuning; reinforcement learning never uses it."""
        return training(self.model)

    def state(self) -> dict[str, Tensor]:
        """The trainable weights by name, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.trainable()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the weights returned by `state`."""
        with torch.no_grad():
            for name, parameter in self.trainable():
                parameter.copy_(state[name])

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        self._is_reference = True
        try:
            with self._frozen_weights():
                yield
        finally:
            self._is_reference = False

    def _frozen_weights(self) -> AbstractContextManager[Any]:
        if is_adapted(self.model):
            return use_adapters(self.model, *({FROZEN} & self.model.peft_config.keys()))
        return nullcontext() if self._frozen is None else self._swapped(self._frozen)

    @contextmanager
    def _swapped(self, other: "CausalPolicy") -> Iterator[None]:
        mine = self.model, self.inner, self.decoder, self.lm_head
        self.model, self.inner, self.decoder, self.lm_head = other.model, other.inner, other.decoder, other.lm_head
        try:
            yield
        finally:
            self.model, self.inner, self.decoder, self.lm_head = mine

    def _rows(self, batch: Sequences) -> ModelInput:
        """The model input of a batch; not packed with dropout: siblings would share the dropout of their prompt."""
        return (
            pad_sequences(batch, self.text.pad) if self.model.training else self.packing.arrange(batch, self.text.pad)
        )

    def _read(self, rows: ModelInput) -> Tensor:
        """The last hidden states, [r, l, h], on the CPU."""
        return self._hidden(rows.to(self.device).forward_kwargs(self.dtype))[..., : self.hidden_size].cpu()

    def _hidden(self, inputs: Mapping[str, Any]) -> Tensor:
        """The last hidden states, [r, l, h]; concatenated with the logits if the head is not a plain linear layer."""
        with attention_for(self.decoder.config, inputs):
            if self._head_is_exact:
                hidden: Tensor = self.decoder(**inputs, use_cache=False).last_hidden_state
                return hidden
            out = self.model(**inputs, use_cache=False, output_hidden_states=True)
        return torch.cat([out.hidden_states[-1].float(), out.logits.float()], dim=-1)

    @property
    def _head(self) -> Head:
        if self._head_is_exact:
            return LMHead(self.lm_head, self._capped)
        return lambda hidden: hidden[:, self.hidden_size :]

    @torch.no_grad()
    def _check_head(self) -> bool:
        """Whether head and soft-capping reproduce the logits of the model, tried on a few tokens."""
        self._head_is_exact = True
        ids = torch.arange(1, 5, device=self.device)[None] % self.vocabulary
        ours = self._head(self._hidden({"input_ids": ids})[0]).float()
        theirs = self.model(input_ids=ids, use_cache=False).logits[0].float()
        return bool(torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())))


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Context manager: the dropout of the model is active."""
    model.train()
    try:
        yield
    finally:
        model.eval()


def scatter(values: Tensor, mask: Tensor) -> Tensor:
    """Scatter values [m] to the True positions of `mask` [n, t]; 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
