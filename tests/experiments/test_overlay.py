import numpy as np
import pytest

from envs.core import Box, Discrete
from experiments import overlay
from experiments.overlay import Moment, Style

STEERING = Box((3,), (-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
STYLE = Style((96, 96), 4, 4, STEERING, ("steer", "gas", "brake"), "CarRacing", "17")


def moment(style=STYLE, chosen=((2, 3), (10, 10), (23, 0)), **changes) -> Moment:
    """Patches chosen by (row, column) of the grid, most attended first."""
    rows = (style.image[0] - style.window) // style.stride + 1
    columns = (style.image[1] - style.window) // style.stride + 1
    scores = np.full((rows, columns), 0.5, np.float32)
    for rank, at in enumerate(chosen):
        scores[at] = 40 - 10 * rank
    centre = np.array(chosen, np.float32) * style.stride + style.window // 2
    usual = Moment(
        scores=scores.reshape(-1),
        centre=centre,
        ranks=np.arange(len(chosen)),
        action=np.array([-0.5, 0.8, 0.0], np.float32),
        total=412.6,
        seconds=12.34,
    )
    return usual._replace(**changes)


def test_a_patch_lies_where_the_encoder_cut_it():
    boxes = overlay.patch_boxes(STYLE, moment().centre, (960, 960))
    assert boxes == [(80, 120, 120, 160), (400, 400, 440, 440), (920, 0, 960, 40)]
    # AttentionAgent: 7 pixels every 4; the odd centre is the window's middle pixel.
    agent = Style((96, 96), 7, 4, STEERING)
    assert overlay.patch_boxes(agent, np.array([[3.0, 91.0]]), (192, 192)) == [
        (0, 176, 14, 190)
    ]
    # A wide picture of single pixels, twice as large.
    wide = Style((2, 4), 1, 1, STEERING)
    assert overlay.patch_boxes(wide, np.array([[1.0, 3.0]]), (4, 8)) == [(2, 6, 4, 8)]


def test_patches_are_lit_by_rank_and_the_rest_is_dimmed():
    picture = np.full((960, 960, 3), 100, np.uint8)
    out = overlay.attend(STYLE, picture, moment())
    assert out.shape == picture.shape and (picture == 100).all()
    assert (out[500:700, 500:700] == round(100 * overlay.DIM)).all()
    first, second, third = out[100, 140], out[420, 420], out[940, 20]
    assert (first == 125).all() and (second == 112).all() and (third == 100).all()
    edges = [out[80, 140], out[400, 420], out[920, 20]]
    np.testing.assert_array_equal(edges[0], overlay.ACCENT)
    assert edges[0].sum() > edges[1].sum() > edges[2].sum()


def test_where_patches_overlap_the_most_attended_is_on_top():
    style = Style((96, 96), 8, 4, STEERING)
    picture = np.full((960, 960, 3), 100, np.uint8)
    for ranks in ([0, 1], [1, 0]):
        moments = moment(style, ((5, 5), (5, 6)), ranks=np.array(ranks))
        out = overlay.attend(style, picture, moments)
        first = overlay.patch_boxes(style, moments.centre, (960, 960))[ranks.index(0)]
        outline = np.concatenate([out[first[0], first[1] : first[3]]])
        np.testing.assert_array_equal(outline, np.tile(overlay.ACCENT, (80, 1)))


def test_the_heat_map_is_brightest_at_the_largest_score():
    style = Style((96, 96), 7, 4, STEERING)
    shown = moment(style, ((5, 17),))
    out = overlay.heat_map(style, shown, (288, 400))
    assert out.shape == (288, 288, 3)  # keeps the image's proportions
    # The middle of patch (5, 17): 4 i + 3.5 pixels of 96, 3 times as large.
    y, x = round(3 * (4 * 5 + 3.5)), round(3 * (4 * 17 + 3.5))
    light = out.astype(int).sum(-1)
    assert light[y, x] > 600
    elsewhere = light.copy()
    elsewhere[y - 12 : y + 12, x - 12 : x + 12] = 0
    assert elsewhere[6:-9, 6:-9].max() < 100
    assert (out[0, 0] == overlay.TROUGH).all()  # no patch has its middle in the rim


@pytest.mark.parametrize("scores", [np.zeros(576), np.full(576, 1e-30)])
def test_equal_scores_draw_no_warning(scores):
    overlay.heat_map(STYLE, moment(scores=scores.astype(np.float32)), (100, 100))


def test_bars_start_at_zero_where_the_bounds_hold_it():
    rows = overlay.action_rows(STEERING, STYLE.labels, np.array([-0.5, 0.8, 0.0]))
    assert [row.label for row in rows] == ["steer", "gas", "brake"]
    assert [row.text for row in rows] == ["−0.50", "0.80", "0.00"]
    np.testing.assert_allclose(
        [(row.begin, row.end) for row in rows], [(0.25, 0.5), (0, 0.8), (0, 0)]
    )
    rows = overlay.action_rows(Box((2,), (-2.0,), (2.0,)), (), np.array([1.0, -9.0]))
    assert [row.label for row in rows] == ["action 1", "action 2"]
    np.testing.assert_allclose(
        [(row.begin, row.end) for row in rows], [(0.5, 0.75), (0, 0.5)]
    )


@pytest.mark.parametrize(
    ("value", "said"), [(-0.004, "0.00"), (-0.006, "−0.01"), (12.345, "12.35")]
)
def test_numbers_read_well(value, said):
    assert overlay.number(value, 2) == said


def test_a_choice_is_one_of_equal_parts():
    (row,) = overlay.action_rows(Discrete(5), (), np.int32(3))
    np.testing.assert_allclose((row.begin, row.end), (0.6, 0.8))
    assert row.text == "4 of 5"
    (row,) = overlay.action_rows(Discrete(2), ("left", "right"), np.int32(0))
    assert row.text == "left"


@pytest.mark.parametrize("height", [120, 360, 720, 1080])
@pytest.mark.parametrize("heat_map", [True, False])
def test_a_frame_is_picture_and_panel_with_even_sides(height, heat_map):
    picture = np.full((height, height, 3), 90, np.uint8)
    out = overlay.frame(STYLE._replace(heat_map=heat_map), picture, moment())
    assert out.dtype == np.uint8
    assert out.shape == (height, height + overlay.panel_width(height), 3)
    assert out.shape[1] % 2 == 0
    panel = out[:, height:]
    assert (panel[0] == overlay.GROUND).all() and (panel[:, -1] == overlay.GROUND).all()
    # The bar of gas is four fifths of its length, whatever the size.
    bars = (panel == overlay.ACCENT).all(-1).sum(1)
    margin = round(28 * height / 720)
    assert abs(bars.max() - 0.8 * (panel.shape[1] - 2 * margin)) <= 1


def test_many_components_fit_the_panel():
    humanoid = Box((21,), (-1.0,), (1.0,))
    style = Style((96, 96), 4, 4, humanoid)
    out = overlay.panel(style, moment(action=np.ones(21)), 720)
    assert (out[-20:] == overlay.GROUND).all()
    bars = (out == overlay.ACCENT).all(-1).any(1)
    assert np.sum(bars[1:] & ~bars[:-1]) == 21


def test_a_long_title_is_written_smaller_and_whole():
    long = "gymnasium some.module.of.yours:AnEnvironment-v0, seed 1000"
    out = overlay.panel(STYLE._replace(title=long), moment(), 720)
    written = (out[20:54] != overlay.GROUND).any(axis=(0, 2)).nonzero()[0]
    # Within the margins of 28 pixels, and nearly as wide as they let it be: a size
    # is a whole number of pixels, and a pixel more would be a tenth wider.
    assert written.min() >= 27 and 332 >= written.max() > 300
    assert overlay.fitting("17", 22, True, 304) == 22


def test_the_panel_says_the_return():
    panels = [overlay.panel(STYLE, moment(total=t), 720) for t in (412.6, 412.6, -3.0)]
    assert (panels[0] == panels[1]).all()
    changed = (panels[0] != panels[2]).any(-1).any(1)
    assert (
        changed[116:185].any() and not changed[185:].any() and not changed[:116].any()
    )


def test_text_ends_where_it_is_told_to_and_is_clipped_at_the_rim():
    out = np.zeros((40, 200, 3), np.uint8)
    overlay.write(out, "1234", (150, 5), 20, (255, 255, 255), align="right")
    columns = np.flatnonzero(out.any(axis=(0, 2)))
    assert 145 <= columns.max() < 150 and columns.min() > 90
    rim = np.zeros((12, 30, 3), np.uint8)
    overlay.write(rim, "a long line", (-5, 2), 20, (255, 255, 255))
    overlay.write(rim, "a long line", (25, 2), 20, (255, 255, 255), align="right")
    assert rim.any()
