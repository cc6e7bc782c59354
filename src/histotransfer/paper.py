"""What the paper states of its network: arXiv 2404.09226."""

STATED_PARAMETERS = 1_068_993
STATED_MB = 84.7
