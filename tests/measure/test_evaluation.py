"""The accuracy of any branches, from the logits of every branch."""

import numpy as np
import pytest

from paraedge_measure.evaluation import Evaluation


@pytest.mark.parametrize(
    "branches", [None, (0,), (2,), (0, 1), (0, 3, 4), (4, 3, 2, 1, 0)], ids=lambda branches: str(branches)
)
def test_prefix_accuracy_of_chosen_branches_equals_a_plain_count(branches):
    rng = np.random.default_rng(0)
    evaluation = Evaluation(rng.normal(size=(5, 97, 4)).astype(np.float32), rng.integers(0, 4, 97))
    expected = []
    total = np.zeros((97, 4))
    for branch in range(5) if branches is None else branches:
        total = total + evaluation.branch_logits[branch]
        hits = sum(int(np.argmax(total[index])) == evaluation.labels[index] for index in range(97))
        expected.append(hits / 97)
    assert evaluation.prefix_accuracy(branches) == pytest.approx(expected, abs=1e-6)


def test_branches_by_themselves():
    logits = np.zeros((3, 2, 2), dtype=np.float32)  # 3 branches, 2 images, 2 classes
    logits[0, :, 0] = 1.0  # the first says class 0
    logits[1, :, 1] = 2.0  # the second says class 1, louder; the third says nothing
    evaluation = Evaluation(logits, np.array([0, 1]))
    assert evaluation.correct((0, 2)).tolist() == [True, False]
    assert evaluation.correct((0, 1)).tolist() == [False, True]
    assert evaluation.of((2, 1)).prefix_accuracy() == evaluation.prefix_accuracy((2, 1)) == (0.5, 0.5)
