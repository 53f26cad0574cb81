"""Implicit attention for pixels: an image becomes its most attended patches."""

from iap.encoder import (
    Attention,
    Centring,
    Encoder,
    EncoderConfig,
    Encoding,
    Position,
    Scale,
    encode,
)
from iap.features import Kernel, Projection
from iap.selection import Order

__all__ = [
    "Attention",
    "Centring",
    "Encoder",
    "EncoderConfig",
    "Encoding",
    "Kernel",
    "Order",
    "Position",
    "Projection",
    "Scale",
    "encode",
]
