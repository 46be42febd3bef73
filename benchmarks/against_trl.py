"""Speed and memory of a GRPO step and of rollouts, compared with TRL and transformers, as ratios.

    python -m benchmarks.against_trl [--rounds 5] [--write] [--only steps|rollouts]

Both sides use the same model, prompts, reward and settings, and run in turn. The first call creates a virtual
environment with TRL and alignbench, so that both use the same torch and transformers (minutes), and the models (a
minute). --write writes docs/speed.md.
"""

import argparse
import json
import subprocess
import venv
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.page import format_spread, format_table, print_line, wrap_paragraphs
from benchmarks.trl_rollouts import ENDING, NEW_TOKENS, PROMPTS
from benchmarks.trl_setting import CLIP, HELD_OUT, KL, LEARNING_RATE, SETTINGS, Setting, environment, make_model

ROOT = Path(__file__).parents[1]
HOME = ROOT / "outputs" / "benchmarks"
TRL = "1.16.0"
OURS, DEFAULT, TRL_SIDE = "alignbench", "default", "TRL"
SIDES = {
    OURS: ("benchmarks.trl_ours", "rescored"),
    DEFAULT: ("benchmarks.trl_ours", "auto"),
    TRL_SIDE: ("benchmarks.trl_theirs",),
}
"""Name -> module, and its arguments after setting and folder."""
MIB = 1 << 20

Result = dict[str, Any]
"""What the process of one side printed."""
Results = dict[str, list[Result]]
"""The results of each side, one for each round."""


def trl_python() -> Path:
    """The interpreter of the virtual environment with TRL, which is created if missing."""
    home = HOME / "trl-venv"
    ready, interpreter = home / f"has-trl-{TRL}", home / "bin" / "python"
    if not ready.is_file():
        print_line(f"installing trl {TRL} and its dependencies into {home.relative_to(ROOT)}")
        venv.create(home, with_pip=True, clear=True)
        options = ["-qq", "--no-compile", "--disable-pip-version-check", "-c", str(ROOT / "constraints" / "cpu.txt")]
        subprocess.run([interpreter, "-m", "pip", "install", *options, "-e", str(ROOT), f"trl=={TRL}"], check=True)
        ready.touch()
    return interpreter


