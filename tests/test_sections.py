"""Numbers with labels: how they are written, and how strongly shaded."""

from __future__ import annotations

import numpy as np
import pytest

from softmap.sections import Grid, Strips, write


@pytest.mark.parametrize(
    ("value", "style", "text"),
    [
        (0.0, "percent", "0%"),
        (0.004, "percent", "<1%"),
        (0.006, "percent", "1%"),
        (0.895, "percent", "90%"),
        (-3.14159, "number", "-3.14"),
        (-131.4, "number", "-131.4"),
        (-0.0, "number", "0.00"),
        (-0.001, "number", "0.00"),
        (-0.01, "number", "-0.01"),
        (-30.0, "number", "-30.00"),
        (float("-inf"), "number", "−∞"),
        (0.5, "weight", "0.50"),
        (0.0, "precise", "0"),
        (0.00004, "precise", "4e-05"),
        (0.0952, "precise", "0.0952"),
    ],
)
def test_numbers_are_written(value, style, text):
    assert write(value, style) == text


def test_scores_are_shaded_from_their_smallest_to_their_largest():
    grid = Grid("scores", ("a", "b"), ("a", "b"), np.array([[-4.0, 0.0], [4.0, -np.inf]]))
    np.testing.assert_array_equal(grid.heat(), [[0, 0.5], [1, np.nan]])


def test_weights_are_shaded_by_their_own_value():
    grid = Grid("weights", ("a",), ("a", "b"), np.array([[0.25, 0.75]]), style="weight")
    np.testing.assert_array_equal(grid.heat(), [[0.25, 0.75]])


def test_equal_scores_have_a_shade_all_the_same():
    grid = Grid("scores", ("a",), ("a", "b"), np.array([[3.0, 3.0]]))
    assert np.isfinite(grid.heat()).all()


def test_strip_spans_nearly_all_of_its_numbers_and_outliers_stay_outside():
    values = np.zeros((1, 1000))
    values[0, :500] = 1.0
    values[0, 0] = 1000.0
    assert Strips("q", "q", ("a",), values, 0).span == pytest.approx(1.0)
