"""Every YAML lists exactly the fields of its dataclass, and every option of every group composes and builds."""

import dataclasses
import typing
from pathlib import Path

import pytest
import yaml
from small_runs import ROOT, config

from alignbench.core.errors import UserError
from alignbench.runs.settings import (
    RunSettings,
    _dataclass_of_values,
    build,
    check,
    dataclass_in,
    flatten,
    identify,
    locate,
    resolve,
)

CONF = ROOT / "conf"
OPTIONS = sorted(CONF.glob("*/*.yaml"))
PARTS = sorted(CONF.glob("algo/*/*.yaml"))


def load(path: Path) -> dict:
    """A YAML with those it inherits from and its own groups under it, as Hydra merges them."""
    node = yaml.safe_load(path.read_text()) or {}
    merged: dict = {}
    for entry in [entry for entry in node.pop("defaults", []) if entry != "_self_"]:
        if isinstance(entry, str):
            option, _, place = entry.partition("@")  # @: where in this node it goes
            found = load(path.with_name(f"{option}.yaml"))
            for key in reversed(place.split(".") if place else []):
                found = {key: found}
            merged = merge(merged, found)
            continue
        for group, option in entry.items():
            if option is not None and not group.startswith("override "):
                merged = merge(merged, {group: load(path.parent / group / f"{option}.yaml")})
    return merge(merged, node)


def merge(under: dict, over: dict) -> dict:
    both = under.keys() & over.keys()
    nested = {k: merge(under[k], over[k]) for k in both if isinstance(under[k], dict) and isinstance(over[k], dict)}
    return {**under, **over, **nested}


def assert_same_keys(node: dict, cls: type, where: str) -> None:
    keys, hints = set(node) - {"_target_"}, typing.get_type_hints(cls, include_extras=True)
    assert keys == {field.name for field in dataclasses.fields(cls)}, where
    for key in keys:
        if isinstance(node[key], dict):
            if each := _dataclass_of_values(hints[key]):
                for name, part in node[key].items():
                    assert_same_keys(part, each, f"{where}.{key}.{name}")
                continue
            part = locate(node[key]["_target_"], where) if "_target_" in node[key] else dataclass_in(hints[key])
            assert part is not None, f"{where}.{key} is a section without a dataclass"
            assert_same_keys(node[key], part, f"{where}.{key}")


def of_each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[f"{path.parent.name}={path.stem}" for path in paths])


@of_each([path for path in OPTIONS + PARTS if path.parent.name != "preset"])
def test_an_option_lists_exactly_the_fields_of_its_class(path: Path) -> None:
    node = load(path)
    assert_same_keys(node, locate(node["_target_"], path.stem), path.stem)


def test_the_root_lists_exactly_the_fields_of_the_run_settings() -> None:
    groups = {"model", "algo", "reward", "data", "hardware", "judge"}
    node = load_root()
    assert set(node) == {field.name for field in dataclasses.fields(RunSettings)} - groups
    hints = typing.get_type_hints(RunSettings)
    for section in [name for name, value in node.items() if isinstance(value, dict)]:
        assert_same_keys(node[section], hints[section], section)


def load_root() -> dict:
    node = yaml.safe_load((CONF / "config.yaml").read_text())
    return {key: value for key, value in node.items() if key not in ("defaults", "hydra")}


@of_each([path for path in OPTIONS if path.parent.name == "algo"])
def test_an_algorithm_is_in_the_file_of_its_name_or_inherits_from_one(path: Path) -> None:
    module = load(path)["_target_"].rpartition(".")[0]
    parents = [n for n in yaml.safe_load(path.read_text()).get("defaults", []) if isinstance(n, str) and n != "_self_"]
    assert module == f"alignbench.algorithms.{path.stem}" or (parents and module.endswith(f".{parents[0]}"))


def test_every_dataset_and_model_takes_a_local_path() -> None:
    generated = {"arithmetic", "preferences_toy"}
    paths = [*CONF.glob("model/*.yaml"), *(p for p in CONF.glob("data/*.yaml") if p.stem not in generated)]
    assert all("path" in load(path) for path in paths)