def run(module: str, *arguments: object, setting: Setting) -> Any:
    """Run a module in a new process; returns its last line of output, parsed as JSON."""
    done = subprocess.run(
        [trl_python(), "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=environment(setting),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def run_steps(setting: Setting, folder: Path, rounds: int) -> Results:
    """Run all sides in turn; the order is reversed in every second round."""
    results: Results = {side: [] for side in SIDES}
    for i in range(rounds):
        for side in list(SIDES)[:: 1 if i % 2 else -1]:
            module, *arguments = SIDES[side]
            results[side].append(run(module, setting.name, folder, *arguments, setting=setting))
            print_line(f"{setting.name} round {i + 1} of {rounds}: {side}, {results[side][-1]['whole']:.0f} s")
    return results


def step_seconds(result: Result, *parts: str) -> float:
    """Median over the steps of a process of the sum of these parts."""
    return median(sum(step[part] for part in parts) for step in result["steps"])


def tokens_per_second(result: Result) -> float:
    """Sampled tokens per second of all rollouts of a process."""
    rate: float = sum(s["tokens"] for s in result["steps"]) / sum(s["rollout"] for s in result["steps"])
    return rate


def _mib_above_load(result: Result) -> float:
    above: float = (result["memory"] - result["loaded"]) / MIB
    return above


MEASURES: dict[str, tuple[Callable[[Result], float], str, bool]] = {
    "rollout, tokens / s": (tokens_per_second, "{:,.0f}", True),
    "step, s": (lambda result: step_seconds(result, "rollout", "score", "update"), "{:.3f}", False),
    "of which rollout": (lambda result: step_seconds(result, "rollout"), "{:.3f}", False),
    "of which score": (lambda result: step_seconds(result, "score"), "{:.3f}", False),
    "of which update": (lambda result: step_seconds(result, "update"), "{:.3f}", False),
    "peak memory, MiB": (lambda result: float(result["memory"] / MIB), "{:,.0f}", False),
    "of which above the loaded model": (_mib_above_load, "{:,.0f}", False),
}
"""Name -> how to read it from a result, its format, and whether more is better."""


def steps_table(results: Results) -> str:
    """One row for each measure: all sides, and the gains over TRL within each round (above 1 favors alignbench)."""
    rows = []
    for name, (read, form, more) in MEASURES.items():
        sides = {side: [read(result) for result in rounds] for side, rounds in results.items()}
        ratios = [
            format_spread(a / b if more else b / a for a, b in zip(sides[side], sides[TRL_SIDE], strict=True))
            for side in (OURS, DEFAULT)
        ]
        values = (format_spread(numbers, form) for numbers in sides.values())
        rows.append([name, *values, *(f"**{each}**" for each in ratios)])
    return format_table(["", *SIDES, "gain, alignbench", "gain, default"], rows)


def accuracy_table(results: Results) -> str:
    """Held-out accuracy after the same steps, and the seconds until then."""
    rows = []
    for i in range(len(results[TRL_SIDE][0]["curve"])):
        cells = []
        for side in SIDES:
            points = [result["curve"][i] for result in results[side]]
            cells += [f"{median(s for s, _ in points):.1f}", f"{median(a for _, a in points):.1%}"]
        rows.append(cells)
    return format_table([f"{side}: {what}" for side in SIDES for what in ("seconds", "accuracy")], rows)


def rollouts_table(results: dict[str, list[dict[str, float]]]) -> str:
    """One row for each case: tokens per second of alignbench and generate, and the ratios."""
    rows = []
    for case, rounds in results.items():
        speeds = [format_spread((result[name] for result in rounds), "{:,.0f}") for name in ("ours", "generate")]
        ratio = format_spread(result["ours"] / result["generate"] for result in rounds)
        to_floor = format_spread(result["floor"] / result["ours"] for result in rounds)
        rows.append([case, *speeds, f"**{ratio}**", to_floor])
    return format_table(["tokens / s", "alignbench", "generate", "alignbench / generate", "seconds / floor"], rows)


HEAD = """\
# Speed

Made by `python -m benchmarks.against_trl --write`; do not edit. Everything ran on one machine, in turn, {rounds} times:
torch {torch}, transformers {transformers}, TRL {trl}, float32 on a CPU. Cells are medians, with minimum and maximum in
brackets. Seconds depend on the machine and its load; compare the ratios in bold, which are taken within a round. A gain
above 1 favors alignbench.

Where the speed comes from: a prompt is processed once for all its responses, in the rollout, in scoring and in the
update; responses are packed behind it in one row without padding, and attention masks them from each other, long
responses apart from short ones; finished responses leave the batch; log-probabilities are recorded while sampling;
logits are computed for response tokens only; nothing is saved for gradients that are not needed; and on a CPU in
float32 oneDNN multiplies in place of MKL, which uses half of the AVX-512 throughput of AMD processors: on Intel
processors expect less.
"""
STEPS = """\
## A step of GRPO against TRL's GRPOTrainer, {name} parameters

Both start from the same weights and use the same prompts in the same order: {prompts} prompts x {group_size} responses
of at most {new_tokens} tokens, sampled at temperature 1, {minibatches} optimizer steps per rollout, microbatches of
{microbatch}, exact match as the reward, learning rate {rate:g}, clip {clip:g}, a KL penalty of {kl:g} (k3, in the
loss), {threads} CPU thread{s}. Both make the same passes through the model: the rollout, old log-probabilities,
reference log-probabilities, one forward and backward pass. Gradient checkpointing and bf16 are off on both sides.
`score` is the reward, old and reference log-probabilities. {weights} Each round is a new process for each side; steps
measured in it, after one warm-up step: {steps}.

`default` is a run with default settings: after the first step has shown that the sampler's log-probabilities agree with
those of the update, it uses them as old log-probabilities and skips that pass; and it forms microbatches by tokens.
"""
ROLLOUTS = """\
## Rollouts alone, against transformers' generate

At most {new_tokens} new tokens, groups of 8, {prompts}. Fixed: every response has the maximum length. Variable: each
token ends its response with probability {ending:.0%}; tokens after the end are not counted. The floor is the time of
the matrix products of the same steps alone, attention over keys and values included; a group processes its prompt
together, finished responses are skipped, and there is no normalization, no sampling and no Python. Each layer has its
own keys and values. The gain is smallest for a small model with responses of full length: most of such a step is
attention over all responses and small calls of torch, which both sides need.
"""


def steps_section(setting: Setting, results: Results) -> str:
    """The section on the steps of one model."""
    trained = f"The weights come from {setting.sft_steps} steps of SFT."
    weights = trained if setting.sft_steps else "The weights are random."
    facts = vars(setting) | {
        "rate": LEARNING_RATE,
        "clip": CLIP,
        "kl": KL,
        "weights": weights,
        "s": "" if setting.threads == 1 else "s",
    }
    parts = [wrap_paragraphs(STEPS.format(**facts)), steps_table(results)]
    if setting.snapshot_every:
        parts += [
            f"Held-out accuracy (greedy, {HELD_OUT} problems) after every {setting.snapshot_every} steps, and the "
            "seconds of training until then:",
            accuracy_table(results),
        ]
    return "\n\n".join(parts)


def main(args: argparse.Namespace) -> None:
    """Measure, print, and write the page with --write."""
    trl_python()
    folders = {name: make_model(setting, HOME) for name, setting in SETTINGS.items()}
    versions = {name: version(name) for name in ("torch", "transformers")}
    sections = [wrap_paragraphs(HEAD.format(rounds=args.rounds, trl=TRL, **versions))]
    if args.only != "steps":
        counts = " and ".join(f"{count} prompts for {name}" for name, count in PROMPTS.items())
        intro = wrap_paragraphs(ROLLOUTS.format(new_tokens=NEW_TOKENS, ending=ENDING, prompts=counts))
        results = run("benchmarks.trl_rollouts", args.rounds, *folders.values(), setting=SETTINGS["30M"])
        sections += [intro, rollouts_table(results)]
        print_line(sections[-1])
    if args.only != "rollouts":
        for name, setting in SETTINGS.items():
            sections.append(steps_section(setting, run_steps(setting, folders[name], args.rounds)))
            print_line(sections[-1])
    if args.write:
        (ROOT / "docs" / "speed.md").write_text("\n\n".join(sections) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side")
    parser.add_argument("--only", choices=["steps", "rollouts"], help="measure only this part")
    parser.add_argument("--write", action="store_true", help="write docs/speed.md")
    main(parser.parse_args())
