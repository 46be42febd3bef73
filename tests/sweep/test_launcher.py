"""Sweeps: names of studies, exit states of jobs, and that one failed job does not stop the others."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from alignbench.core.comparability import differences
from alignbench.core.errors import NotComparable, UserError
from alignbench.runs.settings import Identity
from alignbench.sweep.jobs import Job, JobRunner, child_environment, explain_exit, print_summary
from alignbench.sweep.launcher import IsolatedLauncher, check_conditions, common_value, study_name, write_study

FINISH = (
    "import json, pathlib; f = pathlib.Path(r'{run_dir}'); f.mkdir(parents=True, exist_ok=True); "
    "(f / 'status.json').write_text(json.dumps(dict(status='finished', key='{key}', reason=None)))"
)
START = FINISH.replace("'finished'", "'running'")


def make_job(tmp_path: Path, script: str, method: str = "ppo", seed: int = 1, key: str = "k1") -> Job:
    """A job whose process runs a small script, started by JobRunner like any other job."""
    run_dir = tmp_path / "runs" / "s" / f"{method}-tiny-s{seed}-{key}"
    identity = Identity(study="s", method=method, model="tiny", seed=seed, key=key, run_dir=run_dir)
    code = script.replace("{run_dir}", str(run_dir)).replace("{key}", key)
    return Job(identity, f"{method} s{seed}", (f"algo={method}", f"seed={seed}"), (sys.executable, "-c", code))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([["seed=1", "algo=ppo"], ["seed=1", "algo=grpo"], ["seed=2", "algo=ppo"]], "algo-ppo-grpo"),
        ([["algo=ppo", "seed=1"], ["algo=grpo", "seed=1"]], "algo-ppo-grpo"),
        ([["model=gemma2b", "algo=ppo", "output_dir=x", "plan=true"]], "algo-ppo-model-gemma2b"),
        ([["algo.lr=1e-4"], ["algo.lr=2e-4"]], "algo.lr-1e-4-2e-4"),
        ([["seed=1"], ["seed=2"]], "seeds"),
    ],
)
def test_a_study_is_named_after_its_overrides_except_seeds(overrides: list[list[str]], name: str) -> None:
    assert study_name(overrides) == name


def test_shortened_study_names_are_distinct() -> None:
    one, other = study_name([["data.path=/a/b c"]]), study_name([["data.path=/a/b-c"]])
    assert one != other
    assert one.startswith("data.path-a-b-c-")
    assert len(study_name([["x=" + "y" * 300]])) <= 90


def test_a_sweep_over_the_study_name_raises() -> None:
    with pytest.raises(UserError, match="study=a,b"):
        common_value([OmegaConf.create({"study": "a"}), OmegaConf.create({"study": "b"})], "study")


def test_a_failed_job_does_not_stop_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = "import sys; print('working'); sys.stderr.write('error: lr is\\n  too high\\n'); sys.exit(2)"
    jobs = [make_job(tmp_path, broken), make_job(tmp_path, FINISH, "grpo")]
    (failure,) = JobRunner(1).run(jobs)
    assert (failure.job, failure.code, failure.reason) == (jobs[0], 2, "lr is too high")
    status = jobs[0].status()  # the job made no folder: JobRunner creates it, so that the report shows the failure
    assert (status["status"], status["reason"], status["method"]) == ("failed", "lr is too high", "ppo")
    assert jobs[1].status()["status"] == "finished"
    assert "[ppo s1] working" in capfd.readouterr().out


def test_a_killed_job_is_recorded_as_failed(tmp_path: Path) -> None:
    job = make_job(tmp_path, START + "; import os; os.kill(os.getpid(), 9)")
    (failure,) = JobRunner(1).run([job])
    assert failure.code == -signal.SIGKILL
    assert job.status()["status"] == "failed"
    assert "killed by signal 9" in job.status()["reason"]


def test_a_job_that_exits_without_finishing_has_failed(tmp_path: Path) -> None:
    job = make_job(tmp_path, START)
    (failure,) = JobRunner(1).run([job])
    assert "exited before the run was finished" in failure.reason
    assert job.status()["status"] == "failed"


def test_the_reason_of_an_earlier_failure_is_not_reused(tmp_path: Path) -> None:
    old = make_job(tmp_path, START.replace("'running'", "'failed'").replace("reason=None", "reason='old'") + "; 1/0")
    assert JobRunner(1).run([old])[0].reason == "old"
    new = make_job(tmp_path, "import sys; sys.exit('error: new')")
    assert JobRunner(1).run([new])[0].reason == "new"
    assert new.status()["reason"] == "new"


def test_a_finished_job_is_skipped_unless_its_config_changed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = make_job(tmp_path, FINISH)
    assert JobRunner(1).run([job]) == []
    assert JobRunner(1).run([make_job(tmp_path, "import sys; sys.exit(1)")]) == []
    assert "already finished" in capfd.readouterr().out
    status = job.identity.run_dir / "status.json"
    status.write_text(status.read_text().replace("k1", "other"))
    assert len(JobRunner(1).run([make_job(tmp_path, "import sys; sys.exit(1)")])) == 1


def test_orphan_processes_of_a_job_do_not_block_the_sweep(tmp_path: Path) -> None:
    orphan = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)']); "
    began = time.monotonic()
    assert JobRunner(1).run([make_job(tmp_path, orphan + FINISH)]) == []
    assert time.monotonic() - began < 60


def test_an_interrupt_stops_all_jobs_and_records_it_in_status_json(tmp_path: Path) -> None:
    wait = START + "; import time; time.sleep(120)"
    jobs = [make_job(tmp_path, wait, seed=seed) for seed in (1, 2, 3)]

    def interrupt_once_running() -> None:
        while not all(job.status() for job in jobs[:2]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_once_running, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        JobRunner(2).run(jobs)
    assert time.monotonic() - began < 60
    assert [job.status().get("status") for job in jobs] == ["interrupted", "interrupted", None]


ONCE = """
import pathlib, sys, time
from filelock import FileLock, Timeout
folder = pathlib.Path(r'{run_dir}')
folder.mkdir(parents=True, exist_ok=True)
lock = FileLock(folder / '.lock')
try:
    lock.acquire(timeout=0)
