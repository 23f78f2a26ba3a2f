"""The noise of the estimators: that of `graphmatch.noise`."""

from graphmatch.noise import gaussian_noise, gumbel_noise, uniform_noise

__all__ = ["gaussian_noise", "gumbel_noise", "uniform_noise"]
