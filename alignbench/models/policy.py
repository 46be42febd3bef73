"""A causal language model as a policy: log-probabilities, a critic when asked for, and its frozen reference."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from alignbench.core.adapters import CRITIC, FROZEN, is_adapted, use_adapters
from alignbench.core.batches import Forward, Sequences
from alignbench.kernels.attention_switch import attention_for
from alignbench.kernels.chunked_lm_head import LMHead
from alignbench.kernels.logprobs import Head, token_logprobs
from alignbench.kernels.packing_policy import PackingPolicy
from alignbench.kernels.sequence_packing import ModelInput, pad_sequences
from alignbench.models.critic import ValueFunction
from alignbench.models.text import Text


class CausalPolicy:
    """Reads sequences each in a row of its own, or several behind the prompt they share where that is less work.

    No padding stands before or between tokens. Whether the model gives packed sequences what it gives each alone is
    tried when it is loaded; where it does not, or where its attention has a window that cuts them, each stays alone.
    """

    def __init__(
        self, model: Any, text: Text, *, temperature: float = 1.0, critic: ValueFunction | None = None
    ) -> None:
        """`critic` was made for this model."""
        self.model, self.text, self.temperature, self.critic = model, text, temperature, critic
        self.model.eval()
        self.inner = model.get_base_model() if is_adapted(model) else model
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
        """Where the model computes."""
        return self.inner.get_input_embeddings().weight.device

    @property
    def shares_prompts(self) -> bool:
        """Whether sequences that answer one prompt cost less together."""
        return self.packing.supported

    @property
    def dtype(self) -> torch.dtype:
        """What hidden states are counted in."""
        return self.inner.get_input_embeddings().weight.dtype

    def __call__(self, batch: Sequences) -> Forward:
        """Log-probabilities, entropies and values of the response tokens, [n, t]; the reference has no values."""
        rows = self._rows(batch).to(self.device)
        inputs, mask = rows.forward_kwargs(self.dtype), batch.mask.to(self.device)
        before = rows.select_predictors(self._hidden(inputs), mask)
        logprobs, entropy = token_logprobs(
            before,
            batch.responses.to(self.device)[mask],
            self._head,
            vocabulary=self.vocabulary,
            temperature=self.temperature,
            suppressed=self.text.suppressed,
        )
        values = None
        if self.critic is not None and not self._is_reference:
            own = self.critic.trunk
            values = self.critic(
                before[:, : self.hidden_size] if own is None else rows.select_predictors(own(inputs), mask)
            )
        return Forward(
            logprobs=scatter(logprobs, mask),
            entropy=scatter(entropy, mask),
            values=None if values is None else scatter(values, mask),
        )

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Name and value of everything the optimizer may change: the policy's, then the critic's."""
        yield from self.policy_parameters()
        yield from self.critic_parameters()

    def policy_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trainable in the language model, but for the critic's own adapter on it."""
        yield from (
            (name, p) for name, p in self.model.named_parameters() if p.requires_grad and f".{CRITIC}." not in name
        )

    def critic_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained for the values alone."""
        if self.critic is not None:
            yield from self.critic.parameters()

    def freeze_reference(self) -> None:
        """Remember the policy as it is now: a frozen adapter beside the trained one, or a frozen copy of the model."""
        if is_adapted(self.model):
            return
        self._frozen = CausalPolicy(copy.deepcopy(self.model), self.text, temperature=self.temperature)
        self._frozen.model.requires_grad_(False)

    def reference(self) -> AbstractContextManager[Any]:
        """While it is open, the policy answers as the frozen reference does; it may be opened inside itself."""
        return nullcontext() if self._is_reference else self._as_reference()

    def training(self) -> AbstractContextManager[None]:
        """While it is open, dropout acts, as supervised fine-tuning may want; reinforcement learning never opens it."""
        return training(self.model)

    def state(self) -> dict[str, Tensor]:
        """The trained weights, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.trainable()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Put trained weights back."""
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
        """As the model is to read them; with dropout each alone, for siblings would lose the same of their prompt."""
        return (
            pad_sequences(batch, self.text.pad) if self.model.training else self.packing.arrange(batch, self.text.pad)
        )

    def _read(self, rows: ModelInput) -> Tensor:
        """The last hidden states on the CPU, wherever the model reads them."""
        return self._hidden(rows.to(self.device).forward_kwargs(self.dtype))[..., : self.hidden_size].cpu()

    def _hidden(self, inputs: Mapping[str, Any]) -> Tensor:
        """The last hidden state of each position, [r, l, h]; then the logits where the head has rules of its own."""
        with attention_for(self.decoder.config, inputs):
            if self._head_is_exact:
                return self.decoder(**inputs, use_cache=False).last_hidden_state
            out = self.model(**inputs, use_cache=False, output_hidden_states=True)
        return torch.cat([out.hidden_states[-1].float(), out.logits.float()], dim=-1)

    @property
    def _head(self) -> Head:
        if self._head_is_exact:
            return LMHead(self.lm_head, self._capped)
        return lambda hidden: hidden[:, self.hidden_size :]

    @torch.no_grad()
    def _check_head(self) -> bool:
        """Whether decoder, then head, then cap is all the model does to its hidden states: tried on a few tokens."""
        self._head_is_exact = True
        ids = torch.arange(1, 5, device=self.device)[None] % self.vocabulary
        ours = self._head(self._hidden({"input_ids": ids})[0]).float()
        theirs = self.model(input_ids=ids, use_cache=False).logits[0].float()
        return bool(torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())))


@contextmanager
def training(model: Any) -> Iterator[None]:
    """While it is open, the model's dropout acts."""
    model.train()
    try:
        yield
    finally:
        model.eval()


def scatter(values: Tensor, mask: Tensor) -> Tensor:
    """Values of the masked tokens back in their places, 0 elsewhere, [n, t]."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
