"""Classifies a prompt by a heuristic on its words: factual, instruction or creative."""

import re
from typing import Literal

Kind = Literal["factual", "instruction", "creative"]
KINDS: tuple[Kind, ...] = ("factual", "instruction", "creative")

OPENING = 30
"""Number of words at the beginning of a prompt that are used; passages and examples follow them."""
POLITE = re.compile(
    r"(?:(?:hi|hey|hello|please|kindly|q|question|(?:can|could|would|will) you|help me|tell me(?= wh| how)"
    r"|i (?:want|need|would like|d like) (?:you )?to) )*"
)
ASKS = re.compile(
    r"(?:who|whom|whose|what|whats|when|where|which|why|how|is|isnt|are|was|were|am|do|does|dont|did|has|have|had"
    r"|should|explain|define)\b"
)
MAKES = re.compile(r"(?:write|compose|create|tell|make|craft|invent|continue|generate|give|rewrite|draft|produce)\b")
OWN_TEXT = re.compile(
    r"\b(?:story|stories|tale|poem|poems|poetry|haiku|limerick|sonnet|ballad|song|songs|lyrics|rap|novel|fiction"
    r"|fanfiction|screenplay|monologue|joke|jokes|riddle|eulogy|essay|speech|letter|diary|narrative|film)\b"
)
PRETENDS = re.compile(r"(?:imagine|pretend)\b")


def classify_prompt(prompt: str) -> Kind:
    """The kind of answer that a prompt requests, by a heuristic for English that misclassifies some prompts.

    creative: after polite phrases (please, can you ...), the first word is a verb of writing (write, tell ...) and one
    of the first thirty words is a literary form (story, poem, essay ...); or the first word is imagine or pretend.
    factual: the first word is a question word or asks for an explanation (what, how, is, explain ...), or the prompt is
    one question of at most thirty words that is not a polite request.
    instruction: everything else, such as tasks with an input, translation, code and lists.
    Of 80 UltraFeedback prompts labelled by hand it classified 71 correctly, but only 2 of the 5 creative ones.
    """
    words = re.findall(r"\w+", prompt.casefold().replace("'", "").replace("\u2019", ""))
    opening = " ".join(words[:OPENING])
    request = POLITE.sub("", opening, count=1)
    if PRETENDS.match(request) or (MAKES.match(request) and OWN_TEXT.search(request)):
        return "creative"
    plain_question = prompt.rstrip().endswith("?") and len(words) <= OPENING and request == opening
    return "factual" if ASKS.match(request) or plain_question else "instruction"
