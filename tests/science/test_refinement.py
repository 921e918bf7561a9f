"""A refined lattice gives the verdict of the whole one from fewer lanes, however it is interrupted."""

from dataclasses import replace

import numpy as np
import pytest

from lrwd_sweep.science.refinement import Left, Refinement, refine, with_presumed
from lrwd_sweep.science.separability import Separability, Verdict, analyse
from lrwd_sweep.science.separability.analysis import Settings
from lrwd_sweep.science.surface import CellStatus, Surface
from lrwd_sweep.science.trial import Direction
from tests.science.separability.surfaces import BOWL, NO_EFFECT, A, L, noisy, surface
from tests.science.separability.test_simulation import like, straight

FEW = Settings(resamples=100)


def trained(truth: Surface, lanes: np.ndarray) -> Surface:
    """The surface of which only these lanes are stored."""
    values = np.where(lanes, truth.values, np.nan)
    return replace(truth, values=values, lanes=np.where(lanes, truth.lanes, CellStatus.MISSING.value))


def refined(truth: Surface, budget: int | None = None, share: float = 1.0) -> tuple[Refinement, Surface]:
    """Train round by round: at first a `share` of each round's lanes, as if interrupted, then the rest."""
    lanes, rng = np.zeros(truth.lanes.shape, dtype=bool), np.random.default_rng(0)
    while (found := refine(trained(truth, lanes), budget=budget, settings=FEW)).todo.any():
        some = found.todo & (rng.random(lanes.shape) < share)
        lanes |= some if some.any() else found.todo
    assert (lanes == found.asked).all()
    return found, trained(truth, lanes)


def judged(found: Refinement, stored: Surface) -> Separability:
    return analyse(with_presumed(stored.with_seeds(found.seeds)), resamples=100)


def test_refined_lattice_has_the_verdict_of_the_whole_after_any_interruption() -> None:
    coupled, diverged_corner = noisy(0.1 * A**2 + 0.3 * (L + A / 2) ** 2, 5, 0.1), noisy(BOWL, 7, 2.0)
    diverged_corner[A + L > 6] = np.nan
    for y, verdict in (coupled, Verdict.COUPLED), (diverged_corner, Verdict.SEPARABLE):
        truth = surface(y)
        found, stored = refined(truth)
        assert (found.settled, found.asked.mean() < 0.6) == (True, True), verdict
        answer = judged(found, stored)
        assert answer.verdict is analyse(truth, resamples=100).verdict is verdict
        assert found.left.keys() == set(zip(*np.nonzero(~found.asked.any(axis=2)), strict=True))
        whole = stored.with_seeds(found.seeds)
        for i, _ in answer.ridge:
            j = int(np.where(whole.inside[i], whole.mean[i], np.inf).argmin())
            assert whole.inside[i, j - 1 : j + 2].all(), "a row carries the slope beside an untrained cell"
        for of_all in (answer.interaction_share, answer.reverse_slope, answer.sequential_regret[0].estimate):
            assert of_all.value is None
        if verdict is Verdict.COUPLED:  # on others all transferred cells are trained
            assert answer.transfer_regret[-1].estimate.value is None
        again, same = refined(truth, share=0.5)
        assert (again.asked == found.asked).all()
        assert np.array_equal(same.values, stored.values, equal_nan=True)


def test_rules_hold_for_budgets_baselines_few_seeds_and_whole_lattices() -> None:
    noise = surface(noisy(BOWL, 5, 3.0))
    every, _ = refined(noise)
    part, stored = refined(noise, budget=int(every.asked.sum()) - 1)
    assert (part.asked.sum() < every.asked.sum(), part.unfit > 0) == (True, True)
    assert judged(part, stored).ridge_slope.value is not None, "the seeds of the last whole round"
    few, _ = refined(noise, budget=36 * 2)
    assert (few.asked.sum(), set(few.left.values())) == (72, {Left.BUDGET, Left.COLUMN})
    whole = refine(noise, settings=FEW)
    assert (whole.seeds, whole.left) == (noise.seeds, {}), "a whole lattice is analysed whole"

    y = noisy(BOWL + A**2, 5, 0.1)
    plain, _ = refined(surface(y))
    upside = replace(surface(-y), direction=Direction.MAXIMIZE)
    assert (refined(upside)[0].asked == plain.asked).all()
    assert Left.ROW in plain.left.values()
    zero, _ = refined(surface(y, baseline=y[:, 0]))
    assert (zero.asked[:, 1:] == plain.asked).all()
    assert 6 <= zero.asked[:, 0].any(axis=1).sum() < 11
    for seeds, size in ((1, 11), (2, 11), (5, 3)):
        found, _ = refined(surface(noisy(BOWL[:size, :size], seeds, 0.1)))
        assert (bool(found.asked.any(axis=(0, 1)).all()), found.settled) == (True, False), (seeds, size)
    assert found.asked.all(), "a lattice of fewer than ten cells is trained whole"


@pytest.mark.slow
def test_repeated_looks_keep_error_rates() -> None:
    settled = 0  # a verdict on noise in one of a hundred
    for draw in NO_EFFECT.values():
        draws = (surface(draw(np.random.default_rng(k), 7)) for k in range(100))
        settled += sum(refine(one, settings=FEW).settled for one in draws)
    assert settled <= 4
    for slope in (0.0, -0.25, -1.0):
        case, held = straight("bowl", slope), []
        for stream in range(60):
            found, stored = refined(surface(case.draw(np.random.default_rng(stream), 7)))
            held.append(not judged(found, stored).ridge_slope.excludes(slope))
        assert np.mean(held) >= 0.8, slope


@pytest.mark.slow
def test_shapes_of_the_default_lattices_need_at_most_three_fifths() -> None:
    for name, step, most in (("adam", 1.5, 0.6), ("adamw", 1.0, 0.6), ("sgd", 1.0, 0.5), ("sgdw", 1.0, 0.4)):
        case, changed, share = like(name, step), 0, []
        for stream in range(20):
            truth = surface(case.draw(np.random.default_rng(stream), 7), case.log_lr, case.log_decay)
            found, stored = refined(truth)
            ours, theirs = judged(found, stored).verdict, analyse(truth, resamples=100).verdict
            changed += ours is not theirs and Verdict.UNDETERMINED not in (ours, theirs)
            share.append(found.asked.mean())
        assert (np.mean(share) <= most, changed <= 1) == (True, True), (name, np.mean(share), changed)
