"""Text encoding: chat template, stop tokens and padding."""

import copy

import pytest
from small_models import make_text

from alignbench.core.errors import UserError
from alignbench.models.text import Text

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_an_answer_ends_with_the_end_token(text):
    assert text.encode_completion("7")[-1] == text.eos
    assert text.decode(text.encode_prompt("1 + 2")) == "1 + 2"
    assert text.eos not in text.encode_prompt("1 + 2")


def test_a_chat_model_gets_its_template(text):
    tokenizer = copy.deepcopy(text.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.chat_template = TEMPLATE
    chat = Text(tokenizer=tokenizer, chat=True, context=64)
    assert chat.decode(chat.encode_prompt("hi")) == "<user>hi<assistant>"
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert chat.stops == (chat.eos, turn)
    assert chat.encode_completion("yes")[-1] == turn
    assert Text(tokenizer=tokenizer, chat=False, context=64).stops == (chat.eos,)


def test_padding_that_ends_answers_may_be_sampled(text):
    assert text.suppressed == (text.pad,)
    shared = make_text(pad_is_eos=True)
    assert shared.pad == shared.eos
    assert shared.suppressed == ()


def test_without_a_padding_token_the_end_token_pads(text):
    tokenizer = copy.deepcopy(text.tokenizer)
    tokenizer.pad_token = None
    assert Text(tokenizer=tokenizer, chat=False, context=64).pad == text.eos


def test_a_tokenizer_without_an_end_token_raises(text):
    tokenizer = copy.deepcopy(text.tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="eos_token"):
        _ = Text(tokenizer=tokenizer, chat=False, context=64).eos
