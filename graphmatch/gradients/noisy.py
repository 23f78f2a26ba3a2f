"""What the estimators that perturb have in common: samples, noise, and what becomes of uncertified samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphmatch import _check
from graphmatch.gradients.base import Reliability, checked_choice
from graphmatch.noise import COUPLINGS, KINDS, Noise

OpenSamples = Literal["keep", "drop", "weigh"]


@dataclass(frozen=True, kw_only=True)
class NoisyEstimator:
    """Options shared by the estimators that perturb; each of them describes them."""

    samples: int = 1
    noise_scale: float = 0.3
    noise: Literal["gumbel", "gaussian", "sum_of_gamma"] = "gumbel"
    coupling: Literal["independent", "antithetic", "orthogonal"] = "independent"
    perturb: Literal["unary", "all"] = "unary"
    open_samples: OpenSamples = "keep"
    largest_gap: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the options."""
        _check.numbers(self)
        where = type(self).__name__
        _check.option(where, "samples", self.samples, self.samples >= 1, "be at least 1", "1 is the cheapest.")
        _check.option(where, "noise_scale", self.noise_scale, self.noise_scale > 0, "be positive", "Or use BlackBox.")
        _check.option(where, "largest_gap", self.largest_gap, self.largest_gap >= 0, "be at least 0", "Try 0.01.")
        checked_choice(where, "noise", self.noise, KINDS)
        checked_choice(where, "coupling", self.coupling, COUPLINGS)
        checked_choice(where, "perturb", self.perturb, ("unary", "all"))
        checked_choice(where, "open_samples", self.open_samples, ("keep", "drop", "weigh"))
        if self.noise == "sum_of_gamma" and self.coupling != "independent":
            rule = "be 'independent' with sum-of-Gamma noise"
            raise ValueError(_check.message(where, "coupling", rule, repr(self.coupling), "Or take Gumbel noise."))

    @property
    def draws(self) -> Noise:
        """The noise of a call."""
        return Noise(self.samples, self.noise_scale, self.noise, self.coupling, self.perturb == "all", self.seed)

    @property
    def reliability(self) -> Reliability:
        """What becomes of uncertified samples."""
        return Reliability(None if self.open_samples == "keep" else self.largest_gap, self.open_samples == "weigh")
