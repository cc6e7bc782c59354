"""The ladder ImageNet -> LC25000 -> BreakHis, climbed by progressive unfreezing with fastai."""
