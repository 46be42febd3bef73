"""Reviews of a few short sentences: how careless people write them, and what one is truly worth."""

import random
import re

TOPICS = {
    "lake": ("water", "shore", "path", "view", "boat", "pier"),
    "hotel": ("bed", "room", "bath", "lobby", "towel", "key"),
    "cafe": ("coffee", "cake", "menu", "waiter", "table", "tea"),
    "museum": ("guide", "hall", "painting", "ticket", "statue", "shop"),
    "train": ("seat", "window", "ride", "driver", "wagon", "door"),
    "park": ("lawn", "bench", "pond", "fountain", "tree", "rose"),
    "market": ("fruit", "bread", "fish", "cheese", "stall", "honey"),
    "theatre": ("stage", "play", "actor", "singer", "curtain", "dress"),
}
"""What can be reviewed, and the aspects that belong to it; no aspect belongs to two topics."""
ASPECTS = tuple(aspect for aspects in TOPICS.values() for aspect in aspects)
GOOD = ("lovely", "clean", "bright", "calm", "fresh", "great", "fine", "superb")
BAD = ("dirty", "dull", "loud", "broken", "poor", "stale", "awful", "dark")

SENTENCES, WEIGHTS = (0, 1, 2, 3, 4, 5, 6), (2, 20, 30, 25, 15, 6, 2)
"""How many sentences people write, and how often, in percent."""
OFF_TOPIC, REPEATED, BLAME, MALFORMED = 0.06, 0.04, 0.4, 0.04
"""How often a sentence is about another topic, about an aspect named before, bad news, or no sentence at all."""

ROOM = 4
"""How many sentences a reader wants; each one after them costs a point."""
EMPTY = -2.0
"""What an answer without a word is worth."""
PART = re.compile(r"[^.]*\.|[^.]+$")
SENTENCE = re.compile(r"The (\w+) was (\w+)\.")


def quality(topic: str, answer: str) -> float:
    """What a review of the topic is worth, at most 4: the sum over its sentences.

    1 for praise of an aspect of the topic, -1 for blame of one, each half a point less when the adjective was used
    before; -0.5 for an aspect of another topic; -1 for an aspect named before, for a sentence that is none, and for
    each sentence after the fourth. An answer without a word is worth -2.
    """
    parts = [part.strip() for part in PART.findall(answer.strip())]
    total, aspects, adjectives = 0.0, set[str](), set[str]()
    for part in parts[:ROOM]:
        aspect, adjective = _read(part)
        if not aspect or aspect in aspects:
            total -= 1
        elif aspect not in TOPICS[topic]:
            total -= 0.5
        else:
            total += (1 if adjective in GOOD else -1) - 0.5 * (adjective in adjectives)
        aspects.add(aspect)
        adjectives.add(adjective)
    return total - max(len(parts) - ROOM, 0) if parts else EMPTY


def _read(part: str) -> tuple[str, str]:
    """Aspect and adjective of a sentence; of anything else, nothing."""
    found = SENTENCE.fullmatch(part)
    return (found[1], found[2]) if found and found[1] in ASPECTS and found[2] in GOOD + BAD else ("", "")


def write(rng: random.Random, topic: str) -> str:
    """A review as careless people write it: its sentences are drawn one by one."""
    said: list[str] = []
    count = rng.choices(SENTENCES, WEIGHTS)[0]
    return " ".join(_sentence(rng, topic, said) for _ in range(count))


def _sentence(rng: random.Random, topic: str, said: list[str]) -> str:
    aspect = _aspect(rng, topic, said)
    said.append(aspect)
    words = ["The", aspect, "was", rng.choice(BAD if rng.random() < BLAME else GOOD)]
    if rng.random() < MALFORMED:
        del words[rng.randrange(len(words))]
    return " ".join(words) + "."


def _aspect(rng: random.Random, topic: str, said: list[str]) -> str:
    """One named before, one of another topic, or a new one of this topic, as long as there are any."""
    kind = rng.random()
    if said and kind < REPEATED:
        return rng.choice(said)
    own = TOPICS[topic]
    wanted = [a for a in ASPECTS if a not in own] if kind > 1 - OFF_TOPIC else own
    return rng.choice([aspect for aspect in wanted if aspect not in said] or wanted)
