"""Episodes split whole, windows that say what happened, and data sets that are what they should be."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lottalora.data import halfcheetah
from lottalora.data.batches.windows import CONTEXT
from lottalora.data.batches.windows import Normalisation
from lottalora.data.batches.windows import Steps
from lottalora.data.batches.windows import returns_to_go
from lottalora.data.halfcheetah import HalfCheetah
from lottalora.data.halfcheetah import made_episodes
from lottalora.data.halfcheetah import split
from lottalora.data.sources.episodes import Episode
from lottalora.data.sources.episodes import checked
from lottalora.data.sources.episodes import d4rl_episodes
from lottalora.data.sources.episodes import read_d4rl
from lottalora.data.sources.episodes import read_minari

LOCAL = "mujoco/halfcheetah/tqc-expert-v0"
ROOT = Path(os.environ.get("LOTTALORA_DATA", Path.home() / ".cache" / "lottalora"), "halfcheetah")
real = [
    pytest.mark.data,
    pytest.mark.skipif(not (ROOT / LOCAL).exists(), reason=f"{LOCAL} is not at {ROOT}"),
]
SAMPLE = HalfCheetah(root="nowhere", batch_size=64, sample=True)


@pytest.fixture(scope="module")
def splits():
    return HalfCheetah(root=str(ROOT), batch_size=64, id=LOCAL).read()


def numbered(*lengths: int) -> list[Episode]:
    """Episodes whose every state, action and reward is 100 · episode + step."""
    episodes = []
    for number, length in enumerate(lengths):
        value = (100 * number + np.arange(length)).astype(np.float32)
        episodes.append(Episode(np.tile(value[:, None], 17), np.tile(value[:, None], 6), value))
    return episodes


def steps_of(*lengths: int) -> Steps:
    plain = Normalisation(mean=torch.zeros(17), std=torch.ones(17), return_scale=1.0)
    return Steps.of(numbered(*lengths), plain)


def test_a_window_holds_the_steps_that_follow_one_another():
    windows = steps_of(50, 50).windows(torch.tensor([55]))  # step 5 of the second episode
    expected = torch.arange(5, 5 + CONTEXT)
    assert windows.steps[0].tolist() == expected.tolist()
    assert windows.states[0, :, 0].tolist() == (100 + expected).tolist()
    assert windows.actions[0, :, 5].tolist() == (100 + expected).tolist()
    assert windows.mask.all()


def test_a_window_at_the_end_of_an_episode_is_filled_up_on_the_left_and_not_from_the_next():
    windows = steps_of(50, 50).windows(torch.tensor([47]))
    assert windows.mask[0].tolist() == [False] * (CONTEXT - 3) + [True] * 3
    assert windows.states[0, -3:, 0].tolist() == [47, 48, 49]
    assert not windows.states[0, :-3].any()
    assert not windows.returns[0, :-3].any()


def test_the_return_to_go_is_the_sum_of_the_rewards_from_a_step_to_the_end():
    assert returns_to_go(np.array([1.0, 2.0, 4.0], dtype=np.float32)).tolist() == [7, 6, 4]
    windows = steps_of(30).windows(torch.tensor([10]))
    assert windows.returns[0, 0, 0] == sum(range(10, 30))


def test_episodes_are_split_whole_and_each_is_in_one_part():
    episodes = numbered(*range(20, 50))
    train, held_out = split(episodes)
    assert (len(train), len(held_out)) == (27, 3)
    assert sorted(len(e.rewards) for e in train + held_out) == list(range(20, 50))


def test_the_split_is_the_same_at_every_reading():
    assert SAMPLE.read().fingerprint() == SAMPLE.read().fingerprint()


def test_the_fingerprint_changes_when_one_action_does():
    splits = SAMPLE.read()
    before = splits.fingerprint()
    splits.held_out.table[0, 20] += 1
    assert splits.fingerprint() != before


def test_states_are_normalised_by_the_training_part():
    splits = SAMPLE.read()
    states = splits.train.table[:-1, 1:18]
    torch.testing.assert_close(states.mean(0), torch.zeros(17), atol=1e-4, rtol=0)
    torch.testing.assert_close(states.std(0, correction=0), torch.ones(17), atol=1e-3, rtol=0)
    assert splits.held_out.table[:-1, 1:18].mean().abs() > 1e-3


def test_an_epoch_is_one_window_from_every_step_and_its_order_a_function_of_seed_and_epoch():
    splits = SAMPLE.read()
    batches = splits.train_batches(42)
    first = [windows.states for windows, _ in batches]
    assert sum(len(states) for states in first) == len(splits.train.left) == 9 * 24
    assert len(batches) == len(first) == 4
    again = [windows.states for windows, _ in splits.train_batches(42)]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    batches.sampler.set_epoch(1)
    assert not torch.equal(next(iter(batches))[0].states, first[0])


def test_each_held_out_step_is_scored_once_and_validation_and_test_are_the_same():
    splits = SAMPLE.read()
    scored = [windows.steps[windows.mask] for windows, _ in splits.test_batches()]
    assert sorted(torch.cat(scored).tolist()) == list(range(24))
    assert [w.states.sum() for w, _ in splits.test_batches()] == [
        w.states.sum() for w, _ in splits.validation_batches()
    ]


def test_the_stand_in_has_the_shape_that_the_spec_promises():
    windows, actions = next(iter(SAMPLE.read().train_batches(0)))
    assert tuple(windows.states.shape[1:]) == SAMPLE.spec.in_shape
    assert actions.shape[2] == SAMPLE.spec.out_dim
    assert all(len(episode.rewards) <= 1000 for episode in made_episodes())


def test_d4rls_rows_become_episodes():
    row = {
        "observations": [[0.5] * 17] * 3,
        "actions": [[0.1] * 6] * 3,
        "rewards": [1.0, 2.0, 3.0],
        "dones": [],
    }
    (episode,) = d4rl_episodes([row])
    assert (episode.states.shape, episode.actions.shape) == ((3, 17), (3, 6))
    assert episode.rewards.tolist() == [1, 2, 3]


def test_a_data_set_without_episodes_is_refused():
    with pytest.raises(ValueError, match="'empty/set-v0' has 0 episodes with steps; 2 or more are needed"):
        checked([], "empty/set-v0")


def test_an_episode_of_another_animal_is_refused():
    other = Episode(np.zeros((5, 11)), np.zeros((5, 3)), np.zeros(5))
    with pytest.raises(ValueError, match=r"Episode 1 of data set 'x' has states \(5, 11\), actions \(5, 3\)"):
        checked([*numbered(5), other], "x")


def test_a_value_that_is_no_number_is_refused():
    episodes = numbered(5, 5)
    episodes[1].states[2, 3] = np.nan
    with pytest.raises(ValueError, match="Episode 1 of data set 'x' holds values that are not numbers"):
        checked(episodes, "x")


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="Unknown data.source 'd5rl'. Known: minari, d4rl"):
        HalfCheetah(root="nowhere", batch_size=64, source="d5rl")


def test_a_sample_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(ValueError, match="data.sample must be true or false, got 3"):
        HalfCheetah(root="nowhere", batch_size=64, sample=3)


class TestMinari:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch):
        """The client of the real package, and a server that does not answer."""
        minari = pytest.importorskip("minari", reason="minari is not installed")
        pytest.importorskip("h5py", reason="h5py is not installed")

        def silent(*_: object, **__: object) -> None:
            raise ConnectionError("no answer")

        monkeypatch.setenv("MINARI_DATASETS_PATH", "nowhere")
        monkeypatch.setattr("lottalora.data.sources.episodes.reach", silent)
        monkeypatch.setattr(minari, "list_remote_datasets", silent)
        monkeypatch.setattr(minari, "download_dataset", silent)

    def test_a_stored_data_set_is_read_as_it_was_written(self, tmp_path):
        store(tmp_path, "mujoco/halfcheetah/made-v0", lengths=(4, 7))
        first, second = read_minari(tmp_path, "mujoco/halfcheetah/made-v0")
        assert (first.states.shape, first.actions.shape) == ((4, 17), (4, 6))
        assert second.rewards.tolist() == list(range(7))

    def test_a_misspelt_id_is_refused_with_the_nearest_offered(self, tmp_path):
        store(tmp_path, "mujoco/halfcheetah/made-v0", lengths=(4,))
        with pytest.raises(
            FileNotFoundError, match="not at .*looked for.*Nearest: mujoco/halfcheetah/made-v0"
        ):
            read_minari(tmp_path, "mujoco/halfcheetah/mad-v0")

    def test_a_missing_data_set_is_refused_with_what_to_type(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no answer.*paths.data=FOLDER.*data.sample=true"):
            read_minari(tmp_path, halfcheetah.EXPERT["minari"])

    def test_a_truncated_file_is_refused_by_name(self, tmp_path):
        store(tmp_path, "mujoco/halfcheetah/made-v0", lengths=(4, 7))
        file = tmp_path / "mujoco/halfcheetah/made-v0/data/main_data.hdf5"
        file.write_bytes(file.read_bytes()[:500])
        with pytest.raises(ValueError, match="made-v0 cannot be read .*Delete the folder"):
            read_minari(tmp_path, "mujoco/halfcheetah/made-v0")


def test_d4rl_without_a_network_is_refused_with_what_to_type(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")

    def silent(*_: object, **__: object) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(datasets, "load_dataset", silent)
    with pytest.raises(
        FileNotFoundError, match="'halfcheetah-exprt-v2'.*no answer.*Nearest: halfcheetah-expert-v2"
    ):
        read_d4rl(tmp_path, "halfcheetah-exprt-v2")


def store(root: Path, name: str, lengths: tuple[int, ...]) -> None:
    """A Minari data set on the disk, made by Minari itself."""
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    os.environ["MINARI_DATASETS_PATH"] = str(root)
    buffers = [
        EpisodeBuffer(
            id=number,
            observations=np.zeros((length + 1, 17), dtype=np.float32),
            actions=np.zeros((length, 6), dtype=np.float32),
            rewards=list(np.arange(length, dtype=np.float32)),
            terminations=[False] * length,
            truncations=[False] * (length - 1) + [True],
        )
        for number, length in enumerate(lengths)
    ]
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=Box(-np.inf, np.inf, (17,), np.float32),
        action_space=Box(-1, 1, (6,), np.float32),
        algorithm_name="made", author="tests", author_email="-", code_permalink="-",
    )  # fmt: skip


class TestRealEpisodes:
    pytestmark = real

    def test_90_episodes_are_trained_on_and_10_held_out(self, splits):
        assert (len(splits.train.left), len(splits.held_out.left)) == (90_000, 10_000)
        assert len(splits.train_batches(0)) == 1407

    def test_the_mean_action_has_the_error_that_the_spec_calls_chance(self, splits):
        train, held_out = (part.table[:-1, 18:24] for part in (splits.train, splits.held_out))
        error = (held_out - train.mean(0)).square().mean()
        assert float(error) == pytest.approx(HalfCheetah.spec.chance, abs=1e-3)

    def test_an_episode_asks_for_twice_the_return_scale(self, splits):
        first = splits.train.table[:-1][splits.train.left == 1000, 0]
        assert 1.5 < float(first.min()) < float(first.max()) < 2.1
