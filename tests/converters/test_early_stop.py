"""Early stop keeps its promise where the truth is known, and says so where it cannot promise anything."""

import numpy as np
import pytest

from paraedge_converters.early_stop import calibrate_early_stop, images_needed
from paraedge_runtime import InputError

NUM_RUNS = 200
MOST_FAILURES = 20  # at the promised 5 %, more come once in a thousand times


def helping_branches(rng):
    """Every branch adds evidence for the right label, and noise of its own."""
    return _population(rng, evidence=(0.9, 0.9, 0.9, 0.9), noise=(0.6, 0.6, 0.6, 0.6))


def loud_beginners(rng):
    """The first branch is very sure and often wrong; the later ones must shout it down."""
    return _population(rng, evidence=(3.0, 4.0, 3.0), noise=(4.0, 1.0, 1.0))


def silent_followers(rng):
    """Branches after the first change next to nothing."""
    return _population(rng, evidence=(2.0, 0.02, 0.02), noise=(0.8, 0.05, 0.05))


def _population(rng, evidence, noise, num_images=10_000, num_classes=5):
    labels = rng.integers(0, num_classes, num_images)
    difficulty = rng.exponential(1.0, num_images)[:, None]
    right = np.eye(num_classes)[labels]
    logits = [
        3 * gain * right + spread * difficulty * rng.normal(size=right.shape)
        for gain, spread in zip(evidence, noise, strict=True)
    ]
    return np.stack(logits).astype(np.float32), labels


def real_images(checkpoint):
    return checkpoint.evaluation.branch_logits, checkpoint.evaluation.labels


class Outcome:
    """What the rules do to every image of a population, counted the plain way."""

    def __init__(self, record, branch_logits, labels):
        prefixes = branch_logits.astype(np.float64).cumsum(axis=0)
        right = prefixes.argmax(axis=2) == labels
        self.lost_by_any = np.zeros(len(labels), bool)
        self.stopped_right = right[-1].copy()
        self.branches = np.full(len(labels), len(prefixes))
        for place in reversed(range(len(prefixes) - 1)):
            rule = record.stop_rules[place]
            if rule.threshold is None:
                continue
            scaled = prefixes[place] / rule.temperature
            weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
            reached = (weights / weights.sum(axis=1, keepdims=True)).max(axis=1) >= rule.threshold
            self.lost_by_any |= reached & ~right[place]
            self.stopped_right[reached] = right[place][reached]
            self.branches[reached] = place + 1
        self.lost_by_any &= right[-1]
        self.accuracy_full = right[-1].mean()


@pytest.mark.parametrize("population", [helping_branches, loud_beginners, silent_followers, real_images])
def test_the_promise_holds_as_often_as_it_says(population, checkpoint):
    rng = np.random.default_rng(1)
    logits, labels = population(checkpoint if population is real_images else rng)
    failures, saved = 0, []
    for _ in range(NUM_RUNS):
        drawn = rng.integers(0, len(labels), 1600)
        record = calibrate_early_stop(logits[:, drawn], labels[drawn], dataset="drawn", max_accuracy_drop=0.01)
        truth = Outcome(record, logits, labels)
        failures += truth.lost_by_any.mean() > 0.01
        # What follows from it: accuracy, when the first prefix that reaches its threshold counts.
        assert truth.accuracy_full - truth.stopped_right.mean() <= truth.lost_by_any.mean() + 1e-12
        saved.append(len(logits) - truth.branches.mean())
    assert failures <= MOST_FAILURES
    assert np.mean(saved) > 0.1  # never stopping would keep any promise


@pytest.mark.parametrize("branches", [range(8), range(3), (1, 4, 6)], ids=str)
def test_the_held_out_outcome_is_that_of_the_rules(checkpoint, branches):
    logits, labels = checkpoint.evaluation.branch_logits[list(branches)], checkpoint.evaluation.labels
    record = calibrate_early_stop(logits, labels, dataset="fashion-mnist")
    early_stop, held = record.early_stop, record.early_stop.held_out
    assert (early_stop.num_samples, held.num_samples, early_stop.max_accuracy_drop) == (5000, 4000, 0.005)
    rest = np.random.default_rng(0).permutation(len(labels))[6000:]
    truth = Outcome(record, logits[:, rest], labels[rest])
    assert held.accuracy_full == pytest.approx(truth.accuracy_full, abs=1e-6)
    assert held.accuracy_stopped == pytest.approx(truth.stopped_right.mean(), abs=1e-6)
    assert held.mean_branches == pytest.approx(truth.branches.mean(), abs=1e-4)
    assert held.accuracy_stopped > held.accuracy_full - 0.005
    assert 1 < held.mean_branches < 0.8 * len(branches)
    assert calibrate_early_stop(logits, labels, dataset="fashion-mnist") == record


