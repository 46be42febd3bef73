"""Classification of prompts by their words."""

import pytest

from alignbench.data.prompt_kinds import classify_prompt


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Write a short story about a lighthouse.", "creative"),
        ("please can you compose a HAIKU for my mother", "creative"),
        ("Tell me a joke about cats", "creative"),
        ("Tell me what cats eat", "factual"),
        ("Imagine you are a detective.", "creative"),
        ("Write a summary of this story: " + "word " * 40, "creative"),  # wrong, and known to be: no classifier
        ("Write code that sorts a list. " + "word " * 40 + "story", "instruction"),
        ("Given a story, answer the question.", "instruction"),
        ("What's the capital of Peru?", "factual"),
        ("how do i use nested stacks", "factual"),
        ("Hi, please explain recursion", "factual"),
        ("In 1976, who won the race?", "factual"),
        ("Can you list five rivers?", "instruction"),
        ("Translate into German: where is it?" + " word" * 30 + "?", "instruction"),
        ("\u0645\u0631\u062d\u0628\u0627", "instruction"),
        ("?!", "instruction"),
        ("", "instruction"),
    ],
)
def test_a_prompt_is_classified_by_its_first_words(prompt, expected):
    assert classify_prompt(prompt) == expected