except Timeout:
    sys.exit('error: in use')
if (folder / 'status.json').exists():
    sys.exit()
with (folder / 'times').open('a') as times:
    times.write('ran ')
time.sleep(1)
"""


def test_two_concurrent_runs_of_a_sweep_run_each_job_once(tmp_path: Path) -> None:
    """If both start a job at the same time, the second waits until it is finished."""
    jobs = [make_job(tmp_path, ONCE + FINISH, seed=seed) for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        ends = [pool.submit(JobRunner(2).run, jobs) for _ in range(2)]
        assert [end.result() for end in ends] == [[], []]
    for job in jobs:
        assert (job.identity.run_dir / "times").read_text() == "ran "
        assert job.status()["status"] == "finished"


def test_no_kind_of_failure_affects_other_jobs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = {
        "raises": "raise RuntimeError('no luck')",
        "exits": "import sys; sys.exit(7)",
        "exits early with code 0": "import sys; sys.exit(0)",
        "is killed": "import os; os.kill(os.getpid(), 9)",
        "exits without cleanup": "import os; os._exit(1)",
        "lacks memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28)); bytearray(2**29)",
        "crashes": "import faulthandler; faulthandler._sigsegv()",
    }
    jobs = [make_job(tmp_path, START + "; " + script, seed=seed) for seed, script in enumerate(bad.values())]
    good = [make_job(tmp_path, FINISH, "grpo", seed=seed) for seed in range(2)]
    failures = JobRunner(2).run([good[0], *jobs, good[1]])
    assert [failure.job for failure in failures] == jobs
    assert [job.status()["status"] for job in jobs] == ["failed"] * len(bad)
    assert [job.status()["status"] for job in good] == ["finished"] * 2
    reasons = dict(zip(bad, (failure.reason for failure in failures), strict=True))
    assert "no luck" in reasons["raises"]
    assert "MemoryError" in reasons["lacks memory"]
    assert "SIGSEGV" in reasons["crashes"]
    print_summary([*jobs, *good], failures)
    assert "2 of 9 jobs done" in capfd.readouterr().out


def test_parallel_jobs_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in child_environment(1)
    assert child_environment(10_000)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert child_environment(2)["OMP_NUM_THREADS"] == "7"


def test_the_last_error_is_the_reason() -> None:
    assert explain_exit(1, ["error: first", "error: second", "  and how to fix it", ""]) == "second and how to fix it"
    assert explain_exit(1, ["ValueError: odd", ""]) == "ValueError: odd"
    assert explain_exit(-15, []) == "killed by signal 15 (SIGTERM)"


def test_a_second_sweep_adds_to_the_planned_runs(tmp_path: Path) -> None:
    write_study([make_job(tmp_path, "", "ppo", 1, "a"), make_job(tmp_path, "", "grpo", 1, "b")])
    write_study([make_job(tmp_path, "", "grpo", 1, "b"), make_job(tmp_path, "", "grpo", 2, "c")])
    study = json.loads((tmp_path / "runs" / "s" / "study.json").read_text())
    assert [(entry["method"], entry["seed"], entry["run_dir"]) for entry in study["planned"]] == [
        ("ppo", 1, "ppo-tiny-s1-a"),
        ("grpo", 1, "grpo-tiny-s1-b"),
        ("grpo", 2, "grpo-tiny-s2-c"),
    ]
    assert study["planned"][2]["overrides"] == ["algo=grpo", "seed=2"]


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run alignbench with these command-line arguments."""
    return subprocess.run([sys.executable, "-m", "alignbench", *arguments], capture_output=True, text=True, check=False)


