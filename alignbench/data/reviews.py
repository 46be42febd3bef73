"""Generates short synthetic reviews and computes their true quality."""

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
"""Topics and their aspects; no aspect belongs to two topics."""
ASPECTS = tuple(aspect for aspects in TOPICS.values() for aspect in aspects)
GOOD = ("lovely", "clean", "bright", "calm", "fresh", "great", "fine", "superb")
BAD = ("dirty", "dull", "loud", "broken", "poor", "stale", "awful", "dark")

SENTENCES, WEIGHTS = (0, 1, 2, 3, 4, 5, 6), (2, 20, 30, 25, 15, 6, 2)
"""Number of sentences of a review, and its distribution in percent."""
OFF_TOPIC, REPEATED, BLAME, MALFORMED = 0.06, 0.04, 0.4, 0.04
"""Probabilities that a sentence is about another topic, repeats an aspect, is negative, or is malformed."""

MAX_SENTENCES = 4
"""Each sentence beyond this number costs one point."""
EMPTY = -2.0
"""Quality of an empty answer."""
PART = re.compile(r"[^.]*\.|[^.]+$")
SENTENCE = re.compile(r"The (\w+) was (\w+)\.")


def quality(topic: str, answer: str) -> float:
    """The true quality of a review of the topic, at most 4: the sum over its sentences.

    1 for a positive sentence about an aspect of the topic, -1 for a negative one, each 0.5 less when the adjective was
    used before; -0.5 for an aspect of another topic; -1 for a repeated aspect, for a malformed sentence, and for each
    sentence after the fourth. An empty answer has quality -2.
    """
    parts = [part.strip() for part in PART.findall(answer.strip())]
    total, aspects, adjectives = 0.0, set[str](), set[str]()
    for part in parts[:MAX_SENTENCES]:
        aspect, adjective = _parse_sentence(part)
        if not aspect or aspect in aspects:
            total -= 1
        elif aspect not in TOPICS[topic]:
            total -= 0.5
        else:
            total += (1 if adjective in GOOD else -1) - 0.5 * (adjective in adjectives)
        aspects.add(aspect)
        adjectives.add(adjective)
    return total - max(len(parts) - MAX_SENTENCES, 0) if parts else EMPTY


def _parse_sentence(part: str) -> tuple[str, str]:
    """Aspect and adjective of a sentence; empty texts for a malformed one."""
    found = SENTENCE.fullmatch(part)
    return (found[1], found[2]) if found and found[1] in ASPECTS and found[2] in GOOD + BAD else ("", "")


def write_review(rng: random.Random, topic: str) -> str:
    """A random review of the topic, sampled sentence by sentence."""
    mentioned: list[str] = []
    count = rng.choices(SENTENCES, WEIGHTS)[0]
    return " ".join(_sentence(rng, topic, mentioned) for _ in range(count))


def _sentence(rng: random.Random, topic: str, mentioned: list[str]) -> str:
    aspect = _aspect(rng, topic, mentioned)
    mentioned.append(aspect)
    words = ["The", aspect, "was", rng.choice(BAD if rng.random() < BLAME else GOOD)]
    if rng.random() < MALFORMED:
        del words[rng.randrange(len(words))]
    return " ".join(words) + "."


def _aspect(rng: random.Random, topic: str, mentioned: list[str]) -> str:
    """A repeated aspect, one of another topic, or one of this topic; not a repeated one unless all were used."""
    kind = rng.random()
    if mentioned and kind < REPEATED:
        return rng.choice(mentioned)
    own = TOPICS[topic]
    candidates = [a for a in ASPECTS if a not in own] if kind > 1 - OFF_TOPIC else own
    return rng.choice([aspect for aspect in candidates if aspect not in mentioned] or candidates)
