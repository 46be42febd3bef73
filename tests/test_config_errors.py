"""Mistakes in overrides: exit code 2, and a message that names the key or option that was probably meant."""

import pytest
from small_runs import config, type_in

from alignbench.core.errors import UserError
from alignbench.runs.compose import compose_groups
from alignbench.runs.config_errors import RENAMED
from alignbench.runs.settings import check, identify, resolve


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rl.stpes=3", "unknown key rl.stpes; did you mean rl.steps?"),
        ("+rl.stpes=3", "unknown key rl.stpes; did you mean rl.steps?"),
        ("++rl.stpes=3", "unknown key rl.stpes; did you mean rl.steps?"),
        ("~rl.stpes", "unknown key rl.stpes; did you mean rl.steps?"),
        ("rl.optimizer.schedul=x", "unknown key rl.optimizer.schedul; did you mean rl.optimizer.schedule?"),
        ("algo.kl.koef=1", "unknown key algo.kl.koef; did you mean algo.kl.coef?"),
        ("modle=tiny", "unknown key modle; did you mean model?"),
        ("algo/kll=fixed", "unknown key algo/kll; did you mean algo/kl?"),
        ("stpes=3", "unknown key stpes; did you mean rl.steps?"),
        ("sft.xyzzy=3", "unknown key sft.xyzzy; known keys: enabled, seed, steps"),
        ("rl.steps.x=3", "unknown key rl.steps.x: rl.steps is a value (40), not a section"),
        ("model.lora.rank=3", "cannot set model.lora.rank, because model.lora is null"),
        ("algo=gppo", "algo=gppo: no such option; did you mean ppo?"),
        ("+preset=nothing", "preset=nothing: no such option; options: gemma_ultrafeedback"),
        ("algo/kl=fixd", "algo/kl=fixd: no such option; did you mean fixed?"),
        ("algo=null", "Config group override must be a string"),
        ("algo=[ppo]", "Error resolving interpolation"),
        ("rl.steps", "'rl.steps' is not a valid override (missing EQUAL"),
        ("rl.steps={", "no viable alternative"),
    ],
)  # fmt: skip
def test_an_override_of_something_that_does_not_exist(override: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        check(config(override))
    assert str(refused.value).startswith(message)
    assert "struct" not in str(refused.value)


def test_the_keys_are_those_of_the_chosen_options() -> None:
    with pytest.raises(UserError, match="did you mean algo.critic.learning_rate"):
        config("algo=ppo", "algo.critic.learning_rat=1")
    with pytest.raises(UserError, match="unknown key reward.mod; did you mean reward.mode"):
        compose_groups({"reward": "exact_match"}, ["reward.mod=strict"])


@pytest.mark.parametrize("old", RENAMED)
@pytest.mark.parametrize("prefix", ["", "+"])
def test_a_renamed_key_names_the_new_one(old: str, prefix: str) -> None:
    with pytest.raises(UserError, match=f"unknown key {old}: it was renamed to {RENAMED[old]}"):
        check(config(f"{prefix}{old}=null"))
    check(config(f"{RENAMED[old]}=null"))


@pytest.mark.parametrize("key", ["study", "output_dir", "names.method", "names.model", "names.data", "names.reward"])
@pytest.mark.parametrize(
    ("value", "kind"), [("2026", "an integer"), ("1.5", "a number"), ("true", "true or false"), ("[a]", "a list")]
)
def test_a_name_that_is_not_text_says_what_to_type(key: str, value: str, kind: str) -> None:
    for refuse in (check, lambda cfg: identify(resolve(cfg))):
        with pytest.raises(UserError, match=f"^{key}=.*: text is expected, not {kind}"):
            refuse(config(f"{key}={value}"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rl.stpes=3"], "did you mean rl.steps?"),
        (["algo=nonsense"], "no such option"),
        (["study=2026", "plan=true"], "study=2026: text is expected"),
        (["--multirun", "rl.stpes=1,2"], "did you mean rl.steps?"),
        (["--multirun", "study=2026", "algo=ppo,grpo", "plan=true"], "study=2026: text is expected"),
        (["reprot", "study=x"], "there is no verb 'reprot'; did you mean report?"),
        (["nonsense"], "there is no verb 'nonsense'"),
    ],
)
def test_a_mistake_in_the_words_exits_with_2(words: list[str], message: str) -> None:
    done = type_in(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert not done.stdout