@of_each([path for path in OPTIONS if path.parent.name != "preset"])
def test_every_option_composes_and_builds(path: Path, tmp_path: Path) -> None:
    group, option = path.parent.name, path.stem
    (tmp_path / "mine.py").write_text("def length(prompts, completions):\n    return list(map(len, completions))\n")
    given = {"reward/custom": f"reward.function={tmp_path}/mine.py:length", "judge/openai_compatible": "judge.model=m"}
    needs = [given[f"{group}/{option}"]] if f"{group}/{option}" in given else []
    job = build(resolve(config("hardware=cpu", f"{group}={option}", *needs)))
    assert type(getattr(job, group)).__name__ == load(path)["_target_"].rpartition(".")[2]
    if group in ("model", "data", "reward"):
        assert getattr(job.names, group) == option
    assert job.names.method == (option if group == "algo" else "grpo")


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_run_of_every_sweep_builds(path: Path) -> None:
    node = yaml.safe_load(path.read_text())
    chosen = {k.removeprefix("override /"): v for entry in node.pop("defaults", []) for k, v in entry.items()}
    swept = node["hydra"]["sweeper"]["params"]
    assert node["hydra"]["mode"] == "MULTIRUN"
    assert path.read_text().startswith("# @package _global_\n")
    keys = flatten({key: value for key, value in node.items() if key != "hydra"})
    own = [f"{key}={value}" for key, value in {**chosen, **keys}.items()]
    for method in str(swept.get("algo", "grpo")).split(","):
        assert build(resolve(config(f"algo={method}", *own))).study == path.stem


PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))
ALGORITHMS = [path.stem for path in CONF.glob("algo/*.yaml")]
CONFIGURED = sorted(
    (preset, algo)
    for preset in PRESETS
    for algo in ALGORITHMS
    if (CONF / "preset" / "method" / f"{preset}_{algo}.yaml").exists()
)


@pytest.mark.parametrize(("preset", "algo"), CONFIGURED)
def test_every_preset_builds_with_every_method_it_configures(preset: str, algo: str) -> None:
    job = build(resolve(config(f"preset={preset}", f"algo={algo}")))
    assert job.names.method == algo
    for path in (CONF / "preset" / f"{preset}.yaml", CONF / "preset" / "method" / f"{preset}_{algo}.yaml"):
        assert path.read_text().startswith("# @package _global_\n")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_default_method_of_a_preset_is_one_it_configures(preset: str) -> None:
    assert (preset, build(resolve(config(f"preset={preset}"))).names.method) in CONFIGURED


def test_every_method_file_belongs_to_a_preset() -> None:
    names = {path.stem for path in (CONF / "preset" / "method").glob("*.yaml")}
    assert names == {f"{preset}_{algo}" for preset, algo in CONFIGURED}


METHODS = ("ppo", "grpo")


def test_the_numbers_of_the_gemma_preset() -> None:
    ppo, grpo = (build(resolve(config("preset=gemma_ultrafeedback", f"algo={algo}"))) for algo in METHODS)
    for job in (ppo, grpo):
        assert (job.names.model, job.names.data, job.names.reward) == ("gemma2b", "ultrafeedback", "bradley_terry")
        assert (job.model.name, job.model.quantization, job.model.lora.rank) == ("google/gemma-2b-it", "nf4", 16)
        assert (job.sft.steps, job.sft.batch_size, job.sft.format, job.sft.optimizer.learning_rate) == (
            1800,
            16,
            "response",
            2e-4,
        )
        assert (job.reward_model.lora.rank, job.reward_model.lora.alpha, job.reward_model.batch_size) == (8, 16.0, 8)
        assert (job.reward_model.optimizer.learning_rate, job.reward_model.min_accuracy) == (1e-4, 0.7)
        assert (job.rl.steps, job.rl.epochs, job.rl.optimizer.learning_rate) == (800, 1, 5e-6)
        assert job.rl.optimizer.max_grad_norm == 0.5
        assert (job.eval.every, job.eval.select, job.data.test_rows) == (50, "perplexity", 300)
        assert (job.algo.kl.values, job.algo.kl.action, job.algo.kl.placement) == ((0.05, 0.02, 0.01), "lr", "none")
        assert (job.algo.clip_low, job.algo.clip_high) == (0.2, 0.2)
    assert (grpo.algo.group_size, grpo.algo.scale_by_std, grpo.algo.normalizer.alpha) == (6, False, 0.99)
    ema = grpo.algo.normalizer
    assert (ema.mean, ema.std, ema.center, ema.scale, ema.low, ema.high) == (None, None, 3.0, 1.0, 1.0, 5.0)
    assert (ppo.algo.lam, ppo.algo.gamma, ppo.algo.value_coef, ppo.algo.entropy_coef) == (0.95, 0.99, 1.0, 0.01)
    assert ppo.algo.normalizer is None


