"""Colours of sensors, labels and invalid pixels."""

import numpy as np
import pytest
import torch

from data.audit.page.painting import INVALID, Picture, clearest_frame, paint, paint_classes


def test_grey_stays_grey_and_invalid_pixels_are_pale():
    rng = np.random.default_rng(0)
    ramp = rng.uniform(300, 2300, (1, 5, 5)).repeat(10, 0)
    valid = np.ones((5, 5), bool)
    valid[2, 2] = False
    (image,) = paint("ms", [Picture(ramp, valid)])
    assert np.array_equal(image[2, 2], INVALID)
    assert np.ptp(image[valid], axis=-1).max() < 1e-12
    assert np.ptp(image[valid]) == pytest.approx(1)


def test_a_flat_image_is_not_stretched():
    (flat,) = paint("sar", [Picture(np.full((2, 3, 3), -12.0), np.ones((3, 3), bool))])
    assert np.allclose(flat, 0.5)


def test_high_resolution_keeps_its_colours():
    colour = np.random.default_rng(1).uniform(size=(3, 4, 4))
    (image,) = paint("hr", [Picture(colour, np.ones((4, 4), bool))])
    assert np.array_equal(image, colour.transpose(1, 2, 0))


def test_pictures_of_one_list_are_stretched_alike():
    dark = Picture(np.full((10, 4, 4), 500.0), np.ones((4, 4), bool))
    bright = Picture(np.full((10, 4, 4), 3000.0), np.ones((4, 4), bool))
    one, two = paint("ms", [dark, bright])
    assert one.max() == 0 and two.min() == 1


def test_a_list_without_valid_pixels_is_pale():
    (image,) = paint("ms", [Picture(np.zeros((10, 2, 2)), np.zeros((2, 2), bool))])
    assert (image == INVALID).all()


def test_unlabelled_pixels_are_white():
    painted = paint_classes(np.array([[3, 255]]), {3: (0.25, 0.5, 0.75)})
    assert painted[0, 0].tolist() == [0.25, 0.5, 0.75]
    assert (painted[0, 1] == 1).all()


def test_the_clearest_frame_has_most_valid_cells():
    valid = torch.zeros(3, 2, 2, dtype=torch.bool)
    valid[1, 0] = True
    valid[2, 1] = True
    assert clearest_frame(valid) == 1
