"""One folder per paper. Methods never import one another."""

from mmprompt.methods import samcp, spm, ssprompt

__all__ = ['samcp', 'spm', 'ssprompt']