def test_no_two_options_of_a_group_are_the_same() -> None:
    for group in {path.parent.name for path in OPTIONS} - {"preset"}:
        nodes = [yaml.safe_dump(load(path)) for path in OPTIONS if path.parent.name == group]
        assert len(set(nodes)) == len(nodes), group


@pytest.mark.parametrize(
    ("override", "key"),
    [("rl.stepz=1", "stepz"), ("stepz=1", "stepz"), ("algo.kl.koef=1", "koef"), ("modle=tiny", "modle")],
)
def test_an_unknown_key_without_a_plus_does_not_compose(override: str, key: str) -> None:
    with pytest.raises(UserError, match=key):
        config(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+stepz=1", "unknown key stepz; known keys: seed"),
        ("+rl.step=1", "unknown key rl.step; did you mean rl.steps?"),
        ("+algo.kl.koef=1", "unknown key algo.kl.koef; did you mean algo.kl.coef?"),
        ("+model.lora.ranks=4", "unknown key model.lora.ranks; did you mean model.lora.rank?"),
        ("+data.path=x", "unknown key data.path"),
        ("+analysis.x.y=1", "unknown key analysis.x"),
    ],
)
def test_an_unknown_key_with_a_plus_is_an_error_that_names_it(override: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        check(config(override))
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    "override",
    [
        "seed=abc",
        "seed=1.5",
        "seed=1.0",
        "seed=true",
        "seed=null",
        "rl.steps=ten",
        "rl.steps=[1]",
        "rl.temperature=hot",
        "algo.scale_by_std=maybe",
        "algo.scale_by_std=1",
        "algo.reduction=tokens",
        "output_dir=3",
        "plan=perhaps",
        "eval.pass_at=3",
        "eval.pass_at=[1,x]",
        "tracking.uri=[a]",
        "invariants.finite=fail",
        "data.seed=x",
        "model.dtype=int8",
        "model.lora=4",
        "rl.optimizer=adam",
        "algo.kl=0.1",
        "sft=3",
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_names_the_key(override: str) -> None:
    key, _, _ = override.partition("=")
    with pytest.raises(UserError, match=rf"^{key}="):
        check(config(override))


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "rl.steps=-1",
        "rl.rollouts_per_step=0",
        "rl.temperature=0",
        "rl.optimizer.learning_rate=-1e-4",
        "rl.optimizer.learning_rate=0",
        "rl.optimizer.learning_rate=.inf",
        "rl.optimizer.learning_rate=.nan",
        "rl.optimizer.beta1=1",
        "sft.batch_size=0",
        "sft.optimizer.warmup_steps=-1",
        "algo.clip_low=0",
        "algo.clip_low=1",
        "algo.clip_high=0",
        "algo.kl.coef=-1",
        "algo.group_size=0",
        "eval.every=0",
        "eval.samples=-1",
        "eval.pass_at=[0]",
        "hardware.threads=0",
        "hardware.microbatch_size=0",
        "data.test_rows=0",
        "data.terse_fraction=2",
        "invariants.kl_tolerance=0",
        "analysis.margin=0",
        "model.layers=0",
        "+model.lora.rank=0",
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_the_key(override: str) -> None:
    key = override.partition("=")[0].removeprefix("+")
    with pytest.raises(UserError, match=rf"^{key}="):
        check(config(override))


@pytest.mark.parametrize("span", ["[4]", "[5,4]", "[1,2,3]"])
def test_an_expected_memory_has_a_minimum_and_a_maximum(span: str) -> None:
    with pytest.raises(UserError, match=r"^in analysis: expected_memory_gb.ppo=.*give the minimum and the maximum"):
        check(config(f"analysis.expected_memory_gb={{ppo:{span}}}"))
    declared = build(resolve(config("analysis.expected_memory_gb={ppo:[4,5]}"))).analysis
    assert declared.expected_memory_gb == {"ppo": [4, 5]}


def test_a_null_section_can_be_set_as_a_whole_or_in_part() -> None:
    whole = build(resolve(config("model.lora={rank:4,alpha:8}"))).model.lora
    part = build(resolve(config("+model.lora.rank=4"))).model.lora
    assert (whole.rank, whole.alpha, part.rank, part.alpha) == (4, 8.0, 4, 32.0)
    assert build(resolve(config())).model.lora is None


def test_the_class_of_a_section_is_set_by_its_target() -> None:
    wider = "reward={_target_: alignbench.rewards.exact_match.ExactMatch, mode: flexible}"
    assert build(resolve(config(wider.replace("reward=", "++reward=")))).reward.mode == "flexible"
    for target in ("nowhere.Kind", "alignbench.algorithms.kl.Nothing", "math.pi", "Kind"):
        with pytest.raises(UserError, match=r"algo\.kl\._target_"):
            check(config(f"algo.kl._target_={target}"))


def test_parts_of_a_weighted_reward_are_added_changed_and_removed_by_name() -> None:
    words = [
        "reward=weighted",
        "+reward@reward.parts.style.reward=steps",
        "+reward.parts.style.weight=-0.5",
        "reward.parts.style.reward.lines=3",
        "reward.parts.correct.reward.mode=flexible",
    ]
    parts = build(resolve(config(*words))).reward.parts
    assert {name: part.weight for name, part in parts.items()} == {"correct": 1.0, "style": -0.5}
    assert (parts["correct"].reward.mode, parts["style"].reward.lines) == ("flexible", 3)
    assert list(build(resolve(config(*words[:3], "~reward.parts.correct"))).reward.parts) == ["style"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward.parts.correct.weight=much"], "reward.parts.correct.weight='much': "),
        (["+reward.parts.correct.wight=1"], "unknown key reward.parts.correct.wight; did you mean"),
        (["+reward.parts.correct.reward.mod=x"], "unknown key reward.parts.correct.reward.mod; did you mean"),
        (["+reward.parts.style.weight=1"], "reward.parts.style.reward is not set"),
        (["+reward.parts.style=1"], "reward.parts.style=1: a section with the keys weight, reward is expected"),
        (["+reward.parts.style={reward:3}"], "reward.parts.style.reward=3: a section of settings is expected"),
        (["reward.parts=3"], "reward.parts=3: "),
        (["~reward.parts.correct"], "in reward: parts is empty"),
    ],
)
def test_an_invalid_part_of_a_weighted_reward_is_an_error_that_names_the_key(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        check(config("reward=weighted", *words))
    assert str(refused.value).startswith(message)


@of_each(PARTS)
@pytest.mark.parametrize("algo", ["ppo", "grpo", "rloo"])
def test_every_part_of_an_algorithm_is_chosen_by_name(path: Path, algo: str) -> None:
    part = path.parent.name
    built = build(resolve(config(f"algo={algo}", f"algo/{part}={path.stem}"))).algo
    assert type(getattr(built, part)).__name__ == load(path)["_target_"].rpartition(".")[2]
    assert built.kl.placement == build(resolve(config(f"algo={algo}"))).algo.kl.placement


def test_settings_that_do_not_change_the_result_do_not_change_the_key() -> None:
    same = ["study=s", "output_dir=x", "plan=true", "tracking.samples=1", "analysis.margin=0.1"]
    other = ["seed=1", "rl.steps=2", "data.test_rows=9", "reward.mode=flexible", "hardware.microbatch_size=1"]
    key = identify(config()).key
    assert all(identify(config(override)).key == key for override in same)
    assert all(identify(config(override)).key != key for override in other)
