"""What a prompt asks for, guessed from its words: a fact, a text of one's own, or any other task."""

import re
from typing import Literal

Kind = Literal["factual", "instruction", "creative"]
KINDS: tuple[Kind, ...] = ("factual", "instruction", "creative")

OPENING = 30
"""How many words at the beginning of a prompt are looked at: passages and examples stand behind them."""
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


def kind(prompt: str) -> Kind:
    """The kind of answer a prompt asks for. A heuristic for English, no classifier: some prompts are misplaced.

    creative: after any politeness (please, can you ...), the first word makes (write, tell ...) and one of the first
    thirty is a text of one's own (story, poem, essay ...); or the first word pretends (imagine ...).
    factual: the first word asks or wants an explanation (what, how, is, explain ...), or all of it is one question of
    at most thirty words that is no polite request.
    instruction: everything else, such as tasks with an input, translation, code and lists.
    Of 80 UltraFeedback prompts sorted by reading them it placed 71 alike; of the 5 creative ones only 2.
    """
    words = re.findall(r"\w+", prompt.casefold().replace("'", "").replace("\u2019", ""))
    opening = " ".join(words[:OPENING])
    request = POLITE.sub("", opening, count=1)
    if PRETENDS.match(request) or (MAKES.match(request) and OWN_TEXT.search(request)):
        return "creative"
    plain_question = prompt.rstrip().endswith("?") and len(words) <= OPENING and request == opening
    return "factual" if ASKS.match(request) or plain_question else "instruction"
