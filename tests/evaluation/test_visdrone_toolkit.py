"""The toolkit's protocol: its own numbers, and cases counted by hand."""

import math

import numpy as np
import pytest

from scsa_mm.evaluation import evaluate
from scsa_mm.evaluation.visdrone_toolkit import IOU_THRESHOLDS, drop_in_ignored_regions
from tests.evaluation.visdrone_cases import NUMBERS, golden

SIZE = (100, 200)
EMPTY = np.zeros((0, 6))


def boxes(*rows):
    """Rows of left, top, width, height, score, category."""
    return np.array(rows, dtype=float).reshape(-1, 6)


def one_image(annotations, detections):
    return evaluate([boxes(*annotations)], [boxes(*detections)], [SIZE])


def test_golden():
    assert evaluate(*golden()) == pytest.approx(NUMBERS, abs=1e-9)


def test_one_object_found_exactly():
    assert set(one_image([(10, 10, 20, 20, 1, 4)], [(10, 10, 20, 20, 0.9, 4)]).values()) == {100.0}


def test_thresholds_are_reached_by_equality():
    # Common 15 of 20 columns: 0.75 exactly, so true at 0.50, 0.55, 0.60, 0.65, 0.70 and 0.75.
    values = one_image([(10, 10, 20, 20, 1, 4)], [(10, 10, 15, 20, 0.9, 4)])
    assert values['AP75'] == 100 and values['AP'] == pytest.approx(60)
    assert list(IOU_THRESHOLDS).index(0.75) == 5


def test_half_inside_an_ignored_region_is_dropped():
    # The region's pixels are 51..71 in x, counted from 1, and all of y; a box leaves out the pixel of its left edge.
    region = (51, 1, 20, 100, 0, 0)
    half, less = (61, 10, 20, 20, 1, 1), (62, 10, 20, 20, 1, 1)
    objects, found = drop_in_ignored_regions(boxes(region, half, less), boxes(half, less), SIZE)
    assert objects.tolist() == [list(less)] and found.tolist() == [list(less)]


def test_ignored_regions_count_as_their_union():
    regions = boxes((1, 1, 9, 99, 0, 0), (5, 1, 9, 99, 0, 0))
    # 13 of the 28 columns 1..28 in the first case; twice counted, the common ones would make it more than half.
    objects, found = drop_in_ignored_regions(regions, boxes((1, 1, 28, 50, 0.5, 1), (1, 1, 26, 50, 0.5, 1)), SIZE)
    assert not len(objects) and found[:, 2].tolist() == [28]


def test_dropping_equals_counting_pixels():
    rng = np.random.default_rng(0)
    height, width = SIZE
    for _ in range(40):
        corners = rng.integers(-10, [width + 10, height + 10], (4, 2))
        regions = np.column_stack([corners, rng.integers(0, 80, (4, 2)), np.zeros((4, 2), int)])
        found = np.column_stack(
            [rng.uniform(-20, [width + 20, height + 20], (300, 2)), rng.uniform(0, 60, (300, 2)), np.ones((300, 2))]
        )
        ignored = np.zeros((height + 1, width + 1), bool)  # [y, x], counted from 1
        for left, top, wide, high in np.maximum(regions[:, :4], 1):
            ignored[top : top + high + 1, left : left + wide + 1] = True
        kept = []
        for row in found:
            left, top, wide, high = (max(1, math.floor(v + 0.5)) for v in row[:4])
            left, top = min(left, width), min(top, height)
            inside = ignored[top + 1 : top + high + 1, left + 1 : left + wide + 1].sum()
            if inside / (wide * high) < 0.5:
                kept.append(row)
        assert 0 < len(kept) < 300
        assert np.array_equal(drop_in_ignored_regions(regions, found, SIZE)[1], kept)


def test_dropped_detections_make_room_for_the_first_k():
    region, seen = (101, 1, 50, 90, 0, 0), (10, 10, 20, 20, 1, 1)
    in_region = (110, 10, 20, 20, 0.9, 1)
    assert one_image([region, seen], [in_region, seen])['AR1'] == 100


def test_an_object_of_score_0_makes_no_detection_false_yet_counts_as_to_be_found():
    real, ignored = (10, 10, 20, 20, 1, 4), (50, 10, 40, 40, 0, 4)
    inside = (60, 20, 5, 5, 0.9, 4)
    values = one_image([real, ignored], [inside, inside, (*real[:4], 0.5, 4)])
    # No false one before the true one: precision 1 up to the recall of one object of two.
    assert values['AP'] == 50 and values['AR500'] == 50


