"""What the policy looked at and did, drawn onto a large picture for people.

The picture is dimmed except where the policy looks: the chosen patches keep their light
and are outlined, the more attended the brighter. A panel beside it shows the return so
far, the scores of all patches and the action.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from envs.core import Box, Discrete

Colour: TypeAlias = tuple[int, int, int]

INK: Colour = (236, 239, 244)
MUTED: Colour = (127, 137, 152)
GROUND: Colour = (17, 20, 26)
TROUGH: Colour = (39, 45, 56)
ACCENT: Colour = (255, 200, 61)
DIM = 0.58  # light left where the policy does not look


class Style(NamedTuple):
    """What stays the same for all frames of a film.

    Attributes:
      image: height and width of the observation in pixels.
      window: side of a patch in observation pixels.
      stride: distance of neighbouring patches in observation pixels.
      action: the world's actions.
      labels: a name for each component of a box or each choice; () numbers them.
      title: first line of the panel.
      subtitle: second line.
      heat_map: whether the panel shows the scores of all patches.
    """

    image: tuple[int, int]
    window: int
    stride: int
    action: Box | Discrete
    labels: tuple[str, ...] = ()
    title: str = ""
    subtitle: str = ""
    heat_map: bool = True


class Moment(NamedTuple):
    """What changes from frame to frame.

    Attributes:
      scores: f32[L], attention of each patch.
      centre: f32[K, 2], (row, column) of the chosen patches in observation pixels.
      ranks: i32[K], 0 for the most attended of them.
      action: f32[A] or i32[], the action in force.
      total: return so far.
      seconds: of simulated time so far.
    """

    scores: np.ndarray
    centre: np.ndarray
    ranks: np.ndarray
    action: np.ndarray
    total: float
    seconds: float


def frame(style: Style, picture: np.ndarray, moment: Moment) -> np.ndarray:
    """One frame of the film.

    Args:
      style: what stays the same.
      picture: u8[h, w, 3], the world painted large.
      moment: what is shown.

    Returns:
      u8[h, w + panel_width(h), 3].
    """
    lit = attend(style, picture, moment)
    return np.concatenate([lit, panel(style, moment, picture.shape[0])], axis=1)


def panel_width(height: int) -> int:
    """Width of the panel beside a picture of this height, an even number of pixels."""
    return height // 4 * 2


# --- the picture --------------------------------------------------------------------


def attend(style: Style, picture: np.ndarray, moment: Moment) -> np.ndarray:
    """The picture with the chosen patches lit and outlined by rank, u8[h, w, 3]."""
    out = cv2.convertScaleAbs(picture, alpha=DIM)
    boxes = patch_boxes(style, moment.centre, picture.shape[:2])
    order = np.argsort(moment.ranks)[::-1]  # the most attended is drawn last, on top
    for i in order:
        top, left, bottom, right = boxes[i]
        lift = 1 + 0.25 * _strength(moment, i)
        out[top:bottom, left:right] = cv2.convertScaleAbs(
            picture[top:bottom, left:right], alpha=lift
        )
    thickness = max(1, round(picture.shape[0] / 360))
    for i in order:
        top, left, bottom, right = boxes[i]
        colour = _mix(GROUND, ACCENT, 0.35 + 0.65 * _strength(moment, i))
        cv2.rectangle(out, (left, top), (right - 1, bottom - 1), colour, thickness)
    return out


def patch_boxes(
    style: Style, centre: np.ndarray, size: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Top, left, bottom, right of patches, in pixels of a picture of this size."""
    scale = np.divide(size, style.image)
    corner = centre - style.window // 2
    first = np.round(corner * scale).astype(int)
    last = np.round((corner + style.window) * scale).astype(int)
    return [(*a, *b) for a, b in zip(first.tolist(), last.tolist(), strict=True)]


def _strength(moment: Moment, i: int) -> float:
    """1 for the most attended of the chosen patches, falling to 0."""
    return 1 - float(moment.ranks[i]) / max(1, len(moment.ranks) - 1)


# --- the panel ----------------------------------------------------------------------


def panel(style: Style, moment: Moment, height: int) -> np.ndarray:
    """Title, return, scores and action, u8[height, panel_width(height), 3]."""
    u = height / 720  # the panel is laid out for 720 lines
    width = panel_width(height)
    margin = round(28 * u)
    inner = width - 2 * margin
    out = np.full((height, width, 3), GROUND, np.uint8)

    def say(text, x, y, size, colour, bold=False, align="left"):
        at = margin + x, round(y * u)
        size = fitting(text, round(size * u), bold, inner)
        write(out, text, at, size, colour, bold, align)

    say(style.title, 0, 26, 22, INK, bold=True)
    say(style.subtitle, 0, 56, 15, MUTED)
    say("RETURN", 0, 98, 13, MUTED, bold=True)
    say(f"{moment.seconds:.1f} s", inner, 98, 13, MUTED, align="right")
    say(number(moment.total, 1), 0, 116, 54, INK, bold=True)
    rows = action_rows(style.action, style.labels, moment.action)
    pitch = min(40, 150 / len(rows))
    top = 692 - pitch * len(rows)
    if style.heat_map:
        say("ATTENTION", 0, 196, 13, MUTED, bold=True)
        side = round((top - 24 - 222) * u)
        map_ = heat_map(style, moment, (side, inner))
        y, x = round(222 * u), margin + (inner - map_.shape[1]) // 2
        out[y : y + map_.shape[0], x : x + map_.shape[1]] = map_
    for i, row in enumerate(rows):
        _action_row(out, row, margin, inner, round((top + i * pitch) * u), pitch * u)
    return out


