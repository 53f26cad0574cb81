import numpy as np
import pytest

from envs.car_racing import paint
from tests.envs.car_racing.frames import apart, recorded, state_at
from tests.envs.car_racing.test_draw import drawn


def painted(i, height, width):
    state = state_at(recorded(), i)
    return paint.paint(recorded().tracks[int(state.track)], state, height, width)


def test_paints_what_the_driver_sees():
    images = np.stack([painted(i, 96, 96) for i in range(len(recorded().images))])
    mean, near = apart(images, drawn())
    # What `observe` loses by looking up the nearest texel of 0.26 units: the bounds
    # that it has to keep against Gymnasium.
    assert mean.max() < 1.0
    assert near.min() >= 0.97
    # `paint` has no texels; what remains is rounding to whole pixels and edges.
    mean, near = apart(images, recorded().images)
    assert mean.max() < 0.5
    assert near.min() >= 0.985


@pytest.mark.parametrize(("height", "width"), [(600, 600), (400, 500), (150, 90)])
def test_any_size(height, width):
    image = painted(22, height, width)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    # The middle of the hull is red, the strip black, whatever the size.
    y, x = int(height * 0.75), width // 2
    assert image[y, x, 0] > 140 and image[y, x, 1] < 60
    assert (image[-1, :: width // 8] == 0).all()


def test_smooth_where_large():
    image = painted(22, 600, 600)[:525]
    pure = {(100, 202, 100), (100, 228, 100), (202, 0, 0), (0, 0, 0), (75, 75, 75)}
    pure |= {(grey,) * 3 for grey in (100, 102, 105)} | {(253, 253, 253), (253, 0, 0)}
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    blends = [n for c, n in zip(colours, counts, strict=True) if tuple(c) not in pure]
    # Edges are anti-aliased: they exist, in many shades, and are thin.
    assert len(blends) > 20
    assert 0.001 < sum(blends) / counts.sum() < 0.05
