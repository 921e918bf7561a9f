"""What simpler tuning costs: known answers, and scoring on seeds that were left out."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from lrwd_sweep.science.separability import SequentialRegret, analyse
from lrwd_sweep.science.separability.bootstrap import t95
from lrwd_sweep.science.surface import Float
from lrwd_sweep.science.trial import Direction
from tests.science.separability.surfaces import BOWL, RIDGE, A, L, noisy, regret, repeated, surface, value

TURNED = 0.5 * (A + L) ** 2 + 0.1 * (A - L) ** 2  # tuned one at a time from 0, it is off by ρ² per sweep


def sequential(y: Float, start: tuple[float | None, float | None] = (None, None)) -> SequentialRegret:
    return analyse(surface(y), start=start, resamples=200).sequential_regret[0]


def test_sequential_regret_is_that_of_one_pass_from_every_start() -> None:
    for y in (BOWL, RIDGE):  # one pass finds the best cell
        for each in analyse(surface(repeated(y, 4))).sequential_regret:
            assert value(each.estimate) == pytest.approx(0, abs=1e-12)
    by_start = [TURNED[TURNED[:, j].argmin()].min() for j in range(11)]
    found = sequential(repeated(TURNED))
    assert (found.start, found.starts_out, found.first) == (None, 0, "lr")
    assert value(found.estimate) == pytest.approx(np.mean(by_start))
    named = sequential(repeated(TURNED), (None, 2.0**3.2))
    assert named.start == 2.0**3
    assert value(named.estimate) == pytest.approx(by_start[8])
    mirrored = analyse(surface(repeated(TURNED.T)), start=(2.0**3.2, None)).sequential_regret[1]
    assert (mirrored.first, mirrored.estimate.value) == ("weight_decay", named.estimate.value)
    y = repeated(TURNED)  # cells that are out are never chosen, and empty starts are counted
    y[6:, :3], y[:, 10] = np.nan, np.nan
    found = sequential(y)
    by_start = [np.nanmin(y[int(np.nanargmin(y[:, j, 0])), :, 0]) for j in range(10)]
    assert found.starts_out == 1
    assert value(found.estimate) == pytest.approx(np.mean(by_start))
    assert sequential(y, (None, 2.0**5)).estimate.value is None
    for seeds, in_sample, reason in ((2, True, "in sample"), (3, False, "below four seeds"), (4, False, "")):
        found = sequential(noisy(TURNED, seeds, 0.3))
        assert (found.in_sample, found.estimate.has_interval) == (in_sample, seeds == 4), seeds
        assert reason in found.estimate.reason


def test_seeds_that_choose_do_not_score() -> None:
    y = noisy(BOWL, 3, 1.0)
    by_seed = []
    for out in range(3):
        best = np.delete(y, out, axis=2).mean(axis=2).argmin(axis=1)
        rows = np.flatnonzero(analyse(surface(y)).basin.any(axis=1))
        pairs = [(i, k) for i in rows for k in rows if abs(i - k) == 1]
        by_seed.append(np.mean([y[k, best[i], out] - y[k, best[k], out] for i, k in pairs]))
    found = regret(analyse(surface(y)), 1)
    half = t95(2) * np.std(by_seed, ddof=1) / sqrt(3)
    assert not found.in_sample
    assert (found.estimate.value, found.estimate.low) == pytest.approx(
        (np.mean(by_seed), np.mean(by_seed) - half)
    )
    transfer = {}
    for seeds in (2, 3, 4):
        draws = (noisy(BOWL, seeds, 1.0, stream, offset=0) for stream in range(40))
        every = [analyse(surface(y), resamples=0).transfer_regret[0].estimate for y in draws]
        transfer[seeds] = np.mean([value(each) for each in every])
    assert transfer[2] > 0.3  # truth: 0
    assert max(abs(transfer[3]), abs(transfer[4])) < 0.1


def test_expected_best_is_scored_on_each_seed_in_turn_and_knows_the_direction() -> None:
    y = noisy(BOWL, 5, 1.0)
    by_seed = [y[..., out].flat[np.delete(y, out, axis=2).mean(axis=2).argmin()] for out in range(5)]
    found = analyse(surface(y)).expected_best
    assert value(found) == pytest.approx(np.mean(by_seed))
    assert found.has_interval
    higher = analyse(replace(surface(-y), direction=Direction.MAXIMIZE)).expected_best
    assert (higher.value, higher.low) == pytest.approx((-value(found), -(found.high or 0)))
    assert value(analyse(surface(y, baseline=np.full((11, 5), -9.0))).expected_best) == -9
    assert analyse(surface(y[..., :2])).expected_best.value is None


def test_sensitivity_has_its_known_answers() -> None:
    one = np.full((8, 9), 1.0)
    one[3] = 0.2
    for name, y, initial, tuned, fixed in (
        ("flat", np.full((11, 11), 0.3), 1.0, 0.0, 0.0),
        ("one good row of eight", one, 1.0, 7 / 8 * 0.8, 7 / 8 * 0.8),
        ("bowl", BOWL, 30.0, *[np.minimum(0.3 * A[:, 0] ** 2, 30).mean()] * 2),
        ("ridge, of which row 0 is best", RIDGE, 30.0, 0.0, np.minimum((A[:, 0] + 5) ** 2, 30).mean()),
    ):
        found = analyse(surface(repeated(y)), initial=initial).lr_sensitivity
        assert found is not None
        expected = (tuned, fixed, fixed - tuned)
        measured = (value(found.tuned), value(found.fixed), value(found.difference))
        assert measured == pytest.approx(expected, abs=1e-12), name
    y = repeated(BOWL)
    y[9:] = np.nan  # a diverged row counts as the value at initialisation
    rows = np.where(np.arange(11) < 9, 0.3 * A[:, 0] ** 2, 5.0)
    found = analyse(surface(y), initial=[4.0, 5.0, 6.0]).lr_sensitivity
    assert found is not None
    assert value(found.tuned) == pytest.approx(np.minimum(rows, 5).mean())
    for unusable in (None, -100.0, float("nan")):  # missing, or not improved by training
        found = analyse(surface(noisy(BOWL, 3, 0.3)), initial=unusable).lr_sensitivity
        assert found is not None
        assert (found.tuned.value, "value at initialisation" in found.tuned.reason) == (None, True)
