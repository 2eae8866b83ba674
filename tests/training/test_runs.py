"""The run directory: nothing is overwritten, the newest checkpoints are kept, metrics match the state."""

import json
import math
import os
import shutil
import signal
import threading

import pytest
import torch
from tensordict import TensorDict

from policysmith.common.errors import FileError, NotFiniteError, SettingError
from policysmith.common.saving import save_json, save_tree
from policysmith.policies.actors import gaussian_actor
from policysmith.policies.protocol import load_policy
from policysmith.training.learner import Learner
from policysmith.training.loop import RunState, run, step_policy
from policysmith.training.runs import RunDirectory

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """What a power cut would lose is not tested here, and a busy disk takes long to confirm."""
    monkeypatch.setattr("os.fsync", lambda file: None)


def training(steps=10, *, state=None, poison_at=None):
    """A small run: a Gaussian actor fitted to random actions."""
    policy = gaussian_actor(2, 1, hidden=(3,))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(0.1)

    def loss(policy, batch):
        return -policy.log_prob(batch["observation"], batch["action"]), {}

    learner = Learner(policy, loss, optimizer=torch.optim.Adam(policy.parameters(), lr=0.1))
    run_state = RunState({"policy": learner}, {"data": torch.Generator().manual_seed(3)}).restored(state)

    def collect(state):
        rng = state.generators["data"]
        action = torch.randn(4, 1, generator=rng)
        if state.step + 1 == poison_at:
            action[0] = math.nan
        return TensorDict({"observation": torch.randn(4, 2, generator=rng), "action": action}, [4])

    return run(run_state, collect=collect, update=step_policy, steps=steps)


def created(path, **config):
    return RunDirectory.create(path, {"system": "toy"} | config)


def drive(directory, progress, *, until=None, **options):
    options = {"checkpoint_every": 2, "log_every": 1} | options
    for now in directory.record(progress, **options):
        if now.step == until:
            return now
    return None


def names(directory):
    return [path.name for path in directory.checkpoints()]


def logged(directory):
    return [
        {key: value for key, value in line.items() if not key.startswith("seconds/")}
        for line in directory.metrics()
    ]


# ---- the folder ----------------------------------------------------------------------------------------


def test_a_start_that_was_killed_leaves_nothing_in_the_way_of_the_next(tmp_path):
    (tmp_path / ".config.json.1234.part").write_text("{")
    RunDirectory.create(tmp_path, {})
    assert [one.name for one in tmp_path.iterdir()] == ["config.json"]


def test_a_run_is_begun_in_a_new_or_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep"):
        directory = created(folder, seed=4)
        assert directory.config["seed"] == 4
        assert directory.config["library_version"]
        assert RunDirectory.open(folder).config == directory.config


@pytest.mark.parametrize(
    ("file", "holds"), [("config.json", "a run"), ("thesis.tex", "files"), (".hidden", "files")]
)
def test_nothing_is_overwritten(tmp_path, file, holds):
    (tmp_path / file).write_text("{}")
    with pytest.raises(FileError, match=f"already holds {holds}(.|\n)*choose another name"):
        created(tmp_path)
    assert (tmp_path / file).read_text() == "{}"
    assert os.listdir(tmp_path) == [file]


def test_a_place_where_no_folder_can_be_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("here")
    for path in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(FileError):
            created(path)
    assert (tmp_path / "file").read_text() == "here"


def test_no_run_is_opened_where_none_is(tmp_path):
    with pytest.raises(FileError, match=r"no run here(.|\n)*config\.json"):
        RunDirectory.open(tmp_path)


def test_a_configuration_cut_short_is_named(tmp_path):
    directory = created(tmp_path / "run")
    path = directory.path / "config.json"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(FileError, match=r"not a complete JSON file(.|\n)*config\.json"):
        _ = RunDirectory.open(directory.path).config


# ---- what is recorded ----------------------------------------------------------------------------------


def test_recording_yields_what_it_is_given(tmp_path):
    expected = [(now.step, now.metrics) for now in training()]
    found = [
        (now.step, now.metrics) for now in created(tmp_path / "run").record(training(), checkpoint_every=3)
    ]
    assert found == expected


def test_the_first_the_last_and_every_nth_step_are_logged(tmp_path):
    directory = created(tmp_path / "run")
    drive(directory, training(11), log_every=4)
    lines = directory.metrics()
    assert [line["step"] for line in lines] == [1, 4, 8, 11]
    metrics = {now.step: now.metrics for now in training(11)}
    for line in logged(directory):
        assert line == {"step": line["step"], **metrics[line["step"]]}
    assert all(set(line) >= {"seconds/collect", "seconds/update", "loss", "grad_norm"} for line in lines)


def test_metrics_are_on_the_disk_as_soon_as_the_step_is_yielded(tmp_path):
    directory = created(tmp_path / "run")
    for now in directory.record(training(), checkpoint_every=100, log_every=1):
        assert directory.metrics()[-1]["step"] == now.step


def test_checkpoints_are_on_the_disk_as_soon_as_the_step_is_yielded(tmp_path):
    directory = created(tmp_path / "run")
    for now in directory.record(training(), checkpoint_every=3):
        assert (f"step-{now.step:08d}.safetensors" in names(directory)) == (
            now.step % 3 == 0 or now.step == 10
        )


@pytest.mark.parametrize(("keep", "kept"), [(1, [10]), (2, [9, 10]), (3, [6, 9, 10]), (99, [3, 6, 9, 10])])
def test_the_newest_checkpoints_are_kept(tmp_path, keep, kept):
    directory = created(tmp_path / "run")
    drive(directory, training(), checkpoint_every=3, keep=keep)
    assert names(directory) == [f"step-{step:08d}.safetensors" for step in kept]
    assert len(os.listdir(directory.path / "checkpoints")) == len(kept)


def test_checkpoints_go_by_number_and_foreign_files_are_left_alone(tmp_path):
    directory = created(tmp_path / "run")
    folder = directory.path / "checkpoints"
    folder.mkdir()
    for name in ("step-99999999.safetensors", "step-100000000.safetensors", "step-best.safetensors", "notes"):
        (folder / name).touch()
    assert names(directory) == ["step-99999999.safetensors", "step-100000000.safetensors"]
    state = next(training()).state
    state.step = 100000001
    directory.save_checkpoint(state, keep=2)
    assert names(directory) == ["step-100000000.safetensors", "step-100000001.safetensors"]
    assert (folder / "step-best.safetensors").exists()
    assert (folder / "notes").exists()


def test_the_policy_is_saved_after_the_last_step_and_acts_as_the_runs(tmp_path):
    directory = created(tmp_path / "run")
    for now in directory.record(training(), checkpoint_every=5):
        assert (directory.path / "policy").is_dir() == (now.step == 10)
        state = now.state
    policy = load_policy(directory.path)
    observation = torch.randn(3, 1, 2)
    rng = [torch.Generator().manual_seed(0) for _ in range(2)]
    actions = [
        some.act(observation, some.initial_state(3), rng=own)[0]
        for some, own in zip((policy, state.policy()), rng, strict=True)
    ]
    assert torch.equal(*actions)


def test_a_run_that_is_not_finished_says_so_where_its_policy_is_asked_for(tmp_path):
    directory = created(tmp_path / "run")
    drive(directory, training(), until=5)
    with pytest.raises(FileError, match=r"no policy yet(.|\n)*policysmith resume"):
        load_policy(directory.path)


def test_there_is_no_moment_at_which_the_last_checkpoint_is_there_and_the_policy_is_not(
    tmp_path, monkeypatch
):
    """A process killed between the two would otherwise find nothing left to do, and never save the policy."""
    directory = created(tmp_path / "run")
    seen = []
    save = RunDirectory.save_checkpoint

    def watched(self, state, *, keep):
        seen.append((state.step, (self.path / "policy").is_dir()))
        return save(self, state, keep=keep)

    monkeypatch.setattr(RunDirectory, "save_checkpoint", watched)
    drive(directory, training(), checkpoint_every=5)
    assert seen == [(5, False), (10, True)]


@pytest.mark.parametrize("wrong", [{"checkpoint_every": 0}, {"keep": 0}, {"keep": -1}, {"log_every": 0}])
def test_intervals_below_one_are_refused_before_the_first_step(tmp_path, wrong):
    state = RunState(learners={})
    progress = run(state, collect=lambda state: {}, update=lambda state, batch: {}, steps=3)
    with pytest.raises(SettingError, match="at least 1 each"):
        drive(created(tmp_path / "run"), progress, **wrong)
    assert state.step == 0


def test_tensorboard_has_the_metrics_even_where_the_run_is_interrupted(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    directory = created(tmp_path / "run")
    with pytest.raises(NotFiniteError):
        drive(directory, training(poison_at=5), tensorboard=True)
    read = events.EventAccumulator(str(directory.path / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in read.Scalars("loss")]
    assert [step for step, _ in found] == [1, 2, 3, 4]
    assert [value for _, value in found] == pytest.approx([line["loss"] for line in directory.metrics()])


# ---- going on ------------------------------------------------------------------------------------------


def test_a_run_without_a_checkpoint_begins_anew_and_its_metrics_too(tmp_path):
    directory = created(tmp_path / "run")
    drive(directory, training(), until=3, checkpoint_every=100)
    assert len(directory.metrics()) == 3
    assert directory.load_checkpoint() is None
    assert directory.metrics() == []


@pytest.mark.parametrize("until", range(1, 11))
def test_after_resuming_the_metrics_are_those_of_the_undisturbed_run(tmp_path, until):
    whole, cut = created(tmp_path / "whole"), created(tmp_path / "cut")
    drive(whole, training(), checkpoint_every=3)
    drive(cut, training(), until=until, checkpoint_every=3)
    saved = cut.load_checkpoint()
    at = 0 if saved is None else saved["step"]
    assert at == (10 if until == 10 else until // 3 * 3)
    assert [line["step"] for line in cut.metrics()] == list(range(1, at + 1))
    drive(cut, training(state=saved), checkpoint_every=3)
    assert logged(cut) == logged(whole)
    assert names(cut) == names(whole)


def test_a_line_of_metrics_that_a_kill_cut_short_is_dropped(tmp_path):
    whole, cut = created(tmp_path / "whole"), created(tmp_path / "cut")
    drive(whole, training())
    drive(cut, training(), until=5)
    path = cut.path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')
    assert [line["step"] for line in cut.metrics()] == [1, 2, 3, 4, 5]
    drive(cut, training(state=cut.load_checkpoint()))
    assert logged(cut) == logged(whole)


def test_a_kill_while_metrics_are_cut_loses_none_of_them(tmp_path, monkeypatch):
    directory = created(tmp_path / "run")
    drive(directory, training(), until=5)
    before = (directory.path / "metrics.jsonl").read_text()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            directory.load_checkpoint()
    assert (directory.path / "metrics.jsonl").read_text() == before


def test_a_damaged_line_of_metrics_is_named(tmp_path):
    directory = created(tmp_path / "run")
    (directory.path / "metrics.jsonl").write_text('{"step": 1}\n\0\0\0\n{"step": 3}\n')
    with pytest.raises(FileError, match=r"a line is damaged(.|\n)*metrics\.jsonl"):
        directory.metrics()


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    directory = created(tmp_path / "run")
    drive(directory, training(), until=4)
    left = [
        directory.path / "checkpoints" / ".step-00000006.safetensors.0a1b2c3d.part",
        directory.path / ".metrics.jsonl.0a1b2c3d.part",
        directory.path / ".policy.0a1b2c3d.part",
        directory.path / ".policy.0a1b2c3d.old",
    ]
    for path in left:
        if "policy" in path.name:
            path.mkdir()
            (path / "model.safetensors").write_bytes(b"half")
        else:
            path.write_bytes(b"half")
    assert len(directory.checkpoints()) == 2
    assert directory.load_checkpoint()["step"] == 4
    assert not any(path.exists() for path in left)


def test_the_checkpoint_of_another_system_is_refused(tmp_path):
    mine, other = created(tmp_path / "mine"), created(tmp_path / "other", system="else")
    drive(mine, training(), until=2)
    drive(other, training(), until=2)
    shutil.copytree(other.path / "checkpoints", mine.path / "checkpoints", dirs_exist_ok=True)
    with pytest.raises(FileError, match=r"another system(.|\n)*step-00000002(.|\n)*a checkpoint of 'toy'"):
        mine.load_checkpoint()
    assert len(mine.metrics()) == 2  # nothing was cut for a checkpoint that was not taken


@pytest.mark.parametrize("tree", [[1, 2], {"other": 1}, {}])
def test_a_tree_that_is_no_checkpoint_is_refused(tmp_path, tree):
    directory = created(tmp_path / "run")
    save_tree(directory.path / "checkpoints" / "step-00000001.safetensors", tree)
    with pytest.raises(FileError, match="another system"):
        directory.load_checkpoint()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_damaged_checkpoint_is_refused_and_the_run_goes_on_from_the_one_before(tmp_path, share):
    """Checkpoints are renamed into place, so this is a damaged disk and not a killed process."""
    whole, cut = created(tmp_path / "whole"), created(tmp_path / "cut")
    drive(whole, training())
    drive(cut, training(), until=6)
    newest = cut.checkpoints()[-1]
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content))])
    before = cut.metrics()
    with pytest.raises(FileError, match=r"cut short or damaged") as error:
        cut.load_checkpoint()
    assert error.value.where == str(newest)
    assert error.value.cure == "delete the file: the run then goes on from step-00000004.safetensors"
    assert cut.metrics() == before
    newest.unlink()  # what the error says to do
    saved = cut.load_checkpoint()
    assert saved is not None
    assert saved["step"] == 4
    drive(cut, training(state=saved))
    assert logged(cut) == logged(whole)


def test_the_only_checkpoint_being_damaged_leads_back_to_the_beginning(tmp_path):
    directory = created(tmp_path / "run")
    drive(directory, training(), until=2)
    directory.checkpoints()[0].write_bytes(b"")
    with pytest.raises(FileError, match="the run then goes on from the beginning"):
        directory.load_checkpoint()
    directory.checkpoints()[0].unlink()
    assert directory.load_checkpoint() is None


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    directory = created(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr("policysmith.common.saving.FORMAT", 999)
        drive(directory, training(), until=2)
    with pytest.raises(FileError, match=r"format 999(.|\n)*format 1") as error:
        directory.load_checkpoint()
    assert "delete" not in str(error.value)


def test_a_write_that_fails_leaves_the_old_checkpoint_in_place(tmp_path, monkeypatch):
    directory = created(tmp_path / "run")
    drive(directory, training(), until=4)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("safetensors.torch.save_file", full)
        with pytest.raises(FileError, match="No space left"):
            drive(directory, training(state=directory.load_checkpoint()))
    assert names(directory) == ["step-00000002.safetensors", "step-00000004.safetensors"]
    assert directory.load_checkpoint()["step"] == 4
    assert len(os.listdir(directory.path / "checkpoints")) == 2


def test_a_step_that_is_not_finite_keeps_the_last_checkpoint_and_can_be_taken_again(tmp_path):
    whole, broken = created(tmp_path / "whole"), created(tmp_path / "broken")
    drive(whole, training())
    with pytest.raises(NotFiniteError, match=r"step 6 of 10; optimiser step 6; .*'action'"):
        drive(broken, training(poison_at=6))
    assert names(broken) == ["step-00000002.safetensors", "step-00000004.safetensors"]
    assert [line["step"] for line in broken.metrics()] == [1, 2, 3, 4, 5]
    drive(broken, training(state=broken.load_checkpoint()))
    assert logged(broken) == logged(whole)


# ---- Ctrl-C --------------------------------------------------------------------------------------------


@pytest.fixture
def usual_ctrl_c():
    """Python's own handler, also where the tests were started with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_run(directory, *, at, times=1):
    """Drive a run in which Ctrl-C is pressed while the caller has step `at`."""
    steps = []
    with pytest.raises(KeyboardInterrupt) as interrupt:  # noqa: PT012
        for now in directory.record(training(), checkpoint_every=100, log_every=1):
            steps.append(now.step)
            if now.step == at:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
    return steps, str(interrupt.value)


def test_ctrl_c_ends_after_the_next_step_with_a_checkpoint(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    directory = created(tmp_path / "run")
    steps, said = interrupted_run(directory, at=3)
    assert steps == [1, 2, 3, 4]
    assert said == "stopped after step 4 of 10"
    assert names(directory) == ["step-00000004.safetensors"]
    assert signal.getsignal(signal.SIGINT) is before
    whole = created(tmp_path / "whole")
    drive(whole, training())
    drive(directory, training(state=directory.load_checkpoint()))
    assert logged(directory) == logged(whole)


def test_a_second_ctrl_c_ends_at_once(tmp_path, usual_ctrl_c):
    before = signal.getsignal(signal.SIGINT)
    steps, said = interrupted_run(created(tmp_path / "run"), at=3, times=2)
    assert steps == [1, 2, 3]
    assert said == ""
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_during_the_last_step_finds_the_run_finished(tmp_path):
    directory = created(tmp_path / "run")
    for now in directory.record(training(), checkpoint_every=100):
        if now.step == 9:
            signal.raise_signal(signal.SIGINT)
    assert now.step == 10
    assert (directory.path / "policy").is_dir()


def test_a_run_that_is_left_gives_ctrl_c_back(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    progress = created(tmp_path / "run").record(training(), checkpoint_every=100)
    next(progress)
    assert signal.getsignal(signal.SIGINT) is not before
    progress.close()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_in_another_thread_records_without_touching_ctrl_c(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    directory = created(tmp_path / "run")
    thread = threading.Thread(target=drive, args=(directory, training()))
    thread.start()
    thread.join()
    assert len(directory.metrics()) == 10
    assert signal.getsignal(signal.SIGINT) is before


def test_metrics_are_plain_json_lines(tmp_path):
    directory = created(tmp_path / "run")
    drive(directory, training())
    for line in (directory.path / "metrics.jsonl").read_text().splitlines():
        assert all(isinstance(value, int | float) for value in json.loads(line).values())
    save_json(directory.path / "again.json", directory.metrics())  # which refuses what is not finite
