"""Learning rates by the step."""

import pytest
import torch

from lottalora.tasks.schedules import PerStep


def rates(schedule, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedule(optimizer, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_warm_up_rises_evenly_to_the_full_rate():
    assert rates(PerStep(0.3), 10) == pytest.approx([0.5, 1.0, 1.5] + 7 * [2.0])


def test_a_whole_number_is_a_number_of_steps():
    assert rates(PerStep(3), 100) == pytest.approx(rates(PerStep(0.03), 100))


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_decay_starts_at_the_full_rate_and_ends_near_zero(shape):
    found = rates(PerStep(0, shape), 101)
    assert found[0] == 2.0
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < 0.05
    assert PerStep(0, shape).factor(50, 100) == pytest.approx(0.5)


def test_unknown_shape_and_negative_warm_up_are_refused():
    with pytest.raises(ValueError, match="Unknown schedule.shape 'sine'. Known: constant, linear, cosine"):
        PerStep(0.1, "sine")
    with pytest.raises(ValueError, match="schedule.warmup must be 0 or more, got -1"):
        PerStep(-1)
