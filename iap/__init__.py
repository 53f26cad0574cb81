"""Implicit attention for pixels: an image becomes its most attended patches."""

from iap.attention import linear_attention, linear_scores, shifted
from iap.cameras import locate, weights_shape
from iap.causal import CausalState, causal_attention, causal_start, causal_step
from iap.directions import Norms, Projection
from iap.encoder import Attention, Encoder, Encoding, encode
from iap.exact import chunked_exact_scores, exact_attention, exact_scores
from iap.features import Design, FeatureMap, Kernel, feature_map
from iap.maps import measure_balance, measure_spread
from iap.patches import centres, project
from iap.ranking import Ranking
from iap.selection import Order, mask, select
from iap.settings import Centring, EncoderConfig, Kind, Origin, Position, Scale
from iap.trans import TransConfig, TransEncoder, trans_network

__all__ = [
    "Attention",
    "CausalState",
    "Centring",
    "Design",
    "Encoder",
    "EncoderConfig",
    "Encoding",
    "FeatureMap",
    "Kernel",
    "Kind",
    "Norms",
    "Order",
    "Origin",
    "Position",
    "Projection",
    "Ranking",
    "Scale",
    "TransConfig",
    "TransEncoder",
    "causal_attention",
    "causal_start",
    "causal_step",
    "centres",
    "chunked_exact_scores",
    "encode",
    "exact_attention",
    "exact_scores",
    "feature_map",
    "linear_attention",
    "linear_scores",
    "locate",
    "mask",
    "measure_balance",
    "measure_spread",
    "project",
    "select",
    "shifted",
    "trans_network",
    "weights_shape",
]
