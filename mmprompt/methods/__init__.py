"""One folder per paper. Methods never import one another."""

from mmprompt.methods import spm, ssprompt

__all__ = ['spm', 'ssprompt']