def test_an_object_of_score_0_acts_in_its_class_only():
    real, ignored = (10, 10, 20, 20, 1, 4), (50, 10, 40, 40, 0, 5)
    values = one_image([real, ignored], [(60, 20, 5, 5, 0.9, 4), (*real[:4], 0.5, 4)])
    # Class 4: precision 1/2 at full recall. Class 5: nothing found.
    assert values['AP50'] == pytest.approx((50 + 0) / 2)


def test_an_object_is_found_once_and_the_best_overlap_is_taken():
    near, far = (10, 10, 20, 20, 1, 4), (14, 10, 20, 20, 1, 4)
    first, second = (10, 10, 20, 20, 0.9, 4), (11, 10, 20, 20, 0.8, 4)
    values = one_image([near, far], [first, second])
    # The second overlaps `near` more, but that is taken; with `far` it has 17 / 23 = 0.74: true up to 0.70.
    assert values['AR500'] == pytest.approx((5 * 100 + 5 * 50) / 10)


def test_of_objects_overlapped_alike_the_last_is_taken():
    left, right = (10, 10, 20, 20, 1, 4), (14, 10, 20, 20, 1, 4)
    values = one_image([left, right], [(12, 10, 20, 20, 0.9, 4), (*left[:4], 0.8, 4)])
    # The first overlaps both by 18 / 22 = 0.82 and takes `right`, so that `left` is free for the second.
    assert values['AR500'] == pytest.approx((7 * 100 + 3 * 50) / 10)


def test_the_first_k_are_those_of_the_order_across_classes():
    car, bus = (10, 10, 20, 20, 1, 4), (50, 10, 20, 20, 1, 9)
    values = one_image([car, bus], [(*bus[:4], 0.1, 9), (*car[:4], 0.9, 4)])
    assert values['AR1'] == 50 and values['AR10'] == 100


def test_detections_of_no_class_take_a_place_too():
    car, other = (10, 10, 20, 20, 1, 4), (50, 10, 20, 20, 0.9, 11)
    values = one_image([car], [other, car])
    assert values['AR1'] == 0 and values['AP'] == 100


def test_a_class_counts_once_for_each_image_that_has_it():
    car, bus = (10, 10, 20, 20, 1, 4), (50, 10, 20, 20, 1, 9)
    values = evaluate([boxes(car), boxes(car), boxes(car, bus)], [boxes(car)] * 3, [SIZE] * 3)
    # Cars in three images are all found, the bus is not: (3 * 100 + 0) / 4, where a mean over classes has 50.
    assert values['AP'] == 75 and values['AR1'] == 75


def test_absent_classes_do_not_count():
    car = (10, 10, 20, 20, 1, 4)
    assert one_image([car], [car, (50, 10, 20, 20, 0.9, 9)])['AP'] == 100


def test_images_without_objects_or_detections():
    car = (10, 10, 20, 20, 1, 4)
    values = evaluate([boxes(car), EMPTY, boxes(car)], [EMPTY, boxes((*car[:4], 0.9, 4)), boxes(car)], [SIZE] * 3)
    # One of two found, at the highest score; the false one comes after it.
    assert values['AP'] == 50 and values['AR1'] == 50


def test_nothing_found():
    assert set(one_image([(10, 10, 20, 20, 1, 4)], []).values()) == {0.0}


@pytest.mark.parametrize('annotations', [[], [(10, 10, 20, 20, 0, 11)], [(1, 1, 90, 90, 0, 0), (10, 10, 20, 20, 1, 4)]])
def test_no_object_of_the_ten_classes(annotations):
    assert all(map(math.isnan, one_image(annotations, [(10, 10, 20, 20, 0.9, 4)]).values()))


def test_boxes_without_area_overlap_nothing():
    flat = (10, 10, 0, 20, 1, 4)
    with np.errstate(all='raise'):
        assert one_image([flat, (10, 10, 20, 0, 0, 4)], [flat, (10, 10, 20, 20, 0.5, 4)])['AR500'] == 0


def test_more_than_500_detections():
    car = (10, 10, 20, 20, 1, 4)
    false = (100, 50, 5, 5, 0.9, 4)
    assert one_image([car], [false] * 500 + [car])['AP'] == 0
    assert one_image([car], [false] * 499 + [(*car[:4], 0.1, 4)])['AP'] == pytest.approx(100 / 500)


def test_lengths_have_to_agree():
    with pytest.raises(ValueError, match='their lengths are 1, 0, 1'):
        evaluate([EMPTY], [], [SIZE])