def test_the_entry_point_imports_no_heavy_packages() -> None:
    script = "import sys, alignbench.__main__; print([m for m in ('torch', 'mlflow', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_each_job_of_a_sweep_gets_its_own_options_and_a_plan_writes_nothing(tmp_path: Path) -> None:
    done = run_cli("--multirun", "algo=ppo,grpo", "seed=5", "plan=true", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    for method in ("ppo", "grpo"):
        assert f"  run         {method}-tiny-s5-" in done.stdout
    assert "plan of study algo-ppo-grpo: 2 runs" in done.stdout
    assert not any(tmp_path.rglob("*"))


def sweep_jobs(*methods: str, seeds: range) -> list[tuple[list[str], DictConfig]]:
    """Overrides and config of each job of a sweep over methods and seeds."""
    return [([method, str(seed)], OmegaConf.create({"names": {"method": method}, "seed": seed}))
            for method in methods for seed in seeds]  # fmt: skip


def test_seeds_can_be_set_per_method() -> None:
    """The A/A study: one method under two names, no seed in common."""
    seeds = yaml.safe_load((Path(__file__).parents[2] / "sweeps" / "aa.yaml").read_text())["hydra"]["launcher"]["seeds"]
    selected, configs = IsolatedLauncher(1, seeds)._select_jobs(sweep_jobs("grpo", "grpo_again", seeds=range(1, 11)))
    assert selected == [[method, str(seed)] for method in seeds for seed in seeds[method]]
    assert [config.seed for config in configs] == list(range(1, 11))
    others, _ = IsolatedLauncher(1, {"grpo": [2]})._select_jobs(sweep_jobs("ppo", "grpo", seeds=range(1, 3)))
    assert others == [["ppo", "1"], ["ppo", "2"], ["grpo", "2"]], "a method without a list runs every seed"


@pytest.mark.parametrize(
    ("seeds", "message"),
    [({"grop": [1]}, "this sweep has no method grop"), ({"grpo": [3]}, "the sweep has no job with these seeds")],
)
def test_seeds_without_a_job_raise(seeds: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        IsolatedLauncher(1, seeds)._select_jobs(sweep_jobs("grpo", seeds=range(1, 3)))


def test_a_sweep_with_an_invalid_job_starts_no_job(tmp_path: Path) -> None:
    done = run_cli("--multirun", "algo=ppo,grpo", "rl.optimizer.learning_rate=1e-4,-1", f"output_dir={tmp_path}")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: rl.optimizer.learning_rate=-1")
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.rglob("*.*"))


UNEQUAL = ("--multirun", "algo=ppo,grpo", "seed=1", "study=s", "rl.steps=3,4")


def test_different_conditions_raise_before_any_job_starts(tmp_path: Path) -> None:
    done = run_cli(*UNEQUAL, f"output_dir={tmp_path}")
    assert done.returncode == 4
    assert "rl.steps (ppo rl.steps=3: 3, ppo rl.steps=4: 4, grpo rl.steps=3: 3" in done.stderr
    assert "'analysis.allow=[rl.steps]'" in done.stderr
    assert done.stdout == ""
    assert not any(tmp_path.rglob("*.*"))


def test_allowed_differences_are_accepted(tmp_path: Path) -> None:
    done = run_cli(*UNEQUAL, "analysis.allow=[rl.steps]", "plan=true", f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "plan of study s: 4 runs" in done.stdout


def test_settings_of_the_algorithm_may_differ() -> None:
    ppo = {"names": {"method": "ppo"}, "algo": {"lam": 1}, "seed": 1}
    grpo = {"names": {"method": "grpo"}, "algo": {"lam": 2}, "seed": 2}
    found, keys = differences([("ppo", ppo), ("grpo", grpo)], ())
    assert [(one.key, one.allowed) for one in found] == [
        ("algo.lam", "the comparison itself"),
        ("names.method", "the comparison itself"),
    ]
    assert keys == 2, "the seed is not a condition"
    mixed, _ = differences([("ppo", ppo), ("ppo", {**ppo, "algo": {"lam": 3}})], ())
    assert mixed[0].allowed == "", "the seeds of one method must be treated alike"


def test_earlier_runs_of_the_study_are_compared_too(tmp_path: Path) -> None:
    earlier, later = make_job(tmp_path, "", "ppo", 1, "a"), make_job(tmp_path, "", "grpo", 1, "b")
    write_study([earlier])
    earlier.identity.run_dir.mkdir()
    config = {"algo": {"name": "ppo"}, "rl": {"steps": 3}, "analysis": {"allow": []}}
    OmegaConf.save(OmegaConf.create(config), earlier.identity.run_dir / "config.yaml")
    same = OmegaConf.create({**config, "algo": {"name": "grpo"}})
    check_conditions([later], [same])
    other = OmegaConf.create({**config, "rl": {"steps": 9}})
    with pytest.raises(NotComparable, match=r"rl\.steps \(ppo: 3, grpo: 9\)(.|\n)*another study=NAME"):
        check_conditions([later], [other])
    check_conditions([later], [OmegaConf.merge(other, {"analysis": {"allow": ["rl"]}})])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["algo=ppoo"], "did you mean ppo?"),
        (["--multirun", "algo=ppo,grppo"], "did you mean grpo?"),
        (["algo.clipp=1"], "algo.clipp"),
        (["output_dir=${nowhere}"], "nowhere"),
        (["seed=a=b"], "mismatched input"),
    ],
)
def test_errors_of_hydra_are_one_message(arguments: list[str], message: str) -> None:
    done = run_cli(*arguments)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "HYDRA_FULL_ERROR" not in done.stderr
