"""Implicit attention for pixels: an image becomes its most attended patches."""

from iap.attention import exact_scores, linear_scores
from iap.encoder import (
    Attention,
    Centring,
    Encoder,
    EncoderConfig,
    Encoding,
    Origin,
    Position,
    Scale,
    encode,
    weights_shape,
)
from iap.features import Design, Kernel, Projection, feature_map
from iap.patches import centres, project
from iap.selection import Order, select

__all__ = [
    "Attention",
    "Centring",
    "Design",
    "Encoder",
    "EncoderConfig",
    "Encoding",
    "Kernel",
    "Order",
    "Origin",
    "Position",
    "Projection",
    "Scale",
    "centres",
    "encode",
    "exact_scores",
    "feature_map",
    "linear_scores",
    "project",
    "select",
    "weights_shape",
]
