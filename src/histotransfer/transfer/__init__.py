"""The ladder ImageNet -> LC25000 -> BreakHis, trained by progressive unfreezing with fastai."""

import warnings

# fastai decorates one of its losses with torch.jit.script, deprecated since torch 2.14: users cannot act on it.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit\._script")
