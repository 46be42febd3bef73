"""How fast is a GRPO step here, and in TRL? The same model, prompts, reward and settings, in turn, as ratios.

    python -m benchmarks.against_trl [--rounds 5] [--write] [--only steps|rollouts]

Makes a virtual environment of its own with TRL beside alignbench (minutes, once), so that both sides use the same torch
and transformers, and the models (a minute, once); with --write the figures go to docs/speed.md.
"""

import argparse
import json
import subprocess
import venv
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from benchmarks.trl_rollouts import ENDING, NEW_TOKENS, PROMPTS
from benchmarks.trl_setting import CLIP, HELD_OUT, KL, LEARNING_RATE, SETTINGS, Setting, environment, make_model

ROOT = Path(__file__).parents[1]
HOME = ROOT / "outputs" / "benchmarks"
TRL = "1.16.0"
OURS, AS_IT_COMES, TRL_SIDE = "alignbench", "as it comes", "TRL"
SIDES = {
    OURS: ("benchmarks.trl_ours", "rescored"),
    AS_IT_COMES: ("benchmarks.trl_ours", "auto"),
    TRL_SIDE: ("benchmarks.trl_theirs",),
}
"""Name -> module, and the words it is started with after setting and folder."""
MIB = 1 << 20

Found = dict[str, list[dict[str, Any]]]
"""What each side told, one entry for each round."""


def python() -> Path:
    """The interpreter of the environment that has TRL, which is made when it is not there."""
    home = HOME / "trl-venv"
    ready, interpreter = home / f"has-trl-{TRL}", home / "bin" / "python"
    if not ready.is_file():
        say(f"installing trl {TRL} and what it needs into {home.relative_to(ROOT)}")
        venv.create(home, with_pip=True, clear=True)
        subprocess.run(
            [
                interpreter,
                "-m",
                "pip",
                "install",
                "-qq",
                "--no-compile",
                "--disable-pip-version-check",
                "-c",
                ROOT / "constraints" / "cpu.txt",
                "-e",
                ROOT,
                f"trl=={TRL}",
            ],
            check=True,
        )
        ready.touch()
    return interpreter


def run(module: str, *words: Any, setting: Setting) -> Any:
    """What a module prints as its last line, in a process of its own."""
    done = subprocess.run(
        [python(), "-m", module, *map(str, words)],
        cwd=ROOT,
        env=environment(setting),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def steps(setting: Setting, folder: Path, rounds: int) -> Found:
    """All sides in turn; who begins changes from round to round."""
    found: Found = {side: [] for side in SIDES}
    for i in range(rounds):
        for side in list(SIDES)[:: 1 if i % 2 else -1]:
            module, *words = SIDES[side]
            found[side].append(run(module, setting.name, folder, *words, setting=setting))
            say(f"{setting.name} round {i + 1} of {rounds}: {side}, {found[side][-1]['whole']:.0f} s")
    return found


def seconds(told: dict[str, Any], *parts: str) -> float:
    """The median step of one process, in these of its parts."""
    return median(sum(step[part] for part in parts) for step in told["steps"])


def tokens_per_second(told: dict[str, Any]) -> float:
    """Over all rollouts of one process."""
    return sum(s["tokens"] for s in told["steps"]) / sum(s["rollout"] for s in told["steps"])


WHOLE = ("rollout", "score", "update")
MEASURES: dict[str, tuple[Callable[[dict[str, Any]], float], str, bool]] = {
    "rollout, tokens / s": (tokens_per_second, "{:,.0f}", True),
    "step, s": (lambda told: seconds(told, *WHOLE), "{:.3f}", False),
    "of it rollout": (lambda told: seconds(told, "rollout"), "{:.3f}", False),
    "of it score": (lambda told: seconds(told, "score"), "{:.3f}", False),
    "of it update": (lambda told: seconds(told, "update"), "{:.3f}", False),
    "peak memory, MiB": (lambda told: told["memory"] / MIB, "{:,.0f}", False),
    "of it above the loaded model": (lambda told: (told["memory"] - told["loaded"]) / MIB, "{:,.0f}", False),
}
"""Name -> how it is read, how it is written, and whether more is better."""


def spread(numbers: Iterable[float], form: str = "{:.2f}") -> str:
    """The median, and from lowest to highest."""
    found = sorted(numbers)
    low, middle, high = (form.format(x) for x in (found[0], median(found), found[-1]))
    return f"{middle} ({low} to {high})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table, its first column left and the others right."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, marks, *rows])


def of_steps(found: Found) -> str:
    """One line for each measure: all sides, and how many times better than TRL ours are, round by round."""
    rows = []
    for name, (read, form, more) in MEASURES.items():
        sides = {side: [read(told) for told in rounds] for side, rounds in found.items()}
        times = [
            spread(a / b if more else b / a for a, b in zip(sides[side], sides[TRL_SIDE], strict=True))
            for side in (OURS, AS_IT_COMES)
        ]
        rows.append([name, *(spread(numbers, form) for numbers in sides.values()), *(f"**{each}**" for each in times)])
    return table(["", *SIDES, "times better", "as it comes"], rows)


def of_accuracy(found: Found) -> str:
    """Held-out accuracy after the same steps, and the seconds they took."""
    rows = []
    for i in range(len(found[TRL_SIDE][0]["curve"])):
        cells = []
        for side in SIDES:
            points = [told["curve"][i] for told in found[side]]
            cells += [f"{median(s for s, _ in points):.1f}", f"{median(a for _, a in points):.1%}"]
        rows.append(cells)
    return table([f"{side}: {what}" for side in SIDES for what in ("seconds", "accuracy")], rows)


