"""ContrastASC: acoustic-scene representations that are small and learn a new scene from a handful of examples."""
__version__ = "0.1.0"

from . import _torchaudio