def test_a_smaller_allowance_never_gives_a_bolder_threshold(checkpoint):
    thresholds = [
        calibrate_early_stop(*real_images(checkpoint), dataset="d", max_accuracy_drop=drop).stop_rules[0].threshold
        for drop in (0.002, 0.005, 0.01, 0.05)
    ]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] > thresholds[-1]


def test_temperatures_undo_a_scale(checkpoint):
    logits, labels = real_images(checkpoint)
    plain, hot = (calibrate_early_stop(scale * logits, labels, dataset="d") for scale in (1, 4))
    for one, other in zip(plain.stop_rules, hot.stop_rules, strict=True):
        assert other.temperature == pytest.approx(4 * one.temperature, rel=1e-4)
        assert other.threshold == one.threshold


def test_too_few_images_promise_nothing(checkpoint):
    logits, labels = real_images(checkpoint)
    needed = images_needed(0.005)
    assert needed == 1196  # 598 images, none of them lost: 0.995 ** 598 < 0.05
    one_hot = 50 * np.eye(logits.shape[2])[labels]
    never_wrong = np.stack([one_hot, one_hot])
    for count, threshold in ((needed - 2, None), (needed, 0.001), (1, None)):
        record = calibrate_early_stop(never_wrong[:, :count], labels[:count], dataset="few")
        assert record.stop_rules[0].threshold == threshold
        assert record.early_stop.num_samples == count // 2
        if threshold is None:
            assert record.early_stop.held_out.mean_branches == 2
            assert record.early_stop.held_out.accuracy_stopped == record.early_stop.held_out.accuracy_full


@pytest.mark.parametrize(("count", "wrong"), [(3, 0), (12, 0), (12, 3), (60, 0), (200, 6)])
def test_few_images_make_no_confidence_larger_than_they_show(count, wrong):
    labels = np.arange(count) % 6
    said = np.where(np.arange(count) < wrong, (labels + 1) % 6, labels)
    logits = 9 * np.eye(6)[said][None]  # softmax: 0.9994
    (rule,) = calibrate_early_stop(logits, labels, dataset="few").stop_rules
    confidence = 1 / (1 + 5 * np.exp(-9 / rule.temperature))
    assert 1 - (wrong + 1) / count < confidence <= 1 - wrong / count
    assert confidence < 1 - 0.5 / (count + 2)


def test_a_prefix_that_is_as_sure_of_its_mistakes_never_stops_anything():
    """The first branch is as sure as can be, and wrong for one image in twenty."""
    labels = np.arange(4000) % 10
    said = np.where(np.arange(4000) % 20 == 7, (labels + 1) % 10, labels)
    logits = np.stack([80 * np.eye(10)[said], 800 * np.eye(10)[labels]])
    record = calibrate_early_stop(logits, labels, dataset="d")
    assert record.early_stop.held_out.mean_branches == 2


def test_one_branch_has_nothing_to_stop(checkpoint):
    logits, labels = real_images(checkpoint)
    record = calibrate_early_stop(logits[:1], labels, dataset="d")
    assert [rule.threshold for rule in record.stop_rules] == [None]
    assert record.early_stop.held_out.mean_branches == 1


@pytest.mark.parametrize("drop", [0, -0.01, 0.11, 0.5, float("nan")])
def test_a_drop_that_is_no_small_fraction_is_refused(drop, checkpoint):
    with pytest.raises(InputError, match=r"max_accuracy_drop must be .*0\.005 is half a point"):
        calibrate_early_stop(*real_images(checkpoint), dataset="d", max_accuracy_drop=drop)


@pytest.mark.parametrize("shape", [(2, 30), (2, 29, 3), (2, 30, 0), (0, 30, 3)], ids=str)
def test_arrays_that_do_not_fit_are_refused(shape):
    with pytest.raises(InputError, match="branch_logits and labels must be"):
        calibrate_early_stop(np.zeros(shape), np.zeros(30, int), dataset="d")
