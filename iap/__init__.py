"""Implicit attention for pixels: an image becomes its most attended patches."""

from iap.attention import exact_scores, linear_scores
from iap.directions import Norms, Projection
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
from iap.features import Design, FeatureMap, Kernel, feature_map
from iap.maps import measure_balance, measure_spread
from iap.patches import centres, project
from iap.selection import Order, select

__all__ = [
    "Attention",
    "Centring",
    "Design",
    "Encoder",
    "EncoderConfig",
    "Encoding",
    "FeatureMap",
    "Kernel",
    "Norms",
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
    "measure_balance",
    "measure_spread",
    "project",
    "select",
    "weights_shape",
]
