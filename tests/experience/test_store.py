"""Data sets on disk: the Minari package reads ours, we read its, and damage is named."""

import json
import shutil
import warnings

import gymnasium
import h5py
import minari
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from minari.data_collector import EpisodeBuffer

from policysmith.common.errors import DataError, FileError, MissingExtraError, SettingError
from policysmith.experience.episodes import Episodes
from policysmith.experience.store import load_episodes, save_episodes

torch.set_num_threads(1)

Box = gymnasium.spaces.Box


def made(lengths=(5, 1, 3), *, seed=0, **provenance):
    rng = np.random.default_rng(seed)
    return Episodes.from_arrays(
        (
            {
                "observation": rng.standard_normal((length + 1, 3)),
                "action": rng.uniform(-1, 1, (length, 2)),
                "reward": rng.standard_normal(length),
                "terminated": bool(number % 2),
                "success": rng.random(length) < 0.5,
            }
            for number, length in enumerate(lengths)
        ),
        provenance=provenance,
    )


@pytest.fixture
def saved(tmp_path):
    save_episodes(made(), tmp_path / "data-set")
    return tmp_path / "data-set"


@pytest.fixture
def by_minari(tmp_path, monkeypatch):
    """Make a data set with Minari's own call and return its folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def create(buffers, observation_space, action_space=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari wishes for authors and permalinks
            minari.create_dataset_from_buffers(
                "somebody/else-v3",
                buffers,
                observation_space=observation_space,
                action_space=action_space or Box(-1, 1, (2,), np.float32),
            )
        return tmp_path / "somebody" / "else-v3"

    return create


def buffer(observations, length, **more):
    fields = {
        "observations": observations,
        "actions": np.arange(2.0 * length, dtype=np.float32).reshape(length, 2) / 100,
        "rewards": np.arange(length, dtype=np.float64),
        "terminations": np.array([False] * (length - 1) + [True]),
        "truncations": np.zeros(length, dtype=bool),
    }
    return EpisodeBuffer(**fields | more)


def assert_same(one, other):
    assert one.lengths.tolist() == other.lengths.tolist()
    assert set(one.steps.keys()) == set(other.steps.keys())
    for key in one.steps.keys():  # noqa: SIM118
        assert one.steps[key].dtype == other.steps[key].dtype
        assert torch.equal(one.steps[key], other.steps[key]), key
    assert torch.equal(one.final_observation, other.final_observation)


# ---- round trips ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(0, 9))
def test_what_is_written_is_read_bit_for_bit(tmp_path_factory, lengths, seed):
    folder = tmp_path_factory.mktemp("sets") / "set"
    episodes = made(lengths, seed=seed, environment="here", seed_of_recording=seed)
    save_episodes(episodes, folder)
    read = load_episodes(folder)
    assert_same(episodes, read)
    assert read.fingerprint == episodes.fingerprint
    assert read.provenance == {"environment": "here", "seed_of_recording": seed}
    shutil.rmtree(folder.parent)


def test_minari_reads_what_we_write(tmp_path):
    episodes = made((5, 1, 12))
    folder = tmp_path / "deep" / "down" / "set"
    save_episodes(episodes, folder, name="people/of-here-v7", action_space=Box(-1, 1, (2,), np.float32))
    data = minari.MinariDataset(str(folder))
    assert (data.id, data.total_episodes, data.total_steps) == ("people/of-here-v7", 3, 18)
    assert data.spec.namespace == "people"
    assert data.spec.version == 7
    assert data.action_space == Box(-1, 1, (2,), np.float32)
    read = list(data.iterate_episodes())
    assert len(read) == 3
    for i, episode in enumerate(read):
        steps = episodes[i]
        assert data.observation_space.contains(episode.observations[0])
        assert data.action_space.contains(episode.actions[0])
        assert len(episode) == len(steps)
        assert len(episode.observations) == len(steps) + 1
        np.testing.assert_array_equal(episode.observations[:-1], steps["observation"])
        np.testing.assert_array_equal(episode.observations[-1], episodes.final_observation[i])
        np.testing.assert_array_equal(episode.actions, steps["action"])
        np.testing.assert_array_equal(episode.rewards, steps["reward"])
        np.testing.assert_array_equal(episode.terminations, steps["terminated"])
        np.testing.assert_array_equal(episode.truncations, steps["truncated"])
        np.testing.assert_array_equal(episode.infos["success"][1:], steps["success"])
    assert len(data.filter_episodes(lambda episode: bool(episode.terminations[-1]))) == 1


def test_minari_loads_ours_by_name_from_its_own_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    save_episodes(made(), tmp_path / "policysmith" / "demonstrations-v0" / "data")
    assert minari.load_dataset("policysmith/demonstrations-v0").total_episodes == 3
    assert_same(load_episodes(tmp_path / "policysmith" / "demonstrations-v0"), made())


def test_the_default_action_space_is_the_box_of_the_actions(saved):
    actions = made().steps["action"].numpy()
    space = minari.MinariDataset(str(saved)).action_space
    np.testing.assert_array_equal(space.low, actions.min(0))
    np.testing.assert_array_equal(space.high, actions.max(0))


def test_nothing_is_overwritten(saved):
    before = load_episodes(saved)
    with pytest.raises(FileError, match="something at this path already"):
        save_episodes(made(seed=3), saved)
    assert_same(before, load_episodes(saved))


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("policysmith.experience.store.save_json", fail)
    with pytest.raises(KeyboardInterrupt):
        save_episodes(made(), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "no version", "spaces are/bad-v0", "unversioned", "a/b-v"])
def test_a_name_that_minari_could_not_read_is_refused_before_writing(tmp_path, name):
    with pytest.raises(SettingError, match=r"no data set id of Minari(.|\n)*-v0"):
        save_episodes(made(), tmp_path / "set", name=name)
    assert list(tmp_path.iterdir()) == []


# ---- data sets of others -------------------------------------------------------------------------------


def test_we_read_what_minari_writes(by_minari):
    observations = np.arange(12.0).reshape(4, 3)
    folder = by_minari(
        [buffer(observations, 3), buffer(observations[:2] + 50, 1)], Box(-np.inf, np.inf, (3,), np.float64)
    )
    for path in (folder, folder / "data"):
        episodes = load_episodes(path)
        assert episodes.lengths.tolist() == [3, 1]
        assert episodes[0]["observation"].tolist() == observations[:3].tolist()
        assert episodes.final_observation.tolist() == [
            observations[3].tolist(),
            (observations[1] + 50).tolist(),
        ]
        np.testing.assert_allclose(episodes[0]["action"], np.arange(6).reshape(3, 2) / 100, rtol=1e-6)
        assert episodes.steps["reward"].tolist() == [0, 1, 2, 0]
        assert episodes.steps["terminated"].tolist() == [False, False, True, True]
        assert not episodes.steps["truncated"].any()
        assert not episodes.succeeded.any()
        assert episodes.provenance["episodes"] == 2


def test_dict_observations_are_flattened_in_the_order_of_their_keys(by_minari):
    space = gymnasium.spaces.Dict(
        {
            "observation": Box(-9, 9, (3,), np.float64),
            "achieved_goal": Box(-9, 9, (2,), np.float64),
            "desired_goal": gymnasium.spaces.Dict(
                {"b": Box(-9, 9, (2,), np.float32), "a": Box(-9, 9, (), np.float32)}
            ),
        }
    )
    steps = [space.sample() for _ in range(5)]

    def column(read):
        return np.stack([read(step) for step in steps])

    observations = {
        "observation": column(lambda step: step["observation"]),
        "achieved_goal": column(lambda step: step["achieved_goal"]),
        "desired_goal": {key: column(lambda step, key=key: step["desired_goal"][key]) for key in "ab"},
    }
    episodes = load_episodes(by_minari([buffer(observations, 4)], space))
    wanted = np.stack([gymnasium.spaces.flatten(space, step) for step in steps]).astype(np.float32)
    np.testing.assert_array_equal(episodes.steps["observation"], wanted[:4])
    np.testing.assert_array_equal(episodes.final_observation[0], wanted[4])


def test_tuple_observations_are_flattened_too(by_minari):
    space = gymnasium.spaces.Tuple((Box(0, 9, (2,), np.float64), Box(0, 9, (1,), np.float64)))
    observations = (np.full((3, 2), 1.0), np.full((3, 1), 2.0))
    episodes = load_episodes(by_minari([buffer(observations, 2)], space))
    assert episodes.steps["observation"].tolist() == [[1, 1, 2]] * 2


@pytest.mark.parametrize("name", ["success", "is_success"])
@pytest.mark.parametrize("from_reset", [True, False])
def test_success_is_read_under_either_name_with_or_without_an_entry_at_reset(by_minari, name, from_reset):
    flags = np.array([True] * from_reset + [False, True, False])
    infos = {name: flags, "colour": np.zeros(len(flags))}
    episodes = load_episodes(by_minari([buffer(np.zeros((4, 3)), 3, infos=infos)], Box(-1, 1, (3,))))
    assert episodes.steps["success"].tolist() == [False, True, False]


def test_whole_numbers_are_read_as_numbers(by_minari):
    folder = by_minari(
        [buffer(np.array([3, 1, 2]), 2, actions=np.array([1, 0]))],
        gymnasium.spaces.Discrete(5),
        gymnasium.spaces.Discrete(2),
    )
    episodes = load_episodes(folder)
    assert episodes.steps["observation"].tolist() == [[3], [1]]
    assert episodes.steps["action"].tolist() == [[1], [0]]


def test_text_is_refused_as_data_and_not_as_damage(by_minari):
    space = gymnasium.spaces.Text(8)
    with pytest.raises(DataError, match="cannot be read as numbers"):
        load_episodes(by_minari([buffer(["up", "down", "up"], 2)], space))


# ---- damage --------------------------------------------------------------------------------------------


def edit_metadata(folder, **changes):
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata |= changes
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))


def test_a_folder_that_is_no_data_set_is_named(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(FileError, match=f"no Minari data set here\n.*{folder}"):
            load_episodes(folder)


def test_a_missing_metadata_file_is_named(saved):
    (saved / "metadata.json").unlink()
    with pytest.raises(FileError, match=r"metadata\.json"):
        load_episodes(saved)


def test_missing_data_are_named(saved):
    (saved / "main_data.hdf5").unlink()
    with pytest.raises(FileError, match="damaged or cut short"):
        load_episodes(saved)


@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
def test_a_file_cut_short_anywhere_is_refused(saved, name):
    path = saved / name
    whole = path.read_bytes()

    @settings(deadline=None, max_examples=30, database=None)
    @given(st.floats(0, 1, exclude_max=True))
    def cut_at(share):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(FileError, match=r"damaged or cut short(.|\n)*record or download it again"):
            load_episodes(saved)

    cut_at()


@pytest.mark.parametrize(
    "changes",
    [
        {"total_episodes": None},
        {"total_episodes": 4},
        {"total_episodes": "three"},
        {"observation_space": None},  # without an environment to ask instead
        {"observation_space": 3},
        {"observation_space": '{"type": "Cloud"}'},
        {"observation_space": '{"type": "Dict", "subspaces": {}}'},
        {"data_format": "papyrus"},
        {"data_format": None},
    ],
)
def test_metadata_that_do_not_fit_the_data_are_refused(saved, changes):
    edit_metadata(saved, **changes)
    with pytest.raises(FileError, match="damaged or cut short"):
        load_episodes(saved)


def test_metadata_of_another_kind_are_refused(saved):
    (saved / "metadata.json").write_text("[1, 2]")
    with pytest.raises(FileError, match="damaged or cut short"):
        load_episodes(saved)


def test_an_empty_data_set_is_refused(saved):
    edit_metadata(saved, total_episodes=0)
    with pytest.raises(DataError, match="there are no episodes"):
        load_episodes(saved)


def test_a_format_that_needs_another_package_names_it(saved, monkeypatch):
    def missing():
        raise ImportError("pyarrow is not installed")

    monkeypatch.setitem(minari.dataset._storages._registry, "arrow", missing)
    edit_metadata(saved, data_format="arrow")
    with pytest.raises(MissingExtraError, match="pyarrow"):
        load_episodes(saved)


def damage(folder, how):
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        how(file)


def put(file, name, place, value):
    file[name][place] = value


def replace(file, name, value):
    del file[name]
    file[name] = value


DAMAGES = [
    (lambda file: put(file, "episode_2/observations", (1, 2), np.nan), DataError, "episode 2, step 1"),
    (lambda file: put(file, "episode_0/rewards", 4, np.inf), DataError, "'reward' is not finite"),
    (lambda file: replace(file, "episode_1/actions", np.zeros((1, 5))), DataError, "'action' has width 5"),
    (lambda file: replace(file, "episode_2/observations", np.zeros((4, 2))), DataError, "width 2"),
    (
        lambda file: replace(file, "episode_2/observations", np.zeros((2, 3))),
        DataError,
        "2 observations for 3",
    ),
    (lambda file: replace(file, "episode_2/rewards", np.zeros(2)), DataError, "'reward' has shape"),
    (lambda file: replace(file, "episode_1/terminations", np.zeros((1, 2))), DataError, "'terminated' has"),
    (lambda file: file.pop("episode_1/infos"), DataError, r"\['success'\] are not in all"),
    (lambda file: file.pop("episode_1"), FileError, "episode_1"),
    (lambda file: file.pop("episode_1/actions"), FileError, "actions"),
    (lambda file: replace(file, "episode_1/infos", np.zeros(2)), FileError, "damaged"),
    (lambda file: replace(file, "episode_1/observations", 1.0), FileError, "damaged"),
]


@pytest.mark.parametrize(("how", "error", "said"), DAMAGES)
def test_damaged_contents_are_refused_naming_the_place(saved, how, error, said):
    damage(saved, how)
    with pytest.raises(error, match=said):
        load_episodes(saved)


def test_a_damaged_note_of_provenance_is_refused(saved):
    (saved / "policysmith.json").write_text("{")
    with pytest.raises(FileError, match=r"policysmith\.json"):
        load_episodes(saved)


def test_a_relative_path_is_as_good_as_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_episodes(made(), "demonstrations")
    assert len(load_episodes("demonstrations")) == len(made())
