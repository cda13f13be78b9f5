"""The core of a picture: its box where it is known, the whole of one that shows nothing, and what a crop draws."""

import jax.numpy as jnp
import numpy as np

from modules.layers.core_region import MARGIN, core_boxes, crop

SIDE = 16


def picture(top, bottom, left, right):
    image = np.full((SIDE, SIDE, 3), 200, np.uint8)
    image[top:bottom, left:right] = (20, 120, 40)
    return image


def test_the_box_is_that_of_what_differs_from_the_border():
    shown = [(4, 12, 5, 10), (2, 9, 3, 14)]
    boxes = np.asarray(core_boxes(jnp.asarray(np.stack([picture(*at) for at in shown]))))
    for box, at in zip(boxes, shown, strict=True):
        for edge, wanted, sign in zip(box, at, (-1, 1, -1, 1), strict=True):
            np.testing.assert_allclose(edge, wanted / SIDE + sign * MARGIN, atol=1e-6)


def test_a_speck_far_out_does_not_move_it():
    plain, speckled = picture(5, 11, 5, 11), picture(5, 11, 5, 11)
    speckled[1, 2] = speckled[14, 13] = 0
    a, b = np.asarray(core_boxes(jnp.asarray(np.stack([plain, speckled]))))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_nothing_to_see_is_the_whole_picture():
    black, grey = np.zeros((SIDE, SIDE, 3), np.uint8), np.full((SIDE, SIDE, 3), 90, np.uint8)
    np.testing.assert_array_equal(core_boxes(jnp.asarray(np.stack([black, grey]))), [[0, 1, 0, 1]] * 2)


def test_a_crop_of_all_is_the_picture_and_one_of_a_part_is_drawn_between_its_pixels(rng):
    images = rng.integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.uint8)
    boxes = np.array([[0, 1, 0, 1], [0.25, 0.75, 0.125, 0.5]], np.float32)
    got = np.asarray(crop(jnp.asarray(images), boxes=jnp.asarray(boxes)))
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[0], images[0])
    for i, j in ((0, 0), (7, 9), (15, 15)):
        y = (0.25 + 0.5 * (i + 0.5) / SIDE) * SIDE - 0.5
        x = (0.125 + 0.375 * (j + 0.5) / SIDE) * SIDE - 0.5
        y0, x0 = int(np.floor(y)), int(np.floor(x))
        corners = images[1, y0 : y0 + 2, x0 : x0 + 2].astype(float)
        wanted = np.einsum("i,j,ijc->c", [1 - y + y0, y - y0], [1 - x + x0, x - x0], corners)
        np.testing.assert_allclose(got[1, i, j], wanted, atol=0.51)
