import numpy as np
import pytest

from stages.prune.sparse.masks import Pattern, lowest, lowest_of_layers, lowest_of_pattern, lowest_of_rows, zeros_of

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.77])
@pytest.mark.parametrize("shape", [(4, 10), (7, 9), (5, 1)])
def test_counts_are_exact_and_the_lowest_go(shape: tuple[int, int], share: float) -> None:
    scores = RNG.normal(size=shape)
    mask = lowest(scores, zeros_of(scores.size, share))
    assert mask.sum() == int(scores.size * share + 0.5)
    assert not mask.any() or scores[mask].max() < scores[~mask].min()
    by_row = lowest_of_rows(scores, share)
    assert by_row.sum() == int(scores.size * share + 0.5)
    assert np.ptp(by_row.sum(1)) <= 1
    assert all(s[m].max(initial=-9) < s[~m].min(initial=9) for s, m in zip(scores, by_row, strict=True))


def test_of_equal_scores_the_first_go() -> None:
    assert lowest(np.zeros((2, 3)), 2).tolist() == [[True, True, False], [False, False, False]]


@pytest.mark.parametrize(("kept", "of"), [(2, 4), (1, 4), (4, 8), (1, 2), (2, 3)])
def test_a_pattern_holds_for_each_few_inputs(kept: int, of: int) -> None:
    scores = RNG.normal(size=(6, 24))
    mask = lowest_of_pattern(scores, Pattern(kept, of))
    for row, zeros in zip(scores, mask, strict=True):
        for start in range(0, 24, of):
            few, gone = row[start : start + of], zeros[start : start + of]
            assert sorted(few[~gone]) == sorted(few)[of - kept :]


@pytest.mark.parametrize("text", ["4:2", "4:4", "0:4", "2", "2:", ":4", "a:b", "-1:4", "2:4:8", "2.0:4"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=rf"`{text}` is no pattern; expected how many weights stay"):
        Pattern.of_text(text)
    assert Pattern.of_text("2:4") == (2, 4)
    assert Pattern.of_text("1:4").share == 0.75


def test_layers_are_ranked_together_by_the_share_of_what_would_stay() -> None:
    """Lee et al., 2021: the square of a weight over the sum of squares of its layer's weights that are no smaller."""
    weights = {"a": RNG.normal(size=(1, 5, 6)), "b": 100 * RNG.normal(size=(1, 4, 3)) ** 3, "c": np.zeros((1, 2, 2))}
    scores = {
        (name, i): (0.0 if not w else w**2 / sum(v**2 for v in own.flat if abs(v) >= abs(w)))
        for name, own in weights.items()
        for i, w in enumerate(own.flat)
    }
    gone = sorted(scores, key=lambda key: scores[key])[: int(46 * 0.6 + 0.5)]
    masks = lowest_of_layers(weights, 0.6)
    assert {(n, i) for n, mask in masks.items() for i in np.flatnonzero(mask)} == {*gone}
    assert not masks["a"].all()
    assert not masks["b"].all()
