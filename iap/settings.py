"""The settings of the encoder."""

import dataclasses
import enum
import math

from iap.directions import Norms, Projection
from iap.features import REGISTRY, Design, Kernel, feature_map
from iap.ranking import Ranking
from iap.selection import Order


class Kind(enum.Enum):
    """In which form the chosen patches are handed on.

    rank: theirs alone, one after another. mask: those of all patches, each in its
    place, with zeros for the patches that were not chosen.
    """

    rank = "rank"
    mask = "mask"


class Position(enum.Enum):
    """What of a patch's place joins its pixels before queries and keys are formed."""

    none = "none"
    concat = "concat"
    sincos = "sincos"


class Centring(enum.Enum):
    """Whether exp(q . k) is estimated around the means of queries and keys."""

    auto = "auto"
    means = "means"
    none = "none"


class Origin(enum.Enum):
    """Where the handed-on centres are measured from.

    corner: in [0, 1] from the upper left, as AttentionAgent does. middle: in [-1, 1]
    from the image's middle, the same numbers without a common offset, which a
    controller would otherwise have to unlearn first.
    """

    corner = "corner"
    middle = "middle"


class Scale(enum.Enum):
    """What logits are divided by: the root of a token's length or of q's and k's."""

    d_in = "d_in"
    depth = "depth"


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Settings of the encoder; what depends on the image is checked when it is seen.

    Attributes:
      kind: rank hands the chosen patches on, mask all of them with zeros for the rest.
      window: side of the square patches in pixels.
      stride: distance between neighbouring patches in pixels.
      depth: d, length of queries and keys.
      heads: queries and keys of each patch; its score is the mean over them.
      top_k: patches that are chosen.
      ranking: attention, or a baseline in its place, for which the settings from kernel
        to normalised mean nothing: mean_query (all patches ask the mean of their
        queries), fixed_filter (they ask the queries' bias, whatever the image) or
        random (patches drawn once from seed, the same in every image).
      kernel: what queries and keys are compared by.
      features: m, directions of the random features; elu and taylor have none.
      projection: how they are drawn; none compares plain vectors (relu only).
      norms: lengths of the directions; sqrt_d biases estimates of exp at small depth.
      spread: mean |q + k|^2 that kernel=oprf and saderf are tuned to for the whole run;
        0 measures it on every frame.
      balance: depth numbers by which kernel=saderf multiplies queries and divides keys,
        for the whole run; none measures them on every frame.
      order: even degree at which kernel=taylor cuts the series of exp.
      centring: auto centres every estimator of exp(q . k).
      normalised: divide every row of the attention matrix by its sum.
      position: what of its place a patch carries before the projection.
      scale: what logits are divided by the root of.
      bias: whether queries, keys and contents have a bias.
      selection: order in which kind=rank hands the chosen patches on.
      origin: where the handed-on centres are measured from.
      content: whether each carries its projected content, d numbers.
      score: whether each carries its share of the chosen patches' attention.
      weighted: whether its centre and content are multiplied by k times that share, so
        that a gradient through them says of which patches more is wanted.
      temperature: above 0, patches are drawn in training, with log score / temperature
        as logits, and a policy gradient learns from the draws' log-probability; 0
        takes the best, as a policy's mode always does.
      seed: names the draw of the random features, or of ranking=random's patches, made
        once and shared by all.
    """

    kind: Kind = Kind.rank
    window: int = 4
    stride: int = 4
    depth: int = 4
    heads: int = 1
    top_k: int = 10
    ranking: Ranking = Ranking.attention
    kernel: Kernel = Kernel.relu
    features: int = 64
    projection: Projection = Projection.orthogonal
    norms: Norms = Norms.chi
    spread: float = 0.0
    balance: tuple[float, ...] = ()
    order: int = 2
    centring: Centring = Centring.auto
    normalised: bool = True
    position: Position = Position.none
    scale: Scale = Scale.depth
    bias: bool = True
    selection: Order = Order.position
    origin: Origin = Origin.middle
    content: bool = False
    score: bool = False
    weighted: bool = False
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self):
        # A list, as the command line makes it, would leave the settings without a hash.
        object.__setattr__(self, "balance", tuple(self.balance))
        for name in ("window", "stride", "depth", "heads", "top_k"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must be at least 0.")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature} must be at least 0 and finite; 0 "
                "takes the best patches."
            )
        if self.ranking is Ranking.fixed_filter and not self.bias:
            raise ValueError(
                "ranking=fixed_filter asks the queries' bias, and bias=False has none; "
                "choose bias=True."
            )
        self._check_random()
        if self.centring is Centring.means and not self._estimates_exp:
            raise ValueError(
                f"centring=means does not go with kernel={self.kernel.value}: shifting "
                "queries and keys leaves scores as they are for estimators of "
                "exp(q . k) only; choose centring=auto or none."
            )
        if self.kernel is not Kernel.exact:
            feature_map(self.kernel, self.design)  # raises what does not fit the kernel

    def _check_random(self):
        if self.ranking is not Ranking.random:
            return
        for name in ("score", "weighted", "temperature"):
            if value := getattr(self, name):
                raise ValueError(
                    f"{name}={value} does not go with ranking=random, whose patches "
                    f"are always the same and receive no attention; leave {name} out."
                )

    @property
    def design(self) -> Design:
        """What the feature map's constants are made from."""
        return Design(
            depth=self.depth,
            features=self.features,
            projection=self.projection,
            order=self.order,
            seed=self.seed,
            norms=self.norms,
            spread=self.spread,
            balance=self.balance,
        )

    @property
    def centred(self) -> bool:
        """Whether scores are estimated around the means of queries and keys."""
        return self.centring is not Centring.none and self._estimates_exp

    @property
    def _estimates_exp(self) -> bool:
        return self.kernel is Kernel.exact or REGISTRY[self.kernel].exponential

    @classmethod
    def attention_agent(cls) -> "EncoderConfig":
        """AttentionAgent's encoder for 96x96 RGB, arXiv 2003.08165."""
        return cls(
            window=7,
            stride=4,
            kernel=Kernel.exact,
            scale=Scale.d_in,
            selection=Order.rank,
            origin=Origin.corner,
        )
