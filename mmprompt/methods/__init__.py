"""One folder per paper. Methods never import one another."""

from mmprompt.methods import ssprompt

__all__ = ['ssprompt']