def of_rollouts(found: Found) -> str:
    """One line for each case: tokens in a second of ours, generate and the floor, and the ratios."""
    rows = []
    for case, rounds in found.items():
        speeds = [spread((told[who] for told in rounds), "{:,.0f}") for who in ("ours", "generate")]
        over = spread(told["ours"] / told["generate"] for told in rounds)
        above = spread(told["floor"] / told["ours"] for told in rounds)
        rows.append([case, *speeds, f"**{over}**", above])
    return table(["tokens / s", "alignbench", "generate", "times generate", "times the floor's seconds"], rows)


HEAD = """\
# How fast

Made by `python -m benchmarks.against_trl --write`; do not edit. Everything ran on one machine, in turn, {rounds} times:
torch {torch}, transformers {transformers}, TRL {trl}, float32 on a CPU. Cells are the median, and in brackets the
lowest and highest. Seconds differ from machine to machine and from hour to hour; the ratios in bold are taken within
a round, and they are what to read. Above 1 is in favour of alignbench.

What makes the difference: a prompt is read once for all its answers, in the rollout, in scoring and in the update;
answers stand behind it in one row without padding, and in attention each meets its prompt and itself alone, long
answers apart from short ones; answers that have ended leave the batch; log-probabilities are taken as tokens are
sampled; logits are made for answers alone; nothing is kept for a gradient that nobody asks for; and on a CPU in float32
oneDNN multiplies in place of MKL, which uses half of what AVX-512 can do on processors by AMD: on one by Intel expect
less.
"""
STEPS = """\
## A step of GRPO against TRL's GRPOTrainer, {name} parameters

Both start from the same weights and meet the same prompts in the same order: {prompts} prompts x {group_size} answers
of at most {new_tokens} tokens, sampled at temperature 1, {minibatches} optimizer steps a rollout, microbatches of
{microbatch}, exact match as the reward, learning rate {rate:g}, clip {clip:g}, a KL penalty of {kl:g} (k3, in the
loss), {threads} CPU thread{s}. Both make the same passes through the model: the rollout, old log-probabilities,
reference log-probabilities, one forward and backward pass. TRL's gradient checkpointing and bf16 are off, as they are
here. `score` is the reward, old and reference log-probabilities. {weights} Each round is a new process for each side;
steps counted in it, after a first one that warms it up: {steps}.

`as it comes` is a run as it is without being told otherwise: old log-probabilities are those that the sampler took,
once the first step has shown that they are those of a pass of their own, and that pass is left out; and microbatches
are cut by tokens.
"""
ROLLOUTS = """\
## Rollouts alone, against transformers' generate

At most {new_tokens} new tokens, groups of 8, {prompts}. Fixed: no answer ends before. Variable: each token ends its
answer with a chance of {ending:.0%}; tokens behind the end are not counted. The floor is the time of the matrix
products of the same steps alone, attention over keys and values among them, where a group reads its prompt together and
what has ended is not computed: no normalisation, no sampling, no Python. Each layer has keys and values of its own in
it, as it has in a model. The gain is least where the model is small and no answer ends early: most of such a step is
attention over all answers and small calls of torch, which both sides need.
"""


def say(text: str) -> None:
    """A line on the screen at once."""
    print(text, flush=True)


def filled(text: str) -> str:
    """Its paragraphs, each line within its width."""
    return "\n\n".join(fill(part, 120, break_on_hyphens=False) for part in text.strip().split("\n\n"))


def chapter(setting: Setting, found: Found) -> str:
    """What was found of the steps of one model."""
    trained = f"The weights come from {setting.imitation_steps} steps of imitation."
    weights = trained if setting.imitation_steps else "The weights are random."
    facts = vars(setting) | {
        "rate": LEARNING_RATE,
        "clip": CLIP,
        "kl": KL,
        "weights": weights,
        "s": "" if setting.threads == 1 else "s",
    }
    parts = [filled(STEPS.format(**facts)), of_steps(found)]
    if setting.snapshot_every:
        parts += [
            f"Held-out accuracy (greedy, {HELD_OUT} problems) after each {setting.snapshot_every} steps, and the "
            "seconds of training until then:",
            of_accuracy(found),
        ]
    return "\n\n".join(parts)


def main(given: argparse.Namespace) -> None:
    """Measure, print, and write where asked."""
    python()
    folders = {name: make_model(setting, HOME) for name, setting in SETTINGS.items()}
    versions = {name: version(name) for name in ("torch", "transformers")}
    chapters = [filled(HEAD.format(rounds=given.rounds, trl=TRL, **versions))]
    if given.only != "steps":
        counted = " and ".join(f"{count} prompts for {name}" for name, count in PROMPTS.items())
        intro = filled(ROLLOUTS.format(new_tokens=NEW_TOKENS, ending=ENDING, prompts=counted))
        found = run("benchmarks.trl_rollouts", given.rounds, *folders.values(), setting=SETTINGS["30M"])
        chapters += [intro, of_rollouts(found)]
        say(chapters[-1])
    if given.only != "rollouts":
        for name, setting in SETTINGS.items():
            chapters.append(chapter(setting, steps(setting, folders[name], given.rounds)))
            say(chapters[-1])
    if given.write:
        (ROOT / "docs" / "speed.md").write_text("\n\n".join(chapters) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["steps", "rollouts"])
    parser.add_argument("--write", action="store_true")
    main(parser.parse_args())
