"""The attention matrix that is never stored, and what one pass over it gives."""

from softmap.matrix.attention import AttentionMatrix
from softmap.matrix.summary import Cells, Summary

__all__ = ["AttentionMatrix", "Cells", "Summary"]
