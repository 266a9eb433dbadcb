"""What a Python imports first: with PRETENDED_CUDA=1, pretended CUDA devices."""

import os

if os.environ.get("PRETENDED_CUDA"):
    import pretended

    pretended.install()
