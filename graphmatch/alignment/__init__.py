"""Alignment of several views of the same samples: losses on the matchings between their graphs."""

from graphmatch.alignment.barycenter import BarycenterAlignment
from graphmatch.alignment.base import AlignmentDetails
from graphmatch.alignment.pairwise import PairwiseAlignment

__all__ = ["AlignmentDetails", "BarycenterAlignment", "PairwiseAlignment"]