def heat_map(style: Style, moment: Moment, room: tuple[int, int]) -> np.ndarray:
    """The scores of all patches as colours and the chosen ones outlined.

    Args:
      style: says where the patches lie.
      moment: their scores.
      room: height and width that the map may take; it keeps the image's proportions.

    Returns:
      u8[h, w, 3].
    """
    H, W = style.image
    scale = min(room[0] / H, room[1] / W)
    size = round(H * scale), round(W * scale)
    rows = (H - style.window) // style.stride + 1
    grid = moment.scores.reshape(rows, -1)
    # A few patches receive most: the scale ends before the largest of them.
    low, high = np.percentile(grid, (1, 99.5))
    shade = np.clip((grid - low) / max(high - low, 1e-9), 0, 1) ** 0.7
    colours = cv2.applyColorMap((255 * shade).astype(np.uint8), cv2.COLORMAP_INFERNO)[
        ..., ::-1
    ]
    # A cell is a stride wide about its patch's middle. OpenCV's coordinates are those
    # of pixels' middles, hence the half cell and the half pixel.
    step = style.stride * scale
    first = style.window / 2 * scale - 0.5
    place = np.array([[step, 0, first], [0, step, first]], np.float32)
    out = cv2.warpAffine(
        colours,
        place,
        size[::-1],
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=TROUGH,
    )
    for top, left, bottom, right in patch_boxes(style, moment.centre, size):
        cv2.rectangle(out, (left - 1, top - 1), (right, bottom), GROUND, 1)
        cv2.rectangle(out, (left, top), (right - 1, bottom - 1), INK, 1)
    return out


class ActionRow(NamedTuple):
    """One bar: `begin` and `end` are fractions of its length, `text` its value."""

    label: str
    begin: float
    end: float
    text: str


def action_rows(
    action: Box | Discrete, labels: Sequence[str], value: np.ndarray
) -> list[ActionRow]:
    """An action as bars: from zero where the bounds contain it, else from the bound."""
    if isinstance(action, Discrete):
        chosen = int(value)
        width = 1 / action.n
        name = labels[chosen] if labels else f"{chosen + 1} of {action.n}"
        return [ActionRow("action", chosen * width, (chosen + 1) * width, name)]
    values = np.ravel(value).astype(float)
    low = np.broadcast_to(np.asarray(action.low, float), values.shape)
    high = np.broadcast_to(np.asarray(action.high, float), values.shape)
    at = np.clip((values - low) / (high - low), 0, 1)
    zero = np.clip(-low / (high - low), 0, 1)
    names = labels or [f"action {i + 1}" for i in range(len(values))]
    return [
        ActionRow(name, min(a, z), max(a, z), number(v, 2))
        for name, a, z, v in zip(names, at, zero, values, strict=True)
    ]


def number(value: float, digits: int) -> str:
    """A number for people: with a true minus sign, and never before a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _action_row(
    out: np.ndarray, row: ActionRow, x: int, width: int, y: int, pitch: float
) -> None:
    size = round(min(0.42 * pitch, 15 / 28 * x))
    write(out, row.label, (x, y), size, MUTED)
    write(out, row.text, (x + width, y), size, INK, align="right")
    top = y + round(0.55 * pitch)
    bottom = top + max(2, round(0.2 * pitch))
    out[top:bottom, x : x + width] = TROUGH
    begin, end = round(row.begin * width), round(row.end * width)
    out[top:bottom, x + begin : x + max(end, begin + 2)] = ACCENT


# --- text ---------------------------------------------------------------------------


def write(
    out: np.ndarray,
    text: str,
    at: tuple[int, int],
    size: int,
    colour: Colour,
    bold: bool = False,
    align: str = "left",
) -> None:
    """Writes a line of text into a picture, in place.

    Args:
      out: u8[h, w, 3].
      text: one line.
      at: x of its left (or right) end and y of its top, in pixels.
      size: of the font, in pixels.
      colour: red, green, blue.
      bold: the heavier face.
      align: "left" or "right".
    """
    mask = _glyphs(text, size, bold)
    x, y = at[0] - (mask.shape[1] if align == "right" else 0), at[1]
    area = out[y : y + mask.shape[0], max(x, 0) : x + mask.shape[1]]
    alpha = mask[: area.shape[0], max(-x, 0) :][:, : area.shape[1], None] / 255
    area[:] = np.round(area + (np.array(colour) - area) * alpha).astype(np.uint8)


@functools.lru_cache(maxsize=1024)
def fitting(text: str, size: int, bold: bool, room: int) -> int:
    """The largest font's size in pixels, up to this one, whose line takes that room."""
    while size > 1 and _font(size, bold).getlength(text) > room:
        size -= 1
    return size


@functools.lru_cache(maxsize=1024)
def _glyphs(text: str, size: int, bold: bool) -> np.ndarray:
    """Coverage of a line of text, u8[line height, width]."""
    from PIL import Image, ImageDraw

    font = _font(size, bold)
    ascent, descent = font.getmetrics()
    image = Image.new("L", (round(font.getlength(text)) or 1, ascent + descent))
    ImageDraw.Draw(image).text((0, 0), text, font=font, fill=255)
    return np.asarray(image)


@functools.cache
def _font(size: int, bold: bool):
    # matplotlib brings both a good free font and the library that draws it.
    import matplotlib
    from PIL import ImageFont

    face = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(
        Path(matplotlib.get_data_path()) / "fonts" / "ttf" / face, size
    )


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue
