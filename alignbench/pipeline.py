"""SFT > RL > evaluation: builds every object of a run, and runs it; the last file that knows the config."""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from alignbench.core import record
from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.data.splits import SPLITS, check_disjoint, fingerprint
from alignbench.data.stream import PromptStream, tokenise
from alignbench.engine.state import RunState
from alignbench.models import loading
from alignbench.models.policy import CausalPolicy
from alignbench.models.text import Text
from alignbench.phases import sft
from alignbench.phases.evaluate import Examiner
from alignbench.phases.follow import Display, keep_samples, ledger, write_down
from alignbench.phases.rl import restore, snapshot
from alignbench.settings import Identity, Job, build, flatten, identify, resolve
from alignbench.store.artifacts import Artifact, ArtifactStore, key
from alignbench.store.checkpoints import Checkpoints
from alignbench.store.diary import Diary, is_finished
from alignbench.store.disk import make_folder, write_whole
from alignbench.store.provenance import git_state, versions
from alignbench.store.tracker import Tracker

logger = logging.getLogger(__name__)
SHOWN_SFT = {"sft/loss": "loss"}
SHOWN_RL = {"rewards/mean": "reward", "eval/accuracy": "accuracy", "rollout/response_length": "tokens",
            "rollout/kl_sequence": "KL"}


def run(cfg: DictConfig) -> None:
    """Run, or with plan=true only check, the job that a config describes."""
    config = resolve(cfg)
    job = build(config)
    pipeline = Pipeline(job, config, identify(config))
    pipeline.check()
    if job.plan:
        pipeline.show_plan()
        return
    folder = pipeline.identity.run_dir
    if is_finished(folder, pipeline.identity.key):
        Display().say(f"{pipeline.name} is finished already; everything is in {folder} (remove it to run again)")
        return
    who = {name: value for name, value in asdict(pipeline.identity).items() if name != "run_dir"}
    with Diary(folder, who, job.hardware.determinism) as diary, Display() as display:
        pipeline.run(diary, display)


@dataclass(frozen=True)
class Pipeline:
    """One run: its parts, its config, its name."""

    job: Job
    config: dict[str, Any]
    identity: Identity

    @property
    def name(self) -> str:
        """What the run is called in its study."""
        return self.identity.run_dir.name

    @cached_property
    def rows(self) -> dict[str, Sequence[Row]]:
        """The prompts of every split, none in two of them."""
        rows = {split: self.job.data.prompts(split) for split in SPLITS}
        check_disjoint(**rows)
        return rows

    @cached_property
    def demonstrations(self) -> Sequence[Row]:
        """What there is to imitate."""
        return self.job.data.demonstrations()

    def check(self) -> None:
        """Everything that can be refused before anything is trained."""
        job = self.job
        job.rl.prompts_per_step(job.algo)
        job.model.require()
        job.hardware.prepare()
        for rows in self.rows.values():
            job.reward.check(rows)
        self.check_room(job.model.text(self._texts()))

    def check_room(self, text: Text) -> None:
        """Every prompt of every split, and the answer to it, must fit into the model."""
        rl, measured = self.job.rl, self.job.eval.max_new_tokens or 0
        for limit, answer in (("rl.max_new_tokens", rl.max_new_tokens), ("eval.max_new_tokens", measured)):
            if rl.max_prompt_tokens + answer > text.context:
                raise UserError(f"rl.max_prompt_tokens={rl.max_prompt_tokens} + {limit}={answer} is more than the "
                                f"model's context of {text.context} tokens: lower one of them")
        for rows in self.rows.values():
            tokenise(rows, text.prompt, rl.max_prompt_tokens)
        if self._perplexity_rows():
            sft.Demonstrations(self._perplexity_rows(), text)

    def show_plan(self) -> None:
        """What would be done, in a few lines."""
        job, groups = self.job, self.job.rl.prompts_per_step(self.job.algo)
        sft_key = key("sft", self._sft_ingredients()) if job.sft.enabled else None
        have = sft_key and ArtifactStore(Path(job.output_dir) / "artifacts").get(sft_key)
        todo = "ready" if have else f"{job.sft.steps} steps to train"
        lines = [
            f"plan of {self.name} in study {self.identity.study}",
            f"  data    {job.names.data}: " + ", ".join(f"{len(rows)} {split}" for split, rows in self.rows.items()),
            f"  model   {job.names.model} from {job.model.source}, on {job.hardware.resolved()}",
            f"  sft     {f'{sft_key}, {todo}' if sft_key else 'off'}",
            f"  rl      {job.rl.steps} steps of {groups} prompts x {job.algo.group_size} answers, "
            f"{job.rl.steps * job.rl.rollouts_per_step} answers in all",
            f"  folder  {self.identity.run_dir}",
        ]
        Display().say("\n".join(lines))

    def run(self, diary: Diary, display: Display) -> None:
        """Every phase, in order."""
        write_whole(diary.folder / "config.yaml", yaml.safe_dump(self.config, sort_keys=False))
        start = self.train_sft(display) if self.job.sft.enabled else None
        policy = self.load_policy(start)
        stream = self.prompts(policy.text)
        self.write_manifest(diary, stream, start)
        checkpoints = Checkpoints(diary.folder / "checkpoints")
        saved = checkpoints.latest()
        if saved:
            diary.resumed()
        with self.tracker(diary.folder, "rl", saved[0] if saved else None) as tracker:
            for split, rows in self.rows.items():
                tracker.dataset(self.job.names.data, fingerprint(rows), split)
            state = self.train_rl(policy, stream, checkpoints, saved, tracker, display)
            numbers = self.evaluate(policy, diary, tracker, state)
        self.write_manifest(diary, stream, start, state)
        loading.save(policy.model, policy.text, diary.folder / "final")
        mark = "accuracy" if record.FINAL_ACCURACY in numbers else "avg_reward"
        display.say(f"{self.name} is done: test {mark.replace('avg_', '')} {numbers[f'final/{mark}']:.3f} "
                    f"(start {numbers[f'final/start_{mark}']:.3f}); everything is in {diary.folder}")

    # --- supervised fine-tuning, shared ---------------------------------------------------------------------------

    def train_sft(self, display: Display) -> Artifact:
        """The SFT model of this study: made by the first run that needs it, found by the others."""
        store = ArtifactStore(Path(self.job.output_dir) / "artifacts")
        ingredients = self._sft_ingredients()
        name = key("sft", ingredients)
        artifact, made = store.make(name, ingredients, lambda folder: self._build_sft(name, folder, display))
        if not made:
            display.say(f"sft: {name} is there already")
        return artifact

    def _build_sft(self, name: str, folder: Path, display: Display) -> None:
        job = self.job
        model, text = self._load(None, job.sft.seed)
        policy = CausalPolicy(model, text)
        reports = job.sft.run(policy, self.demonstrations, job.hardware.microbatch_size, job.invariants)
        journal = make_folder(Path(job.output_dir) / "artifacts" / f"{name}.tracking")
        with self.tracker(journal, "sft", None, name=name, seed=job.sft.seed) as tracker:
            for _ in write_down(display.watch(reports, "sft", job.sft.steps, SHOWN_SFT), tracker, "sft"):
                pass
        loading.save(policy.model, text, folder / "model")

    def _sft_ingredients(self) -> dict[str, Any]:
        return {
            "config": {"sft": self.config["sft"], "model": self.config["model"]},
            "base": self.job.model.fingerprint(self.job.hardware.resolved()),
            "parents": [],
            "data": fingerprint(self.demonstrations),
            "code": {"sft": sft.VERSION},
        }

    # --- reinforcement learning -----------------------------------------------------------------------------------

    def load_policy(self, start: Artifact | None) -> CausalPolicy:
        """The policy that reinforcement learning begins with; its reference is what it is now."""
        model, text = self._load(start.path / "model" if start else None, self.job.seed)
        job = self.job
        policy = CausalPolicy(model, text, temperature=job.rl.temperature, critic=job.algo.critic, seed=job.seed)
        policy.freeze_reference()
        return policy

    def prompts(self, text: Text) -> PromptStream:
        """The training prompts, in the order of this seed."""
        rl = self.job.rl
        return PromptStream(
            self.rows["train"], text.prompt, rl.prompts_per_step(self.job.algo), self.job.seed, text.pad,
            rl.max_prompt_tokens)

    def train_rl(
        self, policy: CausalPolicy, stream: PromptStream, checkpoints: Checkpoints, saved: tuple[int, Any] | None,
        tracker: Tracker, display: Display,
    ) -> RunState:
        """Every step that is left, each written down, shown and, now and then, measured and saved."""
        job = self.job
        invariants = replace(job.invariants, ratio_tolerance=self._ratio_tolerance())
        engine = job.rl.engine(policy, job.reward, job.algo, job.seed, job.hardware.microbatch_size, invariants)
        state = RunState.at_start(job.algo)
        if saved:
            state = restore(saved[1], policy, engine.update.optimizer.adamw)
            display.say(f"rl: going on after step {state.step}")
        else:
            numbers = self.validate(policy)
            tracker.record("rl", 0, {**numbers, **ledger(state)})
        reports = self._measured(job.rl.run(engine, stream, state), policy, tracker)
        for report in write_down(display.watch(reports, "rl", job.rl.steps, SHOWN_RL), tracker, "rl"):
            state = report.state
            if job.rl.checkpoint_every and (state.step % job.rl.checkpoint_every == 0 or state.step == job.rl.steps):
                checkpoints.save(state.step, snapshot(state, policy, engine.update.optimizer.adamw))
        return state

    def _measured(self, reports: Any, policy: CausalPolicy, tracker: Tracker) -> Any:
        """The reports, with the measures of the evaluation in those where one is due."""
        for report in reports:
            step = report.state.step
            if step % self.job.eval.every and step != self.job.rl.steps:
                yield report
                continue
            numbers = self.validate(policy)
            keep_samples(report, tracker, self.job.tracking.samples)
            yield replace(report, metrics={**report.metrics, **numbers})

    def _ratio_tolerance(self) -> float:
        given = self.job.invariants.ratio_tolerance
        if given is not None:
            return given
        return 1e-3 if self.job.model.is_exact(self.job.hardware.resolved()) else 0.5

    # --- evaluation ---------------------------------------------------------------------------------------------

    def examiner(self, policy: CausalPolicy) -> Examiner:
        """Measures this policy the same way every time."""
        job = self.job
        return Examiner(
            policy=policy, scorer=job.reward, settings=job.eval,
            max_new_tokens=job.eval.max_new_tokens or job.rl.max_new_tokens, batch_size=job.hardware.eval_batch_size,
            microbatch_size=job.hardware.microbatch_size, max_prompt_tokens=job.rl.max_prompt_tokens,
            perplexity_rows=self._perplexity_rows())

    def validate(self, policy: CausalPolicy) -> dict[str, float]:
        """The marks on validation prompts, while training."""
        examiner, rows = self.examiner(policy), self.rows["validation"]
        return examiner.measure(rows, "eval/")[1] | examiner.distance(rows, "eval/")

    def evaluate(self, policy: CausalPolicy, diary: Diary, tracker: Tracker, state: RunState) -> dict[str, float]:
        """The final marks on test prompts, of the policy and of what it started from."""
        examiner, rows = self.examiner(policy), self.rows["test"]
        answers, numbers = examiner.measure(rows, "final/")
        numbers |= examiner.distance(rows, "final/")
        with policy.reference():
            numbers |= examiner.measure(rows, "final/start_")[1]
        if self.job.eval.samples:
            numbers |= examiner.pass_at(rows, "final/")
        tag = {"method": self.identity.method, "seed": self.identity.seed}
        lines = (json.dumps({**answer, **tag}, ensure_ascii=False) for answer in answers)
        write_whole(diary.folder / "eval.jsonl", "\n".join(lines) + "\n")
        tracker.record("evaluate", state.step, numbers)
        tracker.artifact(diary.folder / "eval.jsonl")
        return numbers

    # --- what is shared by the phases -----------------------------------------------------------------------------

    def _load(self, start: Path | None, seed: int) -> tuple[Any, Text]:
        return self.job.model.load(texts=self._texts(), start=start, device=self.job.hardware.resolved(), seed=seed)

    def _perplexity_rows(self) -> list[Row]:
        return [row for row in self.rows["validation"] if "completion" in row][: self.job.eval.perplexity_rows]

    def _texts(self) -> list[str]:
        return [row["prompt"] + row["completion"] for row in self.demonstrations]

    def tracker(
        self, folder: Path, phase: str, resume_after: int | None, name: str | None = None, seed: int | None = None
    ) -> Tracker:
        """The logbook of a phase."""
        job, who = self.job, self.identity
        tags = {record.STUDY: who.study, record.METHOD: who.method if phase == "rl" else phase, record.MODEL: who.model,
                record.SEED: str(who.seed if seed is None else seed), record.PHASE: phase, record.KEY: name or who.key,
                record.RUN_DIR: str(folder.resolve())}
        return Tracker.open(
            folder, uri=job.tracking.uri, output_dir=Path(job.output_dir), experiment=job.tracking.experiment,
            run_name=name or self.name, tags=tags, params=flatten(self.config), enabled=job.tracking.enabled,
            resume_after=resume_after)

    def write_manifest(
        self, diary: Diary, stream: PromptStream, start: Artifact | None, state: RunState | None = None
    ) -> None:
        """What this run was made of, and what it spent."""
        job = self.job
        data = {split: {"rows": len(rows), "sha256": fingerprint(rows)} for split, rows in self.rows.items()}
        manifest = {
            "versions": versions(), "git": git_state(), "command": sys.argv,
            "device": job.hardware.resolved(), "threads": job.hardware.threads_used(),
            "data": {"name": job.names.data, **data}, "prompt_order": stream.order_hash(),
            "artifacts": {"sft": start.key} if start else {},
            "reward": {"name": job.names.reward, "sha256": job.reward.fingerprint()},
            "ledger": {name.split("/")[1]: value for name, value in ledger(state).items()} if state else None,
        }
        write_whole(diary.folder / "manifest.json", json.dumps(manifest, indent=2))
