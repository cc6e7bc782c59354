"""What one writes around torchvision's DenseNet-121 to predict a folder of pictures; `predict.py` races it.

python benchmarks/plain_predict.py FOLDER --size 224 --batch 32
"""

import argparse
import csv
import sys
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import densenet121

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--size", type=int, default=224)
parser.add_argument("--batch", type=int, default=32)
options = parser.parse_args()

torch.manual_seed(0)
model = densenet121(num_classes=2).eval()  # time does not depend on the weights
prepare = transforms.Compose(
    [
        transforms.Resize((options.size, options.size)),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)
rows = csv.writer(sys.stdout)
files = sorted(options.folder.glob("*.png"))
with torch.no_grad():
    for start in range(0, len(files), options.batch):
        batch = files[start : start + options.batch]
        x = torch.stack([prepare(Image.open(file).convert("RGB")) for file in batch])
        for file, chances in zip(batch, model(x).softmax(dim=1).tolist(), strict=True):
            rows.writerow([file, *chances])
